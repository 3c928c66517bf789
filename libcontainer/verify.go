package libcontainer

import (
	"errors"
	"fmt"
	"os"
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

// unlike is an error about images that do not go with the config.
func unlike(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the images do not go with config.json: %w", err)
}

// verify checks all processes that CRIU has made. They are stopped.
func (r *restoration) verify(c *creation) error {
	for _, step := range []func(*creation) error{r.verifyNamespaces, r.verifyMounts, r.verifyProcesses} {
		if err := step(c); err != nil {
			return unlike(err)
		}
	}
	return nil
}

// namespace is the file of a namespace of a process.
func namespace(pid int, t specs.LinuxNamespaceType) (os.FileInfo, error) {
	proc := "self"
	if pid != 0 {
		proc = strconv.Itoa(pid)
	}
	return os.Stat("/proc/" + proc + "/ns/" + plan.NamespaceFile(t))
}

// verifyNamespaces checks that the first process is in namespaces of its own where the config wants
// new ones, in that which the config names, and in rt's own elsewhere.
func (r *restoration) verifyNamespaces(c *creation) error {
	for _, t := range plan.NamespaceTypes() {
		if err := r.verifyNamespace(c, t); err != nil {
			return err
		}
	}
	return r.verifyMaps(c)
}

func (r *restoration) verifyNamespace(c *creation, t specs.LinuxNamespaceType) error {
	own, err := namespace(0, t)
	if errors.Is(err, os.ErrNotExist) {
		return nil // this kernel does not have such ones
	}
	if err != nil {
		return err
	}
	its, err := namespace(r.init, t)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(c.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
	if i < 0 {
		if t != specs.TimeNamespace && !os.SameFile(own, its) { // CRIU makes one whenever it can
			return fmt.Errorf("/linux/namespaces: there is no %s namespace, and the process is in one of its own", t)
		}
		return nil
	}
	n := c.spec.Linux.Namespaces[i]
	if n.Path != "" && (joinName(t) != "" || isOwn(n)) {
		named, err := os.Stat(n.Path)
		if err != nil {
			return err
		}
		if !os.SameFile(named, its) {
			return fmt.Errorf("/linux/namespaces/%d: the process is not in the %s namespace %q", i, t, n.Path)
		}
	} else if os.SameFile(own, its) {
		return fmt.Errorf("/linux/namespaces/%d: the process is in the host's %s namespace", i, t)
	}
	return nil
}

// verifyMaps checks the maps of a new user namespace.
func (r *restoration) verifyMaps(c *creation) error {
	if !newNamespace(c.spec, specs.UserNamespace) {
		return nil
	}
	for file, want := range map[string][]specs.LinuxIDMapping{"uid_map": c.spec.Linux.UIDMappings, "gid_map": c.spec.Linux.GIDMappings} {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(r.init) + "/" + file)
		if err != nil {
			return err
		}
		if strings.Join(strings.Fields(string(data)), " ") != strings.Join(strings.Fields(procMap(want)), " ") {
			return fmt.Errorf("/linux/%sMappings: the process has the map %q", strings.TrimSuffix(file, "_map"), data)
		}
	}
	return nil
}

// procMap is a map in the form of /proc/PID/uid_map.
func procMap(m []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, e := range m {
		fmt.Fprintf(&b, "%d %d %d\n", e.ContainerID, e.HostID, e.Size)
	}
	return b.String()
}

// mayMount says whether the container's processes may mount what they like: then that has been
// theirs to choose. In a user namespace they may only mount what that allows.
func (r *restoration) mayMount(c *creation) bool {
	return criu.ConfinementOf(r.plan).May("CAP_SYS_ADMIN") && !hasNamespace(c.spec, specs.UserNamespace)
}

// verifyProcesses checks that there are no other processes than the first and what is below it, and that all
// threads are in the container's cgroup, in its namespaces, and have no more than the config gives.
func (r *restoration) verifyProcesses(c *creation) error {
	pids, err := descendants(r.init)
	if err != nil {
		return err
	}
	helpers, err := descendants(c.pid)
	if err != nil {
		return err
	}
	members, err := c.cg.Pids()
	if err != nil {
		return err
	}
	for _, pid := range members {
		if !slices.Contains(pids, pid) && !slices.Contains(helpers, pid) {
			return fmt.Errorf("/linux/cgroupsPath: process %d is in the cgroup of the container, and not below its first process", pid)
		}
	}
	want := criu.ConfinementOf(r.plan)
	wantIDs(want, c.spec)
	ours, err := mounts.Stdio()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		zombie, err := r.verifyProcess(c, want, pid)
		if err != nil {
			return err
		}
		if zombie {
			continue
		}
		if err := r.verifyShared(c, pid); err != nil {
			return err
		}
		if err := r.mounts.CheckFiles(pid, ours); err != nil {
			return fmt.Errorf("/mounts: %w", err)
		}
		if err := verifyLimits(c.spec.Process, want, pid); err != nil {
			return err
		}
	}
	return nil
}

