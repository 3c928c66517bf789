//go:build rtfault

package nsenter

import (
	_ "embed"
	"fmt"
	"os"
)

// image is the stage that honours fault points.
//
//go:embed stage/stage-fault
var image string

// program is what is executed as the stage: with RT_FAULT_STAGE the program of that file.
func program() (string, error) {
	file := os.Getenv("RT_FAULT_STAGE")
	if file == "" {
		return image, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read RT_FAULT_STAGE: %w", err)
	}
	return string(data), nil
}
