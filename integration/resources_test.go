package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// needs skips a test of a lane whose kernel or layout has not got the controllers.
func needs(t *testing.T, controllers ...string) {
	t.Helper()
	for _, c := range controllers {
		if _, ok := controllerDir(c); !ok {
			t.Skipf("the cgroups of lane %s do not have the controller %s", lane, c)
		}
	}
}

// controllerDir is where the hierarchy that has a controller is mounted.
func controllerDir(controller string) (string, bool) {
	if v2 || controller == "hugetlb" && !slices.Contains(cgroup, "/sys/fs/cgroup/hugetlb") {
		text, err := os.ReadFile(filepath.Join(cgroup2(), "cgroup.controllers"))
		return cgroup2(), err == nil && slices.Contains(strings.Fields(string(text)), controller)
	}
	if controller == "io" {
		controller = "blkio"
	}
	for _, m := range cgroup {
		if slices.Contains(strings.Split(filepath.Base(m), ","), controller) {
			return m, true
		}
	}
	return "", false
}

// limits is an edit of the resources, which keep the device policy.
func limits(edit func(*specs.LinuxResources)) func(*specs.Spec) {
	return func(s *specs.Spec) { edit(s.Linux.Resources) }
}

func to[T any](v T) *T { return &v }

// stats is what the tests look at of `rt events --stats`.
type stats struct {
	Type, ID string
	Data     struct {
		CPU struct {
			Usage      struct{ Total uint64 }
			Throttling struct{ Periods, ThrottledPeriods uint64 }
		}
		Memory struct {
			Usage struct{ Limit, Usage uint64 }
			Raw   map[string]uint64
		}
		Pids    struct{ Current, Limit uint64 }
		Hugetlb map[string]struct{ Failcnt uint64 }
	}
}

func (b *box) stats() stats {
	b.t.Helper()
	out := b.ok("events", "--stats", b.id)
	var s stats
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Type != "stats" || s.ID != b.id || strings.Count(out, "\n") != 1 {
		b.t.Fatalf("events --stats: %v: %q", err, out)
	}
	return s
}

// program runs a program in the container and returns how it ended.
func (b *box) program(args ...string) result {
	b.t.Helper()
	return b.rt(append([]string{"exec", b.id}, args...)...)
}

const killed = 128 + 9

// A process that uses more memory than the limit is killed, and `rt events` says
// so; the container lives on, with less it works, and with a higher limit too.
func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	needs(t, "memory")
	b := newBox(t, args("sleep", "600"), limits(func(r *specs.LinuxResources) {
		r.Memory = &specs.LinuxMemory{Limit: to(int64(24 << 20)), Swap: to(int64(24 << 20))}
	}))
	b.launch()
	events := b.watch()
	if r := b.program("/probe", "eat", "4"); r.code != 0 || r.out != "eaten\n" {
		t.Error(r)
	}
	if r := b.program("/probe", "eat", "64"); r.code != killed {
		t.Errorf("64 MB under a limit of 24 MB: %v", r)
	}
	want := fmt.Sprintf("{\"type\":\"oom\",\"id\":%q}\n", b.id)
	eventually(t, func() error {
		if out := contents(events.out); out != want {
			return fmt.Errorf("events printed %q, expected %q", out, want)
		}
		return nil
	})
	s := b.stats().Data.Memory
	if s.Raw["oom_kill"] != 1 || s.Usage.Limit != 24<<20 || s.Usage.Usage == 0 {
		t.Errorf("statistics: %d kills, %+v", s.Raw["oom_kill"], s.Usage)
	}
	b.ok("update", "--memory", "96m", "--memory-swap", "96m", b.id)
	if r := b.program("/probe", "eat", "64"); r.code != 0 {
		t.Errorf("64 MB under a limit of 96 MB: %v", r)
	}
	b.ok("kill", b.id, "KILL")
	if r := events.end(); r.code != 0 || r.out != want || r.err != "" {
		t.Errorf("%v, expected an end with the container's", r)
	}
}

// watch begins `rt events` and waits until it would see that there is no more memory.
func (b *box) watch() *process {
	b.t.Helper()
	watched := "anon_inode:[eventfd]"
	if v2 {
		watched = "/memory.events"
	}
	p := b.begin("events", "--interval", "1h", b.id)
	eventually(b.t, func() error {
		dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			if to, _ := os.Readlink(filepath.Join(dir, e.Name())); strings.HasSuffix(to, watched) {
				return nil
			}
		}
		return fmt.Errorf("rt events has no %s open", watched)
	})
	return p
}

