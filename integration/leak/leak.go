// Package leak finds what a container, or a whole test run, has left behind on
// the machine. All packages below integration share it.
package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mount is a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	ID, Parent   string
	Device       string
	Root, Path   string
	Options      []string // of the mount
	Optional     []string // propagation
	Type         string
	Source       string
	SuperOptions []string
}

// Mounts reads a mountinfo file; none if it cannot be read.
func Mounts(file string) []Mount {
	data, _ := os.ReadFile(file)
	return ParseMounts(string(data))
}

// ParseMounts parses the content of a mountinfo file, and passes over lines that
// are none.
func ParseMounts(text string) []Mount {
	var list []Mount
	for line := range strings.Lines(text) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 3 {
			continue
		}
		list = append(list, Mount{
			ID: l[0], Parent: l[1], Device: l[2], Root: l[3], Path: l[4], Options: strings.Split(l[5], ","), Optional: l[6:],
			Type: r[0], Source: r[1], SuperOptions: strings.Split(r[2], ","),
		})
	}
	return list
}

// Cgroups returns the mount point of every cgroup hierarchy that this process sees.
func Cgroups() ([]string, error) {
	var list []string
	seen := map[string]bool{}
	for _, m := range Mounts("/proc/self/mountinfo") {
		if strings.HasPrefix(m.Type, "cgroup") && !seen[m.Device] {
			seen[m.Device] = true
			list = append(list, m.Path)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("find cgroup hierarchies: none is mounted")
	}
	return list, nil
}

// Container is where a container's traces can be.
type Container struct {
	ID      string
	Top     string   // the cgroup that holds that of the container, one name
	Cgroups []string // mount points of the hierarchies
	Dir     string   // the bundle, and where its commands run
	State   string   // its state directory
}

// Find returns an error that names one trace of the container, nil if there is none.
func (c *Container) Find() error {
	if files, err := os.ReadDir(c.State); err == nil {
		return fmt.Errorf("left: state directory %s with %v", c.State, files)
	}
	for _, m := range c.Cgroups {
		for _, d := range []string{filepath.Join(m, c.Top, c.ID), filepath.Join(m, c.ID)} {
			if _, err := os.Lstat(d); err == nil {
				procs, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
				return fmt.Errorf("left: cgroup %s, processes %q", d, procs)
			}
		}
	}
	if list := c.Processes(); len(list) > 0 {
		return fmt.Errorf("left: processes %v", list)
	}
	for _, m := range Mounts("/proc/self/mountinfo") {
		if Within(m.Path, c.Dir) {
			return fmt.Errorf("left: mount of %s on %s", m.Type, m.Path)
		}
	}
	return nil
}

// Within says whether path is dir or below it.
func Within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// Processes describes, as "PID COMMAND EXECUTABLE", the processes in the container's
// cgroup, and stages that are still on their way into it or have left it.
func (c *Container) Processes() []string {
	var list []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if e.Name()[0] < '0' || e.Name()[0] > '9' {
			continue
		}
		p := filepath.Join("/proc", e.Name())
		exe, err := os.Readlink(p + "/exe")
		if err != nil && !exiting(p) {
			continue // gone, or a zombie
		}
		cgroups, _ := os.ReadFile(p + "/cgroup")
		ours := false
		for line := range strings.Lines(string(cgroups) + "\n") {
			ours = ours || strings.Contains(strings.TrimSpace(line)+"/", "/"+c.Top+"/"+c.ID+"/")
		}
		if !ours && strings.HasPrefix(exe, "/memfd:rt-stage") {
			cwd, _ := os.Readlink(p + "/cwd")
			root, _ := os.Readlink(p + "/root")
			ours = Within(cwd, c.Dir) || Within(root, c.Dir)
		}
		if ours {
			comm, _ := os.ReadFile(p + "/comm")
			list = append(list, fmt.Sprintf("%s %s %s", e.Name(), strings.TrimSpace(string(comm)), exe))
		}
	}
	return list
}

// exiting says whether the process, whose executable cannot be read any more, has not
// come so far in its exit that it counts for no cgroup.
func exiting(proc string) bool {
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return after != "" && after[0] != 'Z' && after[0] != 'X'
}
