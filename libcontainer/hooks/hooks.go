// Package hooks runs the hooks of a configuration that run on the host:
// prestart, createRuntime, poststart and poststop (runtime-spec, config.md,
// "POSIX-platform Hooks"). Those that run inside the container are operations
// of its plan.
package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The kinds of hooks that run on the host, as they are called in config.json.
const (
	Prestart      = "prestart"
	CreateRuntime = "createRuntime"
	Poststart     = "poststart"
	Poststop      = "poststop"
)

// Options are what the hooks of one list share.
type Options struct {
	// Dir is the hook's working directory, the bundle; "" is the caller's own.
	Dir string
	// Env is the environment of hooks that name none; nil is the caller's own.
	Env []string
	// Warn receives the failures that stop nothing; nil discards them.
	Warn func(error)
	// Interrupt is a descriptor that ends a hook when it is readable; 0 for none.
	Interrupt int
}

// ErrInterrupted is the error of a hook that ended because Options.Interrupt became readable.
var ErrInterrupted = errors.New("interrupted")

// killWait bounds the wait for a killed hook, which can be longer than a moment
// only if it sleeps uninterruptibly.
const killWait = 10 * time.Second

// RunList runs the hooks of one kind in order, each with state (the container's
// state as JSON) on its standard input. The first that fails stops the list and
// is the error; only of poststop all are run and failures go to o.Warn.
func RunList(kind string, list []specs.Hook, state []byte, o Options) error {
	for i, h := range list {
		err := Run(kind, i, h, state, o)
		if err == nil {
			continue
		}
		if kind != Poststop {
			return err
		}
		if o.Warn != nil {
			o.Warn(err)
		}
	}
	return nil
}

// Run runs the hook h, number index of its kind, and waits for it. It fails
// when the program cannot be executed, ends with another status than 0, or runs
// longer than h.Timeout (seconds, absent or not positive: no limit) or until o.Interrupt; then
// its whole process group is killed. What a successful hook leaves running is left
// alone, even if it holds the hook's output.
//
// h.Args absent means the path alone. h.Env absent means o.Env; an empty list
// is an empty environment.
func Run(kind string, index int, h specs.Hook, state []byte, o Options) error {
	if err := run(h, state, o); err != nil {
		return fmt.Errorf("error running %s hook #%d: %w", kind, index, err)
	}
	return nil
}

func run(h specs.Hook, state []byte, o Options) error {
	if !filepath.IsAbs(h.Path) {
		return fmt.Errorf("fork/exec %s: the path is not absolute", h.Path)
	}
	var deadline time.Time
	var timeout time.Duration
	if h.Timeout != nil && *h.Timeout > 0 {
		timeout = time.Duration(*h.Timeout) * time.Second
		deadline = time.Now().Add(timeout)
	}
	p, err := start(h, state, o)
	if err != nil {
		return err
	}
	defer p.close()
	ended, err := p.converse(deadline, o.Interrupt)
	if err == nil && ended {
		p.drain()
		return p.reap()
	}
	// The hook is not reaped yet, so its pid is still its group's.
	unix.Kill(-p.pid, unix.SIGKILL)
	if !p.wait(time.Now().Add(killWait)) {
		go syscall.Wait4(p.pid, nil, 0, nil)
	} else {
		p.drain()
		p.reap()
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("hook ran past specified timeout of %.1fs%s", timeout.Seconds(), p.output())
}

// start runs h's program in a process group of its own.
func start(h specs.Hook, state []byte, o Options) (*process, error) {
	args, env := h.Args, h.Env
	if len(args) == 0 {
		args = []string{h.Path}
	}
	if env == nil {
		env = o.Env
	}
	if env == nil {
		env = os.Environ()
	}
	p := &process{pidfd: -1, in: -1, state: state}
	p.out[0].fd, p.out[1].fd = -1, -1
	var theirs [3]int
	made := 0
	defer func() {
		for _, fd := range theirs[:made] {
			unix.Close(fd)
		}
	}()
	for i := range theirs {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			p.close()
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		ours := ends[0]
		theirs[i] = ends[1]
		if i == 0 {
			ours, theirs[i] = ends[1], ends[0]
			p.in = ours
		} else {
			p.out[i-1].fd = ours
		}
		made++
		unix.SetNonblock(ours, true) // only fails for a bad descriptor
	}
	// os/exec and os.StartProcess would do, and cost more: they first try out
	// what the kernel can do with pidfds.
	pid, _, err := syscall.StartProcess(h.Path, args, &syscall.ProcAttr{
		Dir:   o.Dir,
		Env:   env,
		Files: []uintptr{uintptr(theirs[0]), uintptr(theirs[1]), uintptr(theirs[2])},
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &p.pidfd},
	})
	if err != nil {
		p.close()
		return nil, &os.PathError{Op: "fork/exec", Path: h.Path, Err: err}
	}
	p.pid = pid
	return p, nil
}

// Encode returns a list of hooks as JSON that Decode reads back. Unlike the
// specification's own types it keeps an empty environment apart from an absent
// one. It is nil for an empty list.
func Encode(list []specs.Hook) (jsontext.Value, error) {
	if len(list) == 0 {
		return nil, nil
	}
	stored := make([]hook, len(list))
	for i, h := range list {
		stored[i] = hook{Path: h.Path, Args: h.Args, Timeout: h.Timeout}
		if h.Env != nil {
			stored[i].Env = &h.Env
		}
	}
	v, err := json.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("encode hooks: %w", err)
	}
	return v, nil
}

// Decode returns the hooks that Encode has written; none for nil.
func Decode(v jsontext.Value) ([]specs.Hook, error) {
	if len(v) == 0 {
		return nil, nil
	}
	var stored []hook
	if err := json.Unmarshal(v, &stored); err != nil {
		return nil, fmt.Errorf("decode hooks: %w", err)
	}
	list := make([]specs.Hook, len(stored))
	for i, h := range stored {
		list[i] = specs.Hook{Path: h.Path, Args: h.Args, Timeout: h.Timeout}
		if h.Env != nil {
			list[i].Env = *h.Env
		}
	}
	return list, nil
}

// hook is specs.Hook with an environment that can be told from an absent one.
type hook struct {
	Path    string    `json:"path"`
	Args    []string  `json:"args,omitzero"`
	Env     *[]string `json:"env,omitzero"`
	Timeout *int      `json:"timeout,omitzero"`
}
