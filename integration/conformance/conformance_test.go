package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The sandbox's pid 1 is this binary, whichever it is.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == sandboxCommand {
		os.Exit(sandboxMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name   string
		stdout string
		stderr string
		status int
		want   verdict
		checks string
		why    string
	}{
		{"all ok", "TAP version 13\nok 1 - a\nok\n1..2\n", "", 0, verdictPass, "2/2", ""},
		{"several plans", "1..1\nok 1 - a\n1..1\nok 1 - b\n", "", 0, verdictPass, "2/2", ""},
		{"not ok", "ok 1\nnot ok 2 - b is set\nnot ok 3\n", "", 0, verdictFail, "1/3", "2 of 3 checks fail, first: 2 - b is set"},
		{"quoted in a block", "ok 1\n  ---\n  not ok 1\n  ...\n", "", 0, verdictPass, "1/1", ""},
		{"other words", "okay\nnot okay\nnot yet\nok 1\n", "", 0, verdictPass, "1/1", ""},
		{"skip and todo", "ok 1 # SKIP no\nnot ok 2 # todo later\nok 3\n", "", 0, verdictPass, "1/1", ""},
		{"only skipped", "ok 1 # skip all\n", "", 0, verdictNone, "0/0", ""},
		{"nothing", "", "", 0, verdictNone, "0/0", ""},
		{"no last newline", "ok 1\nnot ok 2", "", 0, verdictFail, "1/2", "1 of 2 checks fail, first: 2"},
		{"bad status", "ok 1\n", "\nit broke\nreally\n", 1, verdictFail, "1/1", "exit status 1: it broke"},
		{"time is up", "ok 1\n", "", -1, verdictFail, "1/1", "time is up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(output{stdout: []byte(tt.stdout), stderr: []byte(tt.stderr), status: tt.status})
			if got.verdict != tt.want || got.checks() != tt.checks || got.why != tt.why {
				t.Errorf("got %s, %s, %q; want %s, %s, %q", got.verdict, got.checks(), got.why, tt.want, tt.checks, tt.why)
			}
		})
	}
}

