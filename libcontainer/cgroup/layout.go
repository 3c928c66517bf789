// Package cgroup makes, limits, freezes, kills and removes the cgroup of a
// container, on cgroup v1, on v2 and on the hybrid of both.
package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mode is how cgroup file systems are laid out on this host.
type Mode string

const (
	V1     Mode = "v1"     // only v1 hierarchies are mounted
	Hybrid Mode = "hybrid" // v1 hierarchies, and cgroup2 beside them
	V2     Mode = "v2"     // only cgroup2 counts
)

// Hierarchy is one mounted cgroup hierarchy.
type Hierarchy struct {
	// Key is what /proc/self/cgroup calls it: "memory", "cpu,cpuacct",
	// "name=systemd", or "" for cgroup2. It is also the mount option that
	// selects it.
	Key string
	// Mountpoint is where rt sees it, Root the cgroup that is visible there.
	Mountpoint string
	Root       string
	// Own is rt's own cgroup, as /proc/self/cgroup tells it.
	Own string
}

// Controllers returns the controllers of a v1 hierarchy; a named one and
// cgroup2 give none.
func (h Hierarchy) Controllers() []string { return controllersOf(h.Key) }

func controllersOf(key string) []string {
	if key == "" {
		return nil
	}
	names := strings.Split(key, ",")
	return slices.DeleteFunc(names, func(s string) bool { return strings.HasPrefix(s, "name=") })
}

// own is rt's own cgroup relative to the mount point; "" is the mount's root.
// A cgroup that the mount does not show (it lies outside the mounted subtree,
// or above the root of rt's cgroup namespace) gives "" as well: the visible
// root is then all that rt can work below.
func (h Hierarchy) own() string {
	if hasDotDot(h.Own) || hasDotDot(h.Root) {
		return ""
	}
	own, root := path.Clean("/"+h.Own), path.Clean("/"+h.Root)
	if root == "/" {
		return own[1:]
	}
	if rest, ok := strings.CutPrefix(own, root+"/"); ok {
		return rest
	}
	return ""
}

func hasDotDot(p string) bool {
	for s := range strings.SplitSeq(p, "/") {
		if s == ".." {
			return true
		}
	}
	return false
}

// Layout is what rt must know of the host's cgroup mounts.
type Layout struct {
	Mode Mode
	// Hierarchies are the mounted ones, the v1 ones in the order of
	// /proc/self/cgroup, cgroup2 last. In mode V2 it is the only one.
	Hierarchies []Hierarchy
}

const defaultMount = "/sys/fs/cgroup"

// Detect finds the layout. It reads /proc/self/cgroup, and /proc/self/mountinfo
// unless cgroup2 is plainly at /sys/fs/cgroup: that file is long and slow to
// generate on a host with many mounts.
func Detect() (*Layout, error) {
	cgroups, err := readFile(unix.AT_FDCWD, "/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read /proc/self/cgroup: %w", err)
	}
	if plainV2() {
		own, err := parseCgroups(cgroups)
		if err != nil {
			return nil, err
		}
		for _, h := range own {
			if h.Key == "" {
				h.Mountpoint, h.Root = defaultMount, "/"
				return &Layout{Mode: V2, Hierarchies: []Hierarchy{h}}, nil
			}
		}
	}
	mounts, err := readFile(unix.AT_FDCWD, "/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read /proc/self/mountinfo: %w", err)
	}
	return parseLayout(cgroups, mounts)
}

// Inode numbers that the kernel gives to the root of every kernfs tree and to
// the initial cgroup namespace (include/linux/proc_ns.h).
const (
	kernfsRootIno     = 1
	cgroupInitNsInode = 0xEFFFFFFB
)

// plainV2 reports whether the whole cgroup2 tree is mounted at /sys/fs/cgroup and
// rt is in the initial cgroup namespace. Only then is the root that mountinfo
// would give known to be "/".
func plainV2() bool {
	var fs unix.Statfs_t
	if unix.Statfs(defaultMount, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return false
	}
	var st unix.Stat_t
	if unix.Stat(defaultMount, &st) != nil || st.Ino != kernfsRootIno {
		return false
	}
	return unix.Stat("/proc/self/ns/cgroup", &st) == nil && st.Ino == cgroupInitNsInode
}

// parseLayout combines the contents of /proc/self/cgroup and
// /proc/self/mountinfo.
func parseLayout(cgroups, mountinfo []byte) (*Layout, error) {
	hs, err := parseCgroups(cgroups)
	if err != nil {
		return nil, err
	}
	mounts := parseMounts(mountinfo)
	// cgroup2 at the usual place decides, whatever else is mounted below it.
	v2 := false
	for _, m := range mounts {
		if m.point == defaultMount {
			v2 = m.v2
		}
	}
	l := &Layout{}
	for _, h := range hs {
		if h.Key == "" || v2 {
			continue
		}
		if m := findMount(mounts, h); m != nil {
			h.Mountpoint, h.Root = m.point, m.root
			l.Hierarchies = append(l.Hierarchies, h)
		}
	}
	n := len(l.Hierarchies)
	for _, h := range hs {
		if h.Key != "" {
			continue
		}
		if m := findMount(mounts, h); m != nil {
			h.Mountpoint, h.Root = m.point, m.root
			l.Hierarchies = append(l.Hierarchies, h)
		}
		break
	}
	switch {
	case len(l.Hierarchies) == 0:
		return nil, errors.New("find cgroup mounts: neither cgroup nor cgroup2 is mounted")
	case n == 0:
		l.Mode = V2
	case n == len(l.Hierarchies):
		l.Mode = V1
	default:
		l.Mode = Hybrid
	}
	return l, nil
}

