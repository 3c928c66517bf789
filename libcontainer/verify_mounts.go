package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"rt/libcontainer/mounts"
	"rt/libcontainer/plan"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// covering is what a plan mounts at one place.
type covering struct {
	target string
	kind   plan.Kind
	origin string
	// One of these says what it is: a new file system of a type, a part of the host's, or, with neither, what
	// was there before.
	fstype string
	part   *mounts.Part
	attr   uint64 // MOUNT_ATTR_* that it has at least
	// either: the next one may stand in for it, or it for the one before.
	either bool

	point string // where that is, without links; "" if there is nothing
}

// coverings lists what a plan mounts, in its order, the root file system first. host are the mounts of the host.
func coverings(p *plan.Plan, rootfs string, host mounts.Tree) ([]*covering, error) {
	root, err := host.Parts(rootfs, "/", false)
	if err != nil {
		return nil, err
	}
	list := []*covering{{target: "/", kind: plan.KindRoot, origin: "/root/path", part: &root[0]}}
	sources, slots := map[int32]*plan.Op{}, map[int32]*covering{}
	last := func(target string) *covering {
		for _, c := range slices.Backward(list) {
			if c.target == target {
				return c
			}
		}
		return nil
	}
	orElse := false
	for i := range p.Ops {
		op := &p.Ops[i]
		c := &covering{kind: op.Kind, origin: op.Origin, either: orElse || op.Flags&plan.FlagElse != 0}
		was := orElse
		orElse = false
		switch op.Kind {
		case plan.KindClone:
			sources[op.Slot] = op
			orElse = was
		case plan.KindMount, plan.KindMountOld:
			c.target, c.fstype, c.attr = clean(op.Data[3].String), op.Data[0].String, op.Num[0]|op.Num[2]
			slots[op.Slot] = c
			list = append(list, c)
			orElse = op.Flags&plan.FlagElse != 0
		case plan.KindAttach:
			c.target = clean(op.Data[0].String)
			s := sources[op.Slot]
			if s == nil {
				continue
			}
			parts, err := host.Parts(s.Data[0].String, c.target, s.Num[0] == 1)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for i := range parts {
				below := *c
				below.target, below.part, below.attr = parts[i].Target, &parts[i], op.Num[2]
				if i == 0 {
					below.attr |= op.Num[0]
				}
				list = append(list, &below)
			}
		case plan.KindMask:
			parts, err := host.Parts("/dev/null", op.Data[0].String, false)
			if err != nil {
				return nil, err
			}
			c.target, c.part = clean(op.Data[0].String), &parts[0]
			list = append(list, c)
		case plan.KindReadonly:
			c.target, c.attr = clean(op.Data[0].String), unix.MOUNT_ATTR_RDONLY
			list = append(list, c)
		case plan.KindRemount:
			if c := last(clean(op.Data[0].String)); c != nil {
				c.attr = c.attr&^op.Num[1] | op.Num[0]
			}
		case plan.KindSetattr:
			if c := slots[op.Slot]; c != nil {
				c.attr |= op.Num[0]
			}
		case plan.KindRootattr:
			list[0].attr |= op.Num[0]
		}
	}
	return list, nil
}

func clean(target string) string { return path.Clean("/" + target) }

// verifyMounts checks that all that the config mounts, covers and makes read-only is so, and that
// nothing else is mounted by which a process could reach more.
func (r *restoration) verifyMounts(c *creation) error {
	host, err := mounts.Read(0)
	if err != nil {
		return err
	}
	list, err := coverings(r.plan, c.facts.Rootfs, host)
	if err != nil {
		return err
	}
	return inMountNamespace(r.init, func(proc int) error {
		inside, err := mounts.ReadAt(proc, "thread-self/mountinfo")
		if err != nil {
			return err
		}
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open root of the container: %w", err)
		}
		defer unix.Close(root)
		r.mounts = inside
		v := verification{inside: inside, host: host, list: list, root: root, proc: proc, cgroups: r.cgroups.Paths(), free: r.mayMount(c)}
		return v.run()
	})
}

// inMountNamespace calls f in a thread that has entered the mount namespace of a process, whose root is that of the namespace:
// a process may have made another directory its own, and would not show what is mounted elsewhere. proc is the host's /proc.
func inMountNamespace(pid int, f func(proc int) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		done <- func() error {
			proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open /proc: %w", err)
			}
			defer unix.Close(proc)
			ns, err := unix.Openat(proc, strconv.Itoa(pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open mount namespace of process %d: %w", pid, err)
			}
			defer unix.Close(ns)
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare the root of a thread: %w", err)
			}
			if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter mount namespace of process %d: %w", pid, err)
			}
			return f(proc)
		}()
	}()
	return <-done
}

// verification is a look at the mounts of a container, from inside of its mount namespace.
type verification struct {
	inside, host mounts.Tree
	list         []*covering
	root, proc   int      // descriptors
	cgroups      []string // those of the container
	free         bool     // its processes may mount what they like
}

