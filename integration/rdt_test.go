package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	record "rt/libcontainer/state"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What can be seen of Intel RDT where there is none: that it is refused, and leaves
// nothing behind. Package intelrdt tests the rest on a tree of its own.
func TestIntelRdtRefused(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/fs/resctrl/schemata"); err == nil {
		t.Skip("this machine has resctrl mounted")
	}
	for _, r := range []specs.LinuxIntelRdt{{}, {ClosID: "gold"}, {L3CacheSchema: "L3:0=f", EnableMonitoring: true}} {
		b := newBox(t, func(s *specs.Spec) { s.Linux.IntelRdt = &r })
		b.refused([]string{"/linux/intelRdt", "intel rdt is not available", "no resctrl file system is mounted"}, "create", b.id)
		b.clean()
	}
}

// The flags of update write to the group that create has noted, and events reads there. The
// group is a directory with a file that keeps what was written to it last.
func TestIntelRdtUpdate(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "600"))
	b.launch()
	group := b.path("resctrl")
	b.must(os.Mkdir(group, 0o755))
	file := filepath.Join(group, "schemata")
	const before = "MB:0=100\nL3:0=7ff\n"
	b.must(os.WriteFile(file, []byte(before), 0o644))
	b.noteGroup(group)

	b.ok("update", "--mem-bw-schema", "MB:0=020", b.id)
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "MB:0=020\n") {
		t.Errorf("schemata are %q, %v", text, err)
	}
	var s struct {
		Data struct {
			Rdt struct {
				MemBw    string `json:"mem_bw_schema"`
				Schemata []string
			} `json:"intel_rdt"`
		}
	}
	out := b.ok("events", "--stats", b.id)
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.Data.Rdt.MemBw != "MB:0=020" || len(s.Data.Rdt.Schemata) != 2 {
		t.Errorf("statistics %+v, %v: %s", s, err, out)
	}
	// What is refused after the schemata puts them back. The kernel refuses it, not rt before.
	b.must(os.WriteFile(file, []byte(before), 0o644))
	bad, words := `{"unified":{"cgroup.max.depth":"x"}}`, "set cgroup.max.depth"
	if !v2 {
		bad, words = `{"cpu":{"cpus":"4000"}}`, "set cpuset.cpus"
	}
	b.feed(bad, "update", "-r", "-", "--mem-bw-schema", "MB:0=020", b.id).refused(1, words, "no limit was changed")
	if text, err := os.ReadFile(file); err != nil || string(text) != before {
		t.Errorf("after a refused update schemata are %q, %v", text, err)
	}
	// A resource that the kernel does not have.
	b.must(os.WriteFile(file, []byte("MB:0=100\n"), 0o644))
	b.refused([]string{"set schema (--l3-cache-schema): Intel RDT/CAT: l3 cache schema is not enabled"}, "update", "--l3-cache-schema", "L3:0=f", b.id)
	b.must(os.RemoveAll(group))
	b.refused([]string{"set schema (--mem-bw-schema)", "no such file or directory"}, "update", "--mem-bw-schema", "MB:0=020", b.id)
}

// noteGroup writes down that dir is the resctrl group of the container.
func (b *box) noteGroup(dir string) {
	b.t.Helper()
	root, err := record.OpenRoot(b.root, false)
	b.must(err)
	defer root.Close()
	d, err := root.Open(b.id)
	b.must(err)
	defer d.Close()
	b.must(d.Lock(time.Now().Add(limit)))
	rec, err := d.Load()
	b.must(err)
	if rec.Extra == nil {
		rec.Extra = map[string]jsontext.Value{}
	}
	rec.Extra["intel_rdt_path"], err = jsontext.AppendQuote(nil, dir)
	b.must(err)
	b.must(d.Save(rec))
}
