package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const minimal = `{"ociVersion":"1.0.0","root":{"path":"r"}}`

func TestSyntax(t *testing.T) {
	if _, _, err := Parse("config.json", []byte(minimal)); err != nil {
		t.Fatal(err)
	}
	// want is the beginning of the text, for what follows is jsontext's.
	for _, c := range []struct{ name, data, want string }{
		{"empty", "", "line 1, column 1: the document is empty"},
		{"blank", " \n ", "line 1, column 1: the document is empty"},
		{"cut off", "{\n\"root\":{", "/root: line 2, column 9: the document ends too early"},
		{"cut off in a string", `{"a":"x`, "/a: line 1, column 8: the document ends too early"},
		{"byte order mark", "\ufeff" + minimal, "line 1, column 1: invalid character"},
		{"UTF-16", "{\x00\"\x00", `line 1, column 2: invalid character '\x00'`},
		{"comment", "{\n/* x */ \"a\":1}", "line 2, column 1: invalid character '/'"},
		{"trailing comma", "{\"a\":1,\n }", "line 1, column 7: invalid character ','"},
		{"two documents", minimal + "\n" + minimal, "line 2, column 1: data after the end of the document"},
		{"trailing text", minimal + "\n  x", "line 2, column 3: data after the end of the document"},
		{"repeated", "{\"a\":1,\n\"b\":{\"c/d\":1,\"c/d\":2}}", "/b/c~1d: line 2, column 14: duplicate object member name"},
		{"repeated known", `{"root":{"path":"a","p\u0061th":"b"}}`, "/root/path: line 1, column 21: duplicate object member name"},
		{"repeated unknown", `{"x":{"é":1,"é":2}}`, "/x/é: line 1, column 13: duplicate object member name"},
		{"invalid UTF-8", "{\"root\":{\"path\":\"\xff\"}}", "/root/path: line 1, column 18: invalid UTF-8"},
		{"overlong", "{\"x\":\"\xc0\x80\"}", "/x: line 1, column 7: invalid UTF-8"},
		{"lone surrogate", `{"hostname":"\ud800"}`, "/hostname: line 1, column 14: invalid surrogate pair"},
		{"leading zero", `{"process":{"oomScoreAdj":01}}`, "/process: line 1, column 28: invalid character '1' after object value"},
		{"plus", `{"process":{"oomScoreAdj":+1}}`, "/process/oomScoreAdj: line 1, column 27: invalid character '+'"},
		{"NaN", `{"process":NaN}`, "/process: line 1, column 12: invalid character 'N'"},
		{"no name", `{1:2}`, "line 1, column 2: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Parse("config.json", []byte(c.data))
			if err == nil || !strings.HasPrefix(err.Error(), "config.json: "+c.want) {
				t.Errorf("got  %v\nwant config.json: %s", err, c.want)
			}
			if p, ok := errors.AsType[Problems](err); !ok || len(p) != 1 {
				t.Errorf("%T of %d problems", err, len(p))
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	data := defaultConfig(t)
	for n := range data {
		_, _, err := Parse("config.json", data[:n])
		if err == nil || !strings.Contains(err.Error(), ": line ") {
			t.Fatalf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestTopLevel(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{"null", "config cannot be null"},
		{"[]", "[...]: wrong type or range; accepted: an object"},
		{`"x"`, `"x": wrong type or range; accepted: an object`},
		{"true", "true: wrong type or range; accepted: an object"},
		{"{}", "/ociVersion: must be specified; accepted: a semantic version 1.x.y; /root: root must be specified"},
	} {
		if _, _, err := Parse("c", []byte(c.data)); err == nil || err.Error() != "c: "+c.want {
			t.Errorf("%s: got %v, want %s", c.data, err, c.want)
		}
	}
}

// TestLimits also bounds time and memory: security.md B6.
func TestLimits(t *testing.T) {
	nest := func(n int, open, end string) string {
		return `{"x":` + strings.Repeat(open, n) + "1" + strings.Repeat(end, n) + "}"
	}
	ends := func(doc string) string { return strings.TrimSuffix(minimal, "}") + "," + doc[1:] }
	for _, c := range []struct{ name, data, want string }{
		{"depth 64", ends(nest(63, "[", "]")), ""},
		{"depth 65", ends(nest(64, "[", "]")), "nested deeper than 64 levels"},
		{"depth 64 of objects", ends(nest(63, `{"a":`, "}")), ""},
		{"depth 65 of objects", ends(nest(64, `{"a":`, "}")), "nested deeper than 64 levels"},
		{"depth 10^6", nest(1_000_000, "[", "]"), "nested deeper than 64 levels"},
		{"depth where a number belongs", `{"process":{"oomScoreAdj":` + strings.Repeat("[", 1_000_000), "nested deeper than 64 levels"},
		{"long string", `{"ociVersion":"` + strings.Repeat("x", maxSize-100) + `"}`, `xxx"...: not a semantic version`},
		{"long name", `{"` + strings.Repeat("x", maxSize-100) + `":[}`, "line 1, column "},
		{"too long", strings.Repeat(" ", maxSize+1), "the document has 16777217 bytes; accepted: up to 16777216"},
		{"many rules", ends(`{"linux":{"devices":[` + many(65537, func(int) string { return "{}" }) + "]}}"), "and 980 more"},
		{"many environment variables", ends(`{"process":{"args":["a"],"cwd":"/","env":[` + many(65537, func(int) string { return `"A=1"` }) + "]}}"), "/process/env: 65537 entries; accepted: up to 65536"},
		{"most environment variables", ends(`{"process":{"args":["a"],"cwd":"/","env":[` + many(65536, func(int) string { return `"A=1"` }) + "]}}"), ""},
		{"many rlimits", ends(`{"process":{"rlimits":[` + many(65536, func(int) string { return `{"type":"` + strings.Repeat("x", 200) + `","soft":1,"hard":1}` }) + "]}}"), "more"},
		{"many annotations", ends(`{"annotations":{` + many(65537, func(i int) string { return fmt.Sprintf(`"%d":""`, i) }) + "}}"), "/annotations: 65537 members; accepted: up to 65536"},
		{"many maps", ends(`{"linux":{"uidMappings":[` + many(100000, func(int) string { return "{}" }) + "]}}"), "100000 entries; accepted: up to 340"},
		{"many sysctls", ends(`{"linux":{"sysctl":{` + many(65536, func(i int) string { return fmt.Sprintf(`"%d":""`, i) }) + "}}}"), "more"},
		{"many devices", ends(`{"linux":{"devices":[` + many(65536, func(int) string { return `{"path":"/a","type":"p"}` }) + "]}}"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := cpuTime(t)
			_, _, err := Parse("config.json", []byte(c.data))
			spent := cpuTime(t) - start
			runtime.ReadMemStats(&after)
			if spent > time.Second {
				t.Errorf("took %v", spent)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 256<<20 {
				t.Errorf("allocated %d MiB", n>>20)
			}
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %.300v, want %q", err, c.want)
			}
			if err != nil && len(err.Error()) > 20*2048 {
				t.Errorf("text of %d bytes", len(err.Error()))
			}
		})
	}
}

// cpuTime is what this process has used: unlike a clock, it does not run while
// others have the machine.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestProblemsText(t *testing.T) {
	data := patch(t, defaultConfig(t),
		`/mounts [`+many(30, func(i int) string { return fmt.Sprintf(`{"destination":"/a","type":%d}`, i) })+`]`,
		`/process/args []`,
	)
	_, _, err := Parse("config.json", data)
	text := err.Error()
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("/mounts/%d/type: %d: wrong type or range; accepted: a string", i, i))
	}
	if full := "config.json: " + strings.Join(want, "; ") + "; and 11 more"; text != full {
		t.Errorf("got  %s\nwant %s", text, full)
	}
	if p, ok := errors.AsType[Problems](err); !ok || len(p) != 31 || p[30].Pointer != "/process/args" || p[30].File != "config.json" {
		t.Errorf("problems %+v", p)
	}
}

// A member that cannot be decoded is one problem, not also those of its zero
// value.
func TestNoFollowUps(t *testing.T) {
	for _, r := range []row{
		one("root", `/root 5`, `/root: 5: wrong type or range; accepted: an object`),
		one("process", `/process []`, `/process: [...]: wrong type or range; accepted: an object`),
		one("args", `/process/args "sh"`, `/process/args: "sh": wrong type or range; accepted: an array`),
		one("linux", `/linux "x"`, `/linux: "x": wrong type or range; accepted: an object`),
		one("destination", `/mounts/0/destination {}`, `/mounts/0/destination: {...}: wrong type or range; accepted: a string`),
	} {
		r.run(t)
	}
}

func TestParseProcess(t *testing.T) {
	p, warnings, err := ParseProcess("p.json", []byte(`{"args":["a"],"cwd":"/","user":{"uid":7},"capabilities":{"bounding":["x"]}}`))
	if err != nil || p.User.UID != 7 || len(warnings) != 1 || warnings[0] != `p.json: /capabilities/bounding/0: "x": unknown capability is ignored` {
		t.Fatal(p, warnings, err)
	}
	for _, c := range []struct{ data, want string }{
		{`{}`, "/args: args must not be empty; /cwd: Cwd property must not be empty"},
		{`null`, "null: wrong type or range; accepted: an object"},
		{`{"args":["a"],"cwd":"/","env":["x"]}`, `/env/0: "x": not a variable; accepted: NAME=VALUE`},
		{`{"args":["a"],"cwd":"/","user":{"uid":4294967295}}`, `/user/uid: 4294967295: no valid id; accepted: an integer from 0 to 4294967294`},
	} {
		if _, _, err := ParseProcess("p.json", []byte(c.data)); err == nil || err.Error() != "p.json: "+c.want {
			t.Errorf("%s: got %v, want %s", c.data, err, c.want)
		}
	}
	p.Args = []string{"a\x00"}
	if _, err := ValidateProcess("exec", p); err == nil || err.Error() != `exec: /args/0: "a\x00": contains a NUL byte` {
		t.Error(err)
	}
}

func TestParseResources(t *testing.T) {
	r, _, err := ParseResources("r.json", []byte(`{"memory":{"swap":5,"checkBeforeUpdate":true},"pids":{"limit":7},"unified":{"a.b":"c"}}`))
	if err != nil || *r.Pids.Limit != 7 {
		t.Fatal(r, err)
	}
	for _, c := range []struct{ data, want string }{
		{`[]`, "[...]: wrong type or range; accepted: an object"},
		{`{"memory":{"limit":-3}}`, "/memory/limit: -3: out of range; accepted: bytes, or -1 for no limit"},
		{`{"unified":{"a":"c"}}`, `/unified/a: "a": malformed file name; accepted: a file of cgroup v2, such as "memory.high"`},
	} {
		if _, _, err := ParseResources("r.json", []byte(c.data)); err == nil || err.Error() != "r.json: "+c.want {
			t.Errorf("%s: got %v, want %s", c.data, err, c.want)
		}
	}
}

func TestValidateResources(t *testing.T) {
	r := &specs.LinuxResources{Pids: &specs.LinuxPids{}, CPU: &specs.LinuxCPU{Cpus: "x"}}
	if _, err := ValidateResources("update", r); err == nil || err.Error() != `update: /cpu/cpus: "x": malformed list; accepted: numbers and ranges, such as "0-3,7"` {
		t.Error(err)
	}
}

func TestParseUser(t *testing.T) {
	for _, s := range []string{"+1", "-1", " 1", "1 ", "0x1", "1:", ":1", "1:2:3", "4294967295", "4294967296", "1:4294967295", "1e0", "１", "", ":", "root", "1_0"} {
		if uid, gid, err := ParseUser(s); err == nil {
			t.Errorf("%q is accepted as %d %v", s, uid, gid)
		} else if want := "user: " + quote(s) + ": bad uid or gid; accepted: UID or UID:GID, each an integer from 0 to 4294967294"; err.Error() != want {
			t.Errorf("got %s, want %s", err, want)
		}
	}
	if uid, gid, err := ParseUser("1"); uid != 1 || gid != nil || err != nil {
		t.Error(uid, gid, err)
	}
	if uid, gid, err := ParseUser("4294967294:0"); uid != 4294967294 || gid == nil || *gid != 0 || err != nil {
		t.Error(uid, gid, err)
	}
}

func TestParseID(t *testing.T) {
	for _, id := range []string{"a", "...", "A_z+0.9-", strings.Repeat("x", 255)} {
		if err := ParseID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{".", "..", "a/b", "/etc", strings.Repeat("x", 256), "a\n", "%s", "é", "a b", "\x00"} {
		if err := ParseID(id); err == nil || err.Error() != "invalid container ID format" {
			t.Errorf("%q: %v", id, err)
		}
	}
	if err := ParseID(""); err == nil || err.Error() != "container id cannot be empty" {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := func(name string) string {
		d := filepath.Join(base, name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		return d
	}
	write := func(file, data string) {
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d := dir("good")
	write(d+"/config.json", minimal)
	if err := os.Symlink("good", base+"/link"); err != nil {
		t.Fatal(err)
	}
	b, err := Load(base + "/link/../link/")
	if err != nil || b.Dir != d || string(b.Raw) != minimal || b.Spec.Root.Path != "r" || len(b.Warnings) != 0 {
		t.Errorf("%+v %v", b, err)
	}
	t.Chdir(d)
	if b, err := Load(""); err != nil || b.Dir != d {
		t.Errorf("%+v %v", b, err)
	}

	empty, fifo, directory, large, bad := dir("empty"), dir("fifo"), dir("directory"), dir("large"), dir("bad")
	if err := syscall.Mkfifo(fifo+"/config.json", 0o600); err != nil {
		t.Fatal(err)
	}
	dir("directory/config.json")
	write(large+"/config.json", "")
	if err := os.Truncate(large+"/config.json", 1<<40); err != nil {
		t.Fatal(err)
	}
	write(bad+"/config.json", "{")
	for _, c := range []struct{ dir, want string }{
		{base + "/none", "chdir " + base + "/none: no such file or directory"},
		{base + "/good/config.json", "chdir " + base + "/good/config.json: not a directory"},
		{empty, "JSON specification file config.json not found"},
		{fifo, "open config.json: not a regular file"},
		{directory, "open config.json: not a regular file"},
		{large, "read config.json: more than the accepted 16777216 bytes"},
		{bad, "config.json: line 1, column 2: the document ends too early"},
	} {
		if b, err := Load(c.dir); err == nil || err.Error() != c.want || b != nil {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