// verifyProcess checks the threads of a process. A zombie has none that could run.
func (r *restoration) verifyProcess(c *creation, want *criu.Confinement, pid int) (zombie bool, err error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, t := range threads {
		status, err := os.ReadFile(dir + t.Name() + "/status")
		if err != nil {
			return false, err
		}
		if strings.Contains(string(status), "\nState:\tZ") {
			return true, nil
		}
		if err := want.Check(pid, string(status)); err != nil {
			return false, err
		}
		in, err := criu.ReadCgroups(dir + t.Name() + "/cgroup")
		if err != nil {
			return false, err
		}
		for _, g := range in {
			if top, ok := r.cgroups.Find(g.Controllers); !ok || !g.Below(top) {
				return false, fmt.Errorf("/linux/cgroupsPath: process %d is in cgroup %q of %q, which is not below that of the container", pid, g.Path, g.Controllers)
			}
		}
		if err := r.verifyLabels(c.spec.Process, dir+t.Name()+"/attr/"); err != nil {
			return false, err
		}
	}
	return false, nil
}

// wantIDs says which ids the processes may have, as rt sees them.
func wantIDs(want *criu.Confinement, s *specs.Spec) {
	if s.Process == nil {
		return
	}
	host := func(id uint32, m []specs.LinuxIDMapping) string {
		if newNamespace(s, specs.UserNamespace) {
			for _, e := range m {
				if id >= e.ContainerID && id-e.ContainerID < e.Size {
					return strconv.FormatUint(uint64(e.HostID)+uint64(id-e.ContainerID), 10)
				}
			}
		}
		return strconv.FormatUint(uint64(id), 10)
	}
	u := &s.Process.User
	want.UID, want.GID = host(u.UID, s.Linux.UIDMappings), host(u.GID, s.Linux.GIDMappings)
	want.Groups = []string{want.GID}
	for _, g := range u.AdditionalGids {
		want.Groups = append(want.Groups, host(g, s.Linux.GIDMappings))
	}
}

// verifyShared checks that a process is in the namespaces of the first.
func (r *restoration) verifyShared(c *creation, pid int) error {
	for _, t := range plan.NamespaceTypes() {
		first, err := namespace(r.init, t)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		its, err := namespace(pid, t)
		if err != nil {
			return err
		}
		if os.SameFile(first, its) {
			continue
		}
		own, err := namespace(0, t)
		if err != nil {
			return err
		}
		if t == specs.MountNamespace || os.SameFile(own, its) || !r.mayMount(c) {
			return fmt.Errorf("/linux/namespaces: process %d is in another %s namespace than the first one", pid, t)
		}
	}
	return nil
}

// verifyLimits checks what else a process must not have more of than the config gives.
func verifyLimits(p *specs.Process, want *criu.Confinement, pid int) error {
	if p == nil {
		return nil
	}
	if p.Scheduler == nil && !want.May("CAP_SYS_NICE") {
		if err := verifyScheduling(pid); err != nil {
			return err
		}
	}
	if want.May("CAP_SYS_RESOURCE") {
		return nil
	}
	if p.OOMScoreAdj != nil {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/oom_score_adj")
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err != nil || n < *p.OOMScoreAdj {
			return fmt.Errorf("/process/oomScoreAdj: process %d has %s", pid, strings.TrimSpace(string(data)))
		}
	}
	for i, l := range p.Rlimits {
		var has unix.Rlimit
		if err := unix.Prlimit(pid, plan.RlimitNumber(l.Type), nil, &has); err == nil && has.Max > l.Hard {
			return fmt.Errorf("/process/rlimits/%d: process %d has the hard limit %d", i, pid, has.Max)
		}
	}
	return nil
}

// verifyScheduling checks that a process is not scheduled in a way that takes a privilege.
func verifyScheduling(pid int) error {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return err
	}
	// proc_pid_stat(5): the name, in brackets, is the second field.
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	const nice, policy = 19 - 3, 41 - 3
	if len(f) <= policy {
		return fmt.Errorf("read stat of process %d: %d fields", pid, len(f))
	}
	own, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // as the system call has it: 20 - nice
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(f[nice]); err != nil || n < min(0, 20-own) {
		return fmt.Errorf("/process/scheduler: there is none, and process %d has the nice value %s", pid, f[nice])
	}
	switch f[policy] {
	case "0", "3", "5": // SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
		return nil
	}
	return fmt.Errorf("/process/scheduler: there is none, and process %d has the policy %s (sched(7))", pid, f[policy])
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

// verifyFilter checks that below all filters of the images lies that of the config. That all threads have one
// is seen later.
func (r *restoration) verifyFilter() error {
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

// verifyLabels checks the labels of a thread by its files in attr.
func (r *restoration) verifyLabels(p *specs.Process, attr string) error {
	if p == nil {
		return nil
	}
	kind, name, _ := strings.Cut(r.opts.LSMProfile, ":")
	if want := p.ApparmorProfile; want != "" {
		if kind == "apparmor" {
			want = name
		}
		got, err := os.ReadFile(attr + "apparmor/current")
		if err != nil {
			return err
		}
		// A profile may have others below it, into which it lets programs change.
		profile, _, _ := strings.Cut(strings.TrimSpace(string(got)), " (")
		if profile != want && !strings.HasPrefix(profile, want+"//") {
			return fmt.Errorf("/process/apparmorProfile: the profile is %q, not %q", profile, want)
		}
	}
	if want := p.SelinuxLabel; want != "" {
		if kind == "selinux" {
			want = name
		}
		got, err := os.ReadFile(attr + "current")
		if err != nil {
			return err
		}
		if label := strings.TrimRight(string(got), "\x00\n"); label != want {
			return fmt.Errorf("/process/selinuxLabel: the label is %q, not %q", label, want)
		}
	}
	return nil
}
