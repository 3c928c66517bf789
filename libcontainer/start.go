package libcontainer

import (
	"errors"
	"fmt"
	"slices"

	"rt/libcontainer/hooks"
	"rt/libcontainer/plan"
	"rt/libcontainer/state"
	"rt/nsenter"

	"golang.org/x/sys/unix"
)

// StartOptions are the options of Container.Start.
type StartOptions struct {
	// NotifySocket is the host's socket for sd_notify(3) messages, the variable
	// NOTIFY_SOCKET; "" for none.
	NotifySocket string
	// Warn receives what deserves a line in the log; nil discards it.
	Warn func(string)
}

// Start opens the gate at which a created container waits, and returns once the
// user's program has been executed and the poststart hooks have run. What fails
// in between is its error, and stops the container.
func (c *Container) Start(o StartOptions) error {
	if err := c.lock(); err != nil {
		return err
	}
	locked := true
	defer func() {
		if locked {
			c.dir.Unlock()
		}
	}()
	status, err := c.status()
	if err != nil {
		return err
	}
	switch {
	case c.rec.Phase == state.PhaseDeleting:
		return errors.New("cannot start a container that is being deleted")
	case status == Stopped:
		return errors.New("cannot start a container that has stopped")
	case status == Creating:
		return errors.New("cannot start a container that is being created")
	case status == Paused:
		return errors.New("cannot start a container in the paused state")
	case status != Created:
		return errors.New("cannot start an already running container")
	}
	ops := gateOps(c.rec.Operations)
	if len(ops) == 0 || ops[len(ops)-1].Kind != plan.KindExec {
		return errors.New("start container: config.json has no /process, so there is nothing to start")
	}
	pidfd, err := state.OpenPidfd(c.rec.Init)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	result, err := c.dir.OpenResult(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(result)
	gate, err := c.dir.OpenGate(unix.O_WRONLY | unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(gate)
	notify, err := listenNotify(c.dir, o.NotifySocket)
	if err != nil {
		return err
	}
	defer notify.close()
	fault("start.gate")
	if _, err := unix.Write(gate, []byte{1}); err != nil {
		return fmt.Errorf("open the gate of container %q: %w", c.ID(), err)
	}
	fault("start.result")
	wait := patience(createWait)
	if slices.ContainsFunc(ops, func(op nsenter.GateOp) bool { return op.Kind == plan.KindHook }) {
		wait = noDeadline
	}
	if err := nsenter.ReadResult(result, pidfd, ops, wait); err != nil {
		switch {
		case errors.Is(err, nsenter.ErrDied):
			return fmt.Errorf("start container %q: its first process has died", c.ID())
		case errors.Is(err, nsenter.ErrTimeout):
			// What could still come of it nobody would expect any more.
			unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			return fmt.Errorf("start container %q: %w: no progress for %v", c.ID(), err, wait)
		}
		return err
	}
	// So that the status does not depend on who else has the gate open. If this
	// fails it does, and no more.
	_ = unix.Unlinkat(c.dir.FD(), state.GateName, 0)
	// Hooks and the readiness of the service are waited for without the lock.
	c.dir.Unlock()
	locked = false
	if err := c.poststart(o.Warn, 0); err != nil {
		return err
	}
	return notify.wait(pidfd, c.rec.Init.Pid, 0)
}

// poststart runs the hooks of that name. If one fails, or interrupt (0 for none) becomes
// readable, the container is killed.
func (c *Container) poststart(warn func(string), interrupt int) error {
	list, err := hooks.Decode(c.rec.Poststart)
	if err != nil || len(list) == 0 {
		return err
	}
	fault("start.poststart")
	// Running and the real pid, even if the program has ended by now.
	st := hookState(c.ID(), Running, c.rec.Init.Pid, c.rec.Bundle, c.rec.Annotations)
	err = hooks.RunList(hooks.Poststart, list, st, hooks.Options{Dir: c.rec.Bundle, Interrupt: interrupt})
	if err == nil {
		return nil
	}
	if kill := c.Signal(unix.SIGKILL, true); kill != nil && warn != nil {
		warn(kill.Error())
	}
	return err
}

func gateOps(stored []state.Operation) []nsenter.GateOp {
	ops := make([]nsenter.GateOp, len(stored))
	for i, s := range stored {
		ops[i] = nsenter.GateOp{
			Op: s.Index, Kind: plan.Kind(s.Kind),
			Line: plan.Line{Number: s.Index + 1, Verb: s.Verb, Object: s.Object, Detail: s.Detail, Origin: s.Origin},
		}
	}
	return ops
}

func storedOps(ops []nsenter.GateOp) []state.Operation {
	stored := make([]state.Operation, len(ops))
	for i, o := range ops {
		stored[i] = state.Operation{
			Index: o.Op, Kind: int(o.Kind),
			Verb: o.Line.Verb, Object: o.Line.Object, Detail: o.Line.Detail, Origin: o.Line.Origin,
		}
	}
	return stored
}
