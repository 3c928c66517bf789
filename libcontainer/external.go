package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"rt/libcontainer/mounts"
	"rt/libcontainer/plan"
	"rt/libcontainer/state"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
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
		if n.Path != "" && n.Type == specs.UserNamespace && !isOwn(n) {
			return fmt.Errorf("config.json: /linux/namespaces/%d: a container that joins a user namespace can be neither checkpointed nor restored", i)
		}
		if n.Path != "" && joinName(n.Type) == "" {
			warn(fmt.Sprintf("config.json: /linux/namespaces/%d: CRIU does not join a %s namespace: the container is restored with a new one", i, n.Type))
		}
	}
	return nil
}

// parts lists what of the host's a plan mounts in its container. What has been removed since is left out.
func parts(host mounts.Tree, p *plan.Plan) ([]mounts.Part, error) {
	var list []mounts.Part
	for _, b := range p.Binds() {
		l, err := host.Parts(b.Source, b.Target, b.Recursive)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, l...)
	}
	return list, nil
}

// externalMounts lists the mounts of a running container that a checkpoint leaves out, by
// mount point, with their names.
func externalMounts(pid int, p *plan.Plan) ([]*rpc.ExtMountMap, error) {
	inside, err := mounts.Read(pid)
	if err != nil {
		return nil, err
	}
	host, err := mounts.Read(0)
	if err != nil {
		return nil, err
	}
	root, err := mounts.OpenRoot(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	all, err := parts(host, p)
	if err != nil {
		return nil, err
	}
	var list []*rpc.ExtMountMap
	seen := map[string]bool{}
	for _, part := range all {
		m, err := inside.LookIn(root, part.Target)
		if err != nil {
			return nil, err
		}
		// Else it is a mask's empty directory, or something that the container has put there.
		if m != nil && part.Holds(mounts.OriginOf(m)) && !seen[m.Mountpoint] {
			seen[m.Mountpoint] = true
			list = append(list, extMount(m.Mountpoint, part.Target))
		}
	}
	return list, nil
}

// hostMounts lists, by their names, what a restore mounts of the host's.
func hostMounts(p *plan.Plan) ([]*rpc.ExtMountMap, error) {
	host, err := mounts.Read(0)
	if err != nil {
		return nil, err
	}
	all, err := parts(host, p)
	if err != nil {
		return nil, err
	}
	list := make([]*rpc.ExtMountMap, len(all))
	for i, part := range all {
		list[i] = extMount(part.Target, part.Source)
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
	inside, err := mounts.Read(init.Pid)
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
			if id, ok := mountOfDescriptor(proc + "/fdinfo/" + n); ok && inside.ByID(id) == nil {
				target = fmt.Sprintf("file[%x:%x]", id, st.Ino)
				external = append(external, target)
			}
		}
		list = append(list, strings.ToValidUTF8(target, "?")) // the name of a file is the container's
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
