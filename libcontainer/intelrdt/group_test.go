package intelrdt

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// fake makes a tree that looks like resctrl, where directories behave as there. After most
// directories have been made there are no more.
func fake(t *testing.T, most int) string {
	t.Helper()
	root := t.TempDir()
	fill := func(dir string) {
		for name, text := range map[string]string{"tasks": "", "schemata": "    MB:0=100;1=100\n    L3:0=7ff;1=07ff\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(dir, "mon_groups"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fill(root)
	oldMkdir, oldRmdir := mkdir, rmdir
	mkdir = func(dir string) error {
		if most == 0 {
			return &os.PathError{Op: "mkdir", Path: dir, Err: unix.ENOSPC}
		}
		most--
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			fill(dir)
		}
		return err
	}
	rmdir = func(dir string) error {
		if _, err := os.Stat(dir); err != nil {
			return unix.ENOENT
		}
		return os.RemoveAll(dir)
	}
	t.Cleanup(func() { mkdir, rmdir = oldMkdir, oldRmdir })
	return root
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestGroup(t *testing.T) {
	for _, c := range []struct {
		name   string
		rdt    specs.LinuxIntelRdt
		exists string // a class that is there before
		tasks  string // below the root
		writes string // to schemata; "" for none
		stays  bool   // the class after the container has gone
	}{
		{"the container's own", specs.LinuxIntelRdt{}, "", "c1/tasks", "", false},
		{"its own with a schema", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=20"}, "", "c1/tasks", "MB:0=20\n", false},
		{"monitored", specs.LinuxIntelRdt{EnableMonitoring: true}, "", "c1/tasks c1/mon_groups/c1/tasks", "", false},
		{"named and there", specs.LinuxIntelRdt{ClosID: "gold"}, "gold", "gold/tasks", "", true},
		{"named, there and monitored", specs.LinuxIntelRdt{ClosID: "gold", EnableMonitoring: true}, "gold", "gold/tasks gold/mon_groups/c1/tasks", "", true},
		{"named and the same", specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:1=7ff;0=0x7ff", "MB:0=100"}}, "gold", "gold/tasks", "", true},
		{"named and new", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f", Schemata: []string{"MB:0=10"}}, "", "gold/tasks", "MB:0=10\n", true},
		{"default class", specs.LinuxIntelRdt{ClosID: "/", EnableMonitoring: true}, "", "tasks mon_groups/c1/tasks", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fake(t, 10)
			if c.exists != "" {
				if err := mkdir(filepath.Join(root, c.exists)); err != nil {
					t.Fatal(err)
				}
			}
			g := New(root, "c1", &c.rdt)
			if err := g.Check(&c.rdt); err != nil {
				t.Fatal(err)
			}
			if err := g.Create(&c.rdt); err != nil {
				t.Fatal(err)
			}
			var tasks []string
			for _, f := range g.Tasks() {
				if !exists(f) {
					t.Errorf("%s does not exist", f)
				}
				rel, _ := filepath.Rel(root, f)
				tasks = append(tasks, rel)
			}
			if got := strings.Join(tasks, " "); got != c.tasks {
				t.Errorf("enters %q, expected %q", got, c.tasks)
			}
			// The fake file holds what was written last over what it was filled with.
			data, _ := os.ReadFile(filepath.Join(g.Clos, "schemata"))
			if c.writes != "" && !strings.HasPrefix(string(data), c.writes) || c.writes == "" && !strings.HasPrefix(string(data), "    MB:0=100") {
				t.Errorf("schemata %q, expected %q", data, c.writes)
			}
			if err := errors.Join(g.Remove(), g.Remove()); err != nil {
				t.Error(err)
			}
			if exists(g.Clos) != c.stays || g.Mon != "" && exists(g.Mon) {
				t.Errorf("after the container %q exists: %v, %q: %v", g.Clos, exists(g.Clos), g.Mon, exists(g.Mon))
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		rdt    specs.LinuxIntelRdt
		exists string
		most   int
		want   string
	}{
		{"named and missing", specs.LinuxIntelRdt{ClosID: "gold"}, "", 9, `/linux/intelRdt/closID: "gold": there is no such class`},
		{"another schema", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f"}, "gold", 9, `"gold" exists with another schema: L3:0 is "7ff", the config has "f"`},
		{"a domain that is not there", specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:7=100"}, "gold", 9, `MB:7 is ""`},
		{"id taken", specs.LinuxIntelRdt{}, "c1", 9, "exists already"},
		{"no class left", specs.LinuxIntelRdt{}, "", 0, "no more classes"},
		{"no monitoring group left", specs.LinuxIntelRdt{EnableMonitoring: true}, "", 1, "/linux/intelRdt/enableMonitoring"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fake(t, c.most)
			if c.exists != "" {
				if err := mkdir(filepath.Join(root, c.exists)); err != nil {
					t.Fatal(err)
				}
			}
			g := New(root, "c1", &c.rdt)
			err := g.Check(&c.rdt)
			if err == nil {
				err = g.Create(&c.rdt)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %q", err, c.want)
			}
			if exists(g.Clos) != (c.exists != "") {
				t.Errorf("%q exists: %v", g.Clos, exists(g.Clos))
			}
		})
	}
}

// A class whose schema the kernel refuses is not left behind.
func TestSchemaRefused(t *testing.T) {
	root := fake(t, 1)
	fill := mkdir
	mkdir = func(dir string) error {
		err := fill(dir)
		os.Remove(filepath.Join(dir, "schemata"))
		return errors.Join(err, os.Symlink("/dev/full", filepath.Join(dir, "schemata")))
	}
	os.MkdirAll(filepath.Join(root, "info"), 0o755)
	os.WriteFile(filepath.Join(root, "info/last_cmd_status"), []byte("Mask out of range\n"), 0o644)
	r := &specs.LinuxIntelRdt{L3CacheSchema: "L3:0=fffff"}
	g := New(root, "c1", r)
	err := g.Create(r)
	if err == nil || !strings.Contains(err.Error(), `/linux/intelRdt/schemata: write "L3:0=fffff"`) || !strings.Contains(err.Error(), "Mask out of range") {
		t.Error(err)
	}
	if exists(g.Clos) {
		t.Error("the class is left")
	}
}

func TestStats(t *testing.T) {
	root := fake(t, 9)
	r := &specs.LinuxIntelRdt{EnableMonitoring: true}
	g := New(root, "c1", r)
	if err := g.Create(r); err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"mon_L3_00/mbm_total_bytes": "7\n", "mon_L3_00/mbm_local_bytes": "5\n", "mon_L3_00/llc_occupancy": "3\n",
		"mon_L3_01/mbm_total_bytes": "Unavailable\n", "mon_L3_01/llc_occupancy": "9\n",
	} {
		p := filepath.Join(g.Mon, "mon_data", file)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := g.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.L3CacheSchema != "L3:0=7ff;1=07ff" || s.MemBwSchema != "MB:0=100;1=100" || len(s.Schemata) != 2 {
		t.Errorf("schemata %+v", s)
	}
	if len(s.MBM) != 1 || s.MBM[0] != (MBMStats{7, 5}) || len(s.CMT) != 2 || s.CMT[1].LLCOccupancy != 9 {
		t.Errorf("counters %+v", s)
	}
}
