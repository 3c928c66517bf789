package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onTmpfs puts the state root onto a small tmpfs.
func (b *box) onTmpfs(options string) {
	b.t.Helper()
	b.must(unix.Mount("state", b.root, "tmpfs", 0, options+",mode=0700"))
	b.t.Cleanup(func() {
		b.ok("delete", "--force", b.id)
		b.must(unix.Unmount(b.root, unix.MNT_DETACH))
	})
}

// create fails as a whole on a full disk, at every write, and delete needs no space.
func TestF13NoSpaceForState(t *testing.T) {
	t.Parallel()
	b := newBox(t, everything)
	b.onTmpfs("size=64k")
	failed, worked := 0, 0
	for free := range 12 {
		fill := filepath.Join(b.root, "fill")
		b.must(os.WriteFile(fill, make([]byte, (16-free)*4096), 0o600))
		r := b.rt("create", b.id)
		if r.code != 0 {
			failed++
			r.failed(t, "no space left on device")
			if left, _ := os.ReadDir(filepath.Join(b.root, b.id)); len(left) > 0 {
				t.Errorf("with %d pages free it left %v", free, left)
			}
		} else {
			worked++
			// Now without any.
			os.WriteFile(filepath.Join(b.root, "more"), make([]byte, 1<<16), 0o600)
			b.ok("start", b.id)
			b.ok("exec", b.id, "true")
			b.ok("kill", b.id, "KILL")
			b.is("stopped")
			b.ok("delete", b.id)
			os.Remove(filepath.Join(b.root, "more"))
		}
		b.ok("delete", "--force", b.id)
		b.must(os.Remove(fill))
	}
	if failed == 0 || worked == 0 {
		t.Errorf("%d creates failed, %d worked: expected some of each", failed, worked)
	}
}

// There may also be no inode for one more file.
func TestF13NoInodeForState(t *testing.T) {
	t.Parallel()
	b := newBox(t, everything)
	b.onTmpfs("nr_inodes=20")
	failed := 0
	for free := range 10 {
		var fill []string
		for i := range 19 - free {
			p := filepath.Join(b.root, strconv.Itoa(i))
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				break
			}
			fill = append(fill, p)
		}
		if r := b.rt("create", b.id); r.code != 0 {
			failed++
			r.failed(t, "no space left on device")
		}
		b.ok("delete", "--force", b.id)
		for _, p := range fill {
			b.must(os.Remove(p))
		}
	}
	if failed == 0 {
		t.Error("no create has failed: this proves nothing")
	}
}

// Too few descriptors: it works or says so.
func TestF14FewDescriptors(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	failed, worked := 0, 0
	for n := 4; n <= 160; n += 1 + n/32 {
		r := b.shell(fmt.Sprintf("ulimit -n %d; exec $RT create $ID", n))
		switch {
		case r.took > 10*time.Second:
			t.Errorf("limit %d: %v", n, r)
		case r.code == 0:
			worked++
		default:
			failed++
			// The Go runtime itself has no words of one line.
			if n >= 10 && (strings.Count(r.out, "\n") != 1 || !strings.Contains(r.out, "too many open files") && !strings.Contains(r.out, "bad file descriptor")) {
				t.Errorf("limit %d: %v", n, r)
			}
		}
		b.ok("delete", "--force", b.id)
		b.clean()
		if t.Failed() {
			return
		}
	}
	t.Logf("%d failed, %d worked", failed, worked)
	if failed == 0 || worked == 0 {
		t.Errorf("%d creates failed, %d worked: expected some of each", failed, worked)
	}
}

// hasController says whether rt can use a controller here.
func hasController(name string) bool {
	for _, m := range mounts {
		if slices.Contains(strings.Split(filepath.Base(m), ","), name) {
			return true
		}
		data, _ := os.ReadFile(filepath.Join(m, "cgroup.controllers"))
		if slices.Contains(strings.Fields(string(data)), name) {
			return true
		}
	}
	return false
}

func resources(r object) func(object) {
	return func(config object) {
		for k, v := range r {
			config["linux"].(object)["resources"].(object)[k] = v
		}
	}
}

