package agent

import (
	"os/exec"
	"testing"
)

// An answer that does not come, or makes no sense, is an error in time.
func TestAgentEnds(t *testing.T) {
	for _, script := range []string{"exit 1", "read x; exit 1", "read x; echo nonsense; exec sleep 1000"} {
		a, err := start(exec.Command("sh", "-c", script))
		if err != nil {
			t.Fatal(err)
		}
		var r struct{}
		if err := a.Ask("stop", "x", &r); err == nil {
			t.Errorf("%s: no error", script)
		}
		a.Close()
		if a.cmd.ProcessState == nil {
			t.Errorf("%s: it lives", script)
		}
	}
}
