package bundle

import (
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The kernel's bounds of cfs_period_us and of a quota that is not "max", in
// microseconds (kernel/sched/core.c).
const (
	minPeriod = 1000
	maxPeriod = 1_000_000
	minQuota  = 1000
)

// Names in bytes: IFNAMSIZ and IB_DEVICE_NAME_MAX less their NUL, NAME_MAX.
const (
	maxInterface = 15
	maxRdma      = 63
	maxFileName  = 255
)

// resources checks limits whose document has them at base. Zero, false and
// empty ask for nothing: engines send them.
func (c *checker) resources(base string, r *specs.LinuxResources) {
	for i := range r.Devices {
		c.deviceRule(at(base, "devices", i), &r.Devices[i])
	}
	if r.Memory != nil {
		c.memory(base+"/memory", r.Memory)
	}
	if r.CPU != nil {
		c.cpu(base+"/cpu", r.CPU)
	}
	if r.BlockIO != nil {
		c.blockIO(base+"/blockIO", r.BlockIO)
	}
	for i := range r.HugepageLimits {
		h := &r.HugepageLimits[i]
		if !isPageSize(h.Pagesize) {
			c.not(at(base, "hugepageLimits", i, "pageSize"), quote(h.Pagesize), "malformed page size", `a number with KB, MB or GB, such as "2MB"`)
		}
	}
	if r.Network != nil {
		c.network(base+"/network", r.Network)
	}
	for name, d := range r.Rdma {
		c.rdma(at(base, "rdma", name), name, d)
	}
	for file, v := range r.Unified {
		c.unified(at(base, "unified", file), file, v)
	}
}

// memory: amounts in bytes, -1 is no limit. Swap counts memory and swap
// together, so it has a meaning only with a limit; an update may rely on the
// one set before.
func (c *checker) memory(pointer string, m *specs.LinuxMemory) {
	limit := c.amount(pointer+"/limit", m.Limit)
	c.amount(pointer+"/reservation", m.Reservation)
	swap := c.amount(pointer+"/swap", m.Swap)
	switch {
	case swap <= 0:
	case limit < 0:
		c.not(pointer+"/swap", number(swap), "below the memory limit, which is none", "-1")
	case limit == 0 && !c.update:
		c.bad(pointer+"/swap", number(swap), "cannot be set without a memory limit")
	case swap < limit:
		c.not(pointer+"/swap", number(swap), "below the memory limit", "-1, or from "+number(limit)+" on")
	}
	if n := m.Swappiness; n != nil && *n > 100 {
		c.not(pointer+"/swappiness", number(*n), "out of range", integers(0, 100))
	}
	// useHierarchy needs no look: all kernels have it true, and cannot have it false.
	if m.Kernel != nil && *m.Kernel != 0 {
		c.warn(pointer+"/kernel", number(*m.Kernel), "ignored, kernels have no such limit any more")
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		c.warn(pointer+"/kernelTCP", number(*m.KernelTCP), "ignored, kernels have no such limit any more")
	}
}

// amount checks and returns an amount, 0 if it is not given.
func (c *checker) amount(pointer string, n *int64) int64 {
	if n == nil {
		return 0
	}
	if *n < -1 {
		c.not(pointer, number(*n), "out of range", "bytes, or -1 for no limit")
		return 0
	}
	return *n
}

// cpu does not check shares: every value has a weight on cgroup v2, and on v1
// the kernel tells.
func (c *checker) cpu(pointer string, p *specs.LinuxCPU) {
	if n := p.Quota; n != nil && (*n < -1 || *n > 0 && *n < minQuota) {
		c.not(pointer+"/quota", number(*n), "out of range", "microseconds from 1000 on, or -1 for no limit")
	}
	if n := p.Period; n != nil && *n != 0 && (*n < minPeriod || *n > maxPeriod) {
		c.not(pointer+"/period", number(*n), "out of range", "microseconds from 1000 to 1000000")
	}
	if p.Quota != nil && *p.Quota > 0 && p.Burst != nil && *p.Burst > uint64(*p.Quota) {
		c.not(pointer+"/burst", number(*p.Burst), "above the quota", "microseconds up to "+number(*p.Quota))
	}
	if n := p.RealtimeRuntime; n != nil && *n < -1 {
		c.not(pointer+"/realtimeRuntime", number(*n), "out of range", "microseconds, or -1 for no limit")
	}
	if n := p.Idle; n != nil && *n != 0 && *n != 1 {
		c.not(pointer+"/idle", number(*n), "out of range", "0 or 1")
	}
	c.numberList(pointer+"/cpus", p.Cpus)
	c.numberList(pointer+"/mems", p.Mems)
}

// numberList checks a list of CPUs or memory nodes (cpuset(7), "List format").
func (c *checker) numberList(pointer, s string) {
	const accepted = `numbers and ranges, such as "0-3,7"`
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" && s == "" {
			return
		}
		from, to, isRange := strings.Cut(part, "-")
		to, stride, strided := strings.Cut(to, ":")
		used, group, ok := strings.Cut(stride, "/")
		a, err := strconv.ParseUint(from, 10, 31)
		b, err2 := a, error(nil)
		if isRange {
			b, err2 = strconv.ParseUint(to, 10, 31)
		}
		switch {
		case err != nil || err2 != nil || strided && !(ok && isNumeric(used) && isNumeric(group)):
			c.not(pointer, quote(s), "malformed list", accepted)
			return
		case b < a:
			c.not(pointer, quote(s), "range "+part+" ends before it begins", accepted)
			return
		}
	}
}

