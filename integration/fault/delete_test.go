package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// counted has a poststop hook that leaves a line in the bundle's file "poststop".
func counted(script string) spec {
	return spec{args: []string{"sleep", "1000"}, hooks: map[string]string{"poststop": "echo x >>poststop; " + script}}
}

func (b *box) poststops() int {
	data, _ := os.ReadFile(filepath.Join(b.dir, "poststop"))
	return strings.Count(string(data), "x")
}

func TestF07DeleteKilled(t *testing.T) {
	for _, point := range pointsOf(t, "delete.") {
		for _, status := range []string{"created", "running", "stopped"} {
			t.Run(point+" "+status, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, counted(":"))
				b.ok("create", b.id)
				if status != "created" {
					b.ok("start", b.id)
				}
				args := []string{"delete", b.id}
				switch status {
				case "running":
					args = []string{"delete", "--force", b.id}
				case "stopped":
					b.ok("kill", b.id, "KILL")
					b.is("stopped")
				}
				b.fault(point+":kill", args...).killed(t)
				if r := b.rt("start", b.id); r.code == 0 {
					t.Errorf("%v; it is being deleted", r)
				}
				if out := b.ok("list"); !strings.Contains(out, b.id) {
					t.Errorf("list: %q, expected %s to be there still", out, b.id)
				}
				b.ok("delete", b.id)
				b.clean()
				if b.poststops() == 0 {
					t.Error("poststop has not run")
				}
			})
		}
	}
}

func TestF07DeleteKilledInPoststop(t *testing.T) {
	t.Parallel()
	b := newBox(t, counted("sleep 0.5"))
	b.ok("create", b.id)
	p := b.begin("", "delete", b.id)
	b.must(eventually(limit, func() error {
		if b.poststops() == 0 {
			return fmt.Errorf("poststop does not run")
		}
		return nil
	}))
	// The container can be looked at meanwhile.
	b.is("stopped")
	p.signal(syscall.SIGKILL)
	p.end(t)
	b.is("stopped")
	b.ok("delete", b.id)
	b.clean()
}

// Two deletes at once; a delete without force must not wait for anything.
func TestF07DeleteTwice(t *testing.T) {
	t.Parallel()
	b := newBox(t, counted("sleep 0.2"))
	for range 5 {
		b.ok("create", b.id)
		one, two := b.begin("", "delete", "--force", b.id), b.begin("", "delete", "--force", b.id)
		for _, p := range []*process{one, two} {
			if r := p.end(t); r.code != 0 || r.took > 10*time.Second {
				t.Error(r)
			}
		}
		b.clean()
	}
}

// The state directory vanishes under a running container.
func TestF28StateDirectoryRemoved(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	pid := b.start()
	b.must(os.RemoveAll(filepath.Join(b.root, b.id)))
	b.refused([]string{"does not exist"}, "state", b.id)
	// No tree of cgroups is searched for an unknown id.
	b.ok("delete", "--force", b.id)
	b.refused([]string{"container's cgroup is not empty"}, "create", b.id)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the container's process: %v", err)
	}
	b.kill(pid)
	b.gone(2 * time.Second)
	// What is left now is empty, has rt's mark, and is used again.
	b.ok("create", b.id)
	b.ok("start", b.id)
	b.is("running")
}
