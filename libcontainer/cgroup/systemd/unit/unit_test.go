package unit

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		path, id string
		user     bool
		want     Name
		err      string
	}{
		{"", "c1", false, Name{"system.slice", "rt-c1.scope", "system.slice/rt-c1.scope"}, ""},
		{"", "c1", true, Name{"user.slice", "rt-c1.scope", "user.slice/rt-c1.scope"}, ""},
		{"", "a+b", false, Name{"system.slice", `rt-a\x2bb.scope`, `system.slice/rt-a\x2bb.scope`}, ""},
		{"::n", "", false, Name{"system.slice", "n.scope", "system.slice/n.scope"}, ""},
		{"::cpu", "", false, Name{"system.slice", "cpu.scope", "system.slice/_cpu.scope"}, ""},
		{"::cgroup.x", "", false, Name{"system.slice", "cgroup.x.scope", "system.slice/_cgroup.x.scope"}, ""},
		{":_p:n", "", false, Name{"system.slice", "_p-n.scope", "system.slice/__p-n.scope"}, ""},
		{"a-b-c.slice:docker:n", "", false, Name{"a-b-c.slice", "docker-n.scope", "a.slice/a-b.slice/a-b-c.slice/docker-n.scope"}, ""},
		{"-.slice:p:n", "", false, Name{"-.slice", "p-n.scope", "p-n.scope"}, ""},
		{"a.slice:ignored:a-b.slice", "", false, Name{"a.slice", "a-b.slice", "a.slice/a-b.slice"}, ""},
		{"-.slice::a.slice", "", false, Name{"-.slice", "a.slice", "a.slice"}, ""},
		{":p:n/../../x", "", false, Name{"system.slice", `p-n\x2f..\x2f..\x2fx.scope`, `system.slice/p-n\x2f..\x2f..\x2fx.scope`}, ""},
		{"/a", "", false, Name{}, `expected cgroupsPath to be of format "slice:prefix:name"`},
		{"a.slice:b:c:d", "", false, Name{}, "slice:prefix:name"},
		{"a.slice:b:", "", false, Name{}, "the name is empty"},
		{"a:b:c", "", false, Name{}, "does not end in .slice"},
		{".slice:b:c", "", false, Name{}, "does not end in .slice"},
		{"a--b.slice:b:c", "", false, Name{}, "empty part"},
		{"-a.slice:b:c", "", false, Name{}, "empty part"},
		{"a-.slice:b:c", "", false, Name{}, "empty part"},
		{"a/b.slice:b:c", "", false, Name{}, "accepted are letters"},
		{"a.slice::b.slice", "", false, Name{}, "is not in"},
		{"a.slice::-.slice", "", false, Name{}, "is not in"},
		{":p:" + strings.Repeat("n", 248), "", false, Name{}, "longer than 255"},
	} {
		got, err := Parse(tt.path, tt.id, tt.user)
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("%q: %+v, %v; want %+v", tt.path, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "/linux/cgroupsPath")) {
			t.Errorf("%q: %v; want %q", tt.path, err, tt.err)
		}
	}
}

// Whatever the config says, the path stays below the root and the unit has a valid name.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a-b.slice:p:n", "-.slice::x.slice", "::../..", ":\x00:\n", "a.slice:b:c/.."} {
		f.Add(s, "id")
	}
	f.Fuzz(func(t *testing.T, cgroupsPath, id string) {
		n, err := Parse(cgroupsPath, id, false)
		if err != nil {
			return
		}
		if path.Join("/", n.Path) != "/"+n.Path || n.Path == "" || slices.Contains(strings.Split(n.Path, "/"), "..") {
			t.Errorf("path %q", n.Path)
		}
		if len(n.Unit) > 255 || escape(n.Unit) != n.Unit || !strings.HasSuffix(n.Unit, ".scope") && !strings.HasSuffix(n.Unit, ".slice") {
			t.Errorf("unit %q", n.Unit)
		}
	})
}

