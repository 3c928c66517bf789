package libcontainer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/plan"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What is different for a caller who is not root of the host: either not root at all
// (unprivileged), or root of a user namespace only (nested).

// initUserNS is the inode number of the initial user namespace (include/linux/proc_ns.h).
const initUserNS = 0xEFFFFFFD

// nested says whether rt runs in a user namespace, where even root has no power over devices.
func nested() bool {
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/user", &st) == nil && st.Ino != initUserNS
}

// checkUnprivileged refuses what config.json asks for and only root can give.
func checkUnprivileged(s *specs.Spec) error {
	if unix.Geteuid() == 0 {
		return nil
	}
	if !hasNamespace(s, specs.UserNamespace) {
		return errors.New("config.json: /linux/namespaces: rootless container requires user namespaces: for others than root there must be one of type \"user\", with uidMappings and gidMappings")
	}
	l := s.Linux
	if newNamespace(s, specs.UserNamespace) {
		if err := checkMapTools(l); err != nil {
			return err
		}
		if err := checkMountIDs(s); err != nil {
			return err
		}
	}
	if len(l.NetDevices) > 0 {
		return errors.New("config.json: /linux/netDevices: moving network devices needs root")
	}
	return nil
}

// checkMapSize refuses an id map that the kernel would not read: it takes less than a page (user_namespaces(7)).
func checkMapSize(s *specs.Spec) error {
	if !newNamespace(s, specs.UserNamespace) {
		return nil
	}
	most := os.Getpagesize() - 1
	if n := len(idMap(s.Linux.UIDMappings)); n > most {
		return fmt.Errorf("config.json: /linux/uidMappings: %d bytes as the kernel reads it; accepted: up to %d", n, most)
	}
	if n := len(idMap(s.Linux.GIDMappings)); n > most {
		return fmt.Errorf("config.json: /linux/gidMappings: %d bytes as the kernel reads it; accepted: up to %d", n, most)
	}
	return nil
}

// checkMountIDs refuses options uid= and gid= of a file system that name an id that is
// not mapped: all that the kernel says of it is "invalid argument".
func checkMountIDs(s *specs.Spec) error {
	for i := range s.Mounts {
		for j, o := range s.Mounts[i].Options {
			name, value, _ := strings.Cut(o, "=")
			var m []specs.LinuxIDMapping
			switch name {
			case "uid":
				m = s.Linux.UIDMappings
			case "gid":
				m = s.Linux.GIDMappings
			default:
				continue
			}
			id, err := strconv.ParseUint(value, 10, 32)
			if err == nil && !isMapped(m, uint32(id)) {
				return fmt.Errorf("config.json: /mounts/%d/options/%d: %q: cannot specify %s= mount options for unmapped %s in rootless containers, it is not in /linux/%sMappings", i, j, o, name, name, name)
			}
		}
	}
	return nil
}

func isMapped(m []specs.LinuxIDMapping, id uint32) bool {
	for _, e := range m {
		if id >= e.ContainerID && uint64(id) < uint64(e.ContainerID)+uint64(e.Size) {
			return true
		}
	}
	return false
}

// ownID says whether a map is the one that anybody may write: of the one id that
// the caller has (user_namespaces(7)).
func ownID(m []specs.LinuxIDMapping, id int) bool {
	return len(m) == 1 && m[0].Size == 1 && int64(m[0].HostID) == int64(id)
}

// setgroupsDenied says whether the new user namespace of an unprivileged caller will
// not allow setgroups(2): the price for writing gid_map without newgidmap.
func setgroupsDenied(s *specs.Spec) bool {
	return unix.Geteuid() != 0 && newNamespace(s, specs.UserNamespace) && ownID(s.Linux.GIDMappings, unix.Getegid())
}

// The set-user-ID programs that write maps of the ranges in /etc/subuid and /etc/subgid.
const (
	newuidmap = "newuidmap"
	newgidmap = "newgidmap"
)

// checkMapTools finds out before anything is made whether the maps can be written.
func checkMapTools(l *specs.Linux) error {
	for _, t := range []struct {
		name, pointer string
		m             []specs.LinuxIDMapping
		id            int
	}{
		{newuidmap, "/linux/uidMappings", l.UIDMappings, unix.Geteuid()},
		{newgidmap, "/linux/gidMappings", l.GIDMappings, unix.Getegid()},
	} {
		if ownID(t.m, t.id) {
			continue
		}
		if _, err := exec.LookPath(t.name); err != nil {
			return fmt.Errorf("config.json: %s: to map more than id %d, %s is needed and not found in $PATH (Debian's package uidmap has it); accepted without it: one entry with hostID %d and size 1", t.pointer, t.id, t.name, t.id)
		}
	}
	return nil
}

