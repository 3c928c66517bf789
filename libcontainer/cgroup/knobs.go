package cgroup

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// knobs grows as the members of a linux.resources are gone through. Zero, false
// and empty ask for nothing; but an update turns a switch off with them.
type knobs []knob

func (ks *knobs) add(controller, file, pointer, value string) *knob {
	*ks = append(*ks, knob{controller: controller, file: file, pointer: pointer, value: value})
	return &(*ks)[len(*ks)-1]
}

// refuse and ignore note what this version of cgroups does not have.
func (ks *knobs) refuse(controller, pointer, why string) {
	*ks = append(*ks, knob{controller: controller, pointer: pointer, refused: why})
}

func (ks *knobs) ignore(controller, pointer, why string) {
	*ks = append(*ks, knob{controller: controller, pointer: pointer, ignored: why})
}

// v1Knobs returns what r asks for on cgroup v1.
func v1Knobs(r *specs.LinuxResources, update bool) []knob {
	if r == nil {
		return nil
	}
	var ks knobs
	if c := r.CPU; c != nil {
		ks.cpuset(c)
		if v := value(c.Shares); v != 0 {
			ks.add("cpu", "cpu.shares", "/cpu/shares", decimal(v)).readBack = true
		}
		// Burst first: one that is to shrink below the new quota must do so
		// before it. One that is to grow is tried again after the quota.
		if v := value(c.Burst); v != 0 {
			ks.add("cpu", "cpu.cfs_burst_us", "/cpu/burst", decimal(v))
		}
		if v := value(c.Period); v != 0 {
			ks.add("cpu", "cpu.cfs_period_us", "/cpu/period", decimal(v))
		}
		if v := value(c.Quota); v != 0 {
			ks.add("cpu", "cpu.cfs_quota_us", "/cpu/quota", decimal(max(v, -1)))
		}
		if v := value(c.RealtimePeriod); v != 0 {
			ks.add("cpu", "cpu.rt_period_us", "/cpu/realtimePeriod", decimal(v))
		}
		if v := value(c.RealtimeRuntime); v != 0 {
			ks.add("cpu", "cpu.rt_runtime_us", "/cpu/realtimeRuntime", decimal(v))
		}
		ks.idle(c, update)
	}
	if m := r.Memory; m != nil {
		ks.memoryV1(m, update)
	}
	ks.pids(r)
	if b := r.BlockIO; b != nil {
		ks.blockV1(b)
	}
	ks.hugepages(r, ".limit_in_bytes")
	if n := r.Network; n != nil {
		if v := value(n.ClassID); v != 0 {
			ks.add("net_cls", "net_cls.classid", "/network/classID", decimal(v))
		}
		for i, p := range n.Priorities {
			if p.Priority != 0 {
				ks.add("net_prio", "net_prio.ifpriomap", "/network/priorities/"+strconv.Itoa(i), p.Name+" "+decimal(p.Priority))
			}
		}
	}
	ks.rdma(r)
	if len(r.Unified) > 0 {
		ks.refuse("", "/unified", "the files that it names are those of cgroup v2, this host has cgroup v1")
	}
	return ks
}

func (ks *knobs) memoryV1(m *specs.LinuxMemory, update bool) {
	limit, swap, err := memorySwap(value(m.Limit), value(m.Swap))
	if err != nil {
		ks.refuse("memory", "/memory/swap", err.Error())
		return
	}
	if v := value(m.Reservation); v != 0 {
		ks.add("memory", "memory.soft_limit_in_bytes", "/memory/reservation", decimal(max(v, -1)))
	}
	if limit != 0 {
		ks.add("memory", "memory.limit_in_bytes", "/memory/limit", decimal(max(limit, -1)))
	}
	if swap != 0 {
		// The file is missing when the kernel does not account swap.
		ks.add("memory", "memory.memsw.limit_in_bytes", "/memory/swap", decimal(max(swap, -1))).optional = swap < 0
	}
	if v := value(m.Swappiness); v != 0 {
		ks.add("memory", "memory.swappiness", "/memory/swappiness", decimal(v))
	}
	if d := m.DisableOOMKiller; d != nil && *d {
		ks.add("memory", "memory.oom_control", "/memory/disableOOMKiller", "1")
	} else if d != nil && update {
		ks.add("memory", "memory.oom_control", "/memory/disableOOMKiller", "0").optional = true
	}
}

