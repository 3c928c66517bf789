package plan

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// origin of what the runtime adds by itself.
const byRuntime = "runtime"

// Compile turns a validated spec into the plan that creates its container. It
// does no system call. The spec is not changed. Errors name a JSON pointer.
// Warnings are for the log.
func Compile(spec *specs.Spec, facts *Facts) (*Plan, []string, error) {
	c := &compiler{spec: spec, facts: facts, lastCap: facts.LastCap}
	if c.lastCap == 0 {
		c.lastCap = len(capNames) - 1
	}
	c.plan.Ops = make([]Op, 0, 128)
	if spec.Linux == nil {
		c.linux = &specs.Linux{}
	} else {
		c.linux = spec.Linux
	}
	for _, step := range [...]func(){c.namespaces, c.early, c.enter, c.rootfs, c.afterMaps, c.mounts, c.createContainerHooks, c.confine, c.process, c.late} {
		if step(); c.err != nil {
			return nil, nil, c.err
		}
	}
	return &c.plan, c.warnings, nil
}

// compiler holds a plan in the making.
type compiler struct {
	spec     *specs.Spec
	linux    *specs.Linux
	facts    *Facts
	plan     Plan
	warnings []string
	err      error
	lastCap  int
	sheds    bool // of exec: capabilities go before the fork

	create, join uint64            // CLONE_NEW* types
	unshared     uint64            // of create, those that the first process makes
	receive      int               // index of KindReceive
	paths        map[uint64]nsPath // of join
	slots        int32
	lateReadonly []Op // setattr of file systems that must be writable until all is made

	mountPlans  []mountPlan
	cgroupSlots []int32  // sources of mounts of type cgroup, in order
	nodes       []device // to make in /dev and elsewhere
	null        int32    // slot of the host's null device
	notify      int32    // slot of the notify directory
	devBound    bool     // /dev is a bind mount: its content is not ours
	procMounted bool

	env []string // of the process
}

type nsPath struct {
	path, origin string
}

// nsTypes are the namespaces of the spec with their CLONE_NEW* flags, in the
// order in which they are joined: pid last, as it takes effect with the fork.
var nsTypes = [...]struct {
	name specs.LinuxNamespaceType
	flag uint64
	proc string // its name under /proc/PID/ns
}{
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.TimeNamespace, unix.CLONE_NEWTIME, "time"},
	{specs.UserNamespace, unix.CLONE_NEWUSER, "user"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
}

// NamespaceFlag returns the CLONE_NEW* flag of a namespace type of the spec, 0
// for an unknown one.
func NamespaceFlag(t specs.LinuxNamespaceType) uint64 {
	for i := range nsTypes {
		if nsTypes[i].name == t {
			return nsTypes[i].flag
		}
	}
	return 0
}

// NamespaceTypes lists the types of namespaces.
func NamespaceTypes() []specs.LinuxNamespaceType {
	list := make([]specs.LinuxNamespaceType, len(nsTypes))
	for i := range nsTypes {
		list[i] = nsTypes[i].name
	}
	return list
}

// namespaceName returns the spec's name for a CLONE_NEW* flag.
func namespaceName(flag uint64) string {
	for i := range nsTypes {
		if nsTypes[i].flag == flag {
			return string(nsTypes[i].name)
		}
	}
	return "0x" + strconv.FormatUint(flag, 16)
}

func (c *compiler) fail(pointer, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("config.json: %s: %w", pointer, fmt.Errorf(format, args...))
	}
}

func (c *compiler) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// op appends an operation that takes neither descriptor nor slot.
func (c *compiler) op(kind Kind, origin string) *Op {
	c.plan.Ops = append(c.plan.Ops, Op{Kind: kind, FD: -1, Slot: -1, Origin: origin})
	return &c.plan.Ops[len(c.plan.Ops)-1]
}

func (c *compiler) data(kind Kind, origin string, data ...string) *Op {
	op := c.op(kind, origin)
	for i, d := range data {
		op.Data[i].String = d
	}
	return op
}

func (c *compiler) num(kind Kind, origin string, num ...uint64) *Op {
	op := c.op(kind, origin)
	copy(op.Num[:], num)
	return op
}