// writeUserMaps writes the id maps of the new user namespace of process pid, whose
// directory in /proc is dir. interrupt (0 for none) ends it when it is readable.
func writeUserMaps(dir, pid int, l *specs.Linux, interrupt int) error {
	if unix.Geteuid() == 0 {
		return writeMaps(dir, l)
	}
	if ownID(l.GIDMappings, unix.Getegid()) {
		if err := writeProc(dir, "setgroups", "deny", "/linux/gidMappings"); err != nil {
			return err
		}
		if err := writeProc(dir, "gid_map", idMap(l.GIDMappings), "/linux/gidMappings"); err != nil {
			return err
		}
	} else if err := runMapTool(newgidmap, pid, l.GIDMappings, "/linux/gidMappings", interrupt); err != nil {
		return err
	}
	if ownID(l.UIDMappings, unix.Geteuid()) {
		return writeProc(dir, "uid_map", idMap(l.UIDMappings), "/linux/uidMappings")
	}
	return runMapTool(newuidmap, pid, l.UIDMappings, "/linux/uidMappings", interrupt)
}

// runMapTool has newuidmap or newgidmap write a map. The process is a child of ours that is
// not reaped, so its pid means no other. They may ask a directory service; so there is a
// deadline, and interrupt (0 for none) ends them when it is readable.
func runMapTool(name string, pid int, m []specs.LinuxIDMapping, pointer string, interrupt int) error {
	file, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("config.json: %s: %w", pointer, err)
	}
	args := append([]string{strconv.Itoa(pid)}, strings.Fields(idMap(m))...)
	ctx, cancel := context.WithTimeout(context.Background(), patience(createWait))
	defer cancel()
	if interrupt > 0 {
		go func() {
			for ctx.Err() == nil {
				if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(interrupt), Events: unix.POLLIN}}, 50); n > 0 { // ms
					cancel()
				}
			}
		}()
	}
	tool := exec.CommandContext(ctx, file, args...)
	tool.WaitDelay = time.Second // for whoever else has its output
	out, err := tool.CombinedOutput()
	if err != nil {
		return fmt.Errorf("config.json: %s: %s: %w: %s (are these ranges the caller's in /etc/sub%s?)",
			pointer, name, err, strings.TrimSpace(string(out)), name[3:6])
	}
	return nil
}

// chooseCgroup decides how the container's cgroup is made by a caller whom the
// kernel may not permit that: as any other if it does, without a cgroup if none was
// asked for by name or by limits, else not at all.
func (c *creation) chooseCgroup(l *cgroup.Layout) error {
	c.rootless = c.opts.Rootless == RootlessTrue ||
		c.opts.Rootless == RootlessAuto && (unix.Geteuid() != 0 || c.nested)
	if !c.rootless || c.opts.SystemdCgroup { // systemd makes it for the caller
		return nil
	}
	err := cgroup.Permitted(l, c.cg)
	if err == nil {
		return nil
	}
	if p := cgroupsPath(c.spec); p != "" {
		return fmt.Errorf("config.json: /linux/cgroupsPath: %q: %w; without the property the container gets no cgroup", p, err)
	}
	if r := c.spec.Linux; r != nil && r.Resources != nil && cgroup.Asks(r.Resources) {
		return fmt.Errorf("config.json: /linux/resources: limits need a cgroup: %w", err)
	}
	c.warn("the container gets no cgroup of its own: " + err.Error())
	c.cg = cgroup.NewNone(c.id)
	if !newNamespace(c.spec, specs.PIDNamespace) {
		c.warn("without a cgroup and a pid namespace of its own, delete and kill end only the container's first process")
	}
	return nil
}

// pidNSMembers returns the host's pids of the processes in the same pid namespace as
// pid: those of a container without a cgroup.
func pidNSMembers(pid int) ([]int, error) {
	link := func(name string) (string, error) { return os.Readlink("/proc/" + name + "/ns/pid") }
	own, err := link(strconv.Itoa(pid))
	if errors.Is(err, fs.ErrPermission) {
		// The stage at the gate shows itself only to root. Nothing can have joined it.
		return []int{pid}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find processes of the container: %w", err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ns, err := link(e.Name()); err == nil && ns == own {
			pids = append(pids, n)
		}
	}
	return pids, nil
}

// noCgroup is how the container that has no cgroup is to be found.
func (c *Container) noCgroup() ([]int, error) {
	if !c.rec.OwnPidNS {
		return nil, cgroup.ErrNone
	}
	alive, err := c.rec.Init.Alive()
	if err != nil || !alive {
		return nil, err
	}
	return pidNSMembers(c.rec.Init.Pid)
}

// ownCgroup fills in what a mount of type cgroup shows in a container without one of
// its own: the cgroup that it is in, which is rt's.
func ownCgroup(f *plan.CgroupFacts, l *cgroup.Layout) {
	f.Into = false
	if l.Mode == cgroup.V2 {
		f.Mount = l.Hierarchies[0].Mountpoint
		f.Path = l.OwnDir("")
		return
	}
	for _, h := range l.Mounts() {
		f.V1 = append(f.V1, plan.CgroupMount{
			Name: h.Name, Options: strings.Split(h.Options, ","), Path: l.OwnDir(h.Key), Links: h.Links,
		})
	}
}
