package cgroup

import (
	"reflect"
	"strings"
	"testing"
)

const hybridMounts = `23 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,noprefix
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
50 23 0:50 / /mnt/not\040cgroup rw - tmpfs cgroup\040-\040cgroup rw
`

const hybridCgroups = `9:name=systemd:/user.slice
8:pids:/
3:cpuset:/
2:cpu,cpuacct:/a:b
0::/user.slice/x
`

func TestParseLayout(t *testing.T) {
	tests := []struct {
		name, cgroups, mounts string
		want                  *Layout
		err                   string
	}{
		{"hybrid", hybridCgroups, hybridMounts, &Layout{Hybrid, []Hierarchy{
			{"name=systemd", "/sys/fs/cgroup/systemd", "/", "/user.slice"},
			{"cpuset", "/sys/fs/cgroup/cpuset", "/", "/"},
			{"cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/", "/a:b"},
			{"", "/sys/fs/cgroup/unified", "/", "/user.slice/x"},
		}}, ""},
		{"v1", "2:cpu:/\n", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
			&Layout{V1, []Hierarchy{{"cpu", "/sys/fs/cgroup/cpu", "/", "/"}}}, ""},
		{"v2 with leftover v1 lines", "2:cpu:/\n0::/x\n", "32 31 0:29 / /sys/fs/cgroup rw - cgroup2 c rw\n",
			&Layout{V2, []Hierarchy{{"", "/sys/fs/cgroup", "/", "/x"}}}, ""},
		{"v2 beats a named hierarchy below it", "1:name=systemd:/\n0::/x\n",
			"1 1 0:1 / /sys/fs/cgroup rw - cgroup2 c rw\n2 1 0:2 / /sys/fs/cgroup/systemd rw - cgroup c rw,name=systemd\n",
			&Layout{V2, []Hierarchy{{"", "/sys/fs/cgroup", "/", "/x"}}}, ""},
		{"v2 elsewhere", "0::/x\n", "32 31 0:29 / /cg\\040two rw - cgroup2 c rw\n",
			&Layout{V2, []Hierarchy{{"", "/cg two", "/", "/x"}}}, ""},
		{"the mount below /sys/fs/cgroup wins", "2:cpu:/\n",
			"1 1 0:1 / /dev/cpu rw - cgroup c rw,cpu\n2 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n",
			&Layout{V1, []Hierarchy{{"cpu", "/sys/fs/cgroup/cpu", "/", "/"}}}, ""},
		{"the mount that shows our own cgroup wins", "2:cpu:/docker/x\n",
			"1 1 0:1 /other /a rw - cgroup c rw,cpu\n2 1 0:1 /docker /b rw - cgroup c rw,cpu\n",
			&Layout{V1, []Hierarchy{{"cpu", "/b", "/docker", "/docker/x"}}}, ""},
		// What rt sees in a container's cgroup namespace, by how the mounts came to be there.
		{"namespace with mounts of its own", "2:cpu:/\n0::/\n",
			"1 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n2 1 0:2 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n",
			&Layout{Hybrid, []Hierarchy{{"cpu", "/sys/fs/cgroup/cpu", "/", "/"}, {"", "/sys/fs/cgroup/unified", "/", "/"}}}, ""},
		{"namespace with the host's mounts", "2:cpu:/\n0::/\n",
			"1 1 0:1 /../.. /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n2 1 0:2 /.. /sys/fs/cgroup/unified rw - cgroup2 c rw\n",
			&Layout{Hybrid, []Hierarchy{{"cpu", "/sys/fs/cgroup/cpu", "/../..", "/"}, {"", "/sys/fs/cgroup/unified", "/..", "/"}}}, ""},
		{"namespace with a cgroup below its own", "0::/\n", "1 1 0:1 /inner /sys/fs/cgroup rw - cgroup2 c rw\n",
			&Layout{V2, []Hierarchy{{"", "/sys/fs/cgroup", "/inner", "/"}}}, ""},
		{"no namespace, its own cgroup bound", "2:cpu:/docker/x\n", "1 1 0:1 /docker/x /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n",
			&Layout{V1, []Hierarchy{{"cpu", "/sys/fs/cgroup/cpu", "/docker/x", "/docker/x"}}}, ""},
		{"the mount on top counts", "2:cpu:/docker/x\n",
			"1 1 0:1 / /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n2 1 0:1 /docker/x /sys/fs/cgroup/cpu rw - cgroup c rw,cpu\n",
			&Layout{V1, []Hierarchy{{"cpu", "/sys/fs/cgroup/cpu", "/docker/x", "/docker/x"}}}, ""},
		{"v2 on top of v2", "0::/\n", "1 1 0:1 /../.. /sys/fs/cgroup rw - cgroup2 c rw\n2 1 0:1 / /sys/fs/cgroup rw - cgroup2 c rw\n",
			&Layout{V2, []Hierarchy{{"", "/sys/fs/cgroup", "/", "/"}}}, ""},
		{"nothing", "0::/\n", "23 1 254:0 / / rw - ext4 /dev/vda rw\n", nil, "neither cgroup nor cgroup2 is mounted"},
		{"bad line", "0:/\n", "", nil, `line "0:/"`},
		{"cut mountinfo", "0::/\n", "32 31 0:29 / /sys/fs/cgroup rw - cgroup2", nil, "neither"},
		{"empty", "", "", nil, "neither"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseLayout([]byte(tt.cgroups), []byte(tt.mounts))
			checkErr(t, err, tt.err)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func checkErr(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
	if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Fatalf("error %v, expected one with %q", err, want)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		``: "", `/a`: "/a", `\040`: " ", `a\134b\011`: "a\\b\t", `\04`: `\04`, `\`: `\`, `\999`: `\999`, `\777`: `\777`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestOwn(t *testing.T) {
	for _, tt := range []struct{ root, own, want string }{
		{"/", "/", ""},
		{"/", "/a/b", "a/b"},
		{"/docker/x", "/docker/x", ""},
		{"/docker/x", "/docker/x/y", "y"},
		{"/docker/x", "/docker/xy", ""},
		{"/docker/x", "/other", ""},
		{"/../..", "/a", ""}, // the mount shows more than our cgroup namespace
		{"/", "/../a", ""},   // we were moved out of it
	} {
		if got := (Hierarchy{Root: tt.root, Own: tt.own}).own(); got != tt.want {
			t.Errorf("root %q own %q: %q, want %q", tt.root, tt.own, got, tt.want)
		}
	}
}

func TestMounts(t *testing.T) {
	l, err := parseLayout([]byte(hybridCgroups), []byte(hybridMounts))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{
		{Name: "systemd", Type: "cgroup", Options: "name=systemd", Source: "/sys/fs/cgroup/systemd", Key: "name=systemd"},
		{Name: "cpuset", Type: "cgroup", Options: "cpuset", Source: "/sys/fs/cgroup/cpuset", Key: "cpuset"},
		{Name: "cpu,cpuacct", Type: "cgroup", Options: "cpu,cpuacct", Source: "/sys/fs/cgroup/cpu,cpuacct", Key: "cpu,cpuacct", Links: []string{"cpu", "cpuacct"}},
	}
	if got := l.Mounts(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	l = &Layout{V2, []Hierarchy{{Mountpoint: "/sys/fs/cgroup"}}}
	if got, want := l.Mounts(), []Mount{{Type: "cgroup2", Source: "/sys/fs/cgroup"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("v2: got %+v, want %+v", got, want)
	}
}

func TestS27Paths(t *testing.T) {
	v1 := &Layout{Hybrid, []Hierarchy{{"cpu", "/cg/cpu", "/", "/own/c"}, {"", "/cg/u", "/", "/o"}}}
	v2 := &Layout{V2, []Hierarchy{{"", "/cg", "/", "/slice/own"}}}
	v2root := &Layout{V2, []Hierarchy{{"", "/cg", "/", "/"}}}
	tests := []struct {
		l       *Layout
		path    string
		want    []string
		refused string
	}{
		{v1, "/a//b/", []string{"/cg/cpu/a/b", "/cg/u/a/b"}, ""},
		{v1, "a/./b", []string{"/cg/cpu/own/c/a/b", "/cg/u/o/a/b"}, ""},
		{v1, "", []string{"/cg/cpu/own/c/id1", "/cg/u/o/id1"}, ""},
		{v2, "/a", []string{"/cg/a"}, ""},
		{v2, "a", []string{"/cg/slice/a"}, ""},
		{v2, "", []string{"/cg/slice/id1"}, ""},
		{v2root, "a", []string{"/cg/a"}, ""},
		{v2, "..a/b..", []string{"/cg/slice/..a/b.."}, ""},
		{v2, "/../x", nil, `component ".."`},
		{v2, "a/../../x", nil, "config.json /linux/cgroupsPath"},
		{v1, "..", nil, `component ".."`},
		{v1, "/", nil, "no cgroup below the root"},
		{v1, "./.", nil, "no cgroup below the root"},
		{v2, "a\x00b", nil, "NUL"},
		{v2, "a\nb", nil, "newline"},
		{v2, strings.Repeat("x", 256), nil, "255"},
		{&Layout{}, "a", nil, "no hierarchy"},
	}
	for _, tt := range tests {
		m, err := New(tt.l, tt.path, "id1")
		checkErr(t, err, tt.refused)
		if err != nil {
			continue
		}
		var got []string
		for _, d := range m.Record().Dirs {
			got = append(got, d.Host())
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.path, got, tt.want)
		}
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(hybridCgroups, hybridMounts)
	f.Add("0::/\n", "32 31 0:29 / /sys/fs/cgroup rw - cgroup2 c rw\n")
	f.Add("1:a:/\\", "1 1 1 /\\04 /\\ rw - cgroup c a")
	f.Fuzz(func(t *testing.T, cgroups, mounts string) {
		l, err := parseLayout([]byte(cgroups), []byte(mounts))
		if err != nil {
			return
		}
		l.Mounts()
		m, err := New(l, "a/b", "id")
		if err != nil {
			t.Fatal(err)
		}
		m.Paths()
		for _, d := range m.Record().Dirs {
			if hasDotDot(d.Path) || d.Path == "" || d.Path[0] == '/' {
				t.Errorf("path %q of %+v", d.Path, l)
			}
		}
	})
}
