package bundle

import (
	"math"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// namespaceSet is the namespaces of a container.
type namespaceSet struct {
	byType [8]*specs.LinuxNamespace // nil: inherited
	// unclear is set when the list has a problem of its own; what is said to
	// be missing from it then would only be noise.
	unclear bool
}

// namespaceIndex is the place of a type in a namespaceSet, -1 if it is unknown.
func namespaceIndex(t specs.LinuxNamespaceType) int {
	switch t {
	case specs.PIDNamespace:
		return 0
	case specs.NetworkNamespace:
		return 1
	case specs.MountNamespace:
		return 2
	case specs.IPCNamespace:
		return 3
	case specs.UTSNamespace:
		return 4
	case specs.UserNamespace:
		return 5
	case specs.CgroupNamespace:
		return 6
	case specs.TimeNamespace:
		return 7
	}
	return -1
}

// listed tells whether the container has a namespace of type t other than by
// inheritance.
func (n namespaceSet) listed(t specs.LinuxNamespaceType) bool {
	return n.unclear || n.byType[namespaceIndex(t)] != nil
}

// created tells whether the container gets a new namespace of type t.
func (n namespaceSet) created(t specs.LinuxNamespaceType) bool {
	ns := n.byType[namespaceIndex(t)]
	return n.unclear || ns != nil && ns.Path == ""
}

func (c *checker) namespaces(list []specs.LinuxNamespace) (n namespaceSet) {
	const pointer = "/linux/namespaces"
	for i := range list {
		ns := &list[i]
		j := namespaceIndex(ns.Type)
		switch {
		case ns.Type == "":
			c.bad(at(pointer, i, "type"), "", "must be specified")
		case j < 0:
			t := string(ns.Type)
			c.not(at(pointer, i, "type"), quote(t), "unknown namespace type", choices(t, []string{
				"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time",
			}))
		case n.byType[j] != nil:
			c.bad(at(pointer, i, "type"), quote(string(ns.Type)), "namespace is listed twice")
		default:
			n.byType[j] = ns
		}
		if ns.Path != "" && ns.Path[0] != '/' {
			c.not(at(pointer, i, "path"), quote(ns.Path), "not an absolute path", "a path that begins with /")
		} else if ns.Path != "" {
			c.text(at(pointer, i, "path"), ns.Path)
		}
	}
	for i := range c.problems {
		if p := c.problems[i].Pointer; p == "" || p == "/linux" || strings.HasPrefix(p, pointer) {
			n.unclear = true
		}
	}
	return n
}

// mappings checks the id maps. Those of a joined user namespace have to equal
// the ones it has, which only the host knows.
func (c *checker) mappings(p *specs.Process, l *specs.Linux, n namespaceSet) {
	const uids, gids = "/linux/uidMappings", "/linux/gidMappings"
	c.idMap(uids, l.UIDMappings)
	c.idMap(gids, l.GIDMappings)
	given := len(l.UIDMappings) > 0 || len(l.GIDMappings) > 0
	switch {
	case n.unclear:
		return
	case !n.listed(specs.UserNamespace):
		if given {
			c.warn("/linux", "", `uidMappings and gidMappings are ignored without a namespace of type "user"`)
		}
		return
	case !n.created(specs.UserNamespace):
		return
	}
	if len(l.UIDMappings) == 0 {
		c.bad(uids, "", "must be specified for a new user namespace")
	}
	if len(l.GIDMappings) == 0 {
		c.bad(gids, "", "must be specified for a new user namespace")
	}
	if p == nil || len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return
	}
	c.mapped("/process/user/uid", p.User.UID, l.UIDMappings, uids)
	c.mapped("/process/user/gid", p.User.GID, l.GIDMappings, gids)
	for i, gid := range p.User.AdditionalGids {
		if !contains(l.GIDMappings, gid) {
			c.mapped(at("/process/user/additionalGids", i), gid, l.GIDMappings, gids)
		}
	}
}

func (c *checker) mapped(pointer string, id uint32, m []specs.LinuxIDMapping, by string) {
	if !contains(m, id) {
		c.bad(pointer, number(id), "not mapped by "+by)
	}
}

func contains(m []specs.LinuxIDMapping, id uint32) bool {
	for i := range m {
		if id >= m[i].ContainerID && uint64(id) < uint64(m[i].ContainerID)+uint64(m[i].Size) {
			return true
		}
	}
	return false
}

// idMap checks what user_namespaces(7) demands of a map: no empty range, no
// overlap on either side, no range up to the id that is none.
func (c *checker) idMap(pointer string, m []specs.LinuxIDMapping) {
	if len(m) > maxMappings {
		c.not(pointer, "", number(len(m))+" entries", "up to "+number(maxMappings))
		return
	}
	for i := range m {
		e := &m[i]
		if e.Size == 0 {
			c.bad(at(pointer, i, "size"), "0", "must be positive")
			continue
		}
		if first := max(e.ContainerID, e.HostID); uint64(first)+uint64(e.Size) > noID {
			c.not(at(pointer, i, "size"), number(e.Size), "range goes beyond the largest id", "up to "+number(noID-first))
			continue
		}
		for j := range m[:i] {
			if overlap(e.ContainerID, e.Size, m[j].ContainerID, m[j].Size) || overlap(e.HostID, e.Size, m[j].HostID, m[j].Size) {
				c.bad(at(pointer, i), "", "overlaps entry "+number(j))
				break
			}
		}
	}
}

func overlap(a, sizeA, b, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// timeOffsets: time_namespaces(7).
func (c *checker) timeOffsets(offsets map[string]specs.LinuxTimeOffset, n namespaceSet) {
	const pointer = "/linux/timeOffsets"
	if len(offsets) > 0 && !n.created(specs.TimeNamespace) {
		c.bad(pointer, "", `cannot be set without a new namespace of type "time"`)
		return
	}
	const most = math.MaxInt64 / 1_000_000_000
	for clock, o := range offsets {
		switch {
		case clock != "monotonic" && clock != "boottime":
			c.not(at(pointer, clock), "", "unknown clock", `"monotonic", "boottime"`)
		case o.Secs < -most || o.Secs > most:
			c.not(at(pointer, clock, "secs"), number(o.Secs), "out of range", integers(-most, most))
		case o.Nanosecs >= 1_000_000_000:
			c.not(at(pointer, clock, "nanosecs"), number(o.Nanosecs), "out of range", integers(0, 999_999_999))
		}
	}
}
