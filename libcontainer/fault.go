//go:build !rtfault

package libcontainer

import (
	"rt/libcontainer/plan"
)

// fault is where a test build (tag rtfault) misbehaves; here it is nothing.
func fault(string) {}

// stageFault is what a test build asks the stage to do wrong.
func stageFault(*plan.Plan) *plan.Fault { return nil }
