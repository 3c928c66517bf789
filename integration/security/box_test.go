package security

import (
	"bytes"
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

	"rt/integration/ground"
	"rt/integration/leak"
	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// limit is what any one command may take. The machine may be busy with other
// tests, so it is far from what is expected.
const limit = 30 * time.Second

// box is one test's corner of the machine, with a container and a canary.
type box struct {
	t       *testing.T
	id      string
	top     string // holds all of it
	dir     string // the bundle
	rootfs  string
	outside string // decoys, which nothing may touch
	root    string // the state root
	spec    *specs.Spec
	canary  map[string]string // outside as it was before the first command, nil before that
}

var boxes atomic.Int32

type edit = func(*specs.Spec)

// newBox makes a bundle with rt's default configuration, without a terminal and
// with a writable root file system, changed by edits.
func newBox(t *testing.T, edits ...edit) *box {
	t.Helper()
	id := "c" + strconv.Itoa(int(boxes.Add(1)))
	b := &box{t: t, id: id, top: filepath.Join(work, id)}
	b.dir, b.outside, b.root = filepath.Join(b.top, "b"), filepath.Join(b.top, "outside"), filepath.Join(b.top, "state")
	b.rootfs = filepath.Join(b.dir, "rootfs")
	for _, d := range []string{b.top, b.dir, b.outside, b.rootfs} {
		b.must(os.Mkdir(d, 0o755))
	}
	b.must(os.Mkdir(b.root, 0o700))
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		b.must(os.Mkdir(filepath.Join(b.rootfs, d), 0o755))
	}
	b.must(os.Link(filepath.Join(work, "base/busybox"), filepath.Join(b.rootfs, "bin/busybox")))
	b.must(os.Link(attacker, filepath.Join(b.rootfs, "attacker")))
	for _, a := range []string{"cat", "dd", "echo", "false", "id", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "od", "readlink", "rm", "sh", "sleep", "stat", "touch", "true", "umount", "wc"} {
		b.must(os.Symlink("busybox", filepath.Join(b.rootfs, "bin", a)))
	}
	b.decoy("secret", "the host's\n")
	b.spec = bundle.Default(v2)
	b.spec.Process.Terminal = false
	b.spec.Process.Args = []string{"true"}
	b.spec.Root.Readonly = false
	b.spec.Linux.CgroupsPath = "/" + top + "/" + id
	b.edit(edits...)
	t.Cleanup(b.end)
	return b
}

// edit changes the configuration.
func (b *box) edit(edits ...edit) {
	b.t.Helper()
	for _, e := range edits {
		e(b.spec)
	}
	data, err := json.Marshal(b.spec)
	b.must(err)
	b.must(os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644))
}

func args(a ...string) edit { return func(s *specs.Spec) { s.Process.Args = a } }

func script(text string) edit { return args("sh", "-c", text) }

func mnt(fstype, source, destination string, options ...string) edit {
	return func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Type: fstype, Source: source, Destination: destination, Options: options})
	}
}

// caps gives the container capabilities besides those it has.
func caps(names ...string) edit {
	return func(s *specs.Spec) {
		c := s.Process.Capabilities
		for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
			*set = append(*set, names...)
		}
	}
}

// noMount takes the mount at a destination out of the configuration.
func noMount(destination string) edit {
	return func(s *specs.Spec) {
		kept := s.Mounts[:0]
		for _, m := range s.Mounts {
			if m.Destination != destination {
				kept = append(kept, m)
			}
		}
		s.Mounts = kept
	}
}

// mapped puts the container into a user namespace.
func mapped(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
}

func without(kind specs.LinuxNamespaceType) edit {
	return func(s *specs.Spec) {
		kept := s.Linux.Namespaces[:0]
		for _, n := range s.Linux.Namespaces {
			if n.Type != kind {
				kept = append(kept, n)
			}
		}
		s.Linux.Namespaces = kept
	}
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// decoy makes a file outside; nothing may happen to it.
func (b *box) decoy(name, text string) string {
	b.t.Helper()
	p := filepath.Join(b.outside, name)
	b.must(os.MkdirAll(filepath.Dir(p), 0o755))
	b.must(os.WriteFile(p, []byte(text), 0o644))
	return p
}

// in is a path of the root file system, in whose place nothing is any more, below
// directories that are there.
func (b *box) in(name string) string {
	b.t.Helper()
	p := filepath.Join(b.rootfs, name)
	b.must(os.MkdirAll(filepath.Dir(p), 0o755))
	b.must(os.RemoveAll(p))
	return p
}

// link makes a symbolic link in the root file system, in the place of what is there.
func (b *box) link(target, name string) {
	b.t.Helper()
	b.must(os.Symlink(target, b.in(name)))
}

// file makes a file there.
func (b *box) file(name, text string, mode os.FileMode) {
	b.t.Helper()
	p := b.in(name)
	if mode&0o111 != 0 {
		b.must(ground.WriteProgram(p, text))
	} else {
		b.must(os.WriteFile(p, []byte(text), mode))
	}
	b.must(os.Chmod(p, mode))
}

// command prepares rt on the box's state root.
func (b *box) command(args ...string) *command {
	b.t.Helper()
	if b.canary == nil {
		b.canary = b.look()
	}
	c := newCommand(b.t, append([]string{rt, "--root", b.root}, args...)...)
	c.Dir = b.dir
	return c
}

func (b *box) rt(args ...string) result {
	b.t.Helper()
	return b.command(args...).run()
}

// ok runs rt, expects success, and returns its output.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	r := b.rt(args...)
	if r.code != 0 {
		b.t.Fatal(r)
	}
	return r.out
}

