package integration

import (
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What can be seen of Intel RDT where there is none: that it is refused, and leaves
// nothing behind. Package intelrdt tests the rest on a tree of its own.
func TestIntelRdtRefused(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/fs/resctrl/schemata"); err == nil {
		t.Skip("this machine has resctrl mounted")
	}
	for _, r := range []specs.LinuxIntelRdt{{}, {ClosID: "gold"}, {L3CacheSchema: "L3:0=f", EnableMonitoring: true}} {
		b := newBox(t, func(s *specs.Spec) { s.Linux.IntelRdt = &r })
		b.refused([]string{"/linux/intelRdt", "intel rdt is not available", "no resctrl file system is mounted"}, "create", b.id)
		b.clean()
	}
}
