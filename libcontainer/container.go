// Package libcontainer creates containers and works on existing ones. It logs
// nothing and exits nothing: it returns errors, and hands warnings to the
// caller's function. Everything it knows of a container between two commands is
// in the state directory (package state); nothing of a container's status is stored.
package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/plan"
	"rt/libcontainer/state"
	"rt/nsenter"

	"golang.org/x/sys/unix"
)

var (
	// ErrNotExist: no container has the id.
	ErrNotExist = state.ErrNotExist
	// ErrExist: a container has the id already.
	ErrExist = state.ErrExist
	// ErrNotRunning: the container's process has ended.
	ErrNotRunning = errors.New("container not running")
	// ErrNotPaused: resume found nothing frozen.
	ErrNotPaused = errors.New("container not paused")
)

// Container is one container of a state root. It holds descriptors: Close it.
type Container struct {
	root *state.Root
	dir  *state.Dir
	rec  *state.Record
	// damaged is why rec is nil.
	damaged error
}

// lockWait bounds the wait for another command on the same container.
const lockWait = 30 * time.Second

// Load opens the container id of the state root. It gives ErrNotExist for an
// unknown id. A container whose creation was killed, or whose record is
// damaged, is an error; Delete with Force removes such ones.
func Load(root, id string) (*Container, error) {
	c, err := open(root, id)
	if err != nil {
		return nil, err
	}
	if c.damaged != nil && !errors.Is(c.damaged, state.ErrIncomplete) {
		c.Close()
		return nil, fmt.Errorf("%w; `delete --force` removes what is left of it", c.damaged)
	}
	return c, nil
}

// open is Load that also returns what cannot be read, with damaged set.
func open(root, id string) (*Container, error) {
	if err := state.CheckID(id); err != nil {
		return nil, err
	}
	r, err := state.OpenRoot(root, false)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNotExist
		}
		return nil, err
	}
	c, err := openIn(r, id)
	if err != nil {
		r.Close()
		return nil, err
	}
	return c, nil
}

func openIn(r *state.Root, id string) (*Container, error) {
	d, err := r.Open(id)
	if err != nil {
		return nil, err
	}
	c := &Container{root: r, dir: d}
	c.rec, c.damaged = d.Load()
	return c, nil
}

// List looks at every container of the state root. Those that cannot be read
// are reported in damaged; one that vanishes meanwhile is left out. A missing
// root is an error that is fs.ErrNotExist.
func List(root string) (states []*State, damaged []error, err error) {
	r, err := state.OpenRoot(root, false)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	ids, err := r.List()
	if err != nil {
		return nil, nil, err
	}
	for _, id := range ids {
		s, err := look(root, id)
		switch {
		case errors.Is(err, ErrNotExist):
		case err != nil:
			damaged = append(damaged, fmt.Errorf("load container %s: %w", id, err))
		default:
			states = append(states, s)
		}
	}
	return states, damaged, nil
}

func look(root, id string) (*State, error) {
	c, err := Load(root, id)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.State()
}

// Close releases the descriptors; it does nothing to the container.
func (c *Container) Close() {
	c.dir.Close()
	c.root.Close()
}

// ID is the container's id.
func (c *Container) ID() string { return c.dir.ID() }

// State looks at the container. It takes no lock and changes nothing.
func (c *Container) State() (*State, error) {
	if c.rec == nil {
		return c.creating()
	}
	status, err := c.status()
	if err != nil {
		return nil, err
	}
	s := &State{
		Version: SpecVersion, ID: c.ID(), Status: status, Bundle: c.rec.Bundle, Rootfs: c.rec.Rootfs,
		Created: c.rec.Created, Annotations: c.rec.Annotations,
	}
	if status != Stopped {
		s.Pid = c.rec.Init.Pid
	}
	return s, nil
}

// creating is the state of a container that had no record when it was opened.
func (c *Container) creating() (*State, error) {
	in, err := c.dir.LoadIntent()
	for try := 0; errors.Is(err, state.ErrIncomplete) && try < 200; try++ {
		// A create has just claimed the id, or a delete is at its last step.
		time.Sleep(time.Millisecond)
		d, gone := c.root.Open(c.ID())
		if gone != nil {
			return nil, gone
		}
		c.dir.Close()
		c.dir = d
		if c.rec, c.damaged = d.Load(); c.rec != nil {
			return c.State()
		}
		in, err = d.LoadIntent()
	}
	if err != nil {
		return nil, err
	}
	status, err := state.IntentStatus(in)
	if err != nil {
		return nil, err
	}
	if status == state.StatusStopped {
		// Its creator may have committed it since, and ended.
		if c.rec, c.damaged = c.dir.Load(); c.rec != nil {
			return c.State()
		}
	}
	return &State{
		Version: SpecVersion, ID: c.ID(), Status: Status(status), Bundle: in.Bundle, Created: in.Created,
	}, nil
}

