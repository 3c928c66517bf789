package fault

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// directories are the container's cgroup in every hierarchy, whether it exists or not.
func (b *box) directories() []string {
	var list []string
	for _, m := range mounts {
		list = append(list, filepath.Join(m, top, b.id))
	}
	return list
}

// premade makes the container's cgroup before the container.
func (b *box) premade() []string {
	b.t.Helper()
	for _, d := range b.directories() {
		b.must(os.Mkdir(d, 0o755))
	}
	// What cpuset wants before a process may enter.
	for _, d := range b.directories() {
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			up := filepath.Dir(filepath.Dir(d))
			data, err := os.ReadFile(filepath.Join(up, f))
			if err != nil || strings.TrimSpace(string(data)) == "" {
				continue
			}
			for _, c := range []string{filepath.Dir(d), d} {
				b.must(os.WriteFile(filepath.Join(c, f), data, 0o644))
			}
		}
	}
	return b.directories()
}

// stranger puts a process into the cgroups, and at the end checks that it lives
// and takes all away.
func (b *box) stranger(dirs []string) {
	b.t.Helper()
	cmd := exec.Command("/bin/sleep", "1000")
	b.must(cmd.Start())
	b.t.Cleanup(func() {
		if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
			b.t.Errorf("the stranger has been killed: %v", err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		for _, d := range dirs {
			b.must(eventually(limit, func() error { return os.Remove(d) }))
		}
	})
	for _, d := range dirs {
		b.must(os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0))
	}
}

func TestF24CgroupInUse(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.stranger(b.premade())
	for range 2 {
		b.refused([]string{"container's cgroup is not empty"}, "create", b.id)
		b.refused([]string{"container's cgroup is not empty"}, "run", b.id)
	}
	b.ok("delete", "--force", b.id)
}

// On v1 a stranger may be in any one of the hierarchies.
func TestF24CgroupInUseInOneHierarchy(t *testing.T) {
	for i, m := range mounts {
		t.Run(filepath.Base(m), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			dirs := b.premade()
			for j, d := range dirs {
				if j != i {
					b.must(os.Remove(d))
				}
			}
			b.stranger(dirs[i : i+1])
			b.refused([]string{"container's cgroup is not empty"}, "create", b.id)
			b.ok("delete", "--force", b.id)
			for j, d := range dirs {
				if _, err := os.Stat(d); (err == nil) != (j == i) {
					t.Errorf("%s: %v", d, err)
				}
			}
		})
	}
}

// A create that died before it made its cgroup gives delete no right to what is
// there by that name.
func TestF24StrangersOfIncompleteCreate(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.stranger(b.premade())
	b.fault("create.claim:kill", "create", b.id).killed(t)
	b.ok("delete", "--force", b.id)
	if _, err := os.Stat(filepath.Join(b.root, b.id)); err == nil {
		t.Error("the state directory is still there")
	}
}

// One that is empty may be what it had just made.
func TestF24UnmarkedOfIncompleteCreate(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.fault("create.claim:kill", "create", b.id).killed(t)
	b.premade()
	b.ok("delete", b.id)
	b.clean()
}

func TestF24FrozenCgroup(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	frozen := false
	dirs := b.premade()
	for _, d := range dirs {
		for file, value := range map[string]string{"freezer.state": "FROZEN", "cgroup.freeze": "1"} {
			if _, err := os.Stat(filepath.Join(d, file)); err == nil && !frozen {
				b.must(os.WriteFile(filepath.Join(d, file), []byte(value), 0))
				frozen = true
			}
		}
	}
	if !frozen {
		t.Skip("no hierarchy has a freezer")
	}
	b.refused([]string{"container's cgroup unexpectedly frozen"}, "create", b.id)
	for _, d := range dirs {
		b.must(os.Remove(d))
	}
}

// An empty cgroup is used, and goes with the container; one that rt has left
// behind is made anew.
func TestF24EmptyCgroup(t *testing.T) {
	for _, mark := range []string{"", "earlier"} {
		t.Run("mark "+mark, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			for _, d := range b.premade() {
				if mark != "" {
					b.must(unix.Setxattr(d, "trusted.rt.id", []byte(mark), 0))
				}
			}
			b.ok("create", b.id)
			b.ok("start", b.id)
			b.is("running")
			b.ok("kill", b.id, "KILL")
			b.is("stopped")
			b.ok("delete", b.id)
			b.clean()
		})
	}
}

// A create that fails leaves a cgroup that was there before.
func TestF24FailedCreateKeepsCgroup(t *testing.T) {
	t.Parallel()
	b := newBox(t, spec{args: []string{"no-such-program"}})
	dirs := b.premade()
	b.refused([]string{"executable file not found"}, "create", b.id)
	for _, d := range dirs {
		if err := os.Remove(d); err != nil {
			t.Error(err)
		}
	}
}

// The cgroup vanishes under a container whose init was moved away.
func TestF23CgroupRemoved(t *testing.T) {
	for _, status := range []string{"created", "running"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			b.ok("create", b.id)
			if status == "running" {
				b.ok("start", b.id)
			}
			elsewhere := &box{t: t, id: b.id + "-elsewhere"}
			pid := strconv.Itoa(b.state().Pid)
			for i, d := range elsewhere.premade() {
				b.must(os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(pid), 0))
				b.must(eventually(limit, func() error { return os.Remove(b.directories()[i]) }))
			}
			b.is(status)
			b.refused([]string{"cgroup"}, "exec", b.id, "true")
			b.ok("delete", "--force", b.id)
			for _, d := range elsewhere.directories() {
				b.must(eventually(limit, func() error { return os.Remove(d) }))
			}
		})
	}
}
