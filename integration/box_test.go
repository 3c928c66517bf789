package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rt/integration/leak"
	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// box is a container's own corner of the machine: bundle, state root, cgroup.
// What is found in it after the test should not be there.
type box struct {
	t      *testing.T
	id     string
	dir    string // the bundle
	root   string // the state root
	rootfs string
	spec   *specs.Spec
	env    []string // added to the environment of every command
	as     []string // put before every command, to run it as somebody else
	user   *user    // that somebody, who runs nothing else
	bin    string   // the runtime, where that somebody can reach it
}

var boxes atomic.Int32

// newBox makes a bundle with rt's default configuration, without a terminal and
// with a writable root file system, changed by edits. Its program is a shell
// that runs the script of the first edit of type args.
func newBox(t *testing.T, edits ...func(*specs.Spec)) *box {
	t.Helper()
	id := "c" + strconv.Itoa(int(boxes.Add(1)))
	b := &box{t: t, id: id, dir: filepath.Join(work, id), bin: bin}
	b.root = filepath.Join(b.dir, "state")
	b.rootfs = filepath.Join(b.dir, "rootfs")
	b.must(os.Mkdir(b.dir, 0o755))
	b.must(os.Mkdir(b.root, 0o700))
	b.must(makeRootfs(b.rootfs))
	b.spec = bundle.Default(v2)
	b.spec.Process.Terminal = false
	b.spec.Process.Args = []string{"true"}
	b.spec.Root.Readonly = false
	b.spec.Linux.CgroupsPath = "/" + top + "/" + id
	for _, e := range edits {
		e(b.spec)
	}
	b.write()
	t.Cleanup(b.end)
	return b
}

// args is an edit that sets the program.
func args(a ...string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = a }
}

// script is an edit that makes the program a shell's script.
func script(text string) func(*specs.Spec) { return args("sh", "-c", text) }

// write writes config.json from b.spec.
func (b *box) write() {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	b.must(err)
	b.must(os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644))
}

// patch writes config.json as b.spec with the member at pointer replaced, or removed
// if value is nil; for what the types of the specification cannot say.
func (b *box) patch(pointer string, value any) {
	b.t.Helper()
	data, err := json.Marshal(b.spec)
	b.must(err)
	var doc map[string]any
	b.must(json.Unmarshal(data, &doc))
	at := doc
	parts := strings.Split(pointer, "/")[1:]
	for _, p := range parts[:len(parts)-1] {
		next, ok := at[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[p] = next
		}
		at = next
	}
	if value == nil {
		delete(at, parts[len(parts)-1])
	} else {
		at[parts[len(parts)-1]] = value
	}
	data, err = json.Marshal(doc)
	b.must(err)
	b.must(os.WriteFile(filepath.Join(b.dir, "config.json"), data, 0o644))
}

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// file writes a file of the root file system, with all directories above it.
func (b *box) file(name, text string) {
	b.t.Helper()
	p := filepath.Join(b.rootfs, name)
	b.must(os.MkdirAll(filepath.Dir(p), 0o755))
	b.must(os.WriteFile(p, []byte(text), 0o644))
}

// path is a path below the bundle.
func (b *box) path(name string) string { return filepath.Join(b.dir, name) }

// read reads a file below the bundle.
func (b *box) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	b.must(err)
	return string(data)
}

// rt runs the runtime on the box's state root.
func (b *box) rt(args ...string) result {
	b.t.Helper()
	return b.begin(args...).end()
}

// begin starts it.
func (b *box) begin(args ...string) *process {
	b.t.Helper()
	return b.command(append([]string{b.bin, "--root", b.root}, args...)...).start()
}

// command prepares a program that runs in the bundle.
func (b *box) command(args ...string) *process {
	p := newProcess(b.t, append(slices.Clone(b.as), args...)...)
	p.cmd.Dir = b.dir
	p.cmd.Env = append(os.Environ(), b.env...)
	return p
}

// ok runs rt, expects success and silence on stderr, and returns its output.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	r := b.rt(args...)
	if r.code != 0 || r.err != "" {
		b.t.Fatal(r)
	}
	return r.out
}

// refused runs rt and expects an error of one line that holds all of words.
func (b *box) refused(words []string, args ...string) {
	b.t.Helper()
	b.rt(args...).refused(1, words...)
}

// run runs the container in the foreground, expects status 0, and returns what its
// program printed.
func (b *box) run() string {
	b.t.Helper()
	return b.ok("run", b.id)
}

// create and start it.
func (b *box) launch() {
	b.t.Helper()
	b.ok("create", b.id)
	b.ok("start", b.id)
}

// exec runs a shell's script in the container and returns its output.
func (b *box) exec(script string) string {
	b.t.Helper()
	return b.ok("exec", b.id, "sh", "-c", script)
}

type state struct {
	OCIVersion  string
	ID          string
	Pid         int
	Status      string
	Bundle      string
	Rootfs      string
	Created     string
	Owner       *string
	Annotations map[string]string
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

// appears waits until a file below the bundle exists and is not empty, and returns what is in it.
func (b *box) appears(name string) string {
	b.t.Helper()
	var data []byte
	eventually(b.t, func() error {
		var err error
		if data, err = os.ReadFile(b.path(name)); err == nil && len(data) == 0 {
			err = errors.New(name + " is empty")
		}
		return err
	})
	return string(data)
}

// end is how every test ends: delete --force succeeds and nothing is left.
func (b *box) end() {
	r := b.command(b.bin, "--root", b.root, "delete", "--force", b.id).start().end()
	if r.code != 0 || r.out != "" || r.err != "" {
		b.t.Error(r)
	}
	b.clean()
	if !b.t.Failed() {
		if err := os.RemoveAll(b.dir); err != nil {
			b.t.Error(err)
		}
	}
}

// clean checks that nothing is left of the container. Processes may still be on their
// way out.
func (b *box) clean() {
	b.t.Helper()
	deadline := time.Now().Add(limit / 6)
	for {
		err := b.leak()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.t.Error(err)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leak is an error that names something of the container's that is still there.
func (b *box) leak() error {
	if left, err := os.ReadDir(b.root); err == nil {
		for _, e := range left {
			// The root's own lock or marker files may stay, containers may not.
			if e.IsDir() {
				return fmt.Errorf("left: state directory of %s", e.Name())
			}
		}
	}
	if b.user != nil {
		if pids := b.user.processes(); len(pids) > 0 {
			return fmt.Errorf("left: processes of the user %v", pids)
		}
	}
	return b.traces().Find()
}

func (b *box) traces() *leak.Container {
	return &leak.Container{ID: b.id, Top: top, Cgroups: cgroup, Dir: b.dir, State: filepath.Join(b.root, b.id)}
}

// processes describes the processes of the container.
func (b *box) processes() []string { return b.traces().Processes() }
