package cgroup

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestWeight(t *testing.T) {
	for _, tt := range []struct{ shares, want uint64 }{
		{1, 1}, {2, 1}, {3, 2}, {512, 59}, {1024, 100}, {2048, 174}, {262143, 10000}, {262144, 10000}, {262145, 10000}, {math.MaxUint64, 10000},
	} {
		if got := weight(tt.shares); got != tt.want {
			t.Errorf("weight(%d) = %d, want %d", tt.shares, got, tt.want)
		}
	}
	for s := uint64(2); s < 262144; s++ {
		if a, b := weight(s), weight(s+1); a > b || a < 1 || b > 10000 {
			t.Fatalf("weight(%d) = %d, weight(%d) = %d", s, a, s+1, b)
		}
	}
}

func p[T any](v T) *T { return &v }

func cpu(c specs.LinuxCPU) *specs.LinuxResources { return &specs.LinuxResources{CPU: &c} }
func mem(limit, swap int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}
}
func pids(n int64) *specs.LinuxResources {
	return &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
}

func TestKnobs(t *testing.T) {
	const top = math.MaxInt64
	block := func(b specs.LinuxBlockIO) *specs.LinuxResources { return &specs.LinuxResources{BlockIO: &b} }
	memory := func(m specs.LinuxMemory) *specs.LinuxResources { return &specs.LinuxResources{Memory: &m} }
	huge := func(size string, n uint64) *specs.LinuxResources {
		return &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: size, Limit: n}}}
	}
	rate := func(major, minor int64, n uint64) []specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: n}
		d.Major, d.Minor = major, minor
		return []specs.LinuxThrottleDevice{d}
	}
	weigh := func(major, minor int64, w uint16) []specs.LinuxWeightDevice {
		d := specs.LinuxWeightDevice{Weight: &w}
		d.Major, d.Minor = major, minor
		return []specs.LinuxWeightDevice{d}
	}
	rdma := func(r specs.LinuxRdma) *specs.LinuxResources {
		return &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": r}}
	}
	tests := []struct {
		name   string
		r      *specs.LinuxResources
		v1, v2 string // "file=value, ...", with "?" optional, "|" for or, "!reason" refused, "~reason" ignored
	}{
		{"nil", nil, "", ""},
		{"empty", &specs.LinuxResources{}, "", ""},
		{"empty parts", &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}, Pids: &specs.LinuxPids{},
			BlockIO: &specs.LinuxBlockIO{}, Network: &specs.LinuxNetwork{}, Rdma: map[string]specs.LinuxRdma{}, Unified: map[string]string{}}, "", ""},
		{"zeros", &specs.LinuxResources{
			CPU: &specs.LinuxCPU{Shares: p(uint64(0)), Quota: p(int64(0)), Period: p(uint64(0)), Burst: p(uint64(0)), Idle: p(int64(0)),
				RealtimeRuntime: p(int64(0)), RealtimePeriod: p(uint64(0))},
			Memory: &specs.LinuxMemory{Limit: p(int64(0)), Swap: p(int64(0)), Reservation: p(int64(0)), Swappiness: p(uint64(0)),
				DisableOOMKiller: p(false), UseHierarchy: p(false), CheckBeforeUpdate: p(false), Kernel: p(int64(0)), KernelTCP: p(int64(0))},
			Pids: &specs.LinuxPids{Limit: p(int64(0))},
			BlockIO: &specs.LinuxBlockIO{Weight: p(uint16(0)), LeafWeight: p(uint16(0)), WeightDevice: weigh(8, 0, 0),
				ThrottleReadBpsDevice: rate(8, 0, 0), ThrottleWriteBpsDevice: rate(8, 0, 0), ThrottleReadIOPSDevice: rate(8, 0, 0), ThrottleWriteIOPSDevice: rate(8, 0, 0)},
			HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB"}},
			Network:        &specs.LinuxNetwork{ClassID: p(uint32(0)), Priorities: []specs.LinuxInterfacePriority{{Name: "lo"}}},
			Rdma:           map[string]specs.LinuxRdma{"x": {HcaHandles: p(uint32(0)), HcaObjects: p(uint32(0))}},
			Unified:        map[string]string{}}, "", ""},

		{"pids 1", pids(1), "pids.max=1", "pids.max=1"},
		{"pids -1", pids(-1), "pids.max=max", "pids.max=max"},
		{"pids min", pids(math.MinInt64), "pids.max=max", "pids.max=max"},
		{"pids max", pids(top), "pids.max=9223372036854775807", "pids.max=9223372036854775807"},

		{"limit", mem(1, 0), "memory.limit_in_bytes=1", "memory.max=1"},
		{"limit and swap", mem(10, 30), "memory.limit_in_bytes=10, memory.memsw.limit_in_bytes=30", "memory.swap.max=20, memory.max=10"},
		{"no swap", mem(10, 10), "memory.limit_in_bytes=10, memory.memsw.limit_in_bytes=10", "?memory.swap.max=0, memory.max=10"},
		{"any swap", mem(10, -1), "memory.limit_in_bytes=10, ?memory.memsw.limit_in_bytes=-1", "?memory.swap.max=max, memory.max=10"},
		{"unlimited", mem(-1, 0), "memory.limit_in_bytes=-1, ?memory.memsw.limit_in_bytes=-1", "?memory.swap.max=max, memory.max=max"},
		{"both unlimited", mem(-1, -1), "memory.limit_in_bytes=-1, ?memory.memsw.limit_in_bytes=-1", "?memory.swap.max=max, memory.max=max"},
		{"largest", mem(top, top), "memory.limit_in_bytes=9223372036854775807, memory.memsw.limit_in_bytes=9223372036854775807", "?memory.swap.max=0, memory.max=9223372036854775807"},
		{"largest swap", mem(1, top), "memory.limit_in_bytes=1, memory.memsw.limit_in_bytes=9223372036854775807", "memory.swap.max=9223372036854775806, memory.max=1"},
		{"swap alone", mem(0, 1<<40), "memory.memsw.limit_in_bytes=1099511627776", "memory.swap.max=1099511623680"}, // 4096 in force
		{"swap alone, too small", mem(0, 5), "memory.memsw.limit_in_bytes=5", "!5 is memory and swap together: it must not be below the memory limit"},
		{"any swap alone", mem(0, -1), "?memory.memsw.limit_in_bytes=-1", "?memory.swap.max=max"},
		{"swap below limit", mem(10, 9), "!must not be below the memory limit", "!must not be below"},
		{"swap below no limit", mem(-1, 9), "!must not be below the memory limit", "!must not be below"},
		{"reservation", memory(specs.LinuxMemory{Reservation: p(int64(7))}), "memory.soft_limit_in_bytes=7", "memory.low=7"},
		{"reservation -1", memory(specs.LinuxMemory{Reservation: p(int64(-1))}), "memory.soft_limit_in_bytes=-1", "memory.low=max"},
		{"swappiness", memory(specs.LinuxMemory{Swappiness: p(uint64(100))}), "memory.swappiness=100", "~no such setting"},
		{"no OOM killer", memory(specs.LinuxMemory{DisableOOMKiller: p(true)}), "memory.oom_control=1", "~no such setting"},
		{"use hierarchy", memory(specs.LinuxMemory{UseHierarchy: p(true), CheckBeforeUpdate: p(true), Kernel: p(int64(5)), KernelTCP: p(int64(5))}), "", ""},

		{"shares", cpu(specs.LinuxCPU{Shares: p(uint64(1024))}), "cpu.shares=1024", "cpu.weight=100"},
		{"shares max", cpu(specs.LinuxCPU{Shares: p(uint64(math.MaxUint64))}), "cpu.shares=18446744073709551615", "cpu.weight=10000"},
		{"quota", cpu(specs.LinuxCPU{Quota: p(int64(5000))}), "cpu.cfs_quota_us=5000", "cpu.max=5000"},
		{"quota -1", cpu(specs.LinuxCPU{Quota: p(int64(-1))}), "cpu.cfs_quota_us=-1", "cpu.max=max"},
		{"quota -7", cpu(specs.LinuxCPU{Quota: p(int64(-7))}), "cpu.cfs_quota_us=-1", "cpu.max=max"},
		{"quota max", cpu(specs.LinuxCPU{Quota: p(int64(top))}), "cpu.cfs_quota_us=9223372036854775807", "cpu.max=9223372036854775807"},
		{"period", cpu(specs.LinuxCPU{Period: p(uint64(9000))}), "cpu.cfs_period_us=9000", "cpu.max=777 9000"},
		{"no quota, period", cpu(specs.LinuxCPU{Quota: p(int64(-1)), Period: p(uint64(9000))}), "cpu.cfs_period_us=9000, cpu.cfs_quota_us=-1", "cpu.max=max 9000"},
		{"idle", cpu(specs.LinuxCPU{Idle: p(int64(1)), Shares: p(uint64(2))}), "cpu.shares=2, cpu.idle=1", "cpu.weight=1, cpu.idle=1"},
		{"realtime", cpu(specs.LinuxCPU{RealtimeRuntime: p(int64(95)), RealtimePeriod: p(uint64(100))}),
			"cpu.rt_period_us=100, cpu.rt_runtime_us=95", "!no limits of realtime, !no limits of realtime"},
		{"realtime -1", cpu(specs.LinuxCPU{RealtimeRuntime: p(int64(-1))}), "cpu.rt_runtime_us=-1", "!no limits of realtime"},
		{"all of cpu", cpu(specs.LinuxCPU{Quota: p(int64(5000)), Period: p(uint64(9000)), Burst: p(uint64(3)), Cpus: "0-1", Mems: "0"}),
			"cpuset.cpus=0-1, cpuset.mems=0, cpu.cfs_burst_us=3, cpu.cfs_period_us=9000, cpu.cfs_quota_us=5000",
			"cpuset.cpus=0-1, cpuset.mems=0, cpu.max.burst=3, cpu.max=5000 9000"},

		{"weight 10", block(specs.LinuxBlockIO{Weight: p(uint16(10))}), "blkio.weight=10|blkio.bfq.weight=10", "io.bfq.weight=10|io.weight=1"},
		{"weight 1000", block(specs.LinuxBlockIO{Weight: p(uint16(1000))}), "blkio.weight=1000|blkio.bfq.weight=1000", "io.bfq.weight=1000|io.weight=10000"},
		{"weight of a device", block(specs.LinuxBlockIO{WeightDevice: weigh(8, 16, 100)}),
			"blkio.weight_device=8:16 100|blkio.bfq.weight_device=8:16 100", "io.bfq.weight=8:16 100|io.weight=8:16 910"},
		{"throttles", block(specs.LinuxBlockIO{ThrottleReadBpsDevice: rate(8, 0, 1), ThrottleWriteBpsDevice: rate(8, 1, 2),
			ThrottleReadIOPSDevice: rate(8, 2, 3), ThrottleWriteIOPSDevice: rate(259, 1048575, math.MaxUint64)}),
			"blkio.throttle.read_bps_device=8:0 1, blkio.throttle.write_bps_device=8:1 2, blkio.throttle.read_iops_device=8:2 3, blkio.throttle.write_iops_device=259:1048575 18446744073709551615",
			"io.max=8:0 rbps=1, io.max=8:1 wbps=2, io.max=8:2 riops=3, io.max=259:1048575 wiops=18446744073709551615"},

		{"huge pages", huge("2MB", 1), "hugetlb.2MB.limit_in_bytes=1, ?hugetlb.2MB.rsvd.limit_in_bytes=1", "hugetlb.2MB.max=1, ?hugetlb.2MB.rsvd.max=1"},
		{"huge pages max", huge("1GB", math.MaxUint64), "hugetlb.1GB.limit_in_bytes=18446744073709551615, ?hugetlb.1GB.rsvd.limit_in_bytes=18446744073709551615",
			"hugetlb.1GB.max=18446744073709551615, ?hugetlb.1GB.rsvd.max=18446744073709551615"},

		{"network", &specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: p(uint32(math.MaxUint32)),
			Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 1}, {Name: "eth0", Priority: math.MaxUint32}}}},
			"net_cls.classid=4294967295, net_prio.ifpriomap=lo 1, net_prio.ifpriomap=eth0 4294967295", "!no network controllers, !no network controllers"},
		{"rdma", rdma(specs.LinuxRdma{HcaHandles: p(uint32(1)), HcaObjects: p(uint32(math.MaxUint32))}),
			"rdma.max=mlx5_1 hca_handle=1 hca_object=4294967295", "rdma.max=mlx5_1 hca_handle=1 hca_object=4294967295"},
		{"rdma handles", rdma(specs.LinuxRdma{HcaHandles: p(uint32(3))}), "rdma.max=mlx5_1 hca_handle=3", "rdma.max=mlx5_1 hca_handle=3"},
		{"rdma objects", rdma(specs.LinuxRdma{HcaObjects: p(uint32(3))}), "rdma.max=mlx5_1 hca_object=3", "rdma.max=mlx5_1 hca_object=3"},
		{"unified", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: p(int64(5))}, Unified: map[string]string{"pids.max": "6", "io.max": "8:0 rbps=1\n\n8:1 wbps=2\n", "cpu.pressure": "0", "memory.high": ""}},
			"pids.max=5, !files that it names are those of cgroup v2", "pids.max=5, cpu.pressure=0, io.max=8:0 rbps=1, io.max=8:1 wbps=2, pids.max=6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkKnobs(t, "v1", v1Knobs(tt.r, first), tt.v1)
			checkKnobs(t, "v2", v2Knobs(tt.r, first, inForce), tt.v2)
		})
	}
	off := &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: p(int64(0))}, Memory: &specs.LinuxMemory{DisableOOMKiller: p(false)}}
	checkKnobs(t, "turned off on v1", v1Knobs(off, update), "?cpu.idle=0, ?memory.oom_control=0")
	checkKnobs(t, "turned off on v2", v2Knobs(off, update, inForce), "?cpu.idle=0")
	none := func(string) string { return "" }
	checkKnobs(t, "cpu.max cannot be read", v2Knobs(cpu(specs.LinuxCPU{Period: p(uint64(9000))}), first, none), "cpu.max=max 9000")
	checkKnobs(t, "swap without limit", v2Knobs(mem(0, 5), first, none), "!5 is memory and swap together: it needs a memory limit")
	checkKnobs(t, "swap with no limit", v2Knobs(mem(0, 5), first, func(string) string { return "max" }), "!needs a memory limit")
}

