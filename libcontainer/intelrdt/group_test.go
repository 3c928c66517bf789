package intelrdt

import (
	"encoding/json"
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

// ledger makes files of resctrl in dir take lines as the kernel does: one that is written
// replaces that of its resource. What is refused is an error with its cause in info/last_cmd_status.
func ledger(t *testing.T, root string, refuse string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(root, "info"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := writeLine
	t.Cleanup(func() { writeLine = old })
	writeLine = func(file, line string) error {
		status := filepath.Join(root, "info/last_cmd_status")
		if refuse != "" && strings.Contains(line, refuse) {
			os.WriteFile(status, []byte("Mask out of range\n"), 0o644)
			return unix.EINVAL
		}
		os.WriteFile(status, []byte("ok\n"), 0o644)
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		resource, _, _ := strings.Cut(line, ":")
		lines := strings.Split(string(data), "\n")
		for i := range lines {
			if strings.HasPrefix(strings.TrimSpace(lines[i]), resource+":") {
				lines[i] = strings.TrimSuffix(line, "\n")
			}
		}
		return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
	}
}

func TestUpdate(t *testing.T) {
	const before = "MB:0=100;1=100 L3:0=7ff;1=07ff"
	flag := func(member string) string { return "--" + member }
	for _, c := range []struct {
		name    string
		rdt     specs.LinuxIntelRdt
		without string // a resource that the class does not have
		refuse  string // what the kernel does not take
		after   string
		want    string // of the error
	}{
		{"nothing", specs.LinuxIntelRdt{}, "", "", before, ""},
		{"cache", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f0"}, "", "", "MB:0=100;1=100 L3:0=f;1=f0", ""},
		{"bandwidth", specs.LinuxIntelRdt{MemBwSchema: "MB:0=20;1=70"}, "", "", "MB:0=20;1=70 L3:0=7ff;1=07ff", ""},
		{"both", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f", MemBwSchema: "MB:0=20;1=20"}, "", "", "MB:0=20;1=20 L3:0=f;1=f", ""},
		{"no cache", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f"}, "L3", "", "MB:0=100;1=100", "set schema (--l3CacheSchema): Intel RDT/CAT: l3 cache schema is not enabled"},
		{"no bandwidth", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f", MemBwSchema: "MB:0=20"}, "MB", "", "L3:0=7ff;1=07ff", "set schema (--memBwSchema): Intel RDT/MBA: memory bandwidth schema is not enabled"},
		{"not a schema", specs.LinuxIntelRdt{L3CacheSchema: "L3"}, "", "", before, `has no resource "L3"`},
		{"another resource", specs.LinuxIntelRdt{L3CacheSchema: "L2:0=f"}, "", "", before, `has no resource "L2"`},
		{"cache refused", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=fffff", MemBwSchema: "MB:0=20"}, "", "fffff", before, `set schema (--l3CacheSchema): write "L3:0=fffff" to the schemata`},
		{"bandwidth refused", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f", MemBwSchema: "MB:0=200"}, "", "=200", before, "invalid argument: Mask out of range"},
		{"not restored", specs.LinuxIntelRdt{L3CacheSchema: "L3:0=f;1=f", MemBwSchema: "MB:0=7ff"}, "", "=7ff", "MB:0=100;1=100 L3:0=f;1=f", `; restore schema "L3:0=7ff;1=07ff" of resctrl group`},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fake(t, 9)
			g := New(root, "c1", &specs.LinuxIntelRdt{})
			if err := g.Create(&specs.LinuxIntelRdt{}); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(g.Clos, "schemata")
			read := func() string {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				return strings.Join(strings.Fields(string(data)), " ")
			}
			if c.without != "" {
				var kept []string
				for _, line := range strings.Fields(read()) {
					if !strings.HasPrefix(line, c.without+":") {
						kept = append(kept, line)
					}
				}
				os.WriteFile(file, []byte(strings.Join(kept, "\n")), 0o644)
			}
			ledger(t, root, c.refuse)
			was := read()
			undo, err := g.Update(&c.rdt, flag)
			if got := read(); got != c.after {
				t.Errorf("schemata %q, expected %q", got, c.after)
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v, expected %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := undo(); err != nil || read() != was {
				t.Errorf("undone to %q, %v; expected %q", read(), err, was)
			}
		})
	}
	for name, g := range map[string]Group{"none": {}, "gone": {Clos: filepath.Join(t.TempDir(), "gone")}} {
		_, err := g.Update(&specs.LinuxIntelRdt{MemBwSchema: "MB:0=1"}, flag)
		want := map[string]string{"none": "set schema (--memBwSchema): the container has no resctrl group", "gone": "no such file or directory"}[name]
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("group %s: %v, expected %q", name, err, want)
		}
		if _, err := g.Update(&specs.LinuxIntelRdt{}, flag); err != nil {
			t.Errorf("group %s: asked for nothing: %v", name, err)
		}
	}
}

// What the default class allows, and what the processor can do, is told beside what the
// container has.
func TestStatsInfo(t *testing.T) {
	root := fake(t, 9)
	for file, text := range map[string]string{
		"info/L3/cbm_mask": "7ff\n", "info/L3/min_cbm_bits": "2\n", "info/L3/num_closids": "16\n",
		"info/MB/bandwidth_gran": "10\n", "info/MB/delay_linear": "1\n", "info/MB/min_bandwidth": "10\n", "info/MB/num_closids": "8\n",
	} {
		p := filepath.Join(root, file)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"", "/"} {
		r := &specs.LinuxIntelRdt{ClosID: id}
		g := New(root, "c1", r)
		if err := g.Create(r); err != nil {
			t.Fatal(err)
		}
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(s)
		const want = `{"l3_cache_info":{"cbm_mask":"7ff","min_cbm_bits":2,"num_closids":16},"l3_cache_schema_root":"L3:0=7ff;1=07ff","l3_cache_schema":"L3:0=7ff;1=07ff",` +
			`"mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},"mem_bw_schema_root":"MB:0=100;1=100","mem_bw_schema":"MB:0=100;1=100",` +
			`"schemata":["MB:0=100;1=100","L3:0=7ff;1=07ff"]}`
		if err != nil || string(got) != want {
			t.Errorf("closID %q: %v, got\n%s, want\n%s", id, err, got, want)
		}
	}
}

// Whatever resctrl's files hold, reading them neither panics nor gives what JSON cannot say.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{"", "L3:0=7ff;1=07ff\nMB:0=100", "L3CODE:0=f\nL3DATA:0=f", ":;=", "MB:\n L3:=;", "18446744073709551616\n"} {
		f.Add(s, "L3:0=0x0f;1=f")
	}
	f.Fuzz(func(t *testing.T, text, schema string) {
		root := t.TempDir()
		for _, name := range []string{"schemata", "mon_data/mon_L3_00/llc_occupancy", "info/L3/cbm_mask", "info/MB/bandwidth_gran", "info/last_cmd_status"} {
			p := filepath.Join(root, name)
			os.MkdirAll(filepath.Dir(p), 0o755)
			if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		g := New(root, "c1", &specs.LinuxIntelRdt{ClosID: "/"})
		s, err := g.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatal(err)
		}
		if line, err := g.present(schema); err != nil || strings.Contains(line, "\n") {
			t.Errorf("%q, %v", line, err)
		}
		g.compare(&specs.LinuxIntelRdt{L3CacheSchema: schema})
		parse(strings.Split(text, "\n"))
		g.lastStatus()
	})
}
