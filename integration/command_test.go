package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rt/integration/leak"

	"golang.org/x/sys/unix"
)

// limit is what any one command may take. The machine may be busy with other
// tests, so it is far from what is expected.
const limit = 30 * time.Second

// process is a program under way. Its output goes to memory files: a pipe would
// stay open as long as anything that it leaves behind lives.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err *os.File
	began    time.Time
}

func newProcess(t *testing.T, args ...string) *process {
	p := &process{t: t, cmd: exec.Command(args[0], args[1:]...), out: memfd(t), err: memfd(t)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	return p
}

func memfd(t *testing.T) *os.File {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	// Each writer may have opened it anew through /proc.
	unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
	return os.NewFile(uintptr(fd), "output")
}

func contents(f *os.File) string {
	data := make([]byte, 1<<20)
	n, _ := f.ReadAt(data, 0)
	return string(data[:n])
}

func (p *process) start() *process {
	p.t.Helper()
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return p
}

func (p *process) signal(sig syscall.Signal) { p.cmd.Process.Signal(sig) }

// end waits for the process. What takes longer than limit is a failure that shows
// what is going on.
func (p *process) end() result {
	p.t.Helper()
	defer p.out.Close()
	defer p.err.Close()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(limit):
		tree := situation(p.cmd.Process.Pid)
		p.signal(syscall.SIGKILL)
		select {
		case <-ended:
		case <-time.After(limit / 3):
			tree += "it does not even end when it is killed\n"
		}
		p.t.Fatalf("%s: not done after %v: output %q, errors %q\n%s", strings.Join(p.cmd.Args[1:], " "), limit, contents(p.out), contents(p.err), tree)
	}
	r := result{t: p.t, args: strings.Join(p.cmd.Args[1:], " "), took: time.Since(p.began), out: contents(p.out), err: contents(p.err)}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("%v: %v", r, err)
	}
	r.code = p.cmd.ProcessState.ExitCode()
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.code = -int(ws.Signal())
	}
	return r
}

// situation describes a process and all below it: what each is, and where in the kernel
// each of its threads waits.
func situation(pid int) string {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return fmt.Sprintf("process %d: %v\n", pid, err)
	}
	line, _ := os.ReadFile(dir + "/cmdline")
	cgroups, _ := os.ReadFile(dir + "/cgroup")
	text := fmt.Sprintf("process %d: %s, state %s, command %q, cgroups %q\n", pid, field(string(status), "Name"), field(string(status), "State"), line, cgroups)
	tasks, _ := filepath.Glob(dir + "/task/*")
	var children []string
	for _, task := range tasks {
		stack, _ := os.ReadFile(task + "/stack")
		text += fmt.Sprintf("  thread %s: %s\n", filepath.Base(task), strings.ReplaceAll(strings.TrimSpace(string(stack)), "\n", " "))
		list, _ := os.ReadFile(task + "/children")
		children = append(children, strings.Fields(string(list))...)
	}
	for _, c := range children {
		if n, err := strconv.Atoi(c); err == nil {
			text += situation(n)
		}
	}
	return text
}

// result is how a command ended.
type result struct {
	t        *testing.T
	args     string
	code     int // of exit, or minus the signal's number
	out, err string
	took     time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%s: ended with %d after %v: output %q, errors %q", r.args, r.code, r.took.Round(time.Millisecond), r.out, r.err)
}

// refused checks that the command printed nothing but one line with all words, and
// ended with the code.
func (r result) refused(code int, words ...string) {
	r.t.Helper()
	if r.code != code || r.out != "" || strings.Count(r.err, "\n") != 1 {
		r.t.Errorf("%v; expected one line on stderr and status %d", r, code)
	}
	// The log's text format quotes the message.
	said := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(r.err)
	for _, w := range words {
		if !strings.Contains(said, w) {
			r.t.Errorf("%v; expected it to say %q", r, w)
		}
	}
}

// eventually repeats try until it succeeds.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(limit / 3)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// mounted returns the topmost mount at path.
func mounted(t *testing.T, list []leak.Mount, path string) leak.Mount {
	t.Helper()
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Path == path {
			return list[i]
		}
	}
	t.Fatalf("nothing is mounted on %s: %v", path, list)
	return leak.Mount{}
}

// privately runs the rest of the test in a mount namespace of its own, by a second
// run of this binary for this one test: it returns true there, where the test goes on.
func privately(t *testing.T) bool {
	t.Helper()
	if os.Getenv("RT_PRIVATE") == t.Name() {
		return true
	}
	p := newProcess(t, os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	p.cmd.Env = append(os.Environ(), "RT_PRIVATE="+t.Name(), "RT_BIN="+bin)
	// With this flag the syscall package makes all mounts private, too.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	r := p.start().end()
	switch {
	case r.code != 0:
		t.Errorf("in a mount namespace of its own:\n%s%s", r.out, r.err)
	case strings.Contains(r.out, "--- SKIP"):
		t.Skip(r.out)
	case !strings.Contains(r.out, "--- PASS: "+t.Name()):
		t.Errorf("in a mount namespace of its own the test did not run: %q", r.out)
	}
	return false
}