func inForce(file string) string {
	return map[string]string{"cpu.max": "777 100000", "memory.max": "4096"}[file]
}

func checkKnobs(t *testing.T, what string, ks []knob, want string) {
	t.Helper()
	show := func(k knob) string {
		if k.pointer == "" || k.pointer[0] != '/' || !strings.HasPrefix(k.file, k.controller+".") && k.controller != "cgroup" {
			t.Errorf("%s: %+v", what, k)
		}
		return k.file + "=" + k.value
	}
	words := strings.Split(want, ", ")
	if want == "" {
		words = nil
	}
	var got []string
	for i, k := range ks {
		var s string
		switch {
		case k.refused != "" || k.ignored != "":
			if s = "!" + k.refused; k.ignored != "" {
				s = "~" + k.ignored
			}
			if i < len(words) && words[i] != "" && words[i][0] == s[0] && strings.Contains(s, words[i][1:]) {
				s = words[i]
			}
		case k.optional:
			s = "?" + show(k)
		default:
			s = show(k)
		}
		if k.or != nil {
			s += "|" + show(*k.or)
		}
		got = append(got, s)
	}
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("%s: got %q, want %q", what, s, want)
	}
}

func TestIOWeight(t *testing.T) {
	for _, tt := range []struct {
		w    uint16
		want uint64
	}{{0, 1}, {9, 1}, {10, 1}, {11, 11}, {100, 910}, {500, 4950}, {999, 9989}, {1000, 10000}, {1001, 10000}, {math.MaxUint16, 10000}} {
		if got := ioWeight(tt.w); got != tt.want {
			t.Errorf("ioWeight(%d) = %d, want %d", tt.w, got, tt.want)
		}
	}
}