// The stage and what it does before the program fit into very little memory. The busybox
// that is the program here needs more of it where a kernel for several CPUs sets pages aside for each.
func TestLittleMemory(t *testing.T) {
	t.Parallel()
	needs(t, "memory")
	limit := int64(256 << 10)
	if !v2 {
		limit = 1 << 20
	}
	b := newBox(t, args("echo", "it works"), limits(func(r *specs.LinuxResources) {
		r.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	}))
	if out := b.ok("run", b.id); out != "it works\n" {
		t.Errorf("printed %q", out)
	}
	b.ok("create", b.id)
	b.ok("start", b.id)
	b.is("stopped")
}

// Out of memory is what ended the container: the event comes before the end.
func TestMemoryLimitEndsInit(t *testing.T) {
	t.Parallel()
	needs(t, "memory")
	b := newBox(t, args("sh", "-c", "while ! [ -e /go ]; do sleep 0.02; done; exec /probe eat 64"), limits(func(r *specs.LinuxResources) {
		r.Memory = &specs.LinuxMemory{Limit: to(int64(24 << 20)), Swap: to(int64(24 << 20))}
	}))
	b.launch()
	events := b.watch()
	b.file("go", "")
	if r := events.end(); r.code != 0 || !strings.Contains(r.out, `{"type":"oom","id":"`+b.id+`"}`) {
		t.Error(r)
	}
	b.is("stopped")
	b.refused([]string{"container with id " + b.id + " is not running"}, "events", b.id)
	b.refused([]string{"container with id " + b.id + " is not running"}, "events", "--stats", b.id)
}

// A limit below what is in use is refused, by the kernel on v1 and by
// checkBeforeUpdate on v2, and usage and limit are named.
func TestUpdateBelowUsage(t *testing.T) {
	t.Parallel()
	needs(t, "memory")
	b := newBox(t, script("/probe eat 1; dd if=/dev/zero of=/dev/shm/x bs=1M count=16 2>/dev/null; touch /ready; sleep 60"),
		limits(func(r *specs.LinuxResources) {
			r.Memory = &specs.LinuxMemory{Limit: to(int64(64 << 20)), Swap: to(int64(64 << 20))}
		}))
	b.reach("running")
	doc := `{"memory":{"limit":8388608,"swap":8388608,"checkBeforeUpdate":true},"pids":{"limit":99}}`
	r := b.feed(doc, "update", "--resources", "-", b.id)
	r.refused(1, "(resources /memory/limit)", " bytes are in use, the limit is to be 8388608")
	if s := b.stats().Data; s.Memory.Usage.Limit != 64<<20 || s.Pids.Limit == 99 {
		t.Errorf("a refused update left %+v, %+v", s.Memory.Usage, s.Pids)
	}
	b.is("running")
}

// feed runs rt with text as its standard input.
func (b *box) feed(text string, args ...string) result {
	b.t.Helper()
	p := b.command(append([]string{bin, "--root", b.root}, args...)...)
	p.cmd.Stdin = strings.NewReader(text)
	return p.start().end()
}

// pids is what `rt ps` lists.
func (b *box) pids() []int {
	b.t.Helper()
	var pids []int
	b.must(json.Unmarshal([]byte(b.ok("ps", "--format", "json", b.id)), &pids))
	return pids
}

// A fork bomb stops at the limit, and at the next one after an update.
func TestPidsLimit(t *testing.T) {
	t.Parallel()
	needs(t, "pids")
	// A shell ends when it cannot fork; the probe tries again.
	b := newBox(t, script("touch /ready; trap '' TERM; exec /probe bomb"), limits(func(r *specs.LinuxResources) {
		r.Pids = &specs.LinuxPids{Limit: to(int64(12))}
	}))
	b.reach("running")
	full := func(n int) {
		t.Helper()
		eventually(t, func() error {
			if s := b.stats().Data.Pids; s.Current != uint64(n) || s.Limit != uint64(n) {
				return fmt.Errorf("%+v, expected %d of %d", s, n, n)
			}
			return nil
		})
	}
	full(12)
	if r := b.program("true"); r.code == 0 {
		t.Errorf("%v in a full container", r)
	}
	b.ok("update", "--pids-limit", "20", b.id)
	full(20)
	if n := len(b.pids()); n > 20 {
		t.Errorf("%d processes under a limit of 20", n)
	}
	// The container ends as a whole.
	b.ok("delete", "--force", b.id)
}

