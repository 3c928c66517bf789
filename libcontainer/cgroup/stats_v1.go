package cgroup

import (
	"fmt"
	"strconv"
	"strings"
)

// userHZ is the unit of cpuacct.stat; it is the same on all architectures that
// rt is built for.
const userHZ = 100

func (m *v1) Stats() (*Stats, error) {
	s := &Stats{Hugetlb: map[string]Amount{}}
	for _, part := range []struct {
		controller string
		read       func(*reader, *Stats)
	}{
		{"cpuacct", cpuacctV1}, {"cpu", cpuV1}, {"cpuset", cpusetV1}, {"memory", memoryV1}, {"pids", pidsStats},
		{"blkio", blkioV1}, {"hugetlb", hugetlbV1},
	} {
		d := m.with(part.controller)
		if d == nil {
			continue
		}
		r := &reader{d: d}
		if r.err = d.open(); r.err == nil {
			part.read(r, s)
		}
		if r.err != nil {
			return nil, fmt.Errorf("read statistics of cgroup %q: %w", d.Host(), r.err)
		}
	}
	if m.unified != nil {
		r := &reader{d: m.unified}
		pressures(r, s)
		if m.with("hugetlb") == nil {
			hugetlbV2(r, s)
		}
		if r.err != nil && !gone(r.err) {
			return nil, fmt.Errorf("read statistics of cgroup %q: %w", m.unified.Host(), r.err)
		}
	}
	return s, nil
}

func cpuacctV1(r *reader, s *Stats) {
	u := &s.CPU.Usage
	u.Total = r.number("cpuacct.usage")
	ticks := parseKeyed(r.text("cpuacct.stat"))
	const tick = 1e9 / userHZ
	u.User, u.Kernel = times(ticks["user"], tick), times(ticks["system"], tick)
	for word := range strings.FieldsSeq(r.text("cpuacct.usage_percpu")) {
		u.PerCPU = append(u.PerCPU, parseNumber(word))
	}
	u.PerCPUUser, u.PerCPUKernel = parseUsageAll(r.text("cpuacct.usage_all"))
}

// parseUsageAll reads lines of "CPU USER SYSTEM" below a headline.
func parseUsageAll(text string) (user, kernel []uint64) {
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		if _, err := strconv.ParseUint(f[0], 10, 32); err != nil {
			continue
		}
		user, kernel = append(user, parseNumber(f[1])), append(kernel, parseNumber(f[2]))
	}
	return user, kernel
}

func cpuV1(r *reader, s *Stats) {
	stat := parseKeyed(r.text("cpu.stat"))
	t := &s.CPU.Throttling
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = stat["nr_periods"], stat["nr_throttled"], stat["throttled_time"]
}

func cpusetV1(r *reader, s *Stats) {
	c := &s.CPUSet
	c.CPUs, c.Mems = parseList(r.text("cpuset.cpus")), parseList(r.text("cpuset.mems"))
	for file, n := range map[string]*uint64{
		"cpu_exclusive": &c.CPUExclusive, "mem_hardwall": &c.MemHardwall, "mem_exclusive": &c.MemExclusive,
		"memory_migrate": &c.MemoryMigrate, "memory_spread_page": &c.MemorySpreadPage, "memory_spread_slab": &c.MemorySpreadSlab,
		"memory_pressure": &c.MemoryPressure, "sched_load_balance": &c.SchedLoadBalance,
	} {
		*n = r.number("cpuset." + file)
	}
	// -1 is the system's default.
	c.SchedRelaxDomainLevel, _ = strconv.ParseInt(r.text("cpuset.sched_relax_domain_level"), 10, 64)
}

func memoryV1(r *reader, s *Stats) {
	m := &s.Memory
	m.Raw = parseKeyed(r.text("memory.stat"))
	m.Cache = m.Raw["cache"]
	if n, ok := parseKeyed(r.text("memory.oom_control"))["oom_kill"]; ok {
		m.Raw["oom_kill"] = n
	}
	for name, a := range map[string]*Amount{"": &m.Usage, "memsw.": &m.Swap, "kmem.": &m.Kernel, "kmem.tcp.": &m.KernelTCP} {
		*a = r.amountV1("memory." + name)
	}
}

func (r *reader) amountV1(prefix string) Amount {
	return Amount{
		Limit: r.number(prefix + "limit_in_bytes"), Usage: r.number(prefix + "usage_in_bytes"),
		Max: r.number(prefix + "max_usage_in_bytes"), Failcnt: r.number(prefix + "failcnt"),
	}
}

// pidsStats is the same on v1 and v2.
func pidsStats(r *reader, s *Stats) {
	s.Pids.Current = r.number("pids.current")
	if n := r.number("pids.max"); n != none {
		s.Pids.Limit = n
	}
}

// blkioV1 takes what the I/O scheduler has counted, or the throttling if it has not.
func blkioV1(r *reader, s *Stats) {
	for _, kind := range [...]string{"bfq", "throttle"} {
		s.BlockIO.Serviced = parseBlkio(r.text("blkio." + kind + ".io_serviced_recursive"))
		if len(s.BlockIO.Serviced) > 0 {
			s.BlockIO.ServiceBytes = parseBlkio(r.text("blkio." + kind + ".io_service_bytes_recursive"))
			return
		}
	}
}

// parseBlkio reads lines of "MAJOR:MINOR OPERATION NUMBER"; the total of all
// devices is passed over.
func parseBlkio(text string) []BlockIOEntry {
	var out []BlockIOEntry
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		major, minor, ok := parseDevice(f[0])
		n, err := strconv.ParseUint(f[2], 10, 64)
		if ok && err == nil {
			out = append(out, BlockIOEntry{Major: major, Minor: minor, Op: f[1], Value: n})
		}
	}
	return out
}

// hugetlbV1 tells what is reserved, where the kernel counts that, and how often either limit
// was hit, as hugetlbV2 does.
func hugetlbV1(r *reader, s *Stats) {
	for _, size := range pageSizes() {
		used := r.amountV1("hugetlb." + size + ".")
		a := used
		if r.text("hugetlb."+size+".rsvd.limit_in_bytes") != "" {
			a = r.amountV1("hugetlb." + size + ".rsvd.")
			a.Failcnt += used.Failcnt
		}
		a.Limit = 0 // runc does not tell it
		s.Hugetlb[size] = a
	}
}
