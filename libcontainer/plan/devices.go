package plan

import (
	"path"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// device is a node to make.
type device struct {
	path     string
	mode     uint64 // type and permissions
	dev      uint64
	uid, gid uint32
	origin   string
	slot     int32 // clone of the host's node; -1 to make one
}

// defaultDevices are the nodes that the spec asks for in every container.
var defaultDevices = [...]struct {
	path         string
	major, minor uint32
}{
	{"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7},
	{"/dev/tty", 5, 0}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9},
}

// cloneDevices lists the nodes, and clones those that must be bound from the
// host because the kernel or rt's own capabilities do not allow mknod(2).
func (c *compiler) cloneDevices() {
	if c.devBound {
		return
	}
	for _, d := range defaultDevices {
		if c.configured(d.path) {
			continue
		}
		c.nodes = append(c.nodes, device{
			path: d.path, mode: unix.S_IFCHR | 0o666, dev: unix.Mkdev(d.major, d.minor),
			origin: byRuntime, slot: -1,
		})
	}
	for i := range c.linux.Devices {
		d := &c.linux.Devices[i]
		p := cleanDest(d.Path)
		if p == "/dev/ptmx" {
			continue // a link to the container's own devpts
		}
		n := device{path: p, origin: "/linux/devices/" + strconv.Itoa(i), slot: -1, mode: 0o666}
		switch d.Type {
		case "c", "u":
			n.mode |= unix.S_IFCHR
		case "b":
			n.mode |= unix.S_IFBLK
		case "p":
			n.mode |= unix.S_IFIFO
		}
		if d.FileMode != nil {
			n.mode = n.mode&unix.S_IFMT | uint64(*d.FileMode)&0o7777
		}
		if d.Type != "p" {
			n.dev = unix.Mkdev(uint32(d.Major), uint32(d.Minor))
		}
		if d.UID != nil {
			n.uid = *d.UID
		}
		if d.GID != nil {
			n.gid = *d.GID
		}
		c.nodes = append(c.nodes, n)
	}
	if !c.userNamespace() && !c.facts.Nested && (c.facts.Capabilities == 0 || c.facts.Capabilities&(1<<capMknod) != 0) {
		return
	}
	for i := range c.nodes {
		if n := &c.nodes[i]; n.mode&unix.S_IFMT != unix.S_IFIFO {
			n.slot = c.clone(n.origin, n.path, false, 0)
		}
	}
}

// configured says whether the config brings its own node at path.
func (c *compiler) configured(p string) bool {
	for i := range c.linux.Devices {
		if cleanDest(c.linux.Devices[i].Path) == p {
			return true
		}
	}
	return false
}

// devices compiles the nodes and the links in /dev.
func (c *compiler) devices() {
	for i := range c.nodes {
		n := &c.nodes[i]
		if n.slot >= 0 {
			op := c.data(KindAttach, n.origin, n.path)
			op.Slot = n.slot
			continue
		}
		op := c.data(KindNode, n.origin, n.path)
		copy(op.Num[:], []uint64{n.mode, n.dev, uint64(n.uid), uint64(n.gid)})
	}
	c.data(KindSymlink, byRuntime, "/dev/ptmx", "pts/ptmx").Flags = FlagReplace
	if !c.procMounted {
		return
	}
	for _, l := range [...][2]string{
		{"/dev/fd", "/proc/self/fd"},
		{"/dev/stdin", "/proc/self/fd/0"},
		{"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"},
	} {
		c.data(KindSymlink, byRuntime, l[0], l[1])
	}
	c.data(KindSymlink, byRuntime, "/dev/core", "/proc/kcore").Flags = FlagIfExists
}

// console compiles the container's terminal.
func (c *compiler) console(p *specs.Process, flags Flag) {
	op := c.op(KindConsole, "/process/terminal")
	op.Flags = flags
	if s := p.ConsoleSize; s != nil {
		op.Num[0], op.Num[1] = uint64(s.Width), uint64(s.Height)
	}
	op.Num[2] = uint64(p.User.UID)
}

// sysctl compiles /linux/sysctl in the order of the names.
func (c *compiler) sysctl() {
	for _, k := range sortedKeys(c.linux.Sysctl) {
		origin := "/linux/sysctl/" + escapePointer(k)
		name := sysctlPath(k)
		if path.Clean(name) != name || !c.sysctlAllowed(name) {
			c.fail(origin, "%q is not a sysctl of a namespace that this container has for itself; accepted: with a new ipc namespace kernel.msgmax, kernel.msgmnb, kernel.msgmni, kernel.sem, kernel.shmall, kernel.shmmax, kernel.shmmni, kernel.shm_rmid_forced and fs.mqueue.*; with a network namespace net.*; with uts kernel.domainname; with user user.*", k)
			return
		}
		c.data(KindSysctl, origin, name, c.linux.Sysctl[k])
	}
}

// sysctlPath is the path of a sysctl below /proc/sys: as in sysctl.d(5), the
// first separator says whether dots or slashes separate.
func sysctlPath(key string) string {
	b := []byte(key)
	for _, ch := range b {
		if ch == '/' {
			return key
		}
		if ch == '.' {
			break
		}
	}
	for i, ch := range b {
		switch ch {
		case '.':
			b[i] = '/'
		case '/':
			b[i] = '.'
		}
	}
	return string(b)
}

func (c *compiler) sysctlAllowed(name string) bool {
	has := func(flag uint64) bool { return (c.create|c.join)&flag != 0 }
	switch name {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall",
		"kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced":
		return has(unix.CLONE_NEWIPC)
	case "kernel/domainname":
		return has(unix.CLONE_NEWUTS)
	}
	for _, p := range [...]struct {
		prefix string
		flag   uint64
	}{
		{"fs/mqueue/", unix.CLONE_NEWIPC}, {"net/", unix.CLONE_NEWNET}, {"user/", unix.CLONE_NEWUSER},
	} {
		if len(name) > len(p.prefix) && name[:len(p.prefix)] == p.prefix {
			return has(p.flag)
		}
	}
	return false
}