func (c *compiler) file(f File) int32 {
	c.plan.Files = append(c.plan.Files, f)
	return int32(len(c.plan.Files) - 1)
}

func (c *compiler) slot() int32 {
	c.slots++
	return c.slots - 1
}

// namespaces sorts the namespaces into those created and those joined.
func (c *compiler) namespaces() {
	c.paths = map[uint64]nsPath{}
	for i, ns := range c.linux.Namespaces {
		origin := "/linux/namespaces/" + strconv.Itoa(i)
		flag := NamespaceFlag(ns.Type)
		if flag == 0 {
			c.fail(origin+"/type", "%q: unknown namespace type", ns.Type)
			return
		}
		if ns.Path == "" {
			c.create |= flag
		} else {
			c.join |= flag
			c.paths[flag] = nsPath{ns.Path, origin}
		}
	}
	if len(c.linux.TimeOffsets) > 0 && c.create&unix.CLONE_NEWTIME == 0 {
		c.fail("/linux/timeOffsets", "there is no new time namespace")
	}
}

func (c *compiler) userNamespace() bool { return (c.create|c.join)&unix.CLONE_NEWUSER != 0 }
func (c *compiler) mountNamespace() bool {
	return (c.create|c.join)&unix.CLONE_NEWNS != 0
}

// forkFlags are the namespaces that clone3 can make. Those of the cgroup come
// once the cgroup is entered, and time needs its offsets first.
const notByFork = unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME

// Ahead is what the stage unshares (KindUnshare, CLONE_NEW* types) first of all: nothing else in the plan has to come
// before it, so it may begin with that while the plan is still being made.
func Ahead(l *specs.Linux) (flags uint64) {
	if l == nil {
		return 0
	}
	for i := range l.Namespaces {
		switch ns := &l.Namespaces[i]; ns.Type {
		case specs.UserNamespace:
			return 0
		case specs.NetworkNamespace:
			if ns.Path == "" {
				flags = unix.CLONE_NEWNET
			}
		}
	}
	return flags
}

// early compiles what the stage does while its parent makes the container's cgroup
// and fifos: the network namespace, which takes the kernel longer than all
// others together. In a user namespace it must belong to that, so it comes later.
func (c *compiler) early() {
	c.raise()
	if c.unshared = Ahead(c.linux); c.unshared != 0 {
		c.num(KindUnshare, "/linux/namespaces", c.unshared)
	}
	c.receive = len(c.plan.Ops)
	c.op(KindReceive, byRuntime)
}

// late completes KindReceive, once all files are known.
func (c *compiler) late() {
	var list []byte
	for i := range c.plan.Files {
		f := &c.plan.Files[i]
		switch f.Role {
		case FileClone:
			f.Late = c.madeLate(f.Path)
		case FileCgroup, FileTasks, FileGate, FileResult, FileRdt:
			f.Late = true
		}
		if f.Late {
			list = binary.NativeEndian.AppendUint32(list, uint32(i))
		}
	}
	if len(list)/4 > MaxReceive {
		c.fail("/linux/cgroupsPath", "this host has %d cgroup hierarchies, more than %d", len(c.facts.Cgroup.Tasks), MaxReceive-3)
	}
	c.plan.Ops[c.receive].Data[0].String = string(list)
	c.receiveEarly(0)
}

// receiveEarly inserts KindReceive for the files that are not late at index at.
func (c *compiler) receiveEarly(at int) {
	var ops []Op
	var list []byte
	flush := func() {
		if len(list) > 0 {
			ops = append(ops, Op{Kind: KindReceive, FD: -1, Slot: -1, Origin: byRuntime})
			ops[len(ops)-1].Data[0].String = string(list)
			list = nil
		}
	}
	for i := range c.plan.Files {
		if c.plan.Files[i].Late {
			continue
		}
		if list = binary.NativeEndian.AppendUint32(list, uint32(i)); len(list) == 4*MaxReceive {
			flush()
		}
	}
	flush()
	c.plan.Ops = slices.Insert(c.plan.Ops, at, ops...)
}

// madeLate says whether a mount source is made only for this container, while the
// stage starts: its own cgroup, its directory for readiness messages.
func (c *compiler) madeLate(source string) bool {
	if source == c.facts.NotifyDir || source == c.facts.Cgroup.Path && source != c.facts.Cgroup.Mount {
		return true
	}
	for i := range c.facts.Cgroup.V1 {
		if source == c.facts.Cgroup.V1[i].Path {
			return true
		}
	}
	return false
}

