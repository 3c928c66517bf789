package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"rt/libcontainer/agent"
	"rt/libcontainer/netdevice"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// checkDevices finds out before anything is made whether the network devices that are to be
// moved are there.
func checkDevices(s *specs.Spec) error {
	if s.Linux == nil || len(s.Linux.NetDevices) == 0 {
		return nil
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look for network devices: open socket: %w", err)
	}
	defer unix.Close(sock)
	var errs []error
	for _, d := range netDevices(s) {
		ifr, err := unix.NewIfreq(d.Host)
		if err == nil {
			err = unix.IoctlIfreq(sock, unix.SIOCGIFINDEX, ifr)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: move network device %q into the container: %w", d.Pointer, d.Host, err))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	text := make([]string, len(errs))
	for i, err := range errs {
		text[i] = err.Error()
	}
	return errors.New("config.json: " + strings.Join(text, "; "))
}

// netDevices lists the network devices to move, by name.
func netDevices(s *specs.Spec) []netdevice.Device {
	list := make([]netdevice.Device, 0, len(s.Linux.NetDevices))
	for host, d := range s.Linux.NetDevices {
		list = append(list, netdevice.Device{
			Host: host, Name: d.Name, Pointer: "/linux/netDevices/" + strings.ReplaceAll(host, "~", "~0"),
		})
	}
	slices.SortFunc(list, func(a, b netdevice.Device) int { return strings.Compare(a.Host, b.Host) })
	return list
}

// moveDevices moves the network devices into the container's namespace. From then on the agent
// that has done it holds the namespace, and moves them back if rt ends too early.
func (c *creation) moveDevices() error {
	dir, err := openProc(c.pid)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, "ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace of the container: %w", err)
	}
	ns := os.NewFile(uintptr(fd), "net")
	defer ns.Close()
	fault("network.open")
	if c.mover, err = agent.Start(netdevice.Agent, nil, ns); err != nil {
		return fmt.Errorf("config.json: /linux/netDevices: %w", err)
	}
	if err := c.askMover(&netdevice.Request{Op: netdevice.Move, Devices: netDevices(c.spec)}); err != nil {
		return err
	}
	fault("network.moved")
	return nil
}

func (c *creation) askMover(q *netdevice.Request) error {
	var r netdevice.Reply
	if err := c.mover.Ask(string(q.Op), q, &r); err != nil {
		return fmt.Errorf("config.json: /linux/netDevices: %w", err)
	}
	if r.Error != "" {
		return errors.New(r.Error)
	}
	return nil
}

// keepDevices lets the network devices stay in the container, whatever becomes of rt.
func (c *creation) keepDevices() error {
	if c.mover == nil {
		return nil
	}
	return c.askMover(&netdevice.Request{Op: netdevice.Keep})
}

// returnDevices moves the network devices of a container that has failed back.
func (c *creation) returnDevices() {
	if c.mover == nil {
		return
	}
	if err := c.askMover(&netdevice.Request{Op: netdevice.Back}); err != nil {
		c.warn(err.Error())
	}
	c.leaveDevices()
}

// leaveDevices ends the agent: nothing can fail any more.
func (c *creation) leaveDevices() {
	if c.mover != nil {
		c.mover.Leave()
		c.mover = nil
	}
}