// Little memory: it runs, or says that there was too little.
func TestF15LittleMemory(t *testing.T) {
	if !hasController("memory") {
		t.Skip("this lane has no memory controller")
	}
	worked := atomic.Int32{}
	t.Run("limits", func(t *testing.T) {
		for kib := 64; kib <= 8192; kib *= 2 {
			t.Run(strconv.Itoa(kib), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, spec{args: []string{"true"}, edit: resources(object{"memory": object{"limit": kib << 10}})})
				r := b.rt("run", b.id)
				switch {
				case r.code == 0:
					worked.Add(1)
				case r.code == 137: // the program itself
				default:
					r.failed(t)
					if !strings.Contains(r.out, "memory") {
						t.Errorf("%v; expected it to speak of memory", r)
					}
				}
				if r.took > 10*time.Second {
					t.Error(r)
				}
			})
		}
	})
	if worked.Load() == 0 {
		t.Error("nothing ran even with 8 MiB")
	}
}

// No more processes: it works or says why.
func TestF16NoMoreProcesses(t *testing.T) {
	if !hasController("pids") {
		t.Skip("this lane has no pids controller")
	}
	t.Parallel()
	b := newBox(t, spec{args: []string{"true"}, hooks: map[string]string{"createContainer": "true"}})
	dirs := b.premade()
	b.t.Cleanup(func() {
		b.ok("delete", "--force", b.id)
		for _, d := range dirs {
			b.must(eventually(limit, func() error { return os.Remove(d) }))
		}
	})
	b.write(spec{args: []string{"true"}, hooks: map[string]string{"createContainer": "true"}, edit: func(config object) {
		config["linux"].(object)["cgroupsPath"] = "/" + top + "/" + b.id + "/below"
	}})
	failed, worked := 0, 0
	for n := range 6 {
		for _, d := range dirs {
			if _, err := os.Stat(filepath.Join(d, "pids.max")); err == nil {
				b.must(os.WriteFile(filepath.Join(d, "pids.max"), []byte(strconv.Itoa(n)), 0))
			}
		}
		if r := b.rt("run", b.id); r.code == 0 {
			worked++
		} else {
			failed++
			r.failed(t, "resource temporarily unavailable")
		}
	}
	if failed == 0 || worked == 0 {
		t.Errorf("%d runs failed, %d worked: expected some of each", failed, worked)
	}
}

// Signals that mean nothing to it, a thousand a second.
func TestF17SignalStorm(t *testing.T) {
	t.Parallel()
	b := newBox(t, everything)
	var stop atomic.Bool
	var target atomic.Int64
	var sent atomic.Int64
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	group.Go(func() {
		for !stop.Load() {
			for _, sig := range []syscall.Signal{syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH} {
				if pid := target.Load(); pid > 0 {
					if syscall.Kill(int(pid), sig) == nil {
						sent.Add(1)
					}
				}
				for _, p := range b.processes() {
					var pid int
					if fmt.Sscan(p, &pid); pid > 0 && strings.Contains(p, "rt-stage") {
						syscall.Kill(pid, sig)
						sent.Add(1)
					}
				}
			}
			time.Sleep(time.Millisecond)
		}
	})
	// On a busy machine the signals come slowly.
	for n := 0; n < rounds(8, 60) || sent.Load() < 50 && n < 400; n++ {
		for _, args := range [][]string{{"create", b.id}, {"start", b.id}, {"exec", b.id, "true"}, {"delete", "--force", b.id}} {
			p := b.begin("", args...)
			target.Store(int64(p.cmd.Process.Pid))
			r := p.end(t)
			target.Store(0)
			if r.code != 0 {
				t.Error(r)
			}
		}
	}
	t.Logf("%d signals sent", sent.Load())
	if sent.Load() < 50 {
		t.Errorf("only %d signals were sent: this proves little", sent.Load())
	}
}