// A busy loop gets its share of a period, and what it likes after an update. It
// runs alone: beside others on the one CPU of user-mode Linux it would not get as far
// as its quota.
func TestCPUQuota(t *testing.T) {
	needs(t, "cpu")
	b := newBox(t, script("touch /ready; while :; do :; done"), limits(func(r *specs.LinuxResources) {
		r.CPU = &specs.LinuxCPU{Quota: to(int64(10000)), Period: to(uint64(100000)), Shares: to(uint64(512)), Burst: to(uint64(1000))}
	}))
	b.reach("running")
	before, began := b.stats().Data.CPU, time.Now()
	time.Sleep(time.Second)
	after, took := b.stats().Data.CPU, time.Since(began)
	used := time.Duration(after.Usage.Total - before.Usage.Total)
	if used > took/4 {
		t.Errorf("a quota of 10%%: %v used in %v", used, took)
	}
	eventually(t, func() error { // the machine may have kept the loop below its quota
		if c := b.stats().Data.CPU; c.Throttling.ThrottledPeriods == 0 {
			return fmt.Errorf("never throttled: %+v", c)
		}
		return nil
	})
	b.ok("update", "--cpu-quota", "-1", b.id)
	time.Sleep(150 * time.Millisecond) // the period that was under way
	before = b.stats().Data.CPU
	time.Sleep(300 * time.Millisecond)
	if after := b.stats().Data.CPU; after.Throttling.ThrottledPeriods != before.Throttling.ThrottledPeriods {
		t.Errorf("throttled without a quota: %+v", after.Throttling)
	}
}

// The CPUs are those of the config, in a cgroup whose parents are new, and others
// after an update.
func TestCPUSet(t *testing.T) {
	t.Parallel()
	needs(t, "cpuset")
	allowed := func() string {
		return strings.Join(strings.Fields(grep(t, "/proc/self/status", "Cpus_allowed_list")), " ")
	}
	if !strings.HasSuffix(allowed(), "0-1") {
		t.Skipf("the test itself may use only %s", allowed())
	}
	b := newBox(t, args("sleep", "600"), limits(func(r *specs.LinuxResources) {
		r.CPU = &specs.LinuxCPU{Cpus: "1", Mems: "0"}
	}))
	b.spec.Linux.CgroupsPath += "/new/parents"
	b.write()
	b.launch()
	if out := b.exec("nproc; grep Cpus_allowed_list: /proc/self/status"); strings.Join(strings.Fields(out), " ") != "1 Cpus_allowed_list: 1" {
		t.Error(out)
	}
	b.ok("update", "--cpuset-cpus", "0-1", b.id)
	if out := b.exec("nproc"); out != "2\n" {
		t.Error(out)
	}
	b.refused([]string{`set cpuset.cpus to "0-4000" (--cpuset-cpus)`, "no limit was changed"}, "update", "--cpuset-cpus", "0-4000", b.id)
	if out := b.exec("nproc"); out != "2\n" {
		t.Error(out)
	}
	b.ok("delete", "--force", b.id)
	b.removeParents("new")
}

// removeParents removes cgroups that a test has put between the top one and a
// container's; delete leaves them.
func (b *box) removeParents(below string) {
	for _, m := range cgroup {
		os.Remove(filepath.Join(m, top, b.id, below))
		os.Remove(filepath.Join(m, top, b.id))
	}
}

// A limit of RDMA is a line of the device's. Without such a device, which can be had by hardware
// only, the kernel refuses it, and the controller's file in the container is empty.
func TestRdma(t *testing.T) {
	t.Parallel()
	needs(t, "rdma")
	devices, _ := os.ReadDir("/sys/class/infiniband")
	name := "mlx5_1"
	if len(devices) > 0 {
		name = devices[0].Name()
	}
	limit := limits(func(r *specs.LinuxResources) {
		r.Rdma = map[string]specs.LinuxRdma{name: {HcaHandles: to(uint32(3)), HcaObjects: to(uint32(10000))}}
	})
	dir := "/sys/fs/cgroup/"
	if !v2 {
		dir += "rdma/"
	}
	if len(devices) > 0 {
		b := newBox(t, args("cat", dir+"rdma.max"), limit)
		if out := b.run(); !strings.Contains(out, name+" hca_handle=3 hca_object=10000\n") {
			t.Errorf("rdma.max is %q", out)
		}
		return
	}
	b := newBox(t, args("sleep", "60"), limit)
	for _, command := range []string{"create", "run"} {
		b.refused([]string{`set rdma.max to "mlx5_1 hca_handle=3 hca_object=10000" (config.json /linux/resources/rdma/mlx5_1): no such device`}, command, b.id)
		b.clean()
	}
	b.spec.Linux.Resources.Rdma = nil
	b.write()
	b.launch()
	if out := b.exec("cat " + dir + "rdma.max; cat " + dir + "rdma.current"); out != "" {
		t.Errorf("rdma.max and rdma.current are %q", out)
	}
	r := b.feed(`{"pids":{"limit":44},"rdma":{"mlx5_1":{"hcaHandles":3}}}`, "update", "-r", "-", b.id)
	r.refused(1, `set rdma.max to "mlx5_1 hca_handle=3" (resources /rdma/mlx5_1): no such device; no limit was changed`)
	if n := b.stats().Data.Pids.Limit; n == 44 {
		t.Error("an update that was refused changed a limit")
	}
}

