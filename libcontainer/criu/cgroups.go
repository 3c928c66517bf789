package criu

import (
	"fmt"
	"os"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
)

// Cgroup is a line of /proc/PID/cgroup (cgroups(7)).
type Cgroup struct {
	Controllers string // "" is cgroup2
	Path        string
}

// Cgroups are those of one process.
type Cgroups []Cgroup

// ReadCgroups reads them.
func ReadCgroups(file string) (Cgroups, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list Cgroups
	for line := range strings.Lines(string(data)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			return nil, fmt.Errorf("read %s: line %q", file, line)
		}
		list = append(list, Cgroup{controllers, path})
	}
	return list, nil
}

// Find is the cgroup of a hierarchy.
func (l Cgroups) Find(controllers string) (Cgroup, bool) {
	for _, g := range l {
		if g.Controllers == controllers {
			return g, true
		}
	}
	return Cgroup{}, false
}

// Below says whether g is top or lies below it.
func (g Cgroup) Below(top Cgroup) bool {
	return g.Path == top.Path || strings.HasPrefix(g.Path, strings.TrimSuffix(top.Path, "/")+"/")
}

// Paths lists the paths of all.
func (l Cgroups) Paths() []string {
	list := make([]string, len(l))
	for i, g := range l {
		list[i] = g.Path
	}
	return list
}

// Roots says to CRIU that what the images have as the cgroups of the container are these.
func (l Cgroups) Roots() []*rpc.CgroupRoot {
	var list []*rpc.CgroupRoot
	for _, g := range l {
		list = append(list, &rpc.CgroupRoot{Ctrl: &g.Controllers, Path: &g.Path})
	}
	return list
}

const (
	cgroupsName = "cgroup.img"
	cgroupMagic = 0x59383330
)

// CheckCgroups refuses images that say of cgroups what would lead CRIU out of those of the container: it puts the names in them
// together to paths that it writes to.
func (d *Images) CheckCgroups() error {
	data, err := d.read(cgroupsName)
	if err == nil && data != nil {
		if data, err = payload(data, cgroupMagic); err == nil {
			err = checkCgroups(data)
		}
	}
	if err != nil {
		return fmt.Errorf("read %s in %q: %w", cgroupsName, d.path, err)
	}
	return nil
}

// checkCgroups checks a CgroupEntry (CRIU's images/cgroup.proto). All that is a name or a path in it:
//
//	cgroup_entry: sets = 1, controllers = 2
//	set: ctls = 2; member of it: name = 1, path = 2, cgns_prefix = 3 as number or text
//	controller: cnames = 1, dirs = 2
//	dir: dir_name = 1, children = 2, properties = 3; property: name = 1, value = 2
func checkCgroups(entry []byte) error {
	return fields(entry, func(n, _ uint64, v []byte) error {
		switch n {
		case 1:
			return fields(v, func(n, _ uint64, v []byte) error {
				if n != 2 {
					return nil
				}
				return fields(v, func(_, _ uint64, v []byte) error { return checkName(v, true) })
			})
		case 2:
			return fields(v, func(n, _ uint64, v []byte) error {
				switch n {
				case 1:
					return checkName(v, false)
				case 2:
					return checkDir(v, 0)
				}
				return nil
			})
		}
		return nil
	})
}

// maxDepth is how deep directories of cgroups may lie in each other.
const maxDepth = 64

func checkDir(dir []byte, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d levels of directories", maxDepth)
	}
	return fields(dir, func(n, _ uint64, v []byte) error {
		switch n {
		case 1:
			return checkName(v, true)
		case 2:
			return checkDir(v, depth+1)
		case 3:
			return fields(v, func(n, _ uint64, v []byte) error {
				if n != 1 {
					return nil
				}
				return checkName(v, false)
			})
		}
		return nil
	})
}

// checkName refuses a name that is none, or a path, if it may be one, that leads upwards.
func checkName(b []byte, path bool) error {
	name := string(b)
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || !path && part != name {
			return fmt.Errorf("%q is no name of a cgroup, nor of a file in one", name)
		}
	}
	return nil
}
