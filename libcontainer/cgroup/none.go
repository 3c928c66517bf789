package cgroup

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// None is the mode of a container without a cgroup of its own: its processes stay in
// that of their parent. It occurs where the caller is not permitted to make one.
const None Mode = "none"

// ErrNone is returned for what cannot be done without a cgroup.
var ErrNone = errors.New("the container has no cgroup: its creator was not permitted to make one")

// absent is the Manager in mode None.
type absent struct{ rec Record }

// NewNone returns the Manager of a container without a cgroup.
func NewNone(id string) Manager { return &absent{Record{Mode: None, ID: id}} }

func (m *absent) Record() Record                             { return m.rec }
func (m *absent) Paths() map[string]string                   { return map[string]string{} }
func (m *absent) Create() error                              { return nil }
func (m *absent) Undo(time.Time) error                       { return nil }
func (m *absent) Apply(*specs.LinuxResources) error          { return ErrNone }
func (m *absent) Update(*specs.LinuxResources, Origin) error { return ErrNone }
func (m *absent) Devices([]specs.LinuxDeviceCgroup) error    { return ErrNone }
func (m *absent) OpenDir() (int, error)                      { return -1, ErrNone }
func (m *absent) OpenTasks() ([]Task, error)                 { return nil, nil }
func (m *absent) Pids() ([]int, error)                       { return nil, ErrNone }
func (m *absent) Populated() (bool, error)                   { return false, nil }
func (m *absent) Freeze() error                              { return ErrNone }
func (m *absent) Thaw() error                                { return ErrNone }
func (m *absent) Frozen() (bool, error)                      { return false, nil }
func (m *absent) Kill() error                                { return nil }
func (m *absent) WaitEmpty(time.Time) error                  { return nil }
func (m *absent) Remove(time.Time) error                     { return nil }
func (m *absent) OOMKills() (uint64, error)                  { return 0, nil }
func (m *absent) Part(func(Mark) bool) Manager               { return m }
func (m *absent) Close()                                     {}

// Stats and WatchOOM have nothing to look at.
func (m *absent) Stats() (*Stats, error)       { return nil, ErrNone }
func (m *absent) WatchOOM() (*OOMWatch, error) { return nil, ErrNone }

// Check refuses nothing: who is given this Manager has been asked for no limit.
func (m *absent) Check(*specs.LinuxResources, Origin) ([]string, error) { return nil, nil }

// Asks reports whether r asks for any limit. Device rules are none.
func Asks(r *specs.LinuxResources) bool {
	return len(v2Knobs(r, false, func(string) string { return "" })) > 0
}

// Permitted checks, by the permissions of the files, whether the caller may make
// the cgroup of m and enter it. The error names what it may not do.
func Permitted(l *Layout, m Manager) error {
	for _, d := range m.Record().Dirs {
		for _, h := range l.Hierarchies {
			if h.Key != d.Key {
				continue
			}
			if err := permitted(d, h.own()); err != nil {
				return err
			}
		}
	}
	return nil
}

func permitted(d Dir, own string) error {
	// The deepest directory that exists has to take the next one.
	p := d.Path
	for {
		err := unix.Faccessat(unix.AT_FDCWD, path.Join(d.Mount, p), unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if err == nil {
			break
		}
		if err != unix.ENOENT || p == "" {
			return fmt.Errorf("make a cgroup in %q: %w", path.Join(d.Mount, p), err)
		}
		if p = path.Dir(p); p == "." {
			p = ""
		}
	}
	if d.Key != "" {
		return nil
	}
	// A process moves only within a subtree whose cgroup.procs its mover may write (cgroups(7), delegation).
	file := path.Join(d.Mount, common(own, d.Path), "cgroup.procs")
	if err := unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("enter a cgroup by %q: %w", file, err)
	}
	return nil
}

// common is the path of the deepest directory that is above both.
func common(a, b string) string {
	var out []string
	bs := strings.Split(b, "/")
	for i, s := range strings.Split(a, "/") {
		if i >= len(bs) || bs[i] != s {
			break
		}
		out = append(out, s)
	}
	return strings.Join(out, "/")
}

// OwnDir is the host path of rt's own cgroup in the hierarchy with the key.
func (l *Layout) OwnDir(key string) string {
	for _, h := range l.Hierarchies {
		if h.Key == key {
			return path.Join(h.Mountpoint, h.own())
		}
	}
	return ""
}