func TestPrevious(t *testing.T) {
	const devices = "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=5 wbps=6 riops=7 wiops=8"
	for _, tt := range []struct{ file, value, text, want string }{
		{"memory.max", "5", "max", "max"},
		{"cpu.max", "5", "max 100000", "max 100000"},
		{"cpuset.cpus", "0", "", "\n"},
		{"memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 3", "0"},
		{"io.max", "8:16 rbps=9", devices, "8:16 rbps=5 wbps=6 riops=7 wiops=8"},
		{"io.max", "8:1 rbps=9", devices, "8:1 rbps=max wbps=max riops=max wiops=max"},
		{"io.max", "8:1 rbps=9", "", "8:1 rbps=max wbps=max riops=max wiops=max"},
		{"io.weight", "200", "default 100\n8:0 300", "default 100"},
		{"io.weight", "default 200", "default 100\n8:0 300", "default 100"},
		{"io.weight", "8:0 200", "default 100\n8:0 300", "8:0 300"},
		{"io.weight", "8:1 200", "default 100\n8:0 300", "8:1 default"},
		{"io.bfq.weight", "200", "100", "100"},
		{"blkio.bfq.weight", "200", "100", "100"},
		{"blkio.bfq.weight_device", "8:0 200", "default 100", "8:0 default"},
		{"blkio.throttle.read_bps_device", "8:0 200", "8:0 100", "8:0 100"},
		{"blkio.throttle.read_bps_device", "8:0 200", "", "8:0 0"},
		{"rdma.max", "mlx hca_handle=1", "mlx hca_handle=2 hca_object=max", "mlx hca_handle=2 hca_object=max"},
		{"net_prio.ifpriomap", "lo 5", "lo 0\neth0 1", "lo 0"},
		{"cgroup.max.depth", "5", "max", "max"},
		{"cgroup.pressure", "0", "1", "1"},
		{"cgroup.type", "threaded", "domain", ""},
		{"memory.reclaim", "5", "a 1\nb 2", ""},
	} {
		if got := previous(tt.file, tt.value, tt.text); got != tt.want {
			t.Errorf("previous(%q, %q, %q) = %q, want %q", tt.file, tt.value, tt.text, got, tt.want)
		}
	}
}

