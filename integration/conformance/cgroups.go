package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// lane says which layout of cgroups the programs and the runtime see.
type lane string

const (
	laneHost   lane = "host"    // this machine's v1 hierarchies, with or without a v2 one beside them
	laneHostV2 lane = "host-v2" // cgroup2 alone, on /sys/fs/cgroup
)

const cgroupRoot = "/sys/fs/cgroup"

func parseLane(s string) (lane, error) {
	switch l := lane(s); l {
	case laneHost, laneHostV2:
		return l, nil
	}
	return "", fmt.Errorf("read lane %q: want %s or %s", s, laneHost, laneHostV2)
}

// hierarchy is a mounted cgroup hierarchy.
type hierarchy struct {
	Name    string // base name of the mount point, such as "cpu,cpuacct"
	Options string // data for mount(2); empty for v2
	V2      bool
	Dir     string // the cgroup of this process, later the one made for a program
}

// findHierarchies returns what a lane's sandboxes mount: all hierarchies below
// /sys/fs/cgroup for the host lane, and cgroup2 alone for host-v2.
func findHierarchies(l lane) ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	paths, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	all := parseHierarchies(string(mounts), string(paths))
	if l == laneHostV2 {
		all = slices.DeleteFunc(all, func(h hierarchy) bool { return !h.V2 })
		if len(all) == 0 {
			return nil, fmt.Errorf("find a cgroup2 mount below %s: none", cgroupRoot)
		}
		return all[:1], nil
	}
	if !slices.ContainsFunc(all, func(h hierarchy) bool { return !h.V2 }) {
		return nil, fmt.Errorf("find v1 hierarchies below %s: none, use lane %s", cgroupRoot, laneHostV2)
	}
	return all, nil
}

// parseHierarchies reads the texts of /proc/self/mountinfo and /proc/self/cgroup
// (cgroups(7)): hierarchies without a mount below /sys/fs/cgroup are left out.
func parseHierarchies(mountinfo, cgroup string) []hierarchy {
	own := map[string]string{} // controllers or "name=..." or "" for v2, to path
	for line := range strings.Lines(cgroup) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			own[f[1]] = f[2]
		}
	}
	var found []hierarchy
	for line := range strings.Lines(mountinfo) {
		mount, super, _ := strings.Cut(line, " - ")
		f, s := strings.Fields(mount), strings.Fields(super)
		if len(f) < 5 || len(s) < 3 || (s[0] != "cgroup" && s[0] != "cgroup2") {
			continue
		}
		root, dir := f[3], f[4]
		if dir != cgroupRoot && filepath.Dir(dir) != cgroupRoot {
			continue
		}
		h := hierarchy{Name: filepath.Base(dir), V2: s[0] == "cgroup2"}
		path, ok := own[""]
		if !h.V2 {
			var controllers string
			controllers, h.Options = v1Options(s[2])
			path, ok = own[controllers]
		}
		rel, err := filepath.Rel(root, path)
		if !ok || err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		h.Dir = filepath.Join(dir, rel)
		found = append(found, h)
	}
	return found
}

// v1Options splits a v1 super block's options into the name that
// /proc/PID/cgroup has for the hierarchy and the data that mounts it again.
func v1Options(super string) (name, data string) {
	var names, opts []string
	for o := range strings.SplitSeq(super, ",") {
		switch {
		case o == "rw" || o == "ro" || strings.HasPrefix(o, "release_agent="):
			continue
		case o == "xattr" || o == "clone_children" || o == "noprefix" || o == "cpuset_v2_mode":
		case strings.HasPrefix(o, "name="):
			names = append(names, o)
			opts = append(opts, "none")
		default:
			names = append(names, o)
		}
		opts = append(opts, o)
	}
	return strings.Join(names, ","), strings.Join(opts, ",")
}

// makeCgroup makes the cgroup that will be the root of a sandbox's view.
func (h hierarchy) makeCgroup(name string) error {
	dir := filepath.Join(h.Dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// A v1 cpuset without cpus and memory nodes takes no process.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if h.V2 {
			break
		}
		value, err := os.ReadFile(filepath.Join(h.Dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), value, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the cgroups at hs with all below them. Their processes
// are dead, but the last of them leaves its cgroup a moment after that.
func removeCgroups(hs []hierarchy) error {
	var errs []error
	for _, h := range hs {
		var err error
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if err = removeTree(h.Dir); !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				break
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && err != syscall.ENOENT {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