// parseCgroups parses lines of "ID:CONTROLLERS:PATH" (cgroups(7)).
func parseCgroups(b []byte) ([]Hierarchy, error) {
	var hs []Hierarchy
	for line := range bytes.Lines(b) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			continue
		}
		id, rest, ok := bytes.Cut(line, []byte(":"))
		key, own, ok2 := bytes.Cut(rest, []byte(":"))
		if !ok || !ok2 || len(id) == 0 || len(own) == 0 || own[0] != '/' {
			return nil, fmt.Errorf("parse /proc/self/cgroup: line %q is not ID:CONTROLLERS:PATH", line)
		}
		hs = append(hs, Hierarchy{Key: string(key), Own: string(own)})
	}
	return hs, nil
}

type mount struct {
	point, root string
	options     string // of the super block
	v2          bool
}

// parseMounts picks the cgroup mounts out of a mountinfo file (proc_pid_mountinfo(5)).
// Lines that it does not understand are no cgroup mounts.
func parseMounts(b []byte) []mount {
	var ms []mount
	for line := range bytes.Lines(b) {
		// Blanks inside a field are escaped, so this is found only where
		// the file system type stands.
		i := bytes.Index(line, []byte(" - cgroup"))
		if i < 0 {
			continue
		}
		front := strings.Fields(string(line[:i]))
		back := strings.Fields(string(line[i+3:]))
		if len(front) < 6 || len(back) < 3 || back[0] != "cgroup" && back[0] != "cgroup2" {
			continue
		}
		m := mount{
			root:    unescape(front[3]),
			point:   unescape(front[4]),
			options: back[2],
			v2:      back[0] == "cgroup2",
		}
		// One that is covered by this is seen by nobody.
		ms = slices.DeleteFunc(ms, func(below mount) bool { return below.point == m.point })
		ms = append(ms, m)
	}
	return ms
}

// findMount returns the mount to use for h: one below /sys/fs/cgroup rather than
// another, one that shows rt's own cgroup rather than one that does not, and
// then the first.
func findMount(ms []mount, h Hierarchy) *mount {
	var best *mount
	score := -1
	for i := range ms {
		m := &ms[i]
		if m.v2 != (h.Key == "") || !m.v2 && !hasOptions(m.options, h.Key) || !strings.HasPrefix(m.point, "/") {
			continue
		}
		s := 0
		if m.point == defaultMount || strings.HasPrefix(m.point, defaultMount+"/") {
			s += 2
		}
		h.Root = m.root
		if m.root == "/" || m.root == h.Own || h.own() != "" {
			s++
		}
		if s > score {
			best, score = m, s
		}
	}
	return best
}

func hasOptions(options, key string) bool {
	for want := range strings.SplitSeq(key, ",") {
		found := false
		for o := range strings.SplitSeq(options, ",") {
			found = found || o == want
		}
		if !found {
			return false
		}
	}
	return true
}

// unescape undoes the octal escapes of mountinfo: blank, tab, newline, backslash.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1], '3') && isOctal(s[i+2], '7') && isOctal(s[i+3], '7') {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

func isOctal(c, highest byte) bool { return c >= '0' && c <= highest }

// Mount describes one hierarchy to show under the destination of a mount of
// type cgroup.
type Mount struct {
	// Name is the directory below the destination, "" for the destination
	// itself (V2).
	Name string
	// Type and Options make a new mount of the hierarchy.
	Type    string
	Options string
	// Source is the hierarchy's mount point on the host. The container's own
	// directory in it is the Record's Dir with the same Key.
	Source string
	Key    string
	// Links are further names for Name: one for each of several controllers.
	Links []string
}

// Mounts returns what a mount of type cgroup is made of: cgroup2 alone, or every
// v1 hierarchy (and then not cgroup2, as runc does).
func (l *Layout) Mounts() []Mount {
	var out []Mount
	for _, h := range l.Hierarchies {
		if h.Key == "" {
			if l.Mode == V2 {
				out = append(out, Mount{Type: "cgroup2", Source: h.Mountpoint})
			}
			continue
		}
		m := Mount{Name: path.Base(h.Mountpoint), Type: "cgroup", Options: h.Key, Source: h.Mountpoint, Key: h.Key}
		if cs := h.Controllers(); len(cs) > 1 {
			for _, c := range cs {
				if c != m.Name {
					m.Links = append(m.Links, c)
				}
			}
		}
		out = append(out, m)
	}
	return out
}
