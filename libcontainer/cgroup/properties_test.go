package cgroup

import (
	"slices"
	"strings"
	"testing"

	"rt/libcontainer/cgroup/systemd/unit"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestUnitProperties(t *testing.T) {
	const infinity = "18446744073709551615"
	for _, tt := range []struct {
		name  string
		mode  Mode
		files []string // "FILE VALUE"
		want  []unit.Property
		err   string
	}{
		{"nothing", V2, nil, nil, ""},
		{"numbers", V2, []string{"memory.max 4096", "memory.high max", "pids.max max", "cpu.weight 59", "io.weight default 10"}, []unit.Property{
			{Name: "MemoryMax", Type: "t", Value: "4096"}, {Name: "MemoryHigh", Type: "t", Value: infinity},
			{Name: "TasksMax", Type: "t", Value: infinity}, {Name: "CPUWeight", Type: "t", Value: "59"}, {Name: "IOWeight", Type: "t", Value: "10"}}, ""},
		{"no property", V2, []string{"hugetlb.2MB.max 0", "cpu.max.burst 5", "memory.oom.group 1"}, nil, ""},
		{"quota", V2, []string{"cpu.max 25000 100000"}, []unit.Property{
			{Name: "CPUQuotaPeriodUSec", Type: "t", Value: "100000"}, {Name: "CPUQuotaPerSecUSec", Type: "t", Value: "250000"}}, ""},
		{"part of a percent", V2, []string{"cpu.max 25001 100000"}, []unit.Property{
			{Name: "CPUQuotaPeriodUSec", Type: "t", Value: "100000"}, {Name: "CPUQuotaPerSecUSec", Type: "t", Value: "260000"}}, ""},
		{"no quota", V2, []string{"cpu.max max 50000"}, []unit.Property{
			{Name: "CPUQuotaPeriodUSec", Type: "t", Value: "50000"}, {Name: "CPUQuotaPerSecUSec", Type: "t", Value: infinity}}, ""},
		{"quota v1", Hybrid, []string{"cpu.cfs_quota_us 50000", "cpu.shares 512", "memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes 5"}, []unit.Property{
			{Name: "CPUShares", Type: "t", Value: "512"}, {Name: "MemoryLimit", Type: "t", Value: infinity},
			{Name: "CPUQuotaPerSecUSec", Type: "t", Value: "500000"}}, ""},
		{"sets", V2, []string{"cpuset.cpus 0-3,9", "cpuset.mems 0"}, []unit.Property{
			{Name: "AllowedCPUs", Type: "ay", Value: "[15, 2]"}, {Name: "AllowedMemoryNodes", Type: "ay", Value: "[1]"}}, ""},
		{"sets v1", V1, []string{"cpuset.cpus 0-3"}, nil, ""},
		{"bad set", V2, []string{"cpuset.cpus 3-1"}, nil, "neither a number nor a range"},
		{"huge set", V2, []string{"cpuset.cpus 0-99999"}, nil, "neither a number nor a range"},
		{"bad number", V2, []string{"memory.max x"}, nil, "memory.max"},
		{"huge quota", V2, []string{"cpu.max 18446744073709551614 100000"}, nil, "too large"},
		{"no period", V2, []string{"cpu.max 5 0"}, nil, "not a positive number"},
	} {
		var ks []knob
		for _, f := range tt.files {
			file, value, _ := strings.Cut(f, " ")
			ks = append(ks, knob{file: file, value: value})
		}
		got, err := unitProperties(ks, tt.mode)
		if tt.err == "" && (err != nil || !slices.Equal(got, tt.want)) {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.err)
		}
	}
}

func TestDeviceProperties(t *testing.T) {
	const defaults = `("char-*", "m"), ("block-*", "m"), ("/dev/char/10:200", "mrw"), ("char-136", "mrw"), ("/dev/char/5:2", "mrw"), ("/dev/char/5:0", "mrw"), ` +
		`("/dev/char/1:9", "mrw"), ("/dev/char/1:8", "mrw"), ("/dev/char/1:7", "mrw"), ("/dev/char/1:5", "mrw"), ("/dev/char/1:3", "mrw")]`
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string // of DeviceAllow; "" if nothing is told
		err   string
	}{
		{"nothing", nil, "[" + defaults, ""},
		{"denied first", []specs.LinuxDeviceCgroup{{Access: "rwm"}}, "[" + defaults, ""},
		{"one of each", []specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rw"), rule(true, "b", 8, -1, "r"), rule(true, "b", 8, 4294967294, "w")},
			`[("/dev/char/10:229", "rw"), ("block-8", "r"), ("/dev/block/8:4294967294", "w"), ` + defaults, ""},
		{"taken back", []specs.LinuxDeviceCgroup{rule(true, "c", 10, 229, "rw"), rule(false, "c", 10, 229, "r"), rule(true, "c", 4, 5, "m"), rule(false, "c", 4, -1, "rwm")},
			`[("/dev/char/10:229", "w"), ` + defaults, ""},
		{"a minor number of all", []specs.LinuxDeviceCgroup{rule(true, "c", -1, 3, "rw")}, "[" + defaults, ""},
		{"all", []specs.LinuxDeviceCgroup{{Allow: true}}, "", ""},
		{"all but one", []specs.LinuxDeviceCgroup{{Allow: true}, rule(false, "b", 8, 0, "rwm")}, "", ""},
		{"malformed", []specs.LinuxDeviceCgroup{rule(true, "x", 1, 1, "r")}, "", "/linux/resources/devices/0"},
		{"hole in a wildcard", []specs.LinuxDeviceCgroup{rule(true, "c", -1, -1, "rw"), rule(false, "c", 1, 1, "r")}, "", "/linux/resources/devices/1"},
	} {
		got, err := DeviceProperties(&v1{}, tt.rules)
		checkErr(t, err, tt.err)
		var want []unit.Property
		if tt.want != "" {
			want = []unit.Property{{Name: "DevicePolicy", Type: "s", Value: `"strict"`}, {Name: "DeviceAllow", Type: "a(ss)", Value: tt.want}}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
	if got, err := DeviceProperties(&v2{}, nil); err != nil || got != nil {
		t.Errorf("on cgroup v2: %v, %v", got, err)
	}
}
