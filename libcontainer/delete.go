package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/state"

	"golang.org/x/sys/unix"
)

// Delete removes a container that has stopped, one that was created and never
// started, and with Force any: a running one is killed, one that another command
// is creating is taken from it. Every step may be repeated, so that a delete
// that was itself killed is finished by the next one.
func Delete(root, id string, o DeleteOptions) error {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if err := state.CheckID(id); err != nil {
		return err
	}
	r, err := state.OpenRoot(root, false)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotExist
		}
		return absent(err, o.Force)
	}
	defer r.Close()
	c, err := openIn(r, id)
	if err != nil {
		return absent(err, o.Force)
	}
	defer c.dir.Close()
	if o.Force {
		if err := c.interrupt(); err != nil {
			return err
		}
	}
	if err := c.dir.Lock(time.Now().Add(lockWait)); err != nil {
		return absent(err, o.Force)
	}
	c.rec, c.damaged = c.dir.Load()
	if c.rec != nil {
		return absent(c.delete(&o), o.Force)
	}
	return absent(c.deleteRemains(&o), o.Force)
}

// absent makes an unknown id a success for --force.
func absent(err error, force bool) error {
	if force && errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}

// interrupt ends what may hold the lock for as long as a hook takes: a create, or
// a start, which waits for nothing once init is dead.
func (c *Container) interrupt() error {
	if c.rec == nil {
		return c.killCreator()
	}
	fd, err := killInit(c.rec)
	if fd >= 0 {
		unix.Close(fd)
	}
	return err
}

// killCreator ends a create that is still at it, so that it cannot go on
// building what delete takes down.
func (c *Container) killCreator() error {
	in, err := c.dir.LoadIntent()
	if err != nil {
		return nil // without an intent there is nobody to name
	}
	if in.Creator.Pid == unix.Getpid() {
		return nil
	}
	fd, err := state.OpenPidfd(in.Creator)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill the command that creates container %q: %w", c.ID(), err)
	}
	return waitPidfd(fd, killWait)
}

// waitPidfd waits for a process to end.
func waitPidfd(fd int, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("container init still running")
		}
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(left/time.Millisecond)+1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for process: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}

// delete removes a container that has a record. The lock is held.
func (c *Container) delete(o *DeleteOptions) error {
	status, err := c.status()
	if err != nil && !o.Force {
		return err
	}
	// A delete that has begun is finished, whoever asks.
	begun := c.rec.Phase == state.PhaseDeleting
	if !o.Force && !begun && status != Stopped && status != Created {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", c.ID(), status)
	}
	if !begun {
		c.rec.Phase = state.PhaseDeleting
		if err := c.dir.Save(c.rec); err != nil {
			// A full disk must not keep anything from being deleted.
			o.Warn(err.Error())
		}
	}
	fault("delete.mark")
	m, err := c.manager()
	if err != nil {
		return err
	}
	m = ownPart(c.root, m)
	defer m.Close()
	if err := killAll(c.rec, m); err != nil {
		return err
	}
	fault("delete.kill")
	if err := m.Remove(time.Now().Add(removeWait)); err != nil {
		return err
	}
	fault("delete.cgroup")
	if err := removeRdt(c.rec.Extra); err != nil {
		return err
	}
	if err := unmountHostRoot(c.rec.Extra); err != nil {
		return err
	}
	c.dir.Unlock()
	runPoststop(c.rec.Poststop, c.ID(), c.rec.Bundle, c.rec.Annotations, o.Warn)
	fault("delete.poststop")
	if err := c.dir.Lock(time.Now().Add(lockWait)); err != nil {
		if errors.Is(err, ErrNotExist) {
			return nil // another delete was faster
		}
		return err
	}
	fault("delete.state")
	return c.dir.Remove()
}

