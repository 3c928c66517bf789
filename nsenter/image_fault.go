//go:build rtfault

package nsenter

import _ "embed"

// image is the stage that honours fault points.
//
//go:embed stage/stage-fault
var image string
