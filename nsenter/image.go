//go:build !rtfault

package nsenter

import _ "embed"

// image is the stage, built by `make` from nsenter/stage.
//
//go:embed stage/stage
var image string

// program is what is executed as the stage.
func program() (string, error) { return image, nil }