// scripted are files that fail as told.
type scripted struct {
	now  map[string]string
	fail map[string][]error
	log  string
}

func (s *scripted) readKnob(k knob) (string, error) { return s.now[k.file], nil }

func (s *scripted) writeKnob(k knob) error {
	s.log += k.file
	if e := s.fail[k.file]; len(e) > 0 {
		s.fail[k.file] = e[1:]
		if e[0] != nil {
			return e[0]
		}
	}
	s.now[k.file] = k.value
	return nil
}

func TestApplyOrder(t *testing.T) {
	ks := []knob{{file: "a", value: "1", pointer: "/x/a"}, {file: "b", value: "2", pointer: "/x/b", optional: true},
		{file: "c", value: "3", pointer: "/x/c", or: &knob{file: "d", value: "4", pointer: "/x/c"}}}
	const old, all = "a0 b0 c0 d0", "a1 b2 c3 d0"
	for _, tt := range []struct {
		name  string
		fail  map[string][]error
		log   string // of writes of an update
		after string
		err   string
	}{
		{"all well", nil, "abc", all, ""},
		{"invalid at first", map[string][]error{"a": {unix.EINVAL}}, "abca", all, ""},
		{"invalid for good", map[string][]error{"a": {unix.EINVAL, unix.EINVAL}}, "abcacb", old, `set a to "1" (config.json /linux/resources/x/a): invalid argument; no limit was changed`},
		{"optional and missing", map[string][]error{"b": {unix.ENOENT}}, "abc", "a1 b0 c3 d0", ""},
		{"the other", map[string][]error{"c": {unix.ENOENT}}, "abcd", "a1 b2 c0 d4", ""},
		{"the other fails", map[string][]error{"c": {unix.ENOENT}, "d": {unix.EPERM}}, "abcdba", old, `set d to "4" (config.json /linux/resources/x/c): operation not permitted`},
		{"both missing", map[string][]error{"c": {unix.ENOENT}, "d": {unix.ENOENT}}, "abcdba", old, `set c to "3" (config.json /linux/resources/x/c): no such file or directory`},
		{"stops", map[string][]error{"b": {unix.EPERM}}, "aba", old, "operation not permitted; no limit was changed"},
		{"what fails for good", map[string][]error{"c": {unix.ENODEV, unix.ENODEV}}, "abcba", old, "no such device; no limit was changed"},
		{"clamped", map[string][]error{"b": {unix.ERANGE}}, "abba", old, "numerical result out of range; no limit was changed"},
		{"restored in the second round", map[string][]error{"c": {unix.EPERM}, "b": {nil, unix.EINVAL}}, "abcbab", old, "operation not permitted; no limit was changed"},
		{"cannot be restored", map[string][]error{"c": {unix.EPERM}, "b": {nil, unix.EBUSY}}, "abcba", "a0 b2 c0 d0",
			`set c to "3" (config.json /linux/resources/x/c): operation not permitted; restore the old values: set b to "0" (config.json /linux/resources/x/b): device or resource busy`},
	} {
		for _, up := range []bool{first, update} {
			t.Run(fmt.Sprintf("%s update %v", tt.name, up), func(t *testing.T) {
				s := &scripted{now: map[string]string{"a": "0", "b": "0", "c": "0", "d": "0"}, fail: maps.Clone(tt.fail)}
				err := apply(ks, nil, s, up)
				if !up {
					text, _, _ := strings.Cut(tt.err, ";")
					checkErr(t, err, text)
					if text != "" && strings.Contains(err.Error(), ";") || !strings.HasPrefix(tt.log, s.log) {
						t.Errorf("wrote %s, error %v", s.log, err)
					}
					return
				}
				checkErr(t, err, tt.err)
				after := fmt.Sprintf("a%s b%s c%s d%s", s.now["a"], s.now["b"], s.now["c"], s.now["d"])
				if s.log != tt.log || after != tt.after {
					t.Errorf("wrote %s, want %s; it is now %s, want %s", s.log, tt.log, after, tt.after)
				}
			})
		}
	}
}

