package systemd

import (
	"errors"
	"fmt"
	"os"

	"rt/libcontainer/agent"
	"rt/libcontainer/cgroup/systemd/unit"
)

// ErrAbsent is wrapped by the errors of a host, or of a user, without systemd.
var ErrAbsent = errors.New("systemd not running on this host, cannot use systemd cgroups manager")

// connection is one with systemd, by an agent that ends when rt does, however that may be.
type connection struct{ agent *agent.Agent }

// open connects to systemd. It returns the cgroup of that.
func open(user bool, props []unit.Property) (*connection, string, error) {
	// What is so on most hosts that refuse needs no agent to tell.
	if st, err := os.Stat("/run/systemd/system"); err != nil || !st.IsDir() {
		return nil, "", ErrAbsent
	}
	a, err := agent.Start(unit.Agent, []string{"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"})
	if err != nil {
		return nil, "", err
	}
	c := &connection{a}
	reply, err := c.ask(&unit.Request{Op: unit.Open, User: user, Properties: props})
	if err != nil {
		c.close()
		return nil, "", err
	}
	return c, reply.Group, nil
}

// ask sends one request and waits for its answer.
func (c *connection) ask(q *unit.Request) (r unit.Reply, err error) {
	if err := c.agent.Ask(string(q.Op), q, &r); err != nil {
		return r, err
	}
	switch {
	case r.Absent:
		return r, fmt.Errorf("%w%s", ErrAbsent, r.Error[min(len(r.Error), len(ErrAbsent.Error())):])
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (c *connection) close() { c.agent.Close() }
