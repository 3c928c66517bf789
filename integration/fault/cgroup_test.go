package fault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// directories are the container's cgroup in every hierarchy, whether it exists or not.
func (b *box) directories() []string {
	var list []string
	for _, m := range mounts {
		list = append(list, filepath.Join(m, top, b.cgroupName()))
	}
	return list
}

func (b *box) cgroupName() string {
	if b.cgroup != "" {
		return b.cgroup
	}
	return b.id
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
		var ws unix.WaitStatus
		if got, err := unix.Wait4(cmd.Process.Pid, &ws, unix.WNOHANG, nil); got != 0 || err != nil {
			b.t.Errorf("the stranger has been killed: %v, %v", ws, err)
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

// A create that fails leaves a cgroup that was there before, as good as it was: since
// Linux 6.14 nothing can be cloned into one whose cgroup.kill was written once.
func TestF24FailedCreateKeepsCgroup(t *testing.T) {
	t.Parallel()
	b := newBox(t, spec{args: []string{"no-such-program"}})
	dirs := b.premade()
	b.refused([]string{"executable file not found"}, "create", b.id)
	b.refused([]string{"executable file not found"}, "run", b.id)
	for _, d := range dirs {
		for _, name := range []string{"trusted.rt.id", "trusted.rt.guest"} {
			if _, err := unix.Getxattr(d, name, nil); err != unix.ENODATA {
				t.Errorf("%s of %s: %v, expected none", name, d, err)
			}
		}
	}
	b.write(sleeper)
	b.start()
	b.ok("delete", "--force", b.id)
	b.clean()
}

// The cgroup vanishes under a container whose init was moved away.
func TestF23CgroupRemoved(t *testing.T) {
	t.Run("stopped", func(t *testing.T) {
		t.Parallel()
		b := newBox(t, sleeper)
		b.kill(b.start())
		b.is("stopped")
		for _, d := range b.directories() {
			b.must(eventually(limit, func() error { return os.Remove(d) }))
		}
		b.is("stopped")
		b.ok("ps", b.id)
		b.refused([]string{"stopped"}, "exec", b.id, "true")
		b.refused([]string{"not running"}, "kill", b.id, "KILL")
		b.ok("delete", b.id)
		b.clean()
	})
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
			if out := b.ok("list"); !strings.Contains(out, b.id) || !strings.Contains(out, status) {
				t.Errorf("list: %q", out)
			}
			b.ok("ps", b.id)
			b.refused([]string{"cgroup"}, "exec", b.id, "true")
			b.ok("delete", "--force", b.id)
			for _, d := range elsewhere.directories() {
				b.must(eventually(limit, func() error { return os.Remove(d) }))
			}
		})
	}
}

// another makes a box for a container of another id that uses b's cgroup.
func (b *box) another() *box {
	b.t.Helper()
	o := newBox(b.t, spec{args: []string{"sleep", "1000"}, edit: func(config object) {
		config["linux"].(object)["cgroupsPath"] = "/" + top + "/" + b.id
	}})
	o.cgroup = b.id
	return o
}

// A container that has stopped has lost its cgroup to a newer one that was given the
// same path: it is deleted without it.
func TestF24CgroupTakenByNewerContainer(t *testing.T) {
	for _, was := range []string{"made", "found", "removed"} {
		for _, command := range []string{"delete", "delete --force", "run"} {
			t.Run(was+" "+command, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, spec{args: []string{"sh", "-c", "while [ ! -e /tmp/stop ]; do sleep 0.02; done"}, edit: ownPids})
				if was == "found" {
					b.premade()
				}
				var run *process
				if command == "run" {
					run = b.begin("run.exit:stop", "run", b.id)
					b.running()
				} else {
					b.ok("run", "--detach", b.id)
				}
				pid := b.state().Pid
				b.kill(pid)
				if run != nil {
					stopped(t, run)
				}
				b.is("stopped")
				if was == "removed" {
					for _, d := range b.directories() {
						b.must(eventually(limit, func() error { return os.Remove(d) }))
					}
				}
				o := b.another()
				// The dead may be on their way out.
				b.must(eventually(limit, func() error {
					if r := o.rt("create", o.id); r.code != 0 {
						if !strings.Contains(r.out, "container's cgroup is not empty") {
							t.Fatal(r)
						}
						return fmt.Errorf("%v", r)
					}
					return nil
				}))
				o.ok("start", o.id)
				heir := o.state().Pid
				if r := b.rt("ps", b.id); r.code != 0 || strings.Contains(r.out, strconv.Itoa(heir)) {
					t.Errorf("%v; expected none of the newer container's processes", r)
				}
				b.refused([]string{"not running"}, "kill", b.id, "KILL")
				if run != nil {
					run.signal(syscall.SIGCONT)
					if r := run.end(t); r.code != 128+int(syscall.SIGKILL) || r.took > 8*time.Second {
						t.Error(r)
					}
				} else {
					b.ok(append(strings.Fields(command), b.id)...)
				}
				if _, err := os.Stat(filepath.Join(b.root, b.id)); err == nil {
					t.Error("the state directory is still there")
				}
				o.is("running")
				if s := o.state(); s.Pid != heir {
					t.Errorf("the newer container's process is %d, was %d", s.Pid, heir)
				}
				o.ok("exec", o.id, "true") // in a cgroup that is still there
				o.ok("delete", "--force", o.id)
			})
		}
	}
}

