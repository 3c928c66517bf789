package cgroup

import (
	"reflect"
	"strings"
	"testing"
)

func TestBelow(t *testing.T) {
	v1 := Record{Mode: Hybrid, Dirs: []Dir{{"cpu,cpuacct", "/cg/c", "p/x"}, {"memory", "/cg/m", "p/x"}, {"name=systemd", "/cg/s", "p/x"}, {"", "/cg/u", "p/x"}}}
	v2 := Record{Mode: V2, Dirs: []Dir{{"", "/cg", "p/x"}}}
	for _, tt := range []struct {
		rec  Record
		args []string
		want string // paths below p/x, or "!error"
	}{
		{v1, nil, " | | | "},
		{v1, []string{"a"}, "a|a|a|a"},
		{v1, []string{"/a//b/./"}, "a/b|a/b|a/b|a/b"},
		{v1, []string{"/"}, " | | | "},
		{v1, []string{""}, " | | | "},
		{v1, []string{"memory:a"}, " |a| | "},
		{v1, []string{"cpu:a", "memory:b"}, "a|b| | "},
		{v1, []string{"cpu,memory:a"}, "a|a| | "},
		{v1, []string{"cpu,cpuacct:a"}, "a| | | "},
		{v1, []string{"cpu:a", "cpuacct:a"}, "a| | | "},
		{v1, []string{"name=systemd:a"}, " | |a| "},
		{v1, []string{"cpu:/"}, " | | | "},
		{v1, []string{"cpu:a", "cpuacct:b"}, `!use --cgroup "cpuacct:b": the hierarchy of cpuacct is given two paths`},
		{v1, []string{"a", "memory:b"}, `!use --cgroup "a": several need CONTROLLER: in front of the path`},
		{v1, []string{"nosuch:a"}, `!use --cgroup "nosuch:a": no hierarchy of the container's has the controller "nosuch"`},
		{v1, []string{":a"}, `!has the controller ""`},
		{v1, []string{"memory,:a"}, `!has the controller ""`},
		{v1, []string{"memory:../a"}, `!it must not contain the component ".."`},
		{v1, []string{"a/../../b"}, `!it must not contain the component ".."`},
		{v1, []string{"a\n"}, "!newline"},
		{v2, []string{"a/b"}, "a/b"},
		{v2, []string{".."}, `!use --cgroup "..": it must not contain the component ".."`},
		{v2, []string{"memory:a"}, "!cgroup v2 has one hierarchy for all controllers"},
		{v2, []string{"a", "b"}, "!several"},
		{v2, []string{strings.Repeat("x", 256)}, "!255"},
	} {
		before := append([]Dir(nil), tt.rec.Dirs...)
		r, err := tt.rec.Below(tt.args)
		if text, ok := strings.CutPrefix(tt.want, "!"); ok {
			checkErr(t, err, text)
			continue
		}
		checkErr(t, err, "")
		var got []string
		for i, d := range r.Dirs {
			sub := strings.TrimPrefix(strings.TrimPrefix(d.Path, "p/x"), "/")
			if sub == "" {
				sub = " "
			}
			got = append(got, sub)
			if d.Key != before[i].Key || !strings.HasPrefix(d.Path+"/", "p/x/") {
				t.Errorf("%q: %+v", tt.args, d)
			}
		}
		if s := strings.Join(got, "|"); s != tt.want {
			t.Errorf("%q: got %q, want %q", tt.args, s, tt.want)
		}
		if !reflect.DeepEqual(before, tt.rec.Dirs) {
			t.Errorf("%q: the record itself was changed", tt.args)
		}
	}
}
