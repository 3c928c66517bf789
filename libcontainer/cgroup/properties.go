package cgroup

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"rt/libcontainer/cgroup/systemd/unit"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// UnitProperties returns what systemd is told of r, so that it agrees with the
// files that m writes and writes the same when it writes them: all that it has a
// property for. They follow from the same values for the files. The list may be
// empty.
func UnitProperties(m Manager, r *specs.LinuxResources) ([]unit.Property, error) {
	switch m := m.(type) {
	case *v2:
		return unitProperties(m.knobs(r, update), V2)
	case *v1:
		return unitProperties(m.knobs(r, update), m.rec.Mode)
	}
	return nil, fmt.Errorf("list unit properties: %T is no manager of files", m)
}

// DeviceProperties returns what systemd is told of the device policy that m.Devices makes of
// config. On cgroup v1 it writes what it knows of that whenever it reads its configuration
// again, and to who has told it nothing it opens all devices; on v2 there is nothing
// to tell, as its programs can only take away from what rt's allows.
//
// It knows lists of what is allowed, and no rule for one minor number of all major
// ones: such a rule is left out. A policy that allows all but some devices it does not
// know at all, and nothing is told.
func DeviceProperties(m Manager, config []specs.LinuxDeviceCgroup) ([]unit.Property, error) {
	if _, ok := m.(*v1); !ok {
		return nil, nil
	}
	list, err := deviceRules(config)
	if err != nil {
		return nil, err
	}
	_, allowed, exceptions, err := v1Policy(list)
	if err != nil || allowed {
		return nil, err
	}
	var pairs [][2]string
	for i := range exceptions {
		e := &exceptions[i]
		class := "char"
		if e.kind == 'b' {
			class = "block"
		}
		var name string
		switch {
		case e.access == 0:
			continue // all was taken back
		case e.major == anyNumber && e.minor == anyNumber:
			name = class + "-*"
		case e.major == anyNumber:
			continue
		case e.minor == anyNumber:
			name = fmt.Sprintf("%s-%d", class, e.major)
		default:
			name = fmt.Sprintf("/dev/%s/%d:%d", class, e.major, e.minor)
		}
		pairs = append(pairs, [2]string{name, e.letters()})
	}
	return []unit.Property{unit.Text("DevicePolicy", "strict"), unit.Pairs("DeviceAllow", pairs)}, nil
}

// Properties that are numbers, with the file that has the same one, in cgroup2 and in v1.
var (
	numbersV2 = [...][2]string{
		{"cpu.weight", "CPUWeight"}, {"io.weight", "IOWeight"}, {"pids.max", "TasksMax"},
		{"memory.min", "MemoryMin"}, {"memory.low", "MemoryLow"}, {"memory.high", "MemoryHigh"},
		{"memory.max", "MemoryMax"}, {"memory.swap.max", "MemorySwapMax"},
	}
	numbersV1 = [...][2]string{
		{"cpu.shares", "CPUShares"}, {"blkio.weight", "BlockIOWeight"}, {"pids.max", "TasksMax"},
		{"memory.limit_in_bytes", "MemoryLimit"},
	}
)

func unitProperties(knobs []knob, mode Mode) ([]unit.Property, error) {
	var list []unit.Property
	numbers := numbersV1[:]
	if mode == V2 {
		numbers = numbersV2[:]
	}
	quota, period := "", ""
	for _, k := range knobs {
		bad := func(err error) error {
			return fmt.Errorf("set %s to %q (config.json /linux/resources): %w", k.file, k.value, err)
		}
		switch k.file {
		case "cpu.max":
			quota, period, _ = strings.Cut(k.value, " ")
		case "cpu.cfs_quota_us":
			quota = k.value
		case "cpu.cfs_period_us":
			period = k.value
		case "cpuset.cpus", "cpuset.mems":
			if mode != V2 {
				continue // systemd has no cpuset there
			}
			set, err := bitmap(k.value)
			if err != nil {
				return nil, bad(err)
			}
			name := "AllowedCPUs"
			if k.file == "cpuset.mems" {
				name = "AllowedMemoryNodes"
			}
			list = append(list, unit.Bytes(name, set))
		default:
			i := slices.IndexFunc(numbers, func(n [2]string) bool { return n[0] == k.file })
			if i < 0 {
				continue
			}
			v, err := number(strings.TrimPrefix(k.value, "default "))
			if err != nil {
				return nil, bad(err)
			}
			list = append(list, unit.Number(numbers[i][1], v))
		}
	}
	cpu, err := quotaProperties(quota, period)
	return append(list, cpu...), err
}

// number reads a limit, of which "max" and -1 are none.
func number(s string) (uint64, error) {
	if s == "max" || s == "-1" {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// quotaProperties returns the properties for a quota of CPU time a period, in
// microseconds, either of which may be "". systemd keeps whole percents of a CPU and rounds
// down, so a part of one counts as one.
func quotaProperties(quota, period string) ([]unit.Property, error) {
	var list []unit.Property
	p := uint64(100000)
	if period != "" {
		var err error
		if p, err = strconv.ParseUint(period, 10, 64); err != nil || p == 0 {
			return nil, fmt.Errorf("set CPU period to %q (config.json /linux/resources/cpu/period): not a positive number", period)
		}
		list = append(list, unit.Number("CPUQuotaPeriodUSec", p))
	}
	if quota == "" {
		return list, nil
	}
	v, err := number(quota)
	if err != nil {
		return nil, fmt.Errorf("set CPU quota to %q (config.json /linux/resources/cpu/quota): %w", quota, err)
	}
	if v != math.MaxUint64 {
		const second, percent = 1000000, 10000
		if v > math.MaxUint64/second-percent {
			return nil, fmt.Errorf("set CPU quota to %q (config.json /linux/resources/cpu/quota): too large", quota)
		}
		v = v * second / p
		v = (v + percent - 1) / percent * percent
	}
	return append(list, unit.Number("CPUQuotaPerSecUSec", v)), nil
}

// bitmap turns a list such as "0-3,7" (cpuset(7)) into a set, bit N%8 of byte N/8 for N.
func bitmap(list string) ([]byte, error) {
	var set []byte
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		low, high, ok := strings.Cut(part, "-")
		if !ok {
			high = low
		}
		a, err1 := strconv.ParseUint(low, 10, 16)
		b, err2 := strconv.ParseUint(high, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return nil, fmt.Errorf("%q is neither a number nor a range", part)
		}
		for len(set) <= int(b/8) {
			set = append(set, 0)
		}
		for n := a; n <= b; n++ {
			set[n/8] |= 1 << (n % 8)
		}
	}
	return set, nil
}
