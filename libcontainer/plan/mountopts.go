package plan

import (
	"strings"

	"golang.org/x/sys/unix"
)

// mountOptions is what the options of one mount ask for.
type mountOptions struct {
	set, clear   uint64 // MOUNT_ATTR_*
	rset, rclear uint64 // MOUNT_ATTR_*, recursively
	propagation  uint64 // MS_SHARED ..., 0 for none
	rpropagation bool
	bind         bool
	recursive    bool // rbind
	remount      bool
	ro           bool
	iversion     bool
	copyUp       bool
	idmap        bool
	ridmap       bool     // with all mounts below
	superblock   []string // flags of the file system: ro, sync, dirsync, mand, lazytime
	data         []string // options of the file system, in order
}

// attrOptions are the options that set or clear one mount attribute; with an "r"
// in front they do so recursively (rt_ro is "rro").
var attrOptions = [...]struct {
	name  string
	attr  uint64
	clear bool
}{
	{"ro", unix.MOUNT_ATTR_RDONLY, false}, {"rw", unix.MOUNT_ATTR_RDONLY, true},
	{"nosuid", unix.MOUNT_ATTR_NOSUID, false}, {"suid", unix.MOUNT_ATTR_NOSUID, true},
	{"nodev", unix.MOUNT_ATTR_NODEV, false}, {"dev", unix.MOUNT_ATTR_NODEV, true},
	{"noexec", unix.MOUNT_ATTR_NOEXEC, false}, {"exec", unix.MOUNT_ATTR_NOEXEC, true},
	{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, false}, {"diratime", unix.MOUNT_ATTR_NODIRATIME, true},
	{"nosymfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, false}, {"symfollow", unix.MOUNT_ATTR_NOSYMFOLLOW, true},
	{"relatime", unix.MOUNT_ATTR_RELATIME, false}, {"norelatime", unix.MOUNT_ATTR_RELATIME, true},
	{"noatime", unix.MOUNT_ATTR_NOATIME, false}, {"atime", unix.MOUNT_ATTR_NOATIME, true},
	{"strictatime", unix.MOUNT_ATTR_STRICTATIME, false}, {"nostrictatime", unix.MOUNT_ATTR_STRICTATIME, true},
}

// superOptions are the options of the file system that are flags of mount(2).
var superOptions = [...]struct {
	name string
	flag string
	on   bool
}{
	{"sync", "sync", true}, {"async", "sync", false}, {"dirsync", "dirsync", true},
	{"mand", "mand", true}, {"nomand", "mand", false},
	{"lazytime", "lazytime", true}, {"nolazytime", "lazytime", false},
}

var propagationOptions = [...]struct {
	name string
	flag uint64
}{
	{"shared", unix.MS_SHARED}, {"slave", unix.MS_SLAVE}, {"private", unix.MS_PRIVATE}, {"unbindable", unix.MS_UNBINDABLE},
}

// MountOptions lists every mount option that rt knows, sorted; anything else is
// data for the file system.
func MountOptions() []string {
	l := []string{"bind", "defaults", "idmap", "iversion", "loud", "noiversion", "rbind", "remount", "ridmap", "silent", "tmpcopyup"}
	for _, o := range attrOptions {
		l = append(l, o.name, "r"+o.name)
	}
	for _, o := range superOptions {
		l = append(l, o.name)
	}
	for _, o := range propagationOptions {
		l = append(l, o.name, "r"+o.name)
	}
	sortStrings(l)
	return l
}

func sortStrings(l []string) {
	for i := 1; i < len(l); i++ {
		for j := i; j > 0 && l[j] < l[j-1]; j-- {
			l[j], l[j-1] = l[j-1], l[j]
		}
	}
}

// parseMountOptions reads options in order; of contradictory ones the last wins.
func parseMountOptions(options []string) mountOptions {
	var m mountOptions
	for _, o := range options {
		m.add(o)
	}
	if m.ro && !m.bind {
		m.superblock = append(m.superblock, "ro")
	}
	return m
}

func (m *mountOptions) add(o string) {
	switch o {
	case "", "defaults", "loud", "silent":
		// MS_SILENT only quiets the kernel log of some file systems.
		return
	case "bind":
		m.bind = true
		return
	case "rbind":
		m.bind, m.recursive = true, true
		return
	case "remount":
		m.remount = true
		return
	case "tmpcopyup":
		m.copyUp = true
		return
	case "idmap", "ridmap":
		m.idmap, m.ridmap = true, o == "ridmap"
		return
	case "iversion":
		m.iversion = true
		return
	case "noiversion":
		m.iversion = false
		return
	}
	for i := range attrOptions {
		a := &attrOptions[i]
		if a.name == o {
			apply(&m.set, &m.clear, a.attr, a.clear, a.name)
			if a.attr == unix.MOUNT_ATTR_RDONLY {
				m.ro = !a.clear
			}
			return
		}
	}
	for i := range superOptions {
		if s := &superOptions[i]; s.name == o {
			m.superblock = remove(m.superblock, s.flag)
			if s.on {
				m.superblock = append(m.superblock, s.flag)
			}
			return
		}
	}
	for i := range propagationOptions {
		p := &propagationOptions[i]
		if p.name == o || len(o) > 1 && o[0] == 'r' && o[1:] == p.name {
			m.propagation, m.rpropagation = p.flag, o[0] == 'r'
			return
		}
	}
	if o[0] == 'r' {
		for i := range attrOptions {
			if a := &attrOptions[i]; a.name == o[1:] {
				apply(&m.rset, &m.rclear, a.attr, a.clear, a.name)
				return
			}
		}
	}
	m.data = append(m.data, o)
}

// apply sets or clears attr in a pair of masks. The access time settings are
// one field of the kernel's (MOUNT_ATTR__ATIME), which has to be cleared as a whole.
func apply(set, clear *uint64, attr uint64, off bool, name string) {
	if strings.HasSuffix(name, "atime") && attr != unix.MOUNT_ATTR_NODIRATIME {
		if off {
			// atime, nostrictatime and norelatime only take back their opposite.
			if *set&unix.MOUNT_ATTR__ATIME == attr {
				*set &^= unix.MOUNT_ATTR__ATIME
			}
			if attr != unix.MOUNT_ATTR_RELATIME {
				*clear |= unix.MOUNT_ATTR__ATIME
			}
			return
		}
		*set = *set&^unix.MOUNT_ATTR__ATIME | attr
		*clear |= unix.MOUNT_ATTR__ATIME
		return
	}
	if off {
		*set &^= attr
		*clear |= attr
		return
	}
	*set |= attr
	*clear &^= attr
}

func remove(l []string, s string) []string {
	out := l[:0]
	for _, x := range l {
		if x != s {
			out = append(out, x)
		}
	}
	return out
}

// fsOptions is the option list for fsconfig(2): the file system's flags first.
func (m *mountOptions) fsOptions() []string {
	if len(m.superblock) == 0 {
		return m.data
	}
	return append(append([]string(nil), m.superblock...), m.data...)
}