func TestFromAnnotations(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        Property
		err         string
	}{
		{"TimeoutStopSec", "5", Property{"TimeoutStopUSec", "t", "5000000"}, ""},
		{"TimeoutStopSec", "uint64 5", Property{"TimeoutStopUSec", "t", "5000000"}, ""},
		{"TimeoutStopSec", "@t 5", Property{"TimeoutStopUSec", "t", "5000000"}, ""},
		{"RuntimeMaxSec", "0.25", Property{"RuntimeMaxUSec", "t", "250000"}, ""},
		{"TimeoutStopUSec", "5", Property{"TimeoutStopUSec", "t", "5"}, ""},
		{"CPUQuotaPerSecUSec", "5", Property{"CPUQuotaPerSecUSec", "t", "5"}, ""},
		{"KillMode", "'mixed'", Property{"KillMode", "s", "'mixed'"}, ""},
		{"TimeoutStopSec", "-5", Property{}, "no number of seconds"},
		{"TimeoutStopSec", "nan", Property{}, "no number of seconds"},
		{"TimeoutStopSec", "infinity", Property{}, "no number of seconds"},
		{"TimeoutStopSec", "18446744073709551615", Property{}, "no number of seconds"},
		{"TimeoutStopSec", "", Property{}, "no number of seconds"},
		{"KillSec", "5", Property{}, `"KillSec" is not accepted`},
		{"PIDs", "[1]", Property{}, "is not accepted"},
		{"", "1", Property{}, "is not accepted"},
		{"KillMode", strings.Repeat("x", 4097), Property{}, "longer than 4096"},
	} {
		got, err := FromAnnotations(map[string]string{AnnotationPrefix + tt.name: tt.value, "other": "x"})
		if tt.err == "" && (err != nil || len(got) != 1 || got[0] != tt.want) {
			t.Errorf("%s=%q: %v, %v; want %v", tt.name, tt.value, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), "/annotations/")) {
			t.Errorf("%s=%q: %v; want %q", tt.name, tt.value, err, tt.err)
		}
	}
	for _, never := range []string{"PIDs", "Slice", "Delegate", "DevicePolicy", "DeviceAllow", "Controller"} {
		if _, ok := accepted()[never]; ok {
			t.Errorf("%s is rt's own to set", never)
		}
	}
}

func TestQuote(t *testing.T) {
	if p := Text("D", "a \"b\" \\ \n é"); p.Value != `"a \"b\" \\ ? ??"` {
		t.Error(p.Value)
	}
	if p := Texts("W", "a", "b"); p.Value != `["a", "b"]` || p.Type != "as" {
		t.Error(p)
	}
	if p := Bytes("C", []byte{1, 255}); p.Value != "[1, 255]" {
		t.Error(p)
	}
}

func TestPairs(t *testing.T) {
	if p := Pairs("D", [][2]string{{"a", `"`}, {"b", ""}}); p.Value != `[("a", "\""), ("b", "")]` || p.Type != "a(ss)" {
		t.Error(p)
	}
	for _, tt := range []struct {
		text    string
		numbers bool
		want    []Pair
		err     string
	}{
		{"[]", false, nil, ""},
		{" [ ] ", true, nil, ""},
		{`[("/dev/sda", 5)]`, true, []Pair{{Name: "/dev/sda", Number: 5}}, ""},
		{`[('/dev/sda',uint64 0),("b", @t 18446744073709551615)]`, true, []Pair{{Name: "/dev/sda"}, {Name: "b", Number: math.MaxUint64}}, ""},
		{`[("a", "b"), ('c"\'', "\u00e9")]`, false, []Pair{{Name: "a", Text: "b"}, {Name: `c"'`, Text: "é"}}, ""},
		{"", false, nil, "expected ["},
		{"[", false, nil, "expected ("},
		{"[(", false, nil, "expected a string"},
		{`[("a", "b")`, false, nil, "expected ,"},
		{`[("a", "b"`, false, nil, "expected )"},
		{`[("a", "b")] x`, false, nil, "expected the end"},
		{`[("a", "b"),]`, false, nil, "expected ("},
		{`[("a", 5)]`, false, nil, "expected a string"},
		{`[("a", "b")]`, true, nil, "expected a number"},
		{`[("a", -1)]`, true, nil, "expected a number"},
		{`[("a", 18446744073709551616)]`, true, nil, "expected a number"},
		{`[("a", 5`, true, nil, "expected )"},
		{`[("a`, true, nil, "a string that ends"},
		{`[("\q", 5)]`, true, nil, "expected a string"},
	} {
		got, err := ParsePairs(tt.text, tt.numbers)
		if tt.err == "" && (err != nil || !slices.Equal(got, tt.want)) {
			t.Errorf("%s: %v, %v; want %v", tt.text, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: %v; want %q", tt.text, err, tt.err)
		}
	}
}

func FuzzPairs(f *testing.F) {
	for _, s := range []string{"[]", `[("a", 5), ('b', uint64 6)]`, `[("a", "b")]`, `[("`, "\xff"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, numbers bool) {
		list, err := ParsePairs(text, numbers)
		if err != nil || numbers {
			return
		}
		var again [][2]string
		for _, p := range list {
			if quote(p.Name) != strconv.Quote(p.Name) || quote(p.Text) != strconv.Quote(p.Text) {
				return // it was not written by Pairs
			}
			again = append(again, [2]string{p.Name, p.Text})
		}
		if got, err := ParsePairs(Pairs("x", again).Value, false); err != nil || !slices.Equal(got, list) {
			t.Errorf("%v, %v; want %v", got, err, list)
		}
	})
}
