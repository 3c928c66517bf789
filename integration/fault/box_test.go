package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"rt/integration/leak"
)

// limit is what any one command may take. The machine may be busy with other
// tests, so it is far from what is expected.
const limit = 30 * time.Second

// box is a container's own corner of the machine: bundle, state root, cgroup.
// What is found in it and should not be there is that container's.
type box struct {
	t    *testing.T
	id   string
	dir  string // the bundle, and where commands run
	root string // the state root
	// cgroup is the name of the container's cgroup, if that is not its id.
	cgroup string
}

var boxes atomic.Int32

// newBox makes a bundle from a configuration and checks at the end of the test
// that nothing is left of its container.
func newBox(t *testing.T, config spec) *box {
	t.Helper()
	id := "c" + strconv.Itoa(int(boxes.Add(1)))
	b := &box{t: t, id: id, dir: filepath.Join(work, id)}
	b.root = filepath.Join(b.dir, "state")
	b.must(os.MkdirAll(b.root, 0o700))
	// A mapped root must get through here too.
	b.must(os.Chmod(b.dir, 0o755))
	b.write(config)
	t.Cleanup(b.end)
	return b
}

// write replaces config.json.
func (b *box) write(config spec) {
	b.t.Helper()
	data, err := json.Marshal(config.build(b))
	b.must(err)
	b.must(os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644))
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// end is how every test ends: delete --force succeeds, nothing is left, and the id can be
// used again.
func (b *box) end() {
	b.remove()
	if b.t.Failed() {
		return
	}
	b.write(spec{args: []string{"true"}})
	if r := b.rt("create", b.id); r.code != 0 {
		b.t.Errorf("create after all was deleted: %v", r)
	}
	b.remove()
}

func (b *box) remove() {
	if r := b.rt("delete", "--force", b.id); r.code != 0 || r.out != "" {
		b.t.Errorf("delete --force: %v", r)
	}
	b.clean()
}

// clean checks that nothing is left of the container. Processes may still be on
// their way out.
func (b *box) clean() {
	b.t.Helper()
	if err := eventually(2*time.Second, b.leak); err != nil {
		b.t.Error(err)
	}
}

// leak is an error that names something of the container's that is still there.
func (b *box) leak() error { return b.traces().Find() }

func (b *box) traces() *leak.Container {
	return &leak.Container{ID: b.cgroupName(), Top: top, Cgroups: mounts, Dir: b.dir, State: filepath.Join(b.root, b.id)}
}

// processes describes the processes of the container.
func (b *box) processes() []string { return b.traces().Processes() }

// inside waits until some process of the container is there.
func (b *box) inside() {
	b.t.Helper()
	b.must(eventually(limit, func() error {
		if len(b.processes()) == 0 {
			return errors.New("no stage and no process of the container appeared")
		}
		return nil
	}))
}

// rt runs the runtime with fault points, without a fault.
func (b *box) rt(args ...string) result {
	b.t.Helper()
	return b.fault("", args...)
}

// fault runs it with one.
func (b *box) fault(fault string, args ...string) result {
	b.t.Helper()
	return b.begin(fault, args...).end(b.t)
}

// begin starts it.
func (b *box) begin(fault string, args ...string) *process {
	b.t.Helper()
	var env []string
	if fault != "" {
		env = []string{"RT_FAULT=" + fault}
	}
	return command(faultBin, b.dir, env, 0, append([]string{"--root", b.root}, args...)...)
}

// ok runs it and expects success.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	r := b.rt(args...)
	if r.code != 0 {
		b.t.Fatalf("%s: %v", args[0], r)
	}
	return r.out
}

// refused runs it and expects an error of one line that holds all of words.
func (b *box) refused(words []string, args ...string) {
	b.t.Helper()
	b.rt(args...).failed(b.t, words...)
}

type state struct {
	Pid    int    `json:"pid"`
	Status string `json:"status"`
}

func (b *box) state() state {
	b.t.Helper()
	var s state
	out := b.ok("state", b.id)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		b.t.Fatalf("state: %v: %q", err, out)
	}
	return s
}

// kill ends one process. The pid of a container that has stopped, 0, would mean the tests' own
// process group.
func (b *box) kill(pid int) {
	b.t.Helper()
	if pid <= 1 {
		b.t.Fatalf("kill process %d: not a process of the container's", pid)
	}
	b.must(syscall.Kill(pid, syscall.SIGKILL))
}

// is waits until the container has the status.
func (b *box) is(status string) {
	b.t.Helper()
	b.must(eventually(5*time.Second, func() error {
		if s := b.state(); s.Status != status {
			return fmt.Errorf("status is %s, expected %s", s.Status, status)
		}
		return nil
	}))
}

// result is how a command ended.
type result struct {
	args string
	code int // of exit, or minus the signal's number
	out  string
	took time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%s: ended with %d after %v: %q", r.args, r.code, r.took.Round(time.Millisecond), r.out)
}

// failed checks that the command failed by itself with one line that holds all words.
func (r result) failed(t *testing.T, words ...string) {
	t.Helper()
	if r.code <= 0 || strings.Count(r.out, "\n") != 1 {
		t.Errorf("%v; expected one line and a failure", r)
	}
	for _, w := range words {
		if !strings.Contains(r.out, w) {
			t.Errorf("%v; expected it to say %q", r, w)
		}
	}
}

// killed checks that the command was killed, as its fault asked for.
func (r result) killed(t *testing.T) {
	t.Helper()
	if r.code != -int(syscall.SIGKILL) {
		t.Fatalf("%v; its fault point was not reached", r)
	}
}

type process struct {
	cmd   *exec.Cmd
	out   *os.File
	start time.Time
	err   error
}

// command starts a program with its output in a file: a pipe would stay open as
// long as anything that it leaves behind lives. With stdin 0 it reads /dev/null.
func command(program, dir string, env []string, stdin uintptr, args ...string) *process {
	p := &process{start: time.Now()}
	if p.out, p.err = os.CreateTemp(work, "out"); p.err != nil {
		return p
	}
	os.Remove(p.out.Name())
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if stdin != 0 {
		p.cmd.Stdin = os.NewFile(stdin, "stdin")
	}
	p.err = p.cmd.Start()
	return p
}

func (p *process) signal(sig syscall.Signal) { p.cmd.Process.Signal(sig) }

// end waits for the process.
func (p *process) end(t *testing.T) result {
	t.Helper()
	r, err := p.wait(limit)
	if err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	return r
}

func (p *process) wait(limit time.Duration) (result, error) {
	if p.err != nil {
		return result{}, p.err
	}
	defer p.out.Close()
	r := result{args: strings.Join(p.cmd.Args[1:], " ")}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(limit):
		err = fmt.Errorf("not done after %v", limit)
		p.signal(syscall.SIGKILL)
		select {
		case <-ended:
		case <-time.After(limit):
			return r, fmt.Errorf("%w, nor %v after it was killed", err, limit)
		}
	}
	r.took = time.Since(p.start)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		r.code = -int(ws.Signal())
	} else {
		r.code = p.cmd.ProcessState.ExitCode()
	}
	data := make([]byte, 64<<10)
	n, _ := p.out.ReadAt(data, 0)
	r.out = string(data[:n])
	return r, err
}

// eventually repeats try until it succeeds, at most for limit.
func eventually(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