func TestCheck(t *testing.T) {
	root := fake(t, map[string]string{"cgroup.controllers": "cpu memory"})
	m := fakeV2(root, "a")
	r := cpu(specs.LinuxCPU{RealtimeRuntime: p(int64(5)), Shares: p(uint64(1))})
	r.Memory = &specs.LinuxMemory{Swappiness: p(uint64(5))}
	r.Pids = pids(5).Pids
	r.Unified = map[string]string{"foo.max": "1", "memory.nosuch": "1", "cgroup.max.depth": "1", "cpu.pressure": "0"}
	warnings, err := m.Check(r, nil)
	none := ` is not in "` + root + `/cgroup.controllers"`
	checkErr(t, err, `set limit (config.json /linux/resources/cpu/realtimeRuntime): cgroup v2 has no limits of realtime scheduling; `+
		`set limit (config.json /linux/resources/pids/limit): controller pids`+none+`; set limit (config.json /linux/resources/unified/foo.max): controller foo`+none)
	if want := `set limit (config.json /linux/resources/memory/swappiness): ignored: cgroup v2 has no such setting`; len(warnings) != 1 || warnings[0] != want {
		t.Errorf("warnings %q, want %q", warnings, want)
	}
	_, err = m.Check(pids(5), func(pointer string) string { return "--" + pointer })
	checkErr(t, err, "set limit (--/pids/limit): controller pids")
	// Without limits nothing is read.
	if _, err := fakeV2("/nosuch", "a").Check(&specs.LinuxResources{}, nil); err != nil {
		t.Error(err)
	}
	h := &v1{}
	_, err = h.Check(&specs.LinuxResources{Unified: map[string]string{"memory.max": "1"}}, nil)
	checkErr(t, err, "/linux/resources/unified): the files that it names are those of cgroup v2")
	_, err = h.Check(pids(5), nil)
	checkErr(t, err, "no cgroup hierarchy with the controller pids is mounted")
}