func (ks *knobs) blockV1(b *specs.LinuxBlockIO) {
	const pointer = "/blockIO"
	// Which of the files there are depends on the kernel's I/O schedulers.
	bfq := func(file, pointer, v string) {
		ks.add("blkio", "blkio."+file, pointer, v).or = &knob{controller: "blkio", file: "blkio.bfq." + file, pointer: pointer, value: v}
	}
	if v := value(b.Weight); v != 0 {
		bfq("weight", pointer+"/weight", decimal(v))
	}
	for i, d := range b.WeightDevice {
		if v := value(d.Weight); v != 0 {
			bfq("weight_device", pointer+"/weightDevice/"+strconv.Itoa(i), device(d.Major, d.Minor)+" "+decimal(v))
		}
	}
	for _, t := range throttles(b) {
		for i, d := range t.devices {
			if d.Rate != 0 {
				ks.add("blkio", t.v1, pointer+"/"+t.member+"/"+strconv.Itoa(i), device(d.Major, d.Minor)+" "+decimal(d.Rate))
			}
		}
	}
}

type throttle struct {
	member, v1, v2 string
	devices        []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

// v2Knobs returns what r asks for on cgroup2. present gives the content of a
// file, "" if there is none, for a request that is to be understood beside what is
// in force.
func v2Knobs(r *specs.LinuxResources, update bool, present func(file string) string) []knob {
	if r == nil {
		return nil
	}
	var ks knobs
	if c := r.CPU; c != nil {
		ks.cpuset(c)
		if v := value(c.Shares); v != 0 {
			ks.add("cpu", "cpu.weight", "/cpu/shares", decimal(weight(v)))
		}
		if v := value(c.Burst); v != 0 {
			ks.add("cpu", "cpu.max.burst", "/cpu/burst", decimal(v))
		}
		quota := func() string {
			quota, _, _ := strings.Cut(present("cpu.max"), " ")
			return quota
		}
		if v, pointer := cpuMax(value(c.Quota), value(c.Period), quota); v != "" {
			ks.add("cpu", "cpu.max", pointer, v)
		}
		const realtime = "cgroup v2 has no limits of realtime scheduling"
		if value(c.RealtimePeriod) != 0 {
			ks.refuse("cpu", "/cpu/realtimePeriod", realtime)
		}
		if value(c.RealtimeRuntime) != 0 {
			ks.refuse("cpu", "/cpu/realtimeRuntime", realtime)
		}
		ks.idle(c, update)
	}
	if m := r.Memory; m != nil {
		ks.memoryV2(m, present)
	}
	ks.pids(r)
	if b := r.BlockIO; b != nil {
		ks.blockV2(b)
	}
	ks.hugepages(r, ".max")
	if n := r.Network; n != nil {
		const network = "cgroup v2 has no network controllers"
		if value(n.ClassID) != 0 {
			ks.refuse("net_cls", "/network/classID", network)
		}
		if slices.ContainsFunc(n.Priorities, func(p specs.LinuxInterfacePriority) bool { return p.Priority != 0 }) {
			ks.refuse("net_prio", "/network/priorities", network)
		}
	}
	ks.rdma(r)
	ks.unified(r)
	return ks
}

func (ks *knobs) memoryV2(m *specs.LinuxMemory, present func(file string) string) {
	limit, swap, err := memorySwap(value(m.Limit), value(m.Swap))
	if err == nil && swap > 0 && limit == 0 {
		// Only cgroup v1 has a file for the sum.
		limit, err = presentLimit(present("memory.max"), swap)
	}
	if err != nil {
		ks.refuse("memory", "/memory/swap", err.Error())
		return
	}
	if v := value(m.Reservation); v != 0 {
		ks.add("memory", "memory.low", "/memory/reservation", bytesOrMax(v))
	}
	if swap != 0 {
		v := bytesOrMax(swap)
		if swap > 0 {
			v = decimal(swap - limit)
		}
		// The file is missing when the kernel does not account swap; nothing
		// is lost then if there is no limit, or no swap, to ask for.
		ks.add("memory", "memory.swap.max", "/memory/swap", v).optional = v == "max" || v == "0"
	}
	if value(m.Limit) != 0 {
		ks.add("memory", "memory.max", "/memory/limit", bytesOrMax(limit))
	}
	const none = "cgroup v2 has no such setting"
	if value(m.Swappiness) != 0 {
		ks.ignore("memory", "/memory/swappiness", none)
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		ks.ignore("memory", "/memory/disableOOMKiller", none)
	}
}

func (ks *knobs) blockV2(b *specs.LinuxBlockIO) {
	const pointer = "/blockIO"
	weight := func(pointer, key string, w uint16) {
		ks.add("io", "io.bfq.weight", pointer, key+decimal(w)).or = &knob{controller: "io", file: "io.weight", pointer: pointer, value: key + decimal(ioWeight(w))}
	}
	if v := value(b.Weight); v != 0 {
		weight(pointer+"/weight", "", v)
	}
	for i, d := range b.WeightDevice {
		if v := value(d.Weight); v != 0 {
			weight(pointer+"/weightDevice/"+strconv.Itoa(i), device(d.Major, d.Minor)+" ", v)
		}
	}
	for _, t := range throttles(b) {
		for i, d := range t.devices {
			if d.Rate != 0 {
				ks.add("io", "io.max", pointer+"/"+t.member+"/"+strconv.Itoa(i), device(d.Major, d.Minor)+" "+t.v2+"="+decimal(d.Rate))
			}
		}
	}
}

// unified adds the files of the map after all else, as they override it. Each
// line of a value is a write of its own, for the files that have keys take one
// at a time.
func (ks *knobs) unified(r *specs.LinuxResources) {
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		controller, _, _ := strings.Cut(file, ".")
		if strings.HasSuffix(file, ".pressure") {
			controller = "cgroup" // these come with cgroup2 itself
		}
		for line := range strings.SplitSeq(r.Unified[file], "\n") {
			if line != "" {
				ks.add(controller, file, "/unified/"+file, line)
			}
		}
	}
}

