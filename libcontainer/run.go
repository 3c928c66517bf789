package libcontainer

import (
	"errors"
	"fmt"
	"time"

	"rt/libcontainer/console"
	"rt/libcontainer/plan"
	"rt/nsenter"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// StatusExecFailed is the exit status for a program that could not be executed.
const StatusExecFailed = 255

// Run is Create and Start in one, without the gate. In the foreground it passes
// signals and the terminal on, waits for the program, deletes the container
// (unless Keep) and returns the program's exit status, 128+n for death by signal
// n. With Detach it returns 0 once the program runs. With an error the status is
// that which the command must exit with.
func Run(root, id string, o CreateOptions) (int, error) {
	o.CatchSignals = o.CatchSignals || !o.Detach
	c, err := newCreation(root, id, &o, false, nil)
	if err != nil {
		return 1, err
	}
	defer c.close()
	if err := c.takeTerminal(); err != nil {
		return 1, err
	}
	defer c.foreground.Close()
	if c.spec.Process == nil {
		return 1, errors.New("run container: config.json has no /process, so there is nothing to start")
	}
	c.early = o.PidFile == "" && o.PidfdSocket == "" && c.plan.Undisturbed()
	if err := c.create(); err != nil {
		return 1, err
	}
	c.dir.Unlock()
	err = c.started()
	if o.Detach && err == nil {
		// Afterwards nobody would hear of it.
		err = c.interrupted(nil)
	}
	if err != nil {
		status := 1
		var op *nsenter.OpError
		if errors.As(err, &op) && op.Kind == plan.KindExec {
			status = StatusExecFailed
		}
		err = c.interrupted(err)
		c.abort()
		c.returnDevices()
		if !o.Keep {
			if derr := c.destroy(); derr != nil {
				c.warn(derr.Error())
			}
		}
		return status, err
	}
	c.leaveDevices()
	if o.Detach {
		return 0, nil
	}
	return c.attend()
}

// takeTerminal prepares for a container in the foreground; in the background there is nothing to do.
func (c *creation) takeTerminal() error {
	if c.opts.Detach {
		return nil
	}
	if !c.opts.NoSubreaper && !newNamespace(c.spec, specs.PIDNamespace) {
		// Orphans of such a container would else go to somebody else.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become a subreaper: %w", err)
		}
	}
	if p := c.spec.Process; p != nil && p.Terminal {
		var err error
		c.foreground, err = console.Open()
		return err
	}
	return nil
}

// attend passes signals on to a container in the foreground until its first process ends, deletes it unless it is to be
// kept, and returns the status of that process.
func (c *creation) attend() (int, error) {
	c.signals.Forward(c.pidfd)
	status, err := waitChild(c.pid)
	c.signals.Finish()
	fault("run.exit")
	c.foreground.Close()
	if err != nil {
		return 1, err
	}
	if c.opts.Keep {
		return status, nil
	}
	if err := c.destroy(); err != nil {
		return 1, err
	}
	return status, nil
}

// started follows the program into existence: exec, poststart, readiness.
func (c *creation) started() error {
	if err := c.executed(); err != nil {
		return err
	}
	if len(c.rec.Poststart) > 0 {
		cont := Container{root: c.root, dir: c.dir, rec: &c.rec}
		if err := cont.poststart(c.warn, c.signals.FD()); err != nil {
			return err
		}
	}
	return c.notify.wait(c.pidfd, c.rec.Init.Pid, c.signals.FD())
}

// destroy deletes the container after its program has ended, and what that left
// running.
func (c *creation) destroy() error {
	if err := c.dir.Lock(time.Now().Add(lockWait)); err != nil {
		if errors.Is(err, ErrNotExist) {
			return nil // somebody has deleted it already
		}
		return err
	}
	deadline := time.Now().Add(removeWait)
	cg := c.cg
	alive, err := cg.Populated()
	if err == nil && alive {
		// By what the program has left behind, or by a container that has the cgroup now.
		cg = ownPart(c.root, cg)
		defer cg.Close()
		alive, err = cg.Populated()
	}
	if err != nil {
		return err
	}
	if alive {
		if err := cg.Kill(); err != nil {
			return err
		}
		if err := cg.WaitEmpty(deadline); err != nil {
			return err
		}
	}
	if err := cg.Remove(deadline); err != nil {
		return err
	}
	fault("run.cgroup")
	if err := removeRdt(c.rec.Extra); err != nil {
		return err
	}
	if err := unmountHostRoot(c.rec.Extra); err != nil {
		return err
	}
	if len(c.rec.Poststop) > 0 {
		c.dir.Unlock()
		runPoststop(c.rec.Poststop, c.id, c.bundle.Dir, c.spec.Annotations, c.warn)
		if err := c.dir.Lock(time.Now().Add(lockWait)); err != nil {
			if errors.Is(err, ErrNotExist) {
				return nil
			}
			return err
		}
	}
	fault("run.state")
	return c.dir.Remove()
}

// waitChild waits for a child and returns its status as a shell would. Orphans
// that a subreaper has been given are reaped on the way.
func waitChild(pid int) (int, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if got != pid {
			continue
		}
		if ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
}
