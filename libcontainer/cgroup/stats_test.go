package cgroup

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"testing"
)

func TestParseNumbers(t *testing.T) {
	for s, want := range map[string]uint64{"": 0, "0": 0, "1": 1, "max": math.MaxUint64, "18446744073709551615": math.MaxUint64, "18446744073709551616": 0, "-1": 0, "x": 0, "1 2": 0} {
		if got := parseNumber(s); got != want {
			t.Errorf("parseNumber(%q) = %d, want %d", s, got, want)
		}
	}
	got := parseKeyed("a 1\nb 18446744073709551615\nc -1\nd\n\ne 1 2\n f 3\ng  4\nh max\na 5")
	if want := map[string]uint64{"a": 5, "b": math.MaxUint64}; !reflect.DeepEqual(got, want) {
		t.Errorf("parseKeyed: %v, want %v", got, want)
	}
}

func TestParseList(t *testing.T) {
	for s, want := range map[string][]uint16{
		"": nil, "0": {0}, "0-2,5": {0, 1, 2, 5}, "3-1": nil, "65535": {65535}, "65536": nil, "a": nil, "1-": nil, "-1": nil, " 1, 2 ": {1, 2}, "1,,2": {1, 2},
	} {
		if got := parseList(s); !slices.Equal(got, want) {
			t.Errorf("parseList(%q) = %v, want %v", s, got, want)
		}
	}
	if n := len(parseList("0-65535,0-65535,0-65535")); n != 1<<16 {
		t.Errorf("%d entries", n)
	}
}