// enter compiles the first process, and the second one up to the root file
// system: host credentials, cgroup, namespaces.
func (c *compiler) enter() {
	c.enterCgroup()
	userLast := c.join&unix.CLONE_NEWUSER != 0
	for _, again := range []bool{false, true} {
		for i := range nsTypes {
			t := &nsTypes[i]
			if c.join&t.flag == 0 || t.flag == unix.CLONE_NEWCGROUP {
				continue
			}
			if again && (!userLast || t.flag == unix.CLONE_NEWUSER) {
				continue
			}
			c.joinOp(t.flag, again, userLast && t.flag != unix.CLONE_NEWUSER)
		}
	}
	c.shed()
	fork := c.num(KindFork, "/linux/namespaces", c.create&^(notByFork|c.unshared))
	if c.facts.Cgroup.Into {
		fork.FD = c.file(File{Role: FileCgroup})
	}
	if c.unshared&unix.CLONE_NEWNET != 0 {
		c.op(KindLoopback, byRuntime).Flags |= FlagFirst
	}
	if c.join&unix.CLONE_NEWCGROUP != 0 {
		c.joinOp(unix.CLONE_NEWCGROUP, false, false)
		c.shedRest()
	}
}

func (c *compiler) enterCgroup() {
	for _, h := range c.facts.Cgroup.Tasks {
		op := c.op(KindTasks, "/linux/cgroupsPath")
		op.FD = c.file(File{Role: FileTasks, Path: h})
	}
	for _, file := range c.facts.Rdt {
		op := c.op(KindTasks, "/linux/intelRdt")
		op.FD = c.file(File{Role: FileRdt, Path: file})
	}
}

func (c *compiler) joinOp(flag uint64, again, try bool) {
	p := c.paths[flag]
	op := c.num(KindJoin, p.origin, flag)
	if again {
		op.Flags |= FlagAgain
		for i, f := range c.plan.Files {
			if f.Role == FileNamespace && f.Type == flag {
				op.FD = int32(i)
			}
		}
		return
	}
	if try {
		op.Flags |= FlagTry
	}
	op.FD = c.file(File{Role: FileNamespace, Path: p.path, Type: flag})
}

// keyringPermissions are what a new session keyring has (everything for who
// possesses it; view, read and link for its user), and search for its user: so
// that exec finds the container's.
const keyringPermissions = 0x3f<<24 | 0x1b<<16

// afterMaps compiles what has to wait for the user namespace's maps.
func (c *compiler) afterMaps() {
	if c.create&unix.CLONE_NEWUSER != 0 {
		c.num(KindAwait, "/linux/uidMappings", MsgMaps)
	}
	// Before a change of ids could hide the process from a parent that is not root.
	if c.create&unix.CLONE_NEWTIME != 0 {
		c.op(KindTimens, "/linux/timeOffsets")
	}
	if c.userNamespace() {
		c.op(KindSetroot, "/linux/namespaces")
	}
	if c.create&unix.CLONE_NEWCGROUP != 0 {
		c.num(KindUnshare, "/linux/namespaces", unix.CLONE_NEWCGROUP)
	}
	c.num(KindDumpable, byRuntime, 0)
	c.keyring(keyringPermissions)
	c.op(KindSetsid, byRuntime)
	if c.create&^c.unshared&unix.CLONE_NEWNET != 0 {
		c.op(KindLoopback, byRuntime)
	}
}