// killAll ends init and, where no pid namespace does so by itself, all others.
func killAll(rec *state.Record, m cgroup.Manager) error {
	fd, err := killInit(rec)
	if err != nil {
		return err
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	alive, perr := m.Populated()
	if perr != nil {
		return perr
	}
	if alive {
		// Frozen tasks, members of a shared pid namespace, and what an exec
		// left in the cgroup.
		if err := m.Kill(); err != nil {
			return err
		}
	}
	if fd >= 0 {
		if err := waitPidfd(fd, killWait); err != nil {
			return immortal(m, err)
		}
	}
	if !alive {
		return nil
	}
	if err := m.WaitEmpty(time.Now().Add(killWait)); err != nil {
		return immortal(m, err)
	}
	return nil
}

// immortal adds to an error of waiting for the killed whom it was waited for in vain: processes
// that wait for a device or a file system which does not answer.
func immortal(m cgroup.Manager, err error) error {
	if pids, _ := m.Pids(); len(pids) > 0 {
		return fmt.Errorf("%w: SIGKILL has not ended %v yet; delete the container again when they have ended", err, pids)
	}
	return err
}

// killInit sends SIGKILL to init and returns its pidfd, the caller's to close; -1 if
// it has ended.
func killInit(rec *state.Record) (int, error) {
	fd, err := state.OpenPidfd(rec.Init)
	if errors.Is(err, state.ErrDead) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		unix.Close(fd)
		return -1, fmt.Errorf("kill init of container %q: %w", rec.ID, err)
	}
	return fd, nil
}

// deleteRemains removes what a killed create left behind, or what a damaged
// record no longer describes.
func (c *Container) deleteRemains(o *DeleteOptions) error {
	incomplete := errors.Is(c.damaged, state.ErrIncomplete)
	if !incomplete && !o.Force {
		return c.damaged
	}
	in, err := c.dir.LoadIntent()
	if err != nil {
		if !incomplete && !o.Force {
			return err
		}
		// Killed between the claim and the intent: nothing else exists.
		return c.dir.Remove()
	}
	// A create that lives holds the lock except while its hooks run.
	if o.Force {
		// It may have begun after interrupt looked.
		if err := c.killCreator(); err != nil {
			return err
		}
	} else if alive, err := in.Creator.Alive(); err != nil || alive {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", c.ID(), Creating)
	}
	if in.Cgroup != nil {
		m, err := loadManager(in.Cgroup)
		if err != nil {
			return err
		}
		defer m.Close()
		if err := c.removeRemains(m); err != nil {
			return err
		}
	}
	if err := removeRdt(in.Extra); err != nil {
		return err
	}
	if err := unmountHostRoot(in.Extra); err != nil {
		return err
	}
	runPoststop(in.Poststop, c.ID(), in.Bundle, nil, o.Warn)
	return c.dir.Remove()
}

// ownPart is what of a container's recorded cgroup is still the container's, by the marks: when
// it was left empty, or removed, another container may have been given its
// path. What has no mark is the container's, for not everybody can set marks.
func ownPart(root *state.Root, m cgroup.Manager) cgroup.Manager {
	rec := m.Record()
	return m.Part(func(mark cgroup.Mark) bool {
		switch {
		case mark.ID == "" || mark.ID == rec.ID:
			return true
		case mark.Trusted:
			return false
		}
		// The container may have written this one itself, to be spared: it counts only
		// if there is such a container, with that cgroup.
		d, err := root.Open(mark.ID)
		if err != nil {
			return true
		}
		defer d.Close()
		in, err := d.LoadIntent()
		if err != nil {
			return true
		}
		other, err := cgroup.ParseRecord(in.Cgroup)
		return err != nil || !slices.Equal(other.Dirs, rec.Dirs)
	})
}

// removeRemains removes the cgroup of a container that has no record. The
// creator may have died before it made one, so what carries no mark of ours may
// be somebody else's: then nobody in it is killed. But the creator may also have died
// before it could set the mark; so one that is empty goes, as it would after a
// create that had used it.
func (c *Container) removeRemains(m cgroup.Manager) error {
	own := m.Part(func(m cgroup.Mark) bool { return m.ID == c.ID() })
	defer own.Close()
	if err := own.Kill(); err != nil {
		return err
	}
	if err := own.WaitEmpty(time.Now().Add(killWait)); err != nil {
		return err
	}
	if err := own.Remove(time.Now().Add(removeWait)); err != nil {
		return err
	}
	rest := m.Part(func(m cgroup.Mark) bool { return m.ID == "" })
	defer rest.Close()
	if busy, err := rest.Populated(); busy || err != nil {
		return err
	}
	return rest.Remove(time.Now().Add(removeWait))
}