func TestPageSize(t *testing.T) {
	for s, want := range map[string]string{
		"hugepages-2048kB": "2MB", "hugepages-1048576kB": "1GB", "hugepages-64kB": "64KB", "hugepages-1024kB": "1MB",
		"hugepages-16777216kB": "16GB", "hugepages-1536kB": "1536KB", "hugepages-0kB": "", "hugepages-kB": "", "hugepages-2MB": "", "2048kB": "",
	} {
		if got := pageSize(s); got != want {
			t.Errorf("pageSize(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestParsePSI(t *testing.T) {
	got := parsePSI("some avg10=1.50 avg60=0.25 avg300=100.00 total=123\nfull avg10=NaN avg60=-1 avg300=x total=-4\nother avg10=7")
	if want := (&PSI{Some: PSIData{1.5, 0.25, 100, 123}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if parsePSI("") != nil || parsePSI("nothing of it") != nil {
		t.Error("pressure out of nothing")
	}
}

func TestStatsV1(t *testing.T) {
	root := fake(t, map[string]string{
		"a/cpuacct.usage": "5\n", "a/cpuacct.stat": "user 2\nsystem 3\n", "a/cpuacct.usage_percpu": "2 3 \n", "a/cpuacct.usage_all": "cpu user system\n0 1 1\n1 1 2\n",
		"a/cpu.stat": "nr_periods 1\nnr_throttled 2\nthrottled_time 3\n", "a/cpuset.cpus": "0-1\n", "a/cpuset.mems": "0\n", "a/cpuset.sched_relax_domain_level": "-1\n", "a/cpuset.sched_load_balance": "1\n",
		"a/memory.stat": "cache 7\nrss 8\n", "a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 9\n",
		"a/memory.limit_in_bytes": "10\n", "a/memory.usage_in_bytes": "11\n", "a/memory.max_usage_in_bytes": "12\n", "a/memory.failcnt": "13\n", "a/memory.memsw.usage_in_bytes": "14\n",
		"a/memory.kmem.tcp.limit_in_bytes": "15\n", "a/pids.current": "16\n", "a/pids.max": "max\n",
		"a/blkio.bfq.io_serviced_recursive": "Total 0\n", "a/blkio.throttle.io_serviced_recursive": "8:0 Read 17\n8:0 Total 17\nTotal 17\n", "a/blkio.throttle.io_service_bytes_recursive": "8:0 Read 18\n",
	})
	var dirs []Dir
	for _, key := range []string{"cpu,cpuacct", "cpuset", "memory", "pids", "blkio"} {
		dirs = append(dirs, Dir{Key: key, Mount: root, Path: "a"})
	}
	m := Load(Record{Mode: V1, Dirs: dirs}).(*v1)
	for _, d := range m.dirs {
		d.fake = true
	}
	defer m.Close()
	s, err := m.Stats()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"cpu":{"usage":{"total":5,"percpu":[2,3],"percpu_kernel":[1,2],"percpu_user":[1,1],"kernel":30000000,"user":20000000},"throttling":{"periods":1,"throttledPeriods":2,"throttledTime":3}},` +
		`"cpuset":{"cpus":[0,1],"cpu_exclusive":0,"mems":[0],"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":1,"sched_relax_domain_level":-1},` +
		`"memory":{"cache":7,"usage":{"limit":10,"usage":11,"max":12,"failcnt":13},"swap":{"usage":14,"failcnt":0},"kernel":{"failcnt":0},"kernelTCP":{"limit":15,"failcnt":0},"raw":{"cache":7,"oom_kill":9,"rss":8}},` +
		`"pids":{"current":16},"blkio":{"ioServiceBytesRecursive":[{"major":8,"op":"Read","value":18}],"ioServicedRecursive":[{"major":8,"op":"Read","value":17},{"major":8,"op":"Total","value":17}]},` +
		`"hugetlb":{}}`
	checkJSON(t, s, want)
}

func checkJSON(t *testing.T, v any, want string) {
	t.Helper()
	got, err := json.Marshal(v)
	if err != nil || string(got) != want {
		t.Errorf("%v, got\n%s, want\n%s", err, got, want)
	}
}

func TestStatsV2(t *testing.T) {
	files := map[string]string{
		"a/cgroup.controllers": "cpu io memory pids\n",
		"a/cpu.stat":           "usage_usec 5\nuser_usec 2\nsystem_usec 3\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n",
		"a/memory.stat":        "anon 1\nfile 7\n", "a/memory.events": "low 0\nhigh 0\nmax 13\noom 1\noom_kill 9\n",
		"a/memory.max": "100\n", "a/memory.current": "11\n", "a/memory.peak": "12\n", "a/memory.swap.current": "14\n", "a/memory.swap.max": "50\n", "a/memory.swap.events": "high 0\nmax 1\nfail 0\n",
		"a/pids.current": "16\n", "a/pids.max": "20\n",
		"a/io.stat":         "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nbad x=1\n",
		"a/memory.pressure": "some avg10=0.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	}
	m := fakeV2(fake(t, files), "a")
	defer m.Close()
	s, err := m.Stats()
	if err != nil {
		t.Fatal(err)
	}
	const zero = `{"avg10":0,"avg60":0,"avg300":0,"total":0}`
	checkJSON(t, s, `{"cpu":{"usage":{"total":5000,"kernel":3000,"user":2000},"throttling":{"periods":1,"throttledPeriods":2,"throttledTime":3000}},`+
		`"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},`+
		`"memory":{"cache":7,"usage":{"limit":100,"usage":11,"max":12,"failcnt":13},"swap":{"limit":150,"usage":25,"failcnt":1},"kernel":{"failcnt":0},"kernelTCP":{"failcnt":0},"raw":{"anon":1,"file":7,"oom_kill":9},"psi":{"some":{"avg10":0.5,"avg60":0,"avg300":0,"total":7},"full":`+zero+`}},`+
		`"pids":{"current":16,"limit":20},"blkio":{"ioServiceBytesRecursive":[{"major":8,"minor":16,"op":"Read","value":1},{"major":8,"minor":16,"op":"Write","value":2}],"ioServicedRecursive":[{"major":8,"minor":16,"op":"Read","value":3},{"major":8,"minor":16,"op":"Write","value":4}]},`+
		`"hugetlb":{}}`)
	for _, tt := range []struct{ limit, swap string }{{"max", "5"}, {"5", "max"}, {"max", "max"}, {"18446744073709551614", "5"}} {
		files["a/memory.max"], files["a/memory.swap.max"] = tt.limit, tt.swap
		m := fakeV2(fake(t, files), "a")
		s, err := m.Stats()
		m.Close()
		if err != nil || s.Memory.Swap.Limit != none {
			t.Errorf("limit %s, swap %s: %d, %v", tt.limit, tt.swap, s.Memory.Swap.Limit, err)
		}
	}
	gone := fakeV2(fake(t, nil), "a")
	if _, err := gone.Stats(); err == nil {
		t.Error("statistics of a cgroup that is not there")
	}
}

// FuzzFiles: whatever the kernel's files hold, reading them neither panics nor
// gives what JSON cannot say.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{"", "max", "a 1\nb 2", "0-3,5", "8:0 Read 5\nTotal 5", "8:0 rbytes=1 wios=2", "some avg10=1e400 total=5\nfull avg10=NaN",
		"cpu user system\n0 1 2", "oom_kill_disable 0\nunder_oom 0", "default 100\n8:0 5", "0-65535,0-65535"} {
		f.Add("io.max", "8:0 rbps=1", s)
	}
	f.Fuzz(func(t *testing.T, file, value, text string) {
		var s Stats
		s.CPU.PSI = parsePSI(text)
		s.CPU.Usage.PerCPUUser, s.CPU.Usage.PerCPUKernel = parseUsageAll(text)
		s.CPUSet.CPUs = parseList(text)
		s.Memory.Raw = parseKeyed(text)
		s.BlockIO.ServiceBytes, s.BlockIO.Serviced = parseIOStat(text)
		s.BlockIO.Serviced = append(s.BlockIO.Serviced, parseBlkio(text)...)
		s.Pids.Limit = parseNumber(text)
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
		field(text, "oom_kill")
		previous(file, value, text)
		pageSize(text)
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(`{"mode":"v2","id":"x","dirs":[{"key":"","mount":"/m","path":"a"}]}`)
	f.Add(`{"mode":1}`)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRecord([]byte(s))
		if err != nil {
			return
		}
		b, err := r.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRecord(b)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v, %+v, %v", r, again, err)
		}
	})
}