func (ks *knobs) cpuset(c *specs.LinuxCPU) {
	if c.Cpus != "" {
		ks.add("cpuset", "cpuset.cpus", "/cpu/cpus", c.Cpus)
	}
	if c.Mems != "" {
		ks.add("cpuset", "cpuset.mems", "/cpu/mems", c.Mems)
	}
}

// idle comes after the weight: the kernel lets no idle group have one, but the
// other way round. Turned off, it lets the weight be tried again.
func (ks *knobs) idle(c *specs.LinuxCPU, update bool) {
	if v := value(c.Idle); v != 0 {
		ks.add("cpu", "cpu.idle", "/cpu/idle", decimal(v))
	} else if c.Idle != nil && update {
		ks.add("cpu", "cpu.idle", "/cpu/idle", "0").optional = true
	}
}

func (ks *knobs) pids(r *specs.LinuxResources) {
	if r.Pids == nil || value(r.Pids.Limit) == 0 {
		return
	}
	ks.add("pids", "pids.max", "/pids/limit", bytesOrMax(*r.Pids.Limit))
}

// hugepages limits what is used and, where the kernel has that, what is
// reserved: a mapping is then refused when it is made, not killed when it is used.
func (ks *knobs) hugepages(r *specs.LinuxResources, suffix string) {
	for i, h := range r.HugepageLimits {
		if h.Limit == 0 {
			continue
		}
		pointer := "/hugepageLimits/" + strconv.Itoa(i)
		ks.add("hugetlb", "hugetlb."+h.Pagesize+suffix, pointer, decimal(h.Limit))
		ks.add("hugetlb", "hugetlb."+h.Pagesize+".rsvd"+suffix, pointer, decimal(h.Limit)).optional = true
	}
}

func (ks *knobs) rdma(r *specs.LinuxResources) {
	for _, name := range slices.Sorted(maps.Keys(r.Rdma)) {
		d, v := r.Rdma[name], name
		if n := value(d.HcaHandles); n != 0 {
			v += " hca_handle=" + decimal(n)
		}
		if n := value(d.HcaObjects); n != 0 {
			v += " hca_object=" + decimal(n)
		}
		if v != name {
			ks.add("rdma", "rdma.max", "/rdma/"+name, v)
		}
	}
}

// presentLimit is the memory limit in force, from which a new sum of memory and
// swap is to be told.
func presentLimit(text string, swap int64) (int64, error) {
	limit, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, errSwapAlone(swap)
	}
	_, _, err = memorySwap(limit, swap)
	return limit, err
}

type errSwapAlone int64

func (e errSwapAlone) Error() string {
	return decimal(int64(e)) + " is memory and swap together: it needs a memory limit"
}
