package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"rt/libcontainer/netdevice"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// containerNetwork is the descriptor of the network namespace to move devices into.
const containerNetwork = 3

// network moves devices between its own namespace and the container's.
type network struct {
	own, container *side
	moved          []*device
	keep           bool
}

// side is one of the two namespaces.
type side struct {
	*netlink.Handle
	fd     int
	socket map[int]*nl.SocketHandle // for what Handle has no method for
}

// device is one that has been moved, or is about to be.
type device struct {
	*netdevice.Device
	name      string // as it was
	index     int    // as it was
	now       int    // its index in the container's namespace
	up        bool
	addresses []netlink.Addr // all that are permanent
}

func (n *network) do(q *netdevice.Request) (r netdevice.Reply) {
	var err error
	switch q.Op {
	case netdevice.Move:
		if err = n.open(); err == nil {
			err = n.move(q.Devices)
		}
	case netdevice.Keep:
		n.keep = true
	case netdevice.Back:
		err = n.back()
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

// end is called when there are no more requests.
func (n *network) end() {
	if !n.keep {
		n.back() // nobody is there to be told of what goes wrong
	}
}

func (n *network) open() error {
	nl.EnableErrorMessageReporting = true
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	if n.own, err = openSide(fd); err != nil {
		return err
	}
	n.container, err = openSide(containerNetwork)
	return err
}

func openSide(fd int) (*side, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(fd), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s, err := nl.GetNetlinkSocketAt(netns.NsHandle(fd), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &side{Handle: h, fd: fd, socket: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}, nil
}

// move moves all devices, or none if one cannot be moved.
func (n *network) move(devices []netdevice.Device) error {
	for i := range devices {
		d := &devices[i]
		if err := n.moveOne(d); err != nil {
			as := ""
			if d.Name != "" {
				as = fmt.Sprintf(" as %q", d.Name)
			}
			err = fmt.Errorf("config.json: %s: move network device %q into the container%s: %w", d.Pointer, d.Host, as, err)
			return errors.Join(err, n.back())
		}
	}
	return nil
}

func (n *network) moveOne(d *netdevice.Device) error {
	link, err := n.own.LinkByName(d.Host)
	if err != nil {
		return err
	}
	a := link.Attrs()
	dev := &device{Device: d, name: a.Name, index: a.Index, up: a.Flags&net.FlagUp != 0}
	// They do not survive the change of namespace.
	if dev.addresses, err = permanent(n.own, link); err != nil {
		return err
	}
	name := d.Name
	if name == "" {
		name = a.Name
	}
	// The kernel would find that out when the device is in the container already.
	if !strings.Contains(name, "%") {
		if _, err := n.container.LinkByName(name); err == nil {
			return errors.New("the network namespace has a device of this name already")
		}
	}
	if dev.now, err = push(n.own, a.Index, n.container, a.Index, name); err != nil {
		if _, gone := n.own.LinkByIndex(a.Index); gone != nil && dev.now != 0 {
			n.moved = append(n.moved, dev) // but it could not be renamed
		}
		return err
	}
	n.moved = append(n.moved, dev)
	link, err = n.container.LinkByIndex(dev.now)
	if err != nil {
		return err
	}
	for _, addr := range dev.addresses {
		// Others depend on what else is in the namespace.
		if addr.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		if err := n.container.AddrAdd(link, &addr); err != nil {
			return fmt.Errorf("add address %s: %w", addr.IPNet, err)
		}
	}
	if err := n.container.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

// permanent returns the addresses that somebody has given the device, ready to be given to it again.
func permanent(s *side, link netlink.Link) ([]netlink.Addr, error) {
	all, err := s.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []netlink.Addr
	for _, a := range all {
		if a.Flags&unix.IFA_F_PERMANENT == 0 {
			continue
		}
		list = append(list, netlink.Addr{
			IPNet: a.IPNet, Peer: a.Peer, Broadcast: a.Broadcast, Scope: a.Scope,
			Flags: a.Flags & (unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_MCAUTOJOIN),
		})
	}
	return list, nil
}

// push moves the device with an index to another namespace under a name, and returns its
// index there: the one that is wanted if it is free. The index is told to the kernel: nothing else says which of the devices there
// is the one whose name the kernel has chosen. With an error the device may be on either side.
func push(from *side, index int, to *side, wanted int, name string) (int, error) {
	for attempt := 0; ; attempt++ {
		there, err := freeIndex(to, wanted)
		if err != nil {
			return 0, err
		}
		q := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		q.Sockets = from.socket
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(index)
		q.AddData(msg)
		q.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to.fd))))
		q.AddData(nl.NewRtAttr(unix.IFLA_NEW_IFINDEX, nl.Uint32Attr(uint32(there))))
		q.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
		_, err = q.Execute(unix.NETLINK_ROUTE, 0)
		if errors.Is(err, unix.EBUSY) && attempt < 3 {
			continue // the index has been taken meanwhile
		}
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w (it takes CAP_NET_ADMIN over both network namespaces)", err)
		}
		return there, err
	}
}

// freeIndex returns an index that no device has, wanted if possible.
func freeIndex(s *side, wanted int) (int, error) {
	links, err := s.LinkList()
	if err != nil {
		return 0, fmt.Errorf("list network devices: %w", err)
	}
	taken, last := false, 0
	for _, l := range links {
		taken = taken || l.Attrs().Index == wanted
		last = max(last, l.Attrs().Index)
	}
	if taken {
		return last + 1, nil
	}
	return wanted, nil
}

// back moves all devices back and makes of them what they were.
func (n *network) back() error {
	var errs []error
	for _, d := range n.moved {
		if err := n.backOne(d); err != nil {
			errs = append(errs, fmt.Errorf("config.json: %s: move network device %q back from the container: %w", d.Pointer, d.Host, err))
		}
	}
	n.moved = nil
	return errors.Join(errs...)
}

func (n *network) backOne(d *device) error {
	index, err := push(n.container, d.now, n.own, d.index, d.name)
	if err != nil {
		return err
	}
	link, err := n.own.LinkByIndex(index)
	if err != nil {
		return err
	}
	var errs []error
	for _, addr := range d.addresses {
		if addr.Scope == unix.RT_SCOPE_LINK && addr.IP.To4() == nil {
			continue // the kernel's own, when the device is up
		}
		if err := n.own.AddrAdd(link, &addr); err != nil && !errors.Is(err, os.ErrExist) {
			errs = append(errs, fmt.Errorf("add address %s: %w", addr.IPNet, err))
		}
	}
	if d.up {
		errs = append(errs, n.own.LinkSetUp(link))
	}
	return errors.Join(errs...)
}
