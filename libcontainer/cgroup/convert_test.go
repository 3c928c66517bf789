package cgroup

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBytesOrMax(t *testing.T) {
	for v, want := range map[int64]string{math.MinInt64: "max", -2: "max", -1: "max", 0: "0", 1: "1", math.MaxInt64: "9223372036854775807"} {
		if got := bytesOrMax(v); got != want {
			t.Errorf("bytesOrMax(%d) = %q, want %q", v, got, want)
		}
	}
	if got := decimal(uint64(math.MaxUint64)); got != "18446744073709551615" {
		t.Error(got)
	}
	if got := decimal(int64(math.MinInt64)); got != "-9223372036854775808" {
		t.Error(got)
	}
	if got := device(259, 1048575); got != "259:1048575" {
		t.Error(got)
	}
}

func TestMemorySwap(t *testing.T) {
	const top = math.MaxInt64
	for _, tt := range []struct {
		limit, swap         int64
		wantLimit, wantSwap int64
		refused             bool
	}{
		{0, 0, 0, 0, false}, {0, 1, 0, 1, false}, {0, -1, 0, -1, false}, {0, top, 0, top, false},
		{1, 0, 1, 0, false}, {1, 1, 1, 1, false}, {1, 2, 1, 2, false}, {2, 1, 0, 0, true}, {1, -1, 1, -1, false}, {1, top, 1, top, false},
		{top, 0, top, 0, false}, {top, top, top, top, false}, {top, top - 1, 0, 0, true}, {top, -1, top, -1, false},
		{-1, 0, -1, -1, false}, {-1, -1, -1, -1, false}, {-1, 1, 0, 0, true}, {-1, top, 0, 0, true},
	} {
		limit, swap, err := memorySwap(tt.limit, tt.swap)
		if limit != tt.wantLimit || swap != tt.wantSwap || (err != nil) != tt.refused {
			t.Errorf("memorySwap(%d, %d) = %d, %d, %v", tt.limit, tt.swap, limit, swap, err)
		}
	}
}

