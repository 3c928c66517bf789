package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"rt/libcontainer/criu"
	"rt/libcontainer/mounts"
	"rt/libcontainer/plan"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Images of a checkpoint say how the processes in them were confined, and may come from anybody. So what CRIU
// has made of them is held against the config before it runs: whatever the config takes away must be gone.
// That the programs do what they did is nobody's promise: they are the container's.

// verify checks all processes that CRIU has made. They are stopped.
func (r *restoration) verify(c *creation) error {
	steps := []func(*creation) error{r.verifyNamespaces, r.verifyProcesses, r.verifyFilter, r.verifyLabels, r.verifyMounts}
	for _, step := range steps {
		if err := step(c); err != nil {
			return fmt.Errorf("the images do not go with config.json: %w", err)
		}
	}
	return nil
}

// verifyNamespaces checks that the first process is in namespaces of its own where the config wants
// new ones, in that which the config names, and in rt's own elsewhere.
func (r *restoration) verifyNamespaces(c *creation) error {
	proc := "/proc/" + strconv.Itoa(r.init)
	for _, t := range plan.NamespaceTypes() {
		file := plan.NamespaceFile(t)
		own, err := os.Stat("/proc/self/ns/" + file)
		if errors.Is(err, os.ErrNotExist) {
			continue // this kernel does not have such ones
		}
		if err != nil {
			return err
		}
		its, err := os.Stat(proc + "/ns/" + file)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(c.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
		switch {
		case i < 0:
			if t != specs.TimeNamespace && !os.SameFile(own, its) { // CRIU makes one whenever it can
				return fmt.Errorf("/linux/namespaces: there is no %s namespace, and the process is in one of its own", t)
			}
		case c.spec.Linux.Namespaces[i].Path == "":
			if os.SameFile(own, its) {
				return fmt.Errorf("/linux/namespaces/%d: the process is in the host's %s namespace", i, t)
			}
		case joinName(t) != "":
			named, err := os.Stat(c.spec.Linux.Namespaces[i].Path)
			if err != nil {
				return err
			}
			if !os.SameFile(named, its) {
				return fmt.Errorf("/linux/namespaces/%d: the process is not in the %s namespace %q", i, t, c.spec.Linux.Namespaces[i].Path)
			}
		}
	}
	if !newNamespace(c.spec, specs.UserNamespace) {
		return nil
	}
	for file, want := range map[string][]specs.LinuxIDMapping{"uid_map": c.spec.Linux.UIDMappings, "gid_map": c.spec.Linux.GIDMappings} {
		data, err := os.ReadFile(proc + "/" + file)
		if err != nil {
			return err
		}
		if strings.Join(strings.Fields(string(data)), " ") != strings.Join(strings.Fields(hostIDs(want)), " ") {
			return fmt.Errorf("/linux/%sMappings: the process has the map %q", strings.TrimSuffix(file, "_map"), data)
		}
	}
	return nil
}

// verifyProcesses checks that all processes are in the container's cgroup, and have no more than the config gives.
func (r *restoration) verifyProcesses(c *creation) error {
	members, err := c.cg.Pids()
	if err != nil {
		return err
	}
	pids, err := descendants(r.init)
	if err != nil {
		return err
	}
	want := criu.ConfinementOf(r.plan)
	for _, pid := range pids {
		if _, ok := slices.BinarySearch(members, pid); !ok {
			return fmt.Errorf("/linux/cgroupsPath: process %d is not in the cgroup of the container", pid)
		}
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			return err
		}
		for _, t := range threads {
			status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + t.Name() + "/status")
			if err != nil {
				return err
			}
			if err := want.Check(pid, string(status)); err != nil {
				return err
			}
		}
	}
	return nil
}

// descendants lists a process and all below it.
func descendants(pid int) ([]int, error) {
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		dir := "/proc/" + strconv.Itoa(list[i]) + "/task"
		threads, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, t := range threads {
			data, err := os.ReadFile(dir + "/" + t.Name() + "/children")
			if err != nil {
				return nil, err
			}
			for _, f := range strings.Fields(string(data)) {
				n, err := strconv.Atoi(f)
				if err != nil {
					return nil, err
				}
				list = append(list, n)
			}
		}
	}
	return list, nil
}

// verifyFilter checks that below all filters of the images lies that of the config.
func (r *restoration) verifyFilter(*creation) error {
	want := criu.ConfinementOf(r.plan).Filter
	if want == "" {
		return nil
	}
	filters, err := r.images.Filters()
	if err != nil {
		return err
	}
	for _, f := range filters {
		if string(f) != want {
			return errors.New("/linux/seccomp: the filter is not the one that this rt makes of the profile")
		}
	}
	if len(filters) == 0 {
		return errors.New("/linux/seccomp: there is no filter")
	}
	return nil
}

