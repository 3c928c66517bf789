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
