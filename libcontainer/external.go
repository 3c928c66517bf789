package libcontainer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"rt/libcontainer/plan"
	"rt/libcontainer/state"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What a container has of the host's is not written to the images of a checkpoint: a restore brings its own,
// as its config says. CRIU knows it by names. That of a mount is its target in
// the container as the config has it; those of namespaces are runc's.

// joinName is the name under which CRIU asks for a namespace that it leaves out of a checkpoint; "" for types which it
// cannot leave out.
func joinName(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "extRootNetNS"
	case specs.PIDNamespace:
		return "extRootPidNS"
	}
	return ""
}

// checkJoined refuses a config that joins a mount namespace, of which CRIU restores all, and tells of other
// namespaces that it can only make anew.
func checkJoined(s *specs.Spec, warn func(string)) error {
	if s.Linux == nil || !newNamespace(s, specs.MountNamespace) {
		return errors.New("config.json: /linux/namespaces: a container without a new mount namespace can be neither checkpointed nor restored")
	}
	if len(s.Linux.NetDevices) > 0 {
		return errors.New("config.json: /linux/netDevices: a container with devices of the host's can be neither checkpointed nor restored")
	}
	for i, n := range s.Linux.Namespaces {
		if n.Path != "" && joinName(n.Type) == "" {
			warn(fmt.Sprintf("config.json: /linux/namespaces/%d: CRIU does not join a %s namespace: the container is restored with a new one", i, n.Type))
		}
	}
	return nil
}

// tree is a mount namespace as seen at one moment.
type tree []*mountinfo.Info

