package plan

import (
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPlan is a mount of the spec as read: its options and where its source
// waits.
type mountPlan struct {
	opts mountOptions
	slot int32 // of its source's clone; -1 if it has none
	dest string
}

// A mount's value that is longer cannot go through fsconfig(2).
const fsconfigMax = 255

func mountOrigin(i int) string { return "/mounts/" + strconv.Itoa(i) }

// cleanDest is a destination as a path below the root.
func cleanDest(d string) string { return path.Clean("/" + d) }

// clone compiles the clone of a host path and returns its slot. Where the
// stage's mapped root might not reach the source the parent clones it.
func (c *compiler) clone(origin, source string, recursive bool, flags Flag) int32 {
	return c.source(origin, source, recursive, false, flags, nil)
}

// find is clone for the source of a mount of the spec: it is looked up with the
// others, but cloned only when it is attached, so that the kernel lists the
// mounts in the order of the config.
func (c *compiler) find(origin, source string, recursive bool, flags Flag) int32 {
	return c.source(origin, source, recursive, true, flags, nil)
}

func (c *compiler) source(origin, source string, recursive, late bool, flags Flag, ids *IDMap) int32 {
	var r, l uint64
	if recursive {
		r = 1
	}
	if late {
		l = 1
	}
	op := c.num(KindClone, origin, r, l)
	op.Flags |= flags
	op.Slot = c.slot()
	op.Data[0].String = source
	if ids != nil || c.userNamespace() && !c.facts.Unprivileged {
		op.FD = c.file(File{Role: FileClone, Path: source, Type: r, IDMap: ids, Origin: origin})
	}
	return op.Slot
}

// clones compiles the clone of every source.
func (c *compiler) clones() {
	c.mountPlans = make([]mountPlan, len(c.spec.Mounts))
	for i := range c.spec.Mounts {
		m := &c.spec.Mounts[i]
		p := &c.mountPlans[i]
		p.opts = parseMountOptions(m.Options)
		p.slot = -1
		p.dest = cleanDest(m.Destination)
		if m.Type == "bind" {
			p.opts.bind = true
		}
		if p.dest == "/dev" && p.opts.bind {
			c.devBound = true
		}
		if p.dest == "/proc" {
			c.procMounted = true
		}
		if !p.opts.bind || p.opts.remount {
			continue
		}
		source := m.Source
		if !path.IsAbs(source) {
			source = path.Join(c.facts.Bundle, source)
		}
		var flags Flag
		if p.dest == "/proc" {
			flags = FlagProcfs
		}
		p.slot = c.source(mountOrigin(i), source, p.opts.recursive, true, flags, c.idMap(i))
	}
	c.cloneCgroups()
	if c.facts.NotifyDir != "" {
		c.notify = c.clone(byRuntime, c.facts.NotifyDir, false, 0)
	}
	c.cloneDevices()
	if len(c.linux.MaskedPaths) > 0 {
		c.null = c.clone("/linux/maskedPaths", "/dev/null", false, FlagNull)
	}
}

// idMap is the id map of a bind mount; nil for none. Mappings ask for one without
// the option too, and the option without mappings means the container's own.
func (c *compiler) idMap(i int) *IDMap {
	m, o := &c.spec.Mounts[i], &c.mountPlans[i].opts
	if !o.idmap && len(m.UIDMappings) == 0 {
		return nil
	}
	ids := &IDMap{UID: m.UIDMappings, GID: m.GIDMappings, Recursive: o.ridmap}
	if len(ids.UID) == 0 {
		if ids.Path = c.paths[unix.CLONE_NEWUSER].path; ids.Path == "" {
			ids.UID, ids.GID = c.linux.UIDMappings, c.linux.GIDMappings
		}
	}
	switch {
	case c.facts.Unprivileged:
		c.fail(mountOrigin(i)+"/options", "mapping the ids of a mount needs root")
	case len(ids.UID) == 0 && ids.Path == "":
		c.fail(mountOrigin(i)+"/options", "there are no mappings, neither the mount's own nor those of a user namespace")
	}
	return ids
}

// mounts compiles the mounts of the spec in order, then the devices.
func (c *compiler) mounts() {
	for i := range c.spec.Mounts {
		m, p := &c.spec.Mounts[i], &c.mountPlans[i]
		origin := mountOrigin(i)
		if p.dest == "/" && !p.opts.remount {
			c.fail(origin+"/destination", "%q: the root itself cannot be mounted over", m.Destination)
			return
		}
		if !path.IsAbs(m.Destination) {
			c.warn("config.json: %s/destination: %q is relative, taken as %q", origin, m.Destination, p.dest)
		}
		if inProc(p.dest) && !procAllowed(p.dest) {
			c.fail(origin+"/destination", "%q: nothing may be mounted here; below /proc are accepted: %s", m.Destination, strings.Join(procFiles[:], ", "))
			return
		}
		if p.dest == "/proc" && !p.opts.bind && !p.opts.remount && m.Type != "proc" {
			c.fail(origin+"/type", "%q: on /proc only a mount of type \"proc\" or a bind of one is accepted", m.Type)
			return
		}
		if p.opts.copyUp && m.Type != "tmpfs" {
			c.fail(origin+"/options", "\"tmpcopyup\" goes with type \"tmpfs\" only, not %q", m.Type)
			return
		}
		switch {
		case p.opts.remount:
			op := c.data(KindRemount, origin, p.dest)
			c.attr(op, &p.opts)
			if !p.opts.bind {
				op.Data[2].List = p.opts.fsOptions()
			}
		case p.opts.bind:
			if len(p.opts.data) > 0 {
				c.warn("config.json: %s/options: %q has no effect on a bind mount", origin, p.opts.data)
			}
			op := c.data(KindAttach, origin, p.dest)
			op.Slot = p.slot
			c.attr(op, &p.opts)
			c.target(op, p.dest)
		case m.Type == "cgroup":
			c.cgroupMount(i)
		case m.Type == "":
			c.fail(origin+"/type", "\"\": a mount needs a type, or the option \"bind\" or \"rbind\"")
			return
		default:
			c.mount(origin, m.Type, m.Source, p)
		}
	}
	if c.facts.NotifyDir != "" {
		op := c.num(KindAttach, byRuntime, unix.MOUNT_ATTR_RDONLY)
		op.Slot = c.notify
		op.Data[0].String = "/run/notify"
	}
	if !c.devBound {
		c.devices()
	}
	// As late as possible, for what has been moved is lost to the host if all fails; but
	// before the hooks that may configure it.
	if len(c.linux.NetDevices) > 0 {
		c.num(KindAwait, "/linux/netDevices", MsgNetwork)
	}
	if h := c.spec.Hooks; h != nil && (len(h.Prestart) > 0 || len(h.CreateRuntime) > 0) { //nolint:staticcheck // prestart is deprecated, not gone
		c.num(KindAwait, "/hooks", MsgMounted)
	}
	if c.spec.Process != nil && c.needHome() && c.facts.Home == "" {
		c.op(KindHome, "/process/user/uid")
	}
}

// kernelTypes have a mountpoint that must be a real directory: they show the
// kernel's own files, and a link would put them where a later rule does not look.
func kernelType(t string) bool {
	switch t {
	case "proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue":
		return true
	}
	return false
}

// mount compiles a new instance of a file system.
func (c *compiler) mount(origin, fstype, source string, p *mountPlan) {
	opts := p.opts
	var late bool
	if fstype == "tmpfs" && opts.ro {
		// Devices, copy-up and later mount points are still to be made in it.
		late = true
		opts.set &^= unix.MOUNT_ATTR_RDONLY
		opts.superblock = remove(append([]string(nil), opts.superblock...), "ro")
	}
	options := opts.fsOptions()
	label := c.mountLabel(fstype)
	var op *Op
	if opts.iversion || tooLong(options) || len(label) > fsconfigMax || len(source) > fsconfigMax {
		if label != "" {
			options = append(options, quoteLabel(label))
		}
		op = c.data(KindMountOld, origin, fstype, source, strings.Join(options, ","), p.dest)
		if opts.iversion {
			op.Flags |= FlagIVersion
		}
	} else {
		if label != "" {
			options = append(options, label)
		}
		op = c.data(KindMount, origin, fstype, source, "", p.dest)
		op.Data[2].List = options
		if fstype == "tmpfs" && !hasMode(opts.data) {
			op.Flags |= FlagMode
		}
	}
	c.attr(op, &opts)
	c.target(op, p.dest)
	if kernelType(fstype) {
		op.Flags |= FlagReal
	}
	if opts.copyUp {
		op.Flags |= FlagCopyUp
	}
	if fstype == "mqueue" && c.linux.MountLabel != "" {
		// Its superblock is that of the IPC namespace, so its options are settled.
		c.label(originMount, LabelFile, 0, p.dest, c.linux.MountLabel)
	}
	if late {
		op.Slot = c.slot()
		c.lateReadonly = append(c.lateReadonly, Op{Kind: KindSetattr, FD: -1, Slot: op.Slot, Origin: origin, Num: [6]uint64{unix.MOUNT_ATTR_RDONLY}})
	}
}

func hasMode(data []string) bool {
	for _, d := range data {
		if strings.HasPrefix(d, "mode=") {
			return true
		}
	}
	return false
}

func tooLong(options []string) bool {
	for _, o := range options {
		_, value, _ := strings.Cut(o, "=")
		if len(value) > fsconfigMax {
			return true
		}
	}
	return false
}

// attr fills in the operands that all attaching operations share.
func (c *compiler) attr(op *Op, o *mountOptions) {
	op.Num[0], op.Num[1], op.Num[2], op.Num[3], op.Num[4] = o.set, o.clear, o.rset, o.rclear, o.propagation
	if o.rpropagation {
		op.Num[5] = 1
	}
}

// target says what the mount point may be.
func (c *compiler) target(op *Op, dest string) {
	if dest == "/proc" {
		op.Flags |= FlagReal | FlagInProc
	}
	if inProc(dest) {
		op.Flags |= FlagInProc
	}
}

// procFiles are the only files of a procfs that may be covered: tools such as
// lxcfs replace them, and nothing that rt or an LSM relies on is among them.
var procFiles = [...]string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

func inProc(dest string) bool { return strings.HasPrefix(dest, "/proc/") }

func procAllowed(dest string) bool {
	for _, f := range procFiles {
		if f == dest {
			return true
		}
	}
	return false
}

// cloneCgroups clones what a mount of type cgroup will need.
func (c *compiler) cloneCgroups() {
	for i := range c.spec.Mounts {
		if c.spec.Mounts[i].Type != "cgroup" || c.mountPlans[i].opts.bind || c.mountPlans[i].opts.remount {
			continue
		}
		v1 := c.facts.Cgroup.V1
		if len(v1) == 0 {
			source := c.facts.Cgroup.Mount
			if c.create&unix.CLONE_NEWCGROUP != 0 {
				if !c.userNamespace() {
					continue
				}
				source = c.facts.Cgroup.Path
			}
			c.cgroupSlots = append(c.cgroupSlots, c.find(mountOrigin(i), source, false, 0))
			continue
		}
		if c.create&unix.CLONE_NEWCGROUP == 0 {
			for _, h := range v1 {
				c.cgroupSlots = append(c.cgroupSlots, c.find(mountOrigin(i), h.Path, false, 0))
			}
		}
	}
}

// cgroupMount compiles a mount of type cgroup. On v2 and with a cgroup namespace
// that is cgroup2, or where the kernel refuses a new instance (user namespaces) a
// bind with the same attributes. Without one it is a bind of the host's: a new
// instance would show the same, but apply its options to all of the host (nsdelegate
// would go), for which the kernel waits for an RCU grace period. On v1 it is a tmpfs with a mount for each hierarchy: a new instance in
// a new cgroup namespace, else a bind of the container's own directory.
func (c *compiler) cgroupMount(i int) {
	p := c.mountPlans[i]
	origin := mountOrigin(i)
	take := func() int32 {
		s := c.cgroupSlots[0]
		c.cgroupSlots = c.cgroupSlots[1:]
		return s
	}
	// The flags of the shared superblock are the host's business.
	p.opts.superblock = nil
	if len(c.facts.Cgroup.V1) == 0 && c.create&unix.CLONE_NEWCGROUP == 0 {
		op := c.data(KindAttach, origin, p.dest)
		op.Flags = FlagReal
		op.Slot = take()
		c.attr(op, &p.opts)
		return
	}
	if len(c.facts.Cgroup.V1) == 0 {
		op := c.data(KindMount, origin, "cgroup2", "cgroup", "", p.dest)
		op.Flags = FlagReal
		op.Data[2].List = p.opts.data
		c.attr(op, &p.opts)
		if len(c.cgroupSlots) > 0 {
			op.Flags |= FlagElse
			alt := c.data(KindAttach, origin, p.dest)
			alt.Flags = FlagReal
			alt.Slot = take()
			c.attr(alt, &p.opts)
		}
		return
	}
	ro := p.opts.set & unix.MOUNT_ATTR_RDONLY
	top := p.opts
	top.set &^= unix.MOUNT_ATTR_RDONLY
	op := c.data(KindMount, origin, "tmpfs", "tmpfs", "", p.dest)
	op.Flags = FlagReal
	op.Data[2].List = []string{"mode=755"}
	if label := c.mountLabel("tmpfs"); label != "" {
		op.Data[2].List = append(op.Data[2].List, label)
	}
	c.attr(op, &top)
	op.Num[4], op.Num[5] = 0, 0
	op.Slot = c.slot()
	tmpfs := op.Slot
	for _, h := range c.facts.Cgroup.V1 {
		dest := path.Join(p.dest, h.Name)
		var m *Op
		if c.create&unix.CLONE_NEWCGROUP != 0 {
			m = c.data(KindMount, origin, "cgroup", "cgroup", "", dest)
			m.Data[2].List = h.Options
		} else {
			m = c.data(KindAttach, origin, dest)
			m.Slot = take()
		}
		m.Flags = FlagReal
		c.attr(m, &p.opts)
		m.Num[4], m.Num[5] = 0, 0
		for _, l := range h.Links {
			c.data(KindSymlink, origin, path.Join(p.dest, l), h.Name)
		}
	}
	if ro != 0 || p.opts.propagation != 0 {
		late := c.num(KindSetattr, origin, ro)
		late.Slot = tmpfs
		late.Num[4] = p.opts.propagation
		if p.opts.rpropagation {
			late.Num[5] = 1
		}
	}
}

// masks compiles maskedPaths. The null device that covers files is the host's,
// cloned before the root file system was entered (S10).
func (c *compiler) masks() {
	if len(c.linux.MaskedPaths) == 0 {
		return
	}
	empty := c.op(KindEmptyDir, "/linux/maskedPaths")
	empty.Slot = c.slot()
	empty.Data[0].String = c.mountLabel("tmpfs")
	dir := empty.Slot
	seen := map[string]bool{}
	for i, p := range c.linux.MaskedPaths {
		if seen[p] {
			continue
		}
		seen[p] = true
		op := c.data(KindMask, "/linux/maskedPaths/"+strconv.Itoa(i), p)
		op.Slot = c.null
		op.Num[0] = uint64(dir)
	}
}