func (c *Container) status() (Status, error) {
	s, err := state.Status(c.rec, c.dir, func() (bool, error) {
		m, err := c.manager()
		if err != nil {
			return false, err
		}
		return m.Frozen()
	})
	if err == nil && s == state.StatusRunning && c.isStage() {
		// Run writes its record before the stage has done its work.
		return Creating, nil
	}
	return Status(s), err
}

// isStage says whether init has not executed the user's program yet: whether its executable
// still is the very memfd that create or run made. The name of a memfd proves nothing: a
// program that comes from one called the same would not be paused nor entered.
func (c *Container) isStage() bool {
	file := "/proc/" + strconv.Itoa(c.rec.Init.Pid) + "/exe"
	name, err := os.Readlink(file)
	if errors.Is(err, fs.ErrPermission) {
		// The stage shows itself to nobody but root; the program belongs to the container's
		// user namespace, and so to its owner. (Not one from a file that even the namespace's
		// root must not read. Such a container its owner can only kill and delete.)
		return unix.Geteuid() != 0
	}
	if err != nil || !strings.HasPrefix(name, "/memfd:rt-stage") {
		return false
	}
	// It may be any file. Without synchronisation no server of a file system is asked about it.
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, file, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO, &st) != nil {
		return false
	}
	image := nsenter.Image{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	return string(c.rec.Extra[extraStage]) == imageJSON(image)
}

// imageJSON is a stage's image in Extra.
func imageJSON(i nsenter.Image) string {
	return "[" + strconv.FormatUint(i.Dev, 10) + "," + strconv.FormatUint(i.Ino, 10) + "]"
}

// manager returns the manager of the container's cgroup.
func (c *Container) manager() (cgroup.Manager, error) {
	return loadManager(c.rec.Cgroup)
}

// lock takes the container's lock and reads its record again under it.
func (c *Container) lock() error {
	if err := c.dir.Lock(time.Now().Add(lockWait)); err != nil {
		return err
	}
	c.rec, c.damaged = c.dir.Load()
	if c.damaged != nil {
		c.dir.Unlock()
		return c.damaged
	}
	return nil
}

// hookState is the container's state as a hook reads it.
func hookState(id string, status Status, pid int, bundle string, annotations map[string]string) []byte {
	text, at := plan.StateJSON(id, string(status), bundle, annotations)
	if pid == 0 {
		// A stopped container has no pid, so the member goes too.
		const member = `"pid":`
		return []byte(text[:at-len(member)-1] + text[at:])
	}
	return []byte(text[:at] + strconv.Itoa(pid) + text[at:])
}

// Processes returns the host's pids of the processes in the container's cgroup
// and all below it, in no order.
func (c *Container) Processes() ([]int, error) {
	if c.rec == nil {
		return nil, c.damaged
	}
	m, err := c.manager()
	if err != nil {
		return nil, err
	}
	if m.Record().Mode == cgroup.None {
		return c.noCgroup()
	}
	m = ownPart(c.root, m)
	defer m.Close()
	if m.Record().Mode == cgroup.None {
		return nil, nil
	}
	return m.Pids()
}

// Pause freezes the container's cgroup and waits until it is frozen.
func (c *Container) Pause() error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.dir.Unlock()
	s, err := c.status()
	if err != nil {
		return err
	}
	if s != Created && s != Running {
		return ErrNotRunning
	}
	m, err := c.manager()
	if err != nil {
		return err
	}
	return m.Freeze()
}

// Resume thaws a paused container.
func (c *Container) Resume() error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.dir.Unlock()
	s, err := c.status()
	if err != nil {
		return err
	}
	if s != Paused {
		return ErrNotPaused
	}
	m, err := c.manager()
	if err != nil {
		return err
	}
	return m.Thaw()
}

// Signal sends sig to the container's first process. SIGKILL also ends one that
// is paused, and without a pid namespace of its own all others of its cgroup.
// With all a container that has ended is no error (the obsolete kill --all).
func (c *Container) Signal(sig Signal, all bool) error {
	if c.rec == nil {
		return c.damaged
	}
	status, err := c.status()
	if err != nil {
		return err
	}
	m, err := c.manager()
	if err != nil {
		return err
	}
	// Whether the signal's work is done even if there is no init to send it to.
	done := all
	if sig == unix.SIGKILL && !c.rec.OwnPidNS {
		m = ownPart(c.root, m)
		if status == Stopped && !all {
			if alive, err := m.Populated(); err != nil {
				return err
			} else if !alive {
				return ErrNotRunning
			}
		}
		if err := m.Kill(); err != nil {
			return err
		}
		done = true
	}
	if status == Stopped {
		if done {
			return nil
		}
		return ErrNotRunning
	}
	fd, err := state.OpenPidfd(c.rec.Init)
	if errors.Is(err, state.ErrDead) {
		if done {
			return nil
		}
		return ErrNotRunning
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.PidfdSendSignal(fd, sig, nil, 0)
	if err == unix.ESRCH {
		if done {
			return nil
		}
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("unable to signal init: %w", err)
	}
	if sig == unix.SIGKILL && status == Paused {
		// A task frozen on v1 dies only once it is thawed.
		return m.Thaw()
	}
	return nil
}