func TestAbridge(t *testing.T) {
	in := "TAP version 13\nok 1 - a\n  ---\n  noise\n  ...\nnot ok 2 - b\n  ---\n  \"stdout\": \"x\\nok 7\\n  noise\\nnot ok 8\"\n  ...\n1..2\n"
	want := "TAP version 13\nnot ok 2 - b\n  ---\n  \"stdout\": \"x\nnot ok 8\"\n  ...\n1..2\n"
	if got := string(abridge([]byte(in))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseExpected(t *testing.T) {
	list, err := parseExpected(strings.NewReader("# c\n\na pass pass\nb  2/3 none  why  so\n"))
	want := []expectation{{"a", "pass", "pass", ""}, {"b", "2/3", "none", "why so"}}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("got %+v, %v; want %+v", list, err, want)
	}
	tests := []struct{ name, text, want string }{
		{"short", "a pass", "want PROGRAM HOST HOST-V2"},
		{"word", "a pass maybe why", `"maybe": want pass, fail, none or a count`},
		{"more ok than checks", "a 3/2 pass why", `"3/2": want`},
		{"half a count", "a 3/ pass why", `"3/": want`},
		{"tail after a count", "a 1/3x pass why", `"1/3x": want`},
		{"no reason", "a fail pass", "want a reason"},
		{"needless reason", "a pass pass why", "want a reason where it does not pass, and only there"},
		{"unsorted", "b pass pass\na pass pass", "line 2: a: want sorted lines"},
		{"twice", "a pass pass\na pass pass", "one a program"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseExpected(strings.NewReader(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestMeets(t *testing.T) {
	fails := result{verdict: verdictFail, ok: 2, failed: 1}
	passes := result{verdict: verdictPass, ok: 3}
	tests := []struct {
		r    result
		want string
		meet bool
	}{
		{fails, "fail", true}, {fails, "2/3", true}, {fails, "1/3", false}, {fails, "pass", false},
		{passes, "pass", true}, {passes, "3/3", false}, {passes, "fail", false}, {passes, "none", false},
		{fails, "pass|2/3", true}, {passes, "pass|2/3", true}, {fails, "pass|1/3", false},
	}
	for _, tt := range tests {
		if got := tt.r.meets(tt.want); got != tt.meet {
			t.Errorf("%s %s meets %q: got %v", tt.r.verdict, tt.r.checks(), tt.want, got)
		}
	}
}

// TestList holds the checked-in list against the programs that go.mod has.
func TestList(t *testing.T) {
	f, err := os.Open("expected")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := parseExpected(f)
	if err != nil {
		t.Fatal(err)
	}
	var listed, built []string
	for _, e := range list {
		listed = append(listed, e.program)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		if _, name, ok := strings.Cut(strings.TrimSpace(line), "/validation/"); ok {
			built = append(built, name)
		}
	}
	slices.Sort(built)
	if !slices.Equal(listed, built) {
		t.Errorf("listed %q, built %q", listed, built)
	}
}

func TestParseHierarchies(t *testing.T) {
	mountinfo := `25 1 8:1 / / rw - ext4 /dev/root rw
31 25 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 /other /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
50 25 0:30 / /mnt/memory rw - cgroup cgroup rw,memory
`
	cgroup := "9:name=systemd:/a\n8:pids:/a\n5:memory:/box/b\n1:cpu,cpuacct:/\n0::/u\n"
	want := []hierarchy{
		{"cpu,cpuacct", "cpu,cpuacct", false, "/sys/fs/cgroup/cpu,cpuacct"},
		{"memory", "memory", false, "/sys/fs/cgroup/memory/b"},
		{"systemd", "xattr,none,name=systemd", false, "/sys/fs/cgroup/systemd/a"},
		{"unified", "", true, "/sys/fs/cgroup/unified/u"},
	}
	if got := parseHierarchies(mountinfo, cgroup); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	v2 := "31 25 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	want = []hierarchy{{"cgroup", "", true, "/sys/fs/cgroup/user.slice"}}
	if got := parseHierarchies(v2, "0::/user.slice\n"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSandbox runs a script as program: it sees the lane's cgroups and nothing of
// the host's, and nothing that it leaves outlives it.
func TestSandbox(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces and cgroups")
	}
	const script = `#!/bin/sh
test $$ -lt 20 && echo "ok few processes"
test -z "$(ls -A $TMPDIR)" && echo "ok empty TMPDIR"
test "$RUNTIME" = /the/runtime && echo "ok runtime"
test "$PWD" = "$(dirname "$0")" && echo "ok directory"
touch /run/left "$TMPDIR/left"
for procs in %s; do
	mkdir "$(dirname $procs)/left" "$(dirname $procs)/left/below" && echo "ok cgroup"
done
sleep 1000 &
exit %d
`
	for _, tt := range []struct {
		l     lane
		procs string
	}{
		{laneHost, "/sys/fs/cgroup/*/cgroup.procs"},
		{laneHostV2, "/sys/fs/cgroup/cgroup.procs"},
	} {
		t.Run(string(tt.l), func(t *testing.T) {
			trees, err := findHierarchies(tt.l)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, status := range []int{0, 3} {
				text := fmt.Sprintf(script, tt.procs, status)
				if err := os.WriteFile(filepath.Join(dir, "script"), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
				o := options{programs: dir, runtime: "/the/runtime", timeout: time.Minute}
				res, err := runProgram(t.Context(), o, tt.l, trees, "script")
				if err != nil {
					t.Fatal(err)
				}
				if want := 4 + len(trees); res.ok != want || res.output.status != status {
					t.Errorf("got status %d, %d checks, want %d, %d:\n%s%s", res.output.status, res.ok, status, want, res.output.stdout, res.output.stderr)
				}
			}
			for _, h := range trees {
				left := filepath.Join(h.Dir, fmt.Sprintf("conformance-%d-script", os.Getpid()))
				if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is left: %v", left, err)
				}
			}
			if _, err := os.Stat("/run/left"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("/run/left is left: %v", err)
			}
		})
	}
}

func TestSandboxTimeout(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces and cgroups")
	}
	trees, err := findHierarchies(laneHostV2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\necho ok 1\nsetsid sleep 1000 &\nwait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	res, err := runProgram(t.Context(), options{programs: dir, timeout: 500 * time.Millisecond}, laneHostV2, trees, "script")
	if err != nil {
		t.Fatal(err)
	}
	if res.why != "time is up" || res.ok != 1 {
		t.Errorf("got %q, %s, want time is up after one check", res.why, res.checks())
	}
}