// Huge pages are refused by the limit, as the kernel's count of it shows, before
// it is asked whether there are any.
func TestHugepageLimit(t *testing.T) {
	t.Parallel()
	needs(t, "hugetlb")
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skip("this kernel has no huge pages of 2 MB")
	}
	b := newBox(t, args("sleep", "600"), limits(func(r *specs.LinuxResources) {
		r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}
	}))
	b.launch()
	b.program("/probe", "hugemap", "4")
	if n := b.stats().Data.Hugetlb["2MB"].Failcnt; n != 0 {
		t.Errorf("4 MB under a limit of 4: %d refused", n)
	}
	if r := b.program("/probe", "hugemap", "6"); r.code == 0 {
		t.Error(r)
	}
	if n := b.stats().Data.Hugetlb["2MB"].Failcnt; n == 0 {
		t.Error("6 MB under a limit of 4: none refused")
	}
	r := b.feed(`{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}`, "update", "-r", "-", b.id)
	r.refused(1, "set hugetlb.3MB.", "(resources /hugepageLimits/0)")
}

// Realtime scheduling is permitted with a share of it (CONFIG_RT_GROUP_SCHED).
func TestRealtime(t *testing.T) {
	t.Parallel()
	if v2 {
		t.Skip("cgroup v2 has no such limit")
	}
	needs(t, "cpu")
	dir, _ := controllerDir("cpu")
	nice := func(s *specs.Spec) {
		for _, set := range []*[]string{&s.Process.Capabilities.Bounding, &s.Process.Capabilities.Effective, &s.Process.Capabilities.Permitted} {
			*set = append(*set, "CAP_SYS_NICE")
		}
	}
	parent := filepath.Join(dir, top, "cpu.rt_runtime_us")
	if err := os.WriteFile(parent, []byte("20000"), 0); err != nil {
		t.Skipf("realtime groups: %v", err)
	}
	b := newBox(t, args("/probe", "fifo"), nice)
	if r := b.rt("run", b.id); r.code == 0 {
		t.Errorf("%v without a share", r)
	}
	b.spec.Linux.Resources.CPU = &specs.LinuxCPU{RealtimeRuntime: to(int64(10000)), RealtimePeriod: to(uint64(1000000))}
	b.write()
	b.run()
}

// The unified map overrides the rest, and reaches files that have no other name.
func TestUnified(t *testing.T) {
	t.Parallel()
	if !v2 {
		t.Skip("the map is for cgroup v2, see TestRefusedLimits")
	}
	b := newBox(t, args("sh", "-c", "cd /sys/fs/cgroup; mkdir a && { mkdir b || echo one; }; rmdir a"), ns("cgroup", ""), limits(func(r *specs.LinuxResources) {
		r.Unified = map[string]string{"cgroup.max.descendants": "1"}
	}))
	for i := range b.spec.Mounts {
		if m := &b.spec.Mounts[i]; m.Type == "cgroup" {
			m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "ro" })
		}
	}
	b.write()
	if r := b.rt("run", b.id); r.code != 0 || r.out != "one\n" {
		t.Error(r)
	}
	if _, ok := controllerDir("memory"); !ok {
		return
	}
	b.spec.Process.Args = []string{"/probe", "eat", "64"}
	b.spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: to(int64(256 << 20))}
	b.spec.Linux.Resources.Unified = map[string]string{"memory.max": "25165824", "memory.swap.max": "0", "pids.max": "30\n"}
	if _, err := os.Stat(filepath.Join(cgroup2(), top, "memory.swap.max")); err != nil {
		delete(b.spec.Linux.Resources.Unified, "memory.swap.max") // no swap accounting
	}
	b.write()
	if r := b.rt("run", b.id); r.code != killed {
		t.Error(r)
	}
}