func TestCheckUsage(t *testing.T) {
	root := fake(t, map[string]string{"cgroup.controllers": "memory", "a/memory.max": "max\n", "a/memory.current": "4096\n",
		"a/memory.swap.max": "max\n", "a/memory.swap.current": "100\n"})
	m := fakeV2(root, "a")
	defer m.Close()
	for _, tt := range []struct {
		limit, swap int64
		check       bool
		err         string
	}{
		{4096, 0, true, `set memory.max to "4096" (config.json /linux/resources/memory/limit): 4096 bytes are in use, the limit is to be 4096`},
		{4097, 0, true, ""},
		{8192, 8292, true, `set memory.swap.max to "100" (config.json /linux/resources/memory/swap): 100 bytes are in use`},
		{8192, 8293, true, ""},
		{-1, -1, true, ""},
		{4096, 0, false, ""},
	} {
		r := mem(tt.limit, tt.swap)
		r.Memory.CheckBeforeUpdate = &tt.check
		before := content(t, root, "a/memory.max")
		err := m.Update(r, nil)
		checkErr(t, err, tt.err)
		if err != nil && content(t, root, "a/memory.max") != before {
			t.Error("it was written all the same")
		}
	}
}

// fake makes a directory with files as a stand-in for a hierarchy.
func fake(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		f := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func content(t *testing.T, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func fakeV2(root, path string) *v2 {
	m := Load(Record{Mode: V2, ID: "id", Dirs: []Dir{{Mount: root, Path: path}}}).(*v2)
	m.dir.fake = true
	return m
}

func TestApplyV2(t *testing.T) {
	root := fake(t, map[string]string{"a/memory.max": "", "a/memory.swap.max": "", "a/pids.max": "", "a/cpu.max": "max 100000\n", "a/cpu.weight": ""})
	m := fakeV2(root, "a")
	defer m.Close()
	r := mem(4096, 8192)
	r.Pids = pids(5).Pids
	r.CPU = &specs.LinuxCPU{Shares: p(uint64(1024)), Period: p(uint64(200000))}
	if err := m.Apply(r); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"memory.max": "4096", "memory.swap.max": "4096", "pids.max": "5", "cpu.max": "max 200000\n", "cpu.weight": "100"} {
		if got := content(t, root, "a/"+file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}

func TestF25MissingController(t *testing.T) {
	root := fake(t, map[string]string{
		"cgroup.controllers": "cpu memory", "cgroup.subtree_control": "cpu memory",
		"a/cgroup.controllers": "cpu memory", "a/cgroup.subtree_control": "cpu", "a/b/cpu.max": ""})
	m := fakeV2(root, "a/b")
	defer m.Close()
	err := m.Apply(mem(4096, 0))
	checkErr(t, err, `set memory.max to "4096" (config.json /linux/resources/memory/limit): controller memory is not in "`+root+`/a/cgroup.subtree_control"`)
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("error %v is not ENOENT", err)
	}
	checkErr(t, m.Apply(pids(1)), `controller pids is not in "`+root+`/cgroup.controllers"`)

	h := &v1{}
	checkErr(t, h.Apply(pids(1)), `set pids.max to "1" (config.json /linux/resources/pids/limit): no cgroup hierarchy with the controller pids is mounted`)
	checkErr(t, h.Devices(nil), "controller devices is mounted")
}

func TestEnable(t *testing.T) {
	root := fake(t, map[string]string{
		"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "cpu memory pids",
		"a/cgroup.controllers": "cpu memory pids", "a/cgroup.subtree_control": "cpu",
		"a/b/cgroup.controllers": "cpu", "a/b/cgroup.subtree_control": "",
		"done/cgroup.controllers": "cpu memory pids", "done/cgroup.subtree_control": "pids cpu memory"})
	for _, path := range []string{"a/b/leaf", "done/leaf"} {
		m := fakeV2(root, path)
		fd, err := m.dir.openMount()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.enable(fd); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	got := map[string]string{}
	for _, f := range []string{"", "a/", "a/b/", "done/"} {
		got[f] = content(t, root, f+"cgroup.subtree_control")
	}
	// In a real hierarchy a/b would have got all from a by then.
	want := map[string]string{"": "cpu memory pids", "a/": "+memory +pids", "a/b/": "+cpu", "done/": "pids cpu memory"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFillCpuset(t *testing.T) {
	root := fake(t, map[string]string{
		"cpuset.cpus": "0-3\n", "cpuset.mems": "0\n", "a/cpuset.cpus": "1\n", "a/cpuset.mems": "\n",
		"a/b/cpuset.cpus": "\n", "a/b/cpuset.mems": "\n",
		"n/cpus": "\n", "n/mems": "\n"})
	m := Load(Record{Mode: V1, Dirs: []Dir{{Key: "cpuset", Mount: root, Path: "a/b"}}}).(*v1)
	m.dirs[0].fake = true
	if err := m.fillCpuset(); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]string{"cpuset.cpus": "0-3\n", "a/cpuset.cpus": "1\n", "a/cpuset.mems": "0\n", "a/b/cpuset.cpus": "1\n", "a/b/cpuset.mems": "0\n"} {
		if got := content(t, root, f); got != want {
			t.Errorf("%s is %q, want %q", f, got, want)
		}
	}
}

func TestNotCgroupfs(t *testing.T) {
	root := t.TempDir()
	m := Load(Record{Mode: V2, Dirs: []Dir{{Mount: root, Path: "x"}}})
	defer m.Close()
	checkErr(t, m.Create(), "not a cgroup file system")
	if _, err := os.Stat(filepath.Join(root, "x")); err == nil {
		t.Error("a directory was made outside cgroupfs")
	}
}