func (b *box) run() string {
	b.t.Helper()
	return b.ok("run", b.id)
}

func (b *box) launch() {
	b.t.Helper()
	b.ok("run", "--detach", b.id)
}

// refused runs rt and expects an error of one line with all words, and that
// nothing of a container is there.
func (b *box) refused(words []string, args ...string) {
	b.t.Helper()
	r := b.rt(args...)
	if r.code != 1 || strings.Count(r.err, "\n") != 1 {
		b.t.Errorf("%v; expected one line on stderr and status 1", r)
	}
	said := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(r.err)
	for _, w := range words {
		if !strings.Contains(said, w) {
			b.t.Errorf("%v; expected it to say %q", r, w)
		}
	}
}

type state struct {
	Pid    int    `json:"pid"`
	Status string `json:"status"`
}

func (b *box) state() (s state) {
	b.t.Helper()
	out := b.ok("state", b.id)
	b.must(json.Unmarshal([]byte(out), &s))
	return s
}

// is waits until the container has the status.
func (b *box) is(status string) {
	b.t.Helper()
	eventually(b.t, func() error {
		if s := b.state(); s.Status != status {
			return fmt.Errorf("status is %s, expected %s", s.Status, status)
		}
		return nil
	})
}

// end is how every test ends: delete --force succeeds, nothing is left, nothing outside
// has changed.
func (b *box) end() {
	began := time.Now()
	if r := b.command("delete", "--force", b.id).run(); r.code != 0 || r.out != "" || r.err != "" {
		b.t.Error(r)
	}
	if took := time.Since(began); took > 15*time.Second {
		b.t.Errorf("delete --force took %v", took)
	}
	c := leak.Container{ID: b.id, Top: top, Cgroups: hierarchies, Dir: b.dir, State: filepath.Join(b.root, b.id)}
	if err := within(10*time.Second, c.Find); err != nil {
		b.t.Error(err)
	}
	b.untouched()
	if !b.t.Failed() {
		if err := os.RemoveAll(b.top); err != nil {
			b.t.Error(err)
		}
	}
}

// command is a program under way. Its output goes to memory files: a pipe would
// stay open as long as anything that it leaves behind lives.
type command struct {
	*exec.Cmd
	t        *testing.T
	out, err *os.File
	began    time.Time
	memory   string // the file that tells what it had; "" if that is not measured
}

func newCommand(t *testing.T, args ...string) *command {
	t.Helper()
	c := &command{Cmd: exec.Command(args[0], args[1:]...), t: t}
	for _, f := range []**os.File{&c.out, &c.err} {
		fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
		*f = os.NewFile(uintptr(fd), "output")
	}
	c.Stdout, c.Stderr = c.out, c.err
	return c
}

// measured lets the command's result tell how much memory it had. It is started by a small
// process: what wait4(2) tells begins with what the process had that forked it.
func (c *command) measured() *command {
	c.memory = filepath.Join(c.t.TempDir(), "memory")
	c.Args = append([]string{"attacker", "measure", c.memory, c.Path}, c.Args[1:]...)
	c.Path = attacker
	return c
}

func (c *command) run() result { return c.begin().end() }

func (c *command) begin() *command {
	c.t.Helper()
	c.began = time.Now()
	if err := c.Start(); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// said is what it has printed so far.
func (c *command) said() string { return contents(c.out) }

func contents(f *os.File) string {
	data := make([]byte, 4<<20)
	n, _ := f.ReadAt(data, 0)
	return string(data[:n])
}

func (c *command) end() result {
	c.t.Helper()
	defer c.out.Close()
	defer c.err.Close()
	late := time.AfterFunc(limit+raceTime(), func() { c.Process.Kill() })
	err := c.Wait()
	r := result{args: strings.Join(c.Args[1:], " "), out: contents(c.out), err: contents(c.err), took: time.Since(c.began)}
	if !late.Stop() {
		c.t.Fatalf("%v: not done in time", r)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatalf("%v: %v", r, err)
	}
	r.code = c.ProcessState.ExitCode()
	if ws := c.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.code = -int(ws.Signal())
	}
	if c.memory != "" {
		if data, err := os.ReadFile(c.memory); err != nil {
			c.t.Errorf("%v: %v", r, err)
		} else if _, err := fmt.Sscan(string(data), &r.memory); err != nil {
			c.t.Errorf("%v: memory: %v", r, err)
		}
	}
	return r
}

// result is how a command ended.
type result struct {
	args     string
	code     int // of exit, or minus the signal's number
	out, err string
	took     time.Duration
	memory   int64 // the most it had, in bytes, if it was measured
}

func (r result) String() string {
	return fmt.Sprintf("%s: ended with %d after %v: output %.2000q, errors %.2000q", r.args, r.code, r.took.Round(time.Millisecond), r.out, r.err)
}

// within repeats try until it succeeds, at most for limit.
func within(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(3 * time.Millisecond)
	}
}

func eventually(t *testing.T, try func() error) {
	t.Helper()
	if err := within(10*time.Second, try); err != nil {
		t.Fatal(err)
	}
}

// helper runs the attacker on the host, until the test ends if it does not end
// by itself, and waits until it has said "ready".
func helper(t *testing.T, args ...string) *command {
	t.Helper()
	c := newCommand(t, append([]string{attacker}, args...)...).begin()
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	eventually(t, func() error {
		if !bytes.Contains([]byte(c.said()), []byte("ready\n")) {
			return fmt.Errorf("attacker %v is not ready: %q, %q", args, c.said(), contents(c.err))
		}
		return nil
	})
	return c
}