// ownPids leaves a container without a pid namespace of its own, so that what it leaves is
// looked for in its cgroup.
func ownPids(config object) {
	l := config["linux"].(object)
	l["namespaces"] = slices.DeleteFunc(l["namespaces"].([]object), func(n object) bool { return n["type"] == "pid" })
}

// stopped waits until a fault point has stopped the command.
func stopped(t *testing.T, p *process) {
	t.Helper()
	if err := eventually(limit, func() error {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if !strings.HasPrefix(rest, "T") {
			return fmt.Errorf("%v has not stopped: %.20q", p.cmd.Args[1:], rest)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// What an incomplete create has marked as its own is removed, and nobody in what
// another container has marked; whichever of the hierarchies comes first.
func TestF24MarksOfIncompleteCreate(t *testing.T) {
	for first, own := range map[string]bool{"own first": true, "another's first": false} {
		t.Run(first, func(t *testing.T) {
			if len(mounts) < 2 {
				t.Skip("there is one hierarchy only")
			}
			t.Parallel()
			b := newBox(t, sleeper)
			b.fault("create.claim:kill", "create", b.id).killed(t)
			var ours, theirs []string
			for i, d := range b.premade() {
				id := "another"
				if (i < len(mounts)/2) == own {
					id = b.id
					ours = append(ours, d)
				} else {
					theirs = append(theirs, d)
				}
				b.must(unix.Setxattr(d, "trusted.rt.id", []byte(id), 0))
			}
			b.stranger(theirs)
			b.ok("delete", "--force", b.id)
			for _, d := range ours {
				if _, err := os.Stat(d); err == nil {
					t.Errorf("%s is left", d)
				}
			}
		})
	}
}

// A controller that is not there is named, with the limit that needs it; so is the cgroup that
// does not hand it down. Nothing is left.
func TestF25MissingController(t *testing.T) {
	limits := map[string]struct {
		pointer string
		r       object
	}{
		"memory":  {"/linux/resources/memory/limit", object{"memory": object{"limit": 64 << 20}}},
		"pids":    {"/linux/resources/pids/limit", object{"pids": object{"limit": 10}}},
		"cpu":     {"/linux/resources/cpu/shares", object{"cpu": object{"shares": 512}}},
		"rdma":    {"/linux/resources/rdma/mlx5_1", object{"rdma": object{"mlx5_1": object{"hcaHandles": 3}}}},
		"hugetlb": {"/linux/resources/hugepageLimits/0", object{"hugepageLimits": []object{{"pageSize": "2MB", "limit": 4 << 20}}}},
	}
	tried := 0
	for name, c := range limits {
		if hasController(name) {
			continue
		}
		tried++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, spec{args: []string{"true"}, edit: resources(c.r)})
			for _, command := range []string{"create", "run"} {
				b.refused([]string{c.pointer, "controller", name}, command, b.id)
				b.clean()
			}
		})
	}
	// One that is there, below a cgroup with a process, which therefore cannot hand it down. (A
	// v1 hierarchy is its controller.)
	for name, c := range limits {
		if len(mounts) != 1 || !hasController(name) {
			continue
		}
		tried++
		t.Run(name+" not handed down", func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			dirs := b.premade()
			b.stranger(dirs)
			b.write(spec{args: []string{"true"}, edit: func(config object) {
				resources(c.r)(config)
				config["linux"].(object)["cgroupsPath"] = "/" + top + "/" + b.id + "/below"
			}})
			for _, command := range []string{"create", "run"} {
				b.refused([]string{c.pointer, "controller " + name, filepath.Join(dirs[0], "cgroup.subtree_control")}, command, b.id)
				if _, err := os.Stat(filepath.Join(dirs[0], "below")); err == nil {
					t.Error("the cgroup is there")
				}
			}
			b.ok("delete", "--force", b.id)
		})
	}
	if tried == 0 {
		t.Skip("all controllers are there, each in a hierarchy of its own")
	}
}
