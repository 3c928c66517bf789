package test

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

const faultBinary = "../stage-fault"

// Descriptors: the preserved ones arrive, all others do not; limits are as at the start.
func TestExecDescriptors(t *testing.T) {
	dir := rootfs(t)
	var extra []*os.File
	for range 2 {
		f, err := os.Open("/etc/hostname")
		if err != nil {
			f, err = os.Open("/etc/passwd")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		extra = append(extra, f)
	}
	b := inRoot(dir).add(mount("proc", "/proc"), slot(mount("tmpfs", "/tmp"), 1), op(plan.KindPivot)).
		add(shell("cd /proc/self/fd; echo *; grep Sig /proc/self/status; ulimit -n; umask")...)
	r := must(t, launch{plan: b.plan(0), extra: extra}.run(t))
	contains(t, r.output, fmt.Sprint(currentLimit(t)), "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0000")
	if first, _, _ := strings.Cut(r.output, "\n"); !strings.HasPrefix(first, "0 1 2 3 4") || len(first) > len("0 1 2 3 4 10") {
		t.Errorf("descriptors %q", first)
	}
}

func TestStdio(t *testing.T) {
	dir := rootfs(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	b := inRoot(dir).add(mount("tmpfs", "/dev"),
		num(op(plan.KindNode, s("/dev/null")), unix.S_IFCHR|0o666, makedev(1, 3)),
		op(plan.KindPivot), num(op(plan.KindStdio), 1234))
	must(t, launch{plan: b.plan(0), stdin: in}.run(t))
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil || st.Uid != 1234 {
		t.Errorf("owner of the pipe %d, %v", st.Uid, err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	b.add(mount("proc", "/proc")).add(program("stat", "-L", "-c", "%d %t:%T", "/proc/self/fd/0", "/dev/null")...)
	r := must(t, launch{plan: b.plan(0), stdin: null}.run(t))
	if a, b, _ := strings.Cut(strings.TrimSpace(r.output), "\n"); a != b || a == "" {
		t.Errorf("stdin is %q, the container's null device %q", a, b)
	}
}

// What a build without faults, or any build, refuses before it does anything.
func TestDecodeErrors(t *testing.T) {
	needRoot(t)
	ok := (&builder{}).add(fork(0)).add(shell("exit 0")...).plan(0)
	good, err := ok.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	broken[0] ^= 1
	late := (&builder{}).add(fork(0), file(op(plan.KindTasks), 0)).plan(1)
	slotless := (&builder{}).add(fork(0), slot(op(plan.KindAttach, s("/")), 5)).plan(0)
	for _, c := range []struct {
		name string
		l    launch
		op   uint32
		text string
	}{
		{"magic", launch{raw: broken}, ^uint32(0), "magic"},
		{"truncated", launch{raw: good[:len(good)-1]}, ^uint32(0), "size"},
		{"tiny", launch{raw: good[:7]}, ^uint32(0), "size"},
		{"unsealed", launch{raw: good, loose: true}, ^uint32(0), "not sealed"},
		{"fault", launch{plan: ok, fault: &plan.Fault{Action: plan.FaultKill}}, ^uint32(0), "fault in a build without faults"},
		{"order", launch{plan: late}, 2, "operation of the first process after the fork"},
		{"slot", launch{plan: slotless}, 1, "slot that is not set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.l.run(t)
			f := r.failure()
			if f == nil || len(r.frames) != 1 || f.Step != plan.StepDecode || f.Op != c.op || f.Text != c.text {
				t.Errorf("got %+v, want operation %d, text %q", r.frames, c.op, c.text)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	dir := rootfs(t)
	needFault(t)
	plain := inRoot(dir).add(op(plan.KindPivot)).add(shell("echo done")...)
	for _, pos := range []int32{0, 3} {
		run := func(action uint32, arg int32) (*result, time.Duration) {
			begin := time.Now()
			r := launch{binary: faultBinary, plan: plain.plan(0), fault: &plan.Fault{Op: pos, Action: action, Arg: arg}}.run(t)
			return r, time.Since(begin)
		}
		if r, _ := run(plan.FaultErrno, int32(unix.ENOSPC)); r.failure() == nil || r.failure().Errno != unix.ENOSPC || r.failure().Op != uint32(pos) {
			t.Errorf("operation %d: errno: %+v", pos, r.frames)
		}
		if r, d := run(plan.FaultSleep, 1); r.output != "done\n" || d < time.Second {
			t.Errorf("operation %d: sleep: %q after %v", pos, r.output, d)
		}
		if r, _ := run(plan.FaultKill, 0); r.output != "" || pos > 0 && (!r.status.Signaled() || r.status.Signal() != unix.SIGKILL) {
			t.Errorf("operation %d: kill: %q, status %#x", pos, r.output, r.status)
		}
	}
}

// The first process enters cgroups: v1 by their tasks files, v2 by clone3.
func TestCgroups(t *testing.T) {
	needRoot(t)
	dir := rootfs(t)
	name := fmt.Sprintf("rt-stage-test-%d", os.Getpid())
	make := func(t *testing.T, parent string) string {
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() {
			for range 100 {
				if err := os.Remove(path); err == nil || errors.Is(err, os.ErrNotExist) {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("cgroup %s is left", path)
		})
		return path
	}
	t.Run("v1", func(t *testing.T) {
		path := make(t, "/sys/fs/cgroup/pids")
		tasks, err := os.OpenFile(filepath.Join(path, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tasks.Close()
		b := inRoot(dir)
		b.ops = append([]plan.Op{file(op(plan.KindTasks), 0)}, b.ops...)
		b.add(mount("proc", "/proc"), op(plan.KindPivot)).add(shell("cat /proc/self/cgroup; cd /proc/self/fd; echo *")...)
		r := must(t, launch{plan: b.plan(1), files: []*os.File{tasks}}.run(t))
		if !strings.Contains(r.output, ":pids:") || !strings.Contains(r.output, name) {
			t.Errorf("not in the cgroup:\n%s", r.output)
		}
	})
	t.Run("v2", func(t *testing.T) {
		parent := "/sys/fs/cgroup/unified"
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
			parent = "/sys/fs/cgroup"
		}
		path := make(t, parent)
		d, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		b := inRoot(dir)
		b.ops[0] = file(b.ops[0], 0)
		b.ops[0].Num[0] |= unix.CLONE_NEWCGROUP
		b.add(mount("proc", "/proc"), op(plan.KindPivot)).add(shell("cat /proc/self/cgroup")...)
		r := must(t, launch{plan: b.plan(1), files: []*os.File{d}}.run(t))
		contains(t, r.output, "0::/") // the cgroup namespace begins there
	})
}

// A static file without interpreter, executable stack or writable code.
func TestBinary(t *testing.T) {
	f, err := elf.Open(stageBinary)
	if err != nil {
		t.Skipf("the stage is not built: %v", err)
	}
	defer f.Close()
	var stack, relro bool
	for _, p := range f.Progs {
		switch {
		case p.Type == elf.PT_INTERP:
			t.Error("it has an interpreter")
		case p.Type == elf.PT_DYNAMIC:
			t.Error("it is dynamic")
		case p.Type == elf.PT_LOAD && p.Flags&(elf.PF_W|elf.PF_X) == elf.PF_W|elf.PF_X:
			t.Error("a segment is writable and executable")
		case p.Type == elf.PT_GNU_STACK:
			stack = p.Flags&elf.PF_X == 0
		case p.Type == elf.PT_GNU_RELRO:
			relro = true
		}
	}
	if !stack || !relro {
		t.Errorf("stack not executable %t, relro %t", stack, relro)
	}
	fi, err := os.Stat(stageBinary)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > 64<<10 {
		t.Errorf("%d bytes, at most 64 KiB", fi.Size())
	}
}

// Run by someone else it does nothing.
func TestArguments(t *testing.T) {
	needRoot(t)
	for _, args := range [][]string{{}, {"x"}, {"x", ""}, {"x", "2"}, {"x", "3a"}, {"x", "-3"}, {"x", "99999999999"}, {"x", "3", "4"}} {
		cmd := &exec.Cmd{Path: stageBinary, Args: args, Env: []string{}}
		out, err := cmd.CombinedOutput()
		if err == nil || len(out) > 0 {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
}

// currentLimit is the soft limit of descriptors that a child begins with.
func currentLimit(t *testing.T) uint64 {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", "ulimit -n").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