// verifyLabels checks the labels of the first process.
func (r *restoration) verifyLabels(c *creation) error {
	p := c.spec.Process
	if p == nil || p.ApparmorProfile == "" && p.SelinuxLabel == "" {
		return nil
	}
	proc := "/proc/" + strconv.Itoa(r.init) + "/attr/"
	kind, name, _ := strings.Cut(r.opts.LSMProfile, ":")
	if want := p.ApparmorProfile; want != "" {
		if kind == "apparmor" {
			want = name
		}
		got, err := os.ReadFile(proc + "apparmor/current")
		if err != nil {
			return err
		}
		if profile, _, _ := strings.Cut(strings.TrimSpace(string(got)), " ("); profile != want {
			return fmt.Errorf("/process/apparmorProfile: the profile is %q, not %q", profile, want)
		}
	}
	if want := p.SelinuxLabel; want != "" {
		if kind == "selinux" {
			want = name
		}
		got, err := os.ReadFile(proc + "current")
		if err != nil {
			return err
		}
		if label := strings.TrimRight(string(got), "\x00\n"); label != want {
			return fmt.Errorf("/process/selinuxLabel: the label is %q, not %q", label, want)
		}
	}
	return nil
}

// verifyMounts checks that what the config covers is covered, what it wants to be read-only is, and that nothing
// of the host's is mounted but what the config names.
func (r *restoration) verifyMounts(c *creation) error {
	inside, err := mounts.Read(r.init)
	if err != nil {
		return err
	}
	host, err := mounts.Read(0)
	if err != nil {
		return err
	}
	root, err := mounts.OpenRoot(r.init)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	shown, err := host.Parts(c.facts.Rootfs, "/", false)
	if err != nil {
		return err
	}
	binds, err := parts(host, r.plan)
	if err != nil {
		return err
	}
	shown = append(shown, binds...)
	points := map[string]string{} // what the plan covers, with the type of a file system that it mounts there
	for i := range r.plan.Ops {
		op := &r.plan.Ops[i]
		if target := targetOf(op); target != "" {
			fstype := ""
			if op.Kind == plan.KindMount || op.Kind == plan.KindMountOld {
				fstype = op.Data[0].String
			}
			points[path.Clean("/"+target)] = fstype
		}
	}
	mayMount := criu.ConfinementOf(r.plan).MayMount()
	for _, m := range inside {
		o := mounts.OriginOf(m)
		fstype, covered := points[m.Mountpoint]
		var right bool
		switch {
		case slices.ContainsFunc(shown, func(p mounts.Part) bool { return p.Holds(o) }):
			right = true // the config shows this part of the host's
		case covered && fstype == m.FSType:
			right = true
		case kernelOwn(m.FSType):
			// Every instance shows what belongs to a namespace, maybe the host's.
			right = mayMount || covered
		default:
			right = (m.FSType == "tmpfs" || m.FSType == "devpts") && !host.Has(o)
		}
		if !right {
			return fmt.Errorf("/mounts: %s of type %s is mounted at %q besides", path.Join(m.Source, m.Root), m.FSType, m.Mountpoint)
		}
	}
	slots := map[int32]string{} // what is mounted from one, by its target
	for i := range r.plan.Ops {
		op := &r.plan.Ops[i]
		target, readonly := targetOf(op), op.Kind == plan.KindReadonly || op.Kind != plan.KindMask && op.Num[0]&unix.MOUNT_ATTR_RDONLY != 0
		switch op.Kind {
		case plan.KindMount:
			slots[op.Slot] = target
		case plan.KindSetattr:
			target = slots[op.Slot]
		}
		if target == "" {
			continue
		}
		if err := verifyCover(inside, root, op.Kind, target, readonly); err != nil {
			return fmt.Errorf("%s: %w", op.Origin, err)
		}
	}
	return nil
}

// kernelOwn are the types that show the kernel's own files, those of a namespace.
func kernelOwn(fstype string) bool {
	switch fstype {
	case "proc", "sysfs", "mqueue", "cgroup", "cgroup2":
		return true
	}
	return false
}

// targetOf is the path that an operation covers, "" for none.
func targetOf(op *plan.Op) string {
	switch op.Kind {
	case plan.KindMask, plan.KindReadonly, plan.KindAttach:
		return op.Data[0].String
	case plan.KindMount, plan.KindMountOld:
		return op.Data[3].String
	case plan.KindRootattr:
		return "/"
	}
	return ""
}

// verifyCover checks what an operation has put at a target.
func verifyCover(inside mounts.Tree, root int, kind plan.Kind, target string, readonly bool) error {
	fd, err := mounts.OpenInRoot(root, target)
	if err == unix.ENOENT && (kind == plan.KindMask || kind == plan.KindReadonly) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q: %w", target, err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(fd, &fs), unix.Fstat(fd, &st)); err != nil {
		return fmt.Errorf("%q: %w", target, err)
	}
	if readonly && fs.Flags&unix.ST_RDONLY == 0 {
		return fmt.Errorf("%q is writable", target)
	}
	if kind == plan.KindMask {
		null := st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
		empty := st.Mode&unix.S_IFMT == unix.S_IFDIR && fs.Type == unix.TMPFS_MAGIC && fs.Flags&unix.ST_RDONLY != 0
		if !null && !empty {
			return fmt.Errorf("%q is not masked", target)
		}
		return nil
	}
	if kind == plan.KindReadonly || kind == plan.KindRootattr {
		return nil
	}
	m, err := inside.LookIn(root, target)
	if err == nil && m == nil {
		err = errors.New("nothing is mounted there")
	}
	if err != nil {
		return fmt.Errorf("%q: %w", target, err)
	}
	return nil
}