func (v *verification) run() error {
	for i, c := range v.list {
		if err := v.find(c); err != nil {
			return fmt.Errorf("%s: %w", c.origin, err)
		}
		if c.point == "" {
			continue
		}
		// CRIU need not restore what is covered by a later one, itself or with what it lies on.
		covered := slices.ContainsFunc(v.list[i+1:], func(o *covering) bool {
			return o.target == c.target || o.kind != plan.KindReadonly && strings.HasPrefix(c.target, o.target+"/")
		})
		if covered {
			continue
		}
		if err := v.there(c); err != nil {
			return fmt.Errorf("%s: %w", c.origin, err)
		}
	}
	for _, m := range v.inside {
		if !v.expected(m) {
			return fmt.Errorf("/mounts: %s of type %s is mounted at %q besides", path.Join(m.Source, m.Root), m.FSType, m.Mountpoint)
		}
	}
	return nil
}

// find finds out where the target of c is.
func (v *verification) find(c *covering) error {
	fd, err := mounts.OpenInRoot(v.root, c.target)
	if err == unix.ENOENT && (c.kind == plan.KindMask || c.kind == plan.KindReadonly) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", c.target, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(v.proc, "thread-self/fd/"+strconv.Itoa(fd), buf)
	if err != nil || n == len(buf) {
		return fmt.Errorf("%q: find out where that is: %w", c.target, errors.Join(err, os.ErrInvalid))
	}
	c.point = string(buf[:n])
	return nil
}

// there checks that c is there, on top of its target.
func (v *verification) there(c *covering) error {
	top, err := v.inside.LookIn(v.root, c.target)
	if err != nil {
		return err
	}
	readonly := false
	if top != nil && top.Mountpoint == c.point && v.is(top, c) {
		missing := c.attr & confining &^ attributes(top)
		if missing == 0 {
			return nil
		}
		readonly = missing&unix.MOUNT_ATTR_RDONLY != 0
	}
	switch {
	case c.either:
		// The other one is looked for too, and whatever is there must be one of both.
		return nil
	case readonly:
		return fmt.Errorf("%q is writable", c.target)
	case c.kind == plan.KindMask:
		return fmt.Errorf("%q is not masked", c.target)
	case c.kind == plan.KindReadonly && (top == nil || attributes(top)&unix.MOUNT_ATTR_RDONLY == 0):
		return fmt.Errorf("%q is writable", c.target)
	case top == nil:
		return fmt.Errorf("%q: nothing is mounted there", c.target)
	}
	return fmt.Errorf("%q: %s of type %s with %s is mounted there", c.target, path.Join(top.Source, top.Root), top.FSType, top.Options)
}

// attributes are those of a mount that take something away.
func attributes(m *mountinfo.Info) (attr uint64) {
	for o := range strings.SplitSeq(m.Options, ",") {
		switch o {
		case "ro":
			attr |= unix.MOUNT_ATTR_RDONLY
		case "nosuid":
			attr |= unix.MOUNT_ATTR_NOSUID
		case "nodev":
			attr |= unix.MOUNT_ATTR_NODEV
		case "noexec":
			attr |= unix.MOUNT_ATTR_NOEXEC
		}
	}
	return attr
}

// confining are the attributes that are looked at.
const confining = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// is says whether m is what c mounts.
func (v *verification) is(m *mountinfo.Info, c *covering) bool {
	switch {
	case c.kind == plan.KindMask:
		return mounts.OriginOf(m) == c.part.Origin ||
			m.FSType == "tmpfs" && attributes(m)&unix.MOUNT_ATTR_RDONLY != 0 && !v.host.Has(mounts.OriginOf(m))
	case c.part != nil:
		return mounts.OriginOf(m) == c.part.Origin
	case c.fstype == "cgroup" || c.fstype == "cgroup2":
		return m.FSType == c.fstype && slices.Contains(v.cgroups, m.Root)
	case c.fstype != "":
		return m.FSType == c.fstype && m.Root == "/"
	}
	// Bound on itself.
	below := v.inside.ByID(uint64(m.Parent))
	return below != nil && mounts.OriginOf(m) == (mounts.Origin{
		Major: below.Major, Minor: below.Minor,
		Root: path.Join(below.Root, strings.TrimPrefix(m.Mountpoint, strings.TrimSuffix(below.Mountpoint, "/"))),
	})
}

// expected says whether a mount is one that the plan makes, or gives nothing that the container has not otherwise.
func (v *verification) expected(m *mountinfo.Info) bool {
	for _, c := range v.list {
		if c.point == m.Mountpoint && v.is(m, c) {
			return true
		}
	}
	o := mounts.OriginOf(m)
	switch m.FSType {
	case "tmpfs", "devpts":
		if !v.host.Has(o) {
			return true
		}
	case "proc", "sysfs", "mqueue", "cgroup", "cgroup2":
		return v.free
	}
	return v.free && slices.ContainsFunc(v.list, func(c *covering) bool { return c.part != nil && c.part.Holds(o) })
}