// The kernel's bounds of a block I/O weight (block/bfq-iosched.h has 1 for the
// least, the specification 10).
const (
	minWeight = 10
	maxWeight = 1000
)

func (c *checker) blockIO(pointer string, b *specs.LinuxBlockIO) {
	const leaf = "kernels have no leaf weights since 5.0"
	c.weight(pointer+"/weight", b.Weight)
	if asks(b.LeafWeight) {
		c.bad(pointer+"/leafWeight", number(uint32(*b.LeafWeight)), leaf)
	}
	for i := range b.WeightDevice {
		d, p := &b.WeightDevice[i], at(pointer, "weightDevice", i)
		c.deviceNumber(p+"/major", d.Major, 0, maxMajor)
		c.deviceNumber(p+"/minor", d.Minor, 0, maxMinor)
		c.weight(p+"/weight", d.Weight)
		if asks(d.LeafWeight) {
			c.bad(p+"/leafWeight", number(uint32(*d.LeafWeight)), leaf)
		}
		if d.Weight == nil && d.LeafWeight == nil {
			c.bad(p+"/weight", "", "must be specified")
		}
	}
	for _, t := range []struct {
		member  string
		devices []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", b.ThrottleWriteIOPSDevice},
	} {
		for i := range t.devices {
			p := at(pointer, t.member, i)
			c.deviceNumber(p+"/major", t.devices[i].Major, 0, maxMajor)
			c.deviceNumber(p+"/minor", t.devices[i].Minor, 0, maxMinor)
		}
	}
}

func (c *checker) weight(pointer string, w *uint16) {
	if w != nil && *w != 0 && (*w < minWeight || *w > maxWeight) {
		c.not(pointer, number(uint32(*w)), "out of range", integers(minWeight, maxWeight))
	}
}

// isPageSize tells whether s is a size as the names of the kernel's files have it.
// That it has pages of this size cannot be told here.
func isPageSize(s string) bool {
	n := strings.TrimRight(s, "KMGB")
	unit := s[len(n):]
	return isNumeric(n) && n[0] != '0' && (unit == "KB" || unit == "MB" || unit == "GB")
}

func (c *checker) network(pointer string, n *specs.LinuxNetwork) {
	for i, p := range n.Priorities {
		name := at(pointer, "priorities", i, "name")
		switch {
		case p.Name == "":
			c.bad(name, "", "must be specified")
		case len(p.Name) > maxInterface || strings.ContainsAny(p.Name, "/: \t\n\v\f\r"):
			c.not(name, quote(p.Name), "no name of a network interface", "up to 15 bytes without blanks, / and :")
		}
	}
}

func (c *checker) rdma(pointer, name string, d specs.LinuxRdma) {
	if name == "" || len(name) > maxRdma || strings.ContainsAny(name, "/ \t\n\v\f\r") {
		c.not(pointer, quote(name), "no name of an RDMA device", "up to 63 bytes without blanks and /")
	}
	if d.HcaHandles == nil && d.HcaObjects == nil {
		c.not(pointer, "", "must be specified", `"hcaHandles", "hcaObjects" or both`)
	}
}

// unified checks the name of a file of cgroup2. Those with which rt itself works
// are not the config's to write.
func (c *checker) unified(pointer, file, value string) {
	const accepted = `a file of cgroup v2, such as "memory.high"`
	controller, _, dotted := strings.Cut(file, ".")
	switch file {
	case "cgroup.procs", "cgroup.threads", "cgroup.type", "cgroup.subtree_control", "cgroup.freeze", "cgroup.kill":
		c.not(pointer, quote(file), "cannot be set, rt itself uses this file", accepted)
		return
	}
	ok := dotted && controller != "" && len(file) <= maxFileName && !strings.Contains(file, "..") && file[len(file)-1] != '.'
	for i := range len(file) {
		ok = ok && (isAlnum(file[i]) || file[i] == '_' || file[i] == '.')
	}
	if !ok {
		c.not(pointer, quote(file), "malformed file name", accepted)
	}
	c.text(pointer, value)
}