// readTree reads the mounts of a process; pid 0 is rt itself.
func readTree(pid int) (tree, error) {
	name := "/proc/self/mountinfo"
	if pid != 0 {
		name = "/proc/" + strconv.Itoa(pid) + "/mountinfo"
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	const most = 64 << 20
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	list, err := mountinfo.GetMountsFromReader(bytes.NewReader(data), nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return list, nil
}

func (t tree) byID(id uint64) *mountinfo.Info {
	for _, m := range t {
		if uint64(m.ID) == id {
			return m
		}
	}
	return nil
}

// under lists the mounts below the mount top that can be reached.
func (t tree) under(top *mountinfo.Info) []*mountinfo.Info {
	in := map[int]bool{top.ID: true}
	var list []*mountinfo.Info
	for more := true; more; {
		more = false
		for _, m := range t {
			if in[m.Parent] && !in[m.ID] {
				in[m.ID], more = true, true
				list = append(list, m)
			}
		}
	}
	return list
}

// origin is what a mount shows: the file system, and the directory or file of it.
type origin struct {
	major, minor int
	root         string
}

func originOf(m *mountinfo.Info) origin { return origin{m.Major, m.Minor, m.Root} }

// holds says whether b is a part of a.
func (a origin) holds(b origin) bool {
	return a.major == b.major && a.minor == b.minor && (a.root == b.root || strings.HasPrefix(b.root, strings.TrimSuffix(a.root, "/")+"/"))
}

// at is what a host path shows.
func (t tree) at(host string) (origin, *mountinfo.Info, error) {
	id, err := mountID(host)
	if err != nil {
		return origin{}, nil, fmt.Errorf("look at %q: %w", host, err)
	}
	m := t.byID(id)
	if m == nil {
		return origin{}, nil, fmt.Errorf("look at %q: its mount is not among those of rt", host)
	}
	o := originOf(m)
	if rest := strings.TrimPrefix(host, strings.TrimSuffix(m.Mountpoint, "/")); rest != "" && rest != host || m.Mountpoint == "/" {
		o.root = path.Join(o.root, rest)
	}
	return o, m, nil
}

// lookIn finds the mount that the path target shows in the container whose root is open as root, if it is
// the root of a mount; else nil. A path that does not exist is nil too.
func (t tree) lookIn(root int, target string) (*mountinfo.Info, error) {
	fd, err := openInRoot(root, target)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %q in the container: %w", target, err)
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return nil, fmt.Errorf("look at %q in the container: %w", target, err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return nil, nil
	}
	return t.byID(st.Mnt_id), nil
}

// openInRoot opens a path of the container without following it out of its root.
func openInRoot(root int, target string) (int, error) {
	return unix.Openat2(root, target, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// openRoot opens the root of a process.
func openRoot(pid int) (int, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	return fd, nil
}

// externalMounts lists the mounts of a running container that a checkpoint leaves out, by
// mount point, with their names.
func externalMounts(pid int, p *plan.Plan) ([]*rpc.ExtMountMap, error) {
	inside, err := readTree(pid)
	if err != nil {
		return nil, err
	}
	host, err := readTree(0)
	if err != nil {
		return nil, err
	}
	root, err := openRoot(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	var list []*rpc.ExtMountMap
	seen := map[string]bool{}
	add := func(point, name string) {
		if !seen[point] {
			seen[point] = true
			list = append(list, extMount(point, name))
		}
	}
	for _, b := range p.Binds() {
		m, err := inside.lookIn(root, b.Target)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		o, _, err := host.at(b.Source)
		if err != nil {
			continue // it has been removed on the host since
		}
		if !o.holds(originOf(m)) {
			continue // a mask's empty directory, or what the container has put there
		}
		add(m.Mountpoint, b.Target)
		if !b.Recursive {
			continue
		}
		for _, below := range inside.under(m) {
			rel := strings.TrimPrefix(below.Mountpoint, m.Mountpoint)
			if o, h, err := host.at(path.Join(b.Source, rel)); err == nil && h.Mountpoint == path.Join(b.Source, rel) && o == originOf(below) {
				add(below.Mountpoint, path.Join(b.Target, rel))
			}
		}
	}
	return list, nil
}

// hostMounts lists, by their names, what a restore mounts of the host's.
func hostMounts(p *plan.Plan) ([]*rpc.ExtMountMap, error) {
	host, err := readTree(0)
	if err != nil {
		return nil, err
	}
	var list []*rpc.ExtMountMap
	for _, b := range p.Binds() {
		list = append(list, extMount(b.Target, b.Source))
		if !b.Recursive {
			continue
		}
		_, top, err := host.at(b.Source)
		if err != nil {
			return nil, err
		}
		for _, m := range host.under(top) {
			if rel, ok := strings.CutPrefix(m.Mountpoint, strings.TrimSuffix(b.Source, "/")+"/"); ok {
				list = append(list, extMount(path.Join(b.Target, rel), m.Mountpoint))
			}
		}
	}
	return list, nil
}

func extMount(key, val string) *rpc.ExtMountMap { return &rpc.ExtMountMap{Key: &key, Val: &val} }

// externalNamespaces lists the namespaces of a running container that its config joined.
func externalNamespaces(pid int, s *specs.Spec) ([]string, error) {
	var list []string
	for _, n := range s.Linux.Namespaces {
		name := joinName(n.Type)
		if n.Path == "" || name == "" || isOwn(n) {
			continue
		}
		file := plan.NamespaceFile(n.Type)
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/"+file, &st); err != nil {
			return nil, fmt.Errorf("look at %s namespace of the container: %w", n.Type, err)
		}
		list = append(list, fmt.Sprintf("%s[%d]:%s", file, st.Ino, name))
	}
	return list, nil
}

// describe says what descriptors 0 to 2 of a process are, as proc_pid_fd(5) has it; a file that is in no mount of
// the container's is one of CRIU's external files.
func describe(init state.Identity) (list, external []string, err error) {
	inside, err := readTree(init.Pid)
	if err != nil {
		return nil, nil, err
	}
	proc := "/proc/" + strconv.Itoa(init.Pid)
	for i := range 3 {
		n := strconv.Itoa(i)
		target, err := os.Readlink(proc + "/fd/" + n)
		if os.IsNotExist(err) {
			list = append(list, "")
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("look at descriptor %d of the container: %w", i, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(proc+"/fd/"+n, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			if id, ok := mountOfDescriptor(proc + "/fdinfo/" + n); ok && inside.byID(id) == nil {
				target = fmt.Sprintf("file[%x:%x]", id, st.Ino)
				external = append(external, target)
			}
		}
		list = append(list, target)
	}
	return list, external, nil
}

func mountOfDescriptor(fdinfo string) (uint64, bool) {
	data, err := os.ReadFile(fdinfo)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id, err := strconv.ParseUint(strings.TrimSpace(v), 10, 64)
			return id, err == nil
		}
	}
	return 0, false
}

// inherited lists those of rt's descriptors 0 to 2 that take the place of the container's. What they were
// is all that is believed of the images: not what they are to become.
func inherited(descriptors []string) []*rpc.InheritFd {
	var list []*rpc.InheritFd
	seen := map[string]bool{}
	for i, d := range descriptors {
		if seen[d] || !strings.HasPrefix(d, "pipe:[") && !strings.HasPrefix(d, "file[") {
			continue
		}
		seen[d] = true
		list = append(list, inherit1(d, i))
	}
	return list
}

func inherit1(key string, fd int) *rpc.InheritFd {
	n := int32(fd)
	return &rpc.InheritFd{Key: &key, Fd: &n}
}