// rootfs compiles the root file system, and every mount source: they are cloned
// before the first target is touched, so that no mount can redirect a later
// one's source (security list, S7).
func (c *compiler) rootfs() {
	prop, _, ok := rootfsPropagation(c.linux.RootfsPropagation)
	if !ok {
		c.fail("/linux/rootfsPropagation", "%q: unknown propagation; accepted: \"shared\", \"slave\", \"private\", \"unbindable\" and these with an \"r\" before", c.linux.RootfsPropagation)
		return
	}
	if prop == unix.MS_PRIVATE && c.facts.NoPivot {
		c.fail("/linux/rootfsPropagation", "\"private\" cannot go with --no-pivot")
		return
	}
	shared := prop == unix.MS_SHARED
	if c.mountNamespace() && !shared {
		// Whatever is asked for, nothing mounted from here on may reach the host, also from a joined
		// namespace, which may be a peer of the host's.
		p := uint64(unix.MS_SLAVE)
		if prop == unix.MS_PRIVATE {
			p = unix.MS_PRIVATE
		}
		c.num(KindPropagate, byRuntime, p, 1).Data[0].String = "/"
	}
	root := c.slot()
	clone := c.num(KindClone, "/root/path", 1)
	clone.Slot = root
	clone.Data[0].String = c.facts.Rootfs
	c.clones()
	attach := c.data(KindRoot, "/root/path", c.facts.Rootfs)
	attach.Slot = root
	if shared || !c.mountNamespace() {
		// The clone of a mount that is shared is its peer: what the container
		// mounts would appear on the host, and pivot_root(2) refuses such a root.
		attach.Num[5] = unix.MS_PRIVATE
	}
	if shared && c.mountNamespace() {
		// It also refuses a root whose parent is shared.
		attach.Num[4] = unix.MS_PRIVATE
	}
}

func rootfsPropagation(s string) (flag uint64, recursive, ok bool) {
	if s == "" {
		return 0, false, true
	}
	for i := range propagationOptions {
		p := &propagationOptions[i]
		if s == p.name {
			return p.flag, false, true
		}
		if s == "r"+p.name {
			return p.flag, true, true
		}
	}
	return 0, false, false
}

// confine compiles what follows the mounts up to the process: the change of root
// and what makes the finished tree smaller.
func (c *compiler) confine() {
	prop, recursive, _ := rootfsPropagation(c.linux.RootfsPropagation)
	origin := "/linux/rootfsPropagation"
	switch {
	case !c.mountNamespace():
		c.op(KindChroot, byRuntime)
	case c.facts.NoPivot:
		c.op(KindMoveroot, byRuntime)
	default:
		op := c.op(KindPivot, byRuntime)
		if prop == unix.MS_SHARED {
			op.Num[0] = 1
		}
	}
	propagate := func() {
		r := uint64(0)
		if recursive {
			r = 1
		}
		c.num(KindPropagate, origin, prop, r).Data[0].String = "/"
	}
	if c.mountNamespace() && prop == unix.MS_SHARED {
		propagate()
	}
	if c.spec.Hostname != "" {
		c.data(KindHostname, "/hostname", c.spec.Hostname)
	}
	if c.spec.Domainname != "" {
		c.data(KindDomainname, "/domainname", c.spec.Domainname)
	}
	c.sysctl()
	if p := c.spec.Process; p != nil {
		if p.Terminal {
			c.console(p, FlagBind)
		} else {
			c.num(KindStdio, byRuntime, uint64(p.User.UID))
		}
		if p.Cwd != "/" {
			// It may have to be made, and that must be before the root turns
			// read-only; the one that counts comes after the masks.
			c.cwd(p.Cwd, FlagCreate|FlagTry)
		}
	}
	c.plan.Ops = append(c.plan.Ops, c.lateReadonly...)
	if c.spec.Root.Readonly {
		c.num(KindRootattr, "/root/readonly", unix.MOUNT_ATTR_RDONLY)
	}
	for i, p := range c.linux.ReadonlyPaths {
		c.data(KindReadonly, "/linux/readonlyPaths/"+strconv.Itoa(i), p)
	}
	c.masks()
	if c.mountNamespace() && prop == unix.MS_UNBINDABLE {
		propagate() // last, for the read-only paths are bind mounts
	}
}

// NamespaceFile returns the name under /proc/PID/ns of a namespace type of the
// spec, "" for an unknown one.
func NamespaceFile(t specs.LinuxNamespaceType) string {
	for i := range nsTypes {
		if nsTypes[i].name == t {
			return nsTypes[i].proc
		}
	}
	return ""
}

// NamespaceType is the inverse of NamespaceFile.
func NamespaceType(file string) specs.LinuxNamespaceType {
	for i := range nsTypes {
		if nsTypes[i].proc == file {
			return nsTypes[i].name
		}
	}
	return ""
}
