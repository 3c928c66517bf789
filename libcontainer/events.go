package libcontainer

import (
	"errors"
	"fmt"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/intelrdt"
	"rt/libcontainer/state"

	"golang.org/x/sys/unix"
)

// Event is something that happened to a container, or what it uses.
type Event struct {
	Type string `json:"type"` // "stats" or "oom"
	ID   string `json:"id"`
	Data *Stats `json:"data,omitempty"` // of "stats"
}

// Stats is what a container uses, in the form in which `runc events` prints it.
type Stats struct {
	*cgroup.Stats
	IntelRDT intelrdt.Stats `json:"intel_rdt"`
	// rt makes no interfaces; the name is there for readers that expect it.
	Network []struct{} `json:"network_interfaces"`
}

// Stats returns what the container uses. It takes no lock.
func (c *Container) Stats() (*Stats, error) {
	m, err := c.living()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return c.stats(m)
}

func (c *Container) stats(m cgroup.Manager) (*Stats, error) {
	usage, err := m.Stats()
	if err != nil {
		return nil, err
	}
	s := &Stats{Stats: usage}
	group, err := recordedRdt(c.rec.Extra)
	if err != nil || group.Clos == "" {
		return s, err
	}
	rdt, err := group.Stats()
	if err != nil {
		return nil, fmt.Errorf("read statistics of resctrl group: %w", err)
	}
	s.IntelRDT = *rdt
	return s, nil
}

// living is the manager of a container that has not ended.
func (c *Container) living() (cgroup.Manager, error) {
	if c.rec == nil {
		return nil, c.damaged
	}
	status, err := c.status()
	if err != nil {
		return nil, err
	}
	if status == Stopped {
		return nil, fmt.Errorf("container with id %s is not running", c.ID())
	}
	return c.manager()
}

// Events calls emit with statistics every interval, for the first time after
// one, and with an event whenever the kernel has no memory left for one of the
// container's processes. It returns when the container's first process has ended, or
// with the first error of emit. It takes no lock.
func (c *Container) Events(interval time.Duration, emit func(Event) error) error {
	m, err := c.living()
	if err != nil {
		return err
	}
	defer m.Close()
	init, err := state.OpenPidfd(c.rec.Init)
	if errors.Is(err, state.ErrDead) {
		return fmt.Errorf("container with id %s is not running", c.ID())
	}
	if err != nil {
		return err
	}
	defer unix.Close(init)
	fds := []unix.PollFd{{Fd: int32(init), Events: unix.POLLIN}}
	oom, err := m.WatchOOM()
	if err != nil {
		return err
	}
	if oom != nil {
		defer oom.Close()
		fds = append(fds, unix.PollFd{Fd: int32(oom.FD), Events: oom.Events})
	}
	next := time.Now().Add(interval)
	for {
		left := max(time.Until(next), 0)
		ts := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for events of container %s: %w", c.ID(), err)
		}
		ended := fds[0].Revents != 0
		if oom != nil {
			// A look at the end too: it may be what ended the container.
			n, err := oom.Next()
			if err != nil {
				return err
			}
			for range n {
				if err := emit(Event{Type: "oom", ID: c.ID()}); err != nil {
					return err
				}
			}
		}
		if ended {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = next.Add(interval)
		if now := time.Now(); next.Before(now) { // it was stopped meanwhile
			next = now.Add(interval)
		}
		s, err := c.stats(m)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
			continue // the container is on its way out
		}
		if err != nil {
			return err
		}
		if err := emit(Event{Type: "stats", ID: c.ID(), Data: s}); err != nil {
			return err
		}
	}
}