// openat2(2) gives EAGAIN as long as renames go on: that is tried again, not for ever.
func TestF18RenameStorm(t *testing.T) {
	t.Parallel()
	root := ""
	b := newBox(t, sleeper)
	root = b.path("hostile")
	b.must(makeRootfs(root))
	for _, d := range []string{"a/b/c", "a/x/c"} {
		b.must(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	b.must(os.Symlink("a/b/c/../../x/../b/c", filepath.Join(root, "link")))
	b.write(spec{args: []string{"true"}, edit: func(config object) {
		config["root"] = object{"path": root}
		config["mounts"] = append(config["mounts"].([]object), object{"destination": "/link/../c/deep", "type": "tmpfs", "source": "tmpfs"})
	}})
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	var renames atomic.Int64
	group.Go(func() {
		runtime.LockOSThread()
		for !stop.Load() {
			unix.Renameat2(unix.AT_FDCWD, filepath.Join(root, "a/b"), unix.AT_FDCWD, filepath.Join(root, "a/x"), unix.RENAME_EXCHANGE)
			renames.Add(1)
		}
	})
	worked := 0
	for end := time.Now().Add(time.Duration(rounds(3, 30)) * time.Second); time.Now().Before(end); {
		r := b.rt("run", b.id)
		if r.code == 0 {
			worked++
		} else {
			r.failed(t, "config.json /mounts/3")
		}
		if r.took > 5*time.Second {
			t.Error(r)
		}
	}
	t.Logf("%d runs worked during %d renames", worked, renames.Load())
	if worked == 0 {
		t.Error("no run has worked")
	}
}

// A system call that an outer sandbox forbids or the kernel lacks is an error that
// names what was being done; nothing weaker takes its place.
func TestF19SystemCallMissing(t *testing.T) {
	for name, nr := range map[string]int{
		"openat2": unix.SYS_OPENAT2, "clone3": unix.SYS_CLONE3, "fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT,
		"move_mount": unix.SYS_MOVE_MOUNT, "open_tree": unix.SYS_OPEN_TREE, "mount_setattr": unix.SYS_MOUNT_SETATTR, "close_range": unix.SYS_CLOSE_RANGE,
		"pidfd_open": unix.SYS_PIDFD_OPEN, "memfd_create": unix.SYS_MEMFD_CREATE, "pivot_root": unix.SYS_PIVOT_ROOT, "setns": unix.SYS_SETNS,
	} {
		for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.EPERM} {
			t.Run(name+" "+errno.Error(), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, everything)
				for _, args := range [][]string{{"create", b.id}, {"exec", b.id, "true"}} {
					if args[0] == "exec" {
						b.start()
					}
					h := helper("filter", strconv.Itoa(nr), strconv.Itoa(int(errno)), faultBin, "--root", b.root)
					r := command(h.Path, b.dir, nil, 0, append(h.Args[1:], args...)...).end(t)
					if r.code == 0 {
						// exec mounts nothing; only time namespaces make create join one.
						if args[0] == "create" {
							t.Errorf("%v; expected it to fail without %s", r, name)
						}
						b.ok("delete", "--force", b.id)
						continue
					}
					r.failed(t, errno.Error())
					if r.took > 5*time.Second {
						t.Error(r)
					}
					if args[0] == "create" {
						b.clean()
					} else {
						b.ok("delete", "--force", b.id)
					}
				}
			})
		}
	}
}

// The container's user has no key left to make its keyring from.
func TestF20KeyQuota(t *testing.T) {
	t.Parallel()
	const uid = 123457
	// Where that user can execute it.
	h := helper("keys")
	h.Path = filepath.Join(work, "helper")
	if err := os.Link(os.Args[0], h.Path); err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp(work, "keys")
	if err != nil {
		t.Fatal(err)
	}
	h.Stdout, h.Stderr = out, out
	h.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		h.Process.Kill()
		h.Wait()
		out.Close()
	}()
	if err := eventually(limit, func() error {
		if data, _ := os.ReadFile(out.Name()); !strings.Contains(string(data), "ready") {
			return fmt.Errorf("the keys are not there: %q", data)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, spec{args: []string{"true"}, edit: func(config object) {
		l := config["linux"].(object)
		l["namespaces"] = append(l["namespaces"].([]object), object{"type": "user"})
		ids := []object{{"containerID": 0, "hostID": uid, "size": 10}}
		l["uidMappings"], l["gidMappings"] = ids, ids
	}})
	b.refused([]string{"keyring", "disk quota exceeded"}, "create", b.id)
	b.clean()
	if r := b.rt("run", "--no-new-keyring", b.id); r.code != 0 {
		t.Error(r)
	}
}
