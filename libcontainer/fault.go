//go:build !rtfault

package libcontainer

import (
	"time"

	"rt/libcontainer/plan"
)

// fault is where a test build (tag rtfault) misbehaves; here it is nothing.
func fault(string) {}

// patience is how long a stage may say nothing; a test build can make it shorter.
func patience(wait time.Duration) time.Duration { return wait }

// stageFault is what a test build asks the stage to do wrong.
func stageFault(*plan.Plan) *plan.Fault { return nil }