func TestCPUMax(t *testing.T) {
	for _, tt := range []struct {
		quota         int64
		period        uint64
		present       string
		want, pointer string
	}{
		{0, 0, "5", "", ""},
		{1, 0, "5", "1", "/cpu/quota"},
		{1, 1, "5", "1 1", "/cpu/quota"},
		{-1, 0, "5", "max", "/cpu/quota"},
		{math.MinInt64, 1, "5", "max 1", "/cpu/quota"},
		{math.MaxInt64, math.MaxUint64, "5", "9223372036854775807 18446744073709551615", "/cpu/quota"},
		{0, 1, "5", "5 1", "/cpu/period"},
		{0, 1, "max", "max 1", "/cpu/period"},
		{0, math.MaxUint64, "", "max 18446744073709551615", "/cpu/period"},
	} {
		got, pointer := cpuMax(tt.quota, tt.period, func() string { return tt.present })
		if got != tt.want || pointer != tt.pointer {
			t.Errorf("cpuMax(%d, %d) beside %q = %q, %q; want %q, %q", tt.quota, tt.period, tt.present, got, pointer, tt.want, tt.pointer)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct{ n, want uint64 }{{0, 0}, {1, 1000}, {math.MaxUint64 / 1000, math.MaxUint64 / 1000 * 1000}, {math.MaxUint64/1000 + 1, math.MaxUint64}, {math.MaxUint64, math.MaxUint64}} {
		if got := times(tt.n, 1000); got != tt.want {
			t.Errorf("times(%d) = %d, want %d", tt.n, got, tt.want)
		}
	}
}

func TestQuotaProperties(t *testing.T) {
	for _, tt := range []struct{ quota, period, want, err string }{
		{"", "", "", ""},
		{"0", "", "0", ""},
		{"1", "", "10000", ""}, // a part of a percent counts as one
		{"100000", "", "1000000", ""},
		{"max", "", "18446744073709551615", ""},
		{"-1", "1000", "18446744073709551615", ""},
		{"1", "1", "1000000", ""},
		{"18446744063709", "1000000", "18446744070000", ""},
		{"18446744063710", "1000000", "", "too large"},
		{"18446744073709551615", "", "18446744073709551615", ""}, // none
		{"18446744073709551616", "", "", "CPU quota"},
		{"-2", "", "", "CPU quota"},
		{"x", "", "", "CPU quota"},
		{"1", "0", "", "not a positive number"},
		{"1", "-1", "", "not a positive number"},
		{"1", "18446744073709551616", "", "not a positive number"},
	} {
		list, err := quotaProperties(tt.quota, tt.period)
		checkErr(t, err, tt.err)
		got := ""
		for _, p := range list {
			if p.Name == "CPUQuotaPerSecUSec" {
				got = p.Value
			}
		}
		if err == nil && got != tt.want {
			t.Errorf("%s a period of %s: %q a second, want %q", tt.quota, tt.period, got, tt.want)
		}
	}
}

func TestBitmap(t *testing.T) {
	for list, want := range map[string][]byte{
		"": nil, "0": {1}, "1": {2}, "7": {128}, "8": {0, 1}, "0-8": {255, 1}, "0,0": {1}, " 0 , 2 ": {5}, ",": nil,
		"-1": nil, "1-": nil, "3-1": nil, "x": nil, "65536": nil, "0-65536": nil,
	} {
		got, err := bitmap(list)
		bad := strings.ContainsAny(list, "x") || list == "-1" || list == "1-" || list == "3-1" || strings.Contains(list, "65536")
		if (err != nil) != bad || !bytes.Equal(got, want) {
			t.Errorf("bitmap(%q) = %v, %v; want %v", list, got, err, want)
		}
	}
	if got, err := bitmap("65535"); err != nil || len(got) != 8192 || got[8191] != 128 {
		t.Errorf("the last of all: %d bytes, %v", len(got), err)
	}
}

func FuzzBitmap(f *testing.F) {
	for _, s := range []string{"0-3,7", "65535", "1-", "-", ",,", "0-65535,0-65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		set, err := bitmap(list)
		if err != nil {
			return
		}
		// What systemd is told is what the kernel reads in the same list.
		var want []byte
		for _, n := range parseList(list) {
			for len(want) <= int(n/8) {
				want = append(want, 0)
			}
			want[n/8] |= 1 << (n % 8)
		}
		if !bytes.Equal(set, want) && len(parseList(list)) < 1<<16 {
			t.Errorf("%q: %v, want %v", list, set, want)
		}
	})
}

// The files of a directory that are lists: of processes, of controllers, of events.
func FuzzLists(f *testing.F) {
	for _, s := range []string{"", "1\n2\n", "0\n", "99999999999999999999\n", "cpu io\n", "populated 1\nfrozen 0\n", "oom 1\noom_kill 5\n", "x\x00y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		for _, name := range []string{"cgroup.procs", "cgroup.controllers", "cgroup.events", "memory.events"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		pids, err := appendPids(nil, fd, "cgroup.procs")
		if err != nil {
			t.Fatal(err)
		}
		for i, pid := range sorted(slices.Clone(pids)) {
			if i > 0 && pid == 0 {
				t.Errorf("%q: %v", text, pids)
			}
		}
		cs, err := controllers(fd, "cgroup.controllers")
		if err != nil {
			t.Fatal(err)
		}
		if len(missing(cs, cs)) != 0 {
			t.Errorf("%q: %q lacks itself", text, cs)
		}
		m := fakeV2(filepath.Dir(dir), filepath.Base(dir))
		defer m.Close()
		if _, err := m.Frozen(); err != nil {
			t.Error(err)
		}
		m.OOMKills()
		if w, err := m.WatchOOM(); err == nil && w != nil {
			w.Next()
			w.Close()
		}
	})
}

// Whatever exec --cgroup says, the cgroup is at or below the container's.
func FuzzBelow(f *testing.F) {
	for _, s := range []string{"a", "cpu:a/b", "../x", "cpu,memory:/", ":", "a:b:c", "//", "cpu:..", "\x00"} {
		f.Add(s, "")
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		for _, r := range []Record{
			{Mode: V2, Dirs: []Dir{{Mount: "/m", Path: "c"}}},
			{Mode: Hybrid, Dirs: []Dir{{Key: "cpu,cpuacct", Mount: "/m", Path: "c"}, {Key: "memory", Mount: "/n", Path: "c"}, {Mount: "/o", Path: "c"}}},
		} {
			args := []string{one}
			if two != "" {
				args = append(args, two)
			}
			got, err := r.Below(args)
			if err != nil {
				continue
			}
			for i, d := range got.Dirs {
				if d.Mount != r.Dirs[i].Mount || d.Path != "c" && !strings.HasPrefix(d.Path, "c/") || hasDotDot(d.Path) {
					t.Errorf("%q: %+v", args, d)
				}
			}
		}
	})
}
