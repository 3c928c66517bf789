package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rt/cli"
	"rt/libcontainer"
)

// The test binary is rt when it is called so.
func TestMain(m *testing.M) {
	if os.Args[0] == "rt" {
		main()
	}
	os.Exit(m.Run())
}

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want string // in order: global flags, command, its flags, "--", the rest; or an error
	}{
		{"rt", "rt"},
		{"rt state c", "rt state -- c"},
		{"rt --root /r state c", "rt --root=/r state -- c"},
		{"rt -root=/r state c", "rt --root=/r state -- c"},
		{"rt state c --root /r --debug", "rt --root=/r --debug=true state -- c"},
		{"rt state --log-format json c", "rt --log-format=json state -- c"},
		{"rt --debug=false state c", "rt --debug=false state -- c"},
		{"rt --debug false state c", "rt --debug=true false -- state c"}, // a command called false
		{"rt delete c --force", "rt delete --force=true -- c"},
		{"rt delete -force c", "rt delete --force=true -- c"},
		{"rt delete -f c", "rt delete --force=true -- c"},
		{"rt delete -- c --force", "rt delete -- c --force"},
		{"rt delete c -- --force", "rt delete -- c --force"},
		{"rt -- delete -f c", "rt delete --force=true -- c"},
		{"rt run -no-subreaper -b x -d c", "rt run --no-subreaper=true --bundle=x --detach=true -- c"},
		{"rt run --bundle -x c", "rt run --bundle=-x -- c"},
		{"rt run --bundle -- c", "rt run --bundle=-- -- c"},
		{"rt run --bundle= c", "rt run --bundle= -- c"},
		{"rt run - c", "rt run -- - c"},
		{"rt exec c ls -l --root /r", "rt exec -- c ls -l --root /r"},
		{"rt exec -e A=b --env C=d,e -e=F c ls", "rt exec --env=[A=b C=d,e F] -- c ls"},
		{"rt exec -- c ls --", "rt exec -- c ls --"},
		{"rt exec c -- ls -- x", "rt exec -- c ls -- x"},
		{"rt exec -- c -- ls", "rt exec -- c ls"},
		{"rt exec c", "rt exec -- c"},
		{"rt exec --systemd-cgroup -p f --detach c", "rt --systemd-cgroup=true exec --process=f --detach=true -- c"},
		{"rt kill --all c KILL", "rt kill --all=true -- c KILL"},
		{"rt kill c -9", "rt kill -- c -9"},
		{"rt kill c KILL --all", "rt kill -- c KILL --all"},
		{"rt ps --format json c", "rt ps --format=json -- c"},
		{"rt ps c -f x", "rt ps -- c -f x"},
		{"rt nosuch --image-path x c", "rt nosuch -- --image-path x c"},
		{"rt help create", "rt help -- create"},

		{"rt --nosuch state c", "flag provided but not defined: -nosuch"},
		{"rt state --force c", "flag provided but not defined: -force"},
		{"rt state c -x=1", "flag provided but not defined: -x"},
		{"rt exec -te A=b c ls", "flag provided but not defined: -te"},
		{"rt exec -eA=b c ls", "flag provided but not defined: -eA"},
		{"rt state --version c", "flag provided but not defined: -version"},
		{"rt --force delete c", "flag provided but not defined: -force"},
		{"rt create c --bundle", "flag needs an argument: --bundle"},
		{"rt create -b", "flag needs an argument: -b"},
		{"rt --root", "flag needs an argument: --root"},
		{"rt state ---x c", "bad flag syntax: ---x"},
		{"rt state -=x c", "bad flag syntax: -=x"},
		{"rt state --=x c", "bad flag syntax: --=x"},
	}
	for _, tt := range tests {
		l, err := cli.Parse(strings.Fields(tt.in)[1:], globalFlags(), command)
		got := "rt" + l.Ordered()
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

func TestParseHelpAndVersion(t *testing.T) {
	tests := []struct {
		in            string
		help, version bool
		positional    int
	}{
		{"rt -h", true, false, 0},
		{"rt --version", false, true, 0},
		{"rt -v", false, true, 0},
		{"rt create --help", true, false, 0},
		{"rt create -h c", true, false, 1},
		{"rt exec c ls --help", false, false, 3},
		{"rt exec c -v", false, false, 2},
	}
	for _, tt := range tests {
		l, err := cli.Parse(strings.Fields(tt.in)[1:], globalFlags(), command)
		if err != nil || l.Help != tt.help || l.Version != tt.version || l.NArg() != tt.positional {
			t.Errorf("%s: %v, %v", tt.in, l, err)
		}
	}
}

func TestCommands(t *testing.T) {
	for _, c := range commands() {
		if c.Action == nil || c.Usage == "" {
			t.Errorf("%s: no action or no usage", c.Name)
		}
		seen := []string{}
		for _, f := range append(globalFlags(), c.Flags...) {
			for _, n := range cli.Names(f) {
				// spec has a flag of its own of that name, as in runc.
				if slices.Contains(seen, n) && !(c.Name == "spec" && n == "rootless") {
					t.Errorf("%s: two flags called %s", c.Name, n)
				}
				seen = append(seen, n)
			}
			if cli.Usage(f) == "" {
				t.Errorf("%s: flag %s has no usage", c.Name, cli.Names(f)[0])
			}
		}
	}
}

func TestParseSignal(t *testing.T) {
	good := map[string]syscall.Signal{
		"TERM": syscall.SIGTERM, "term": syscall.SIGTERM, "SIGTERM": syscall.SIGTERM, "SigTerm": syscall.SIGTERM,
		"9": syscall.SIGKILL, "0": 0, "64": 64, "USR1": syscall.SIGUSR1, "winch": syscall.SIGWINCH,
	}
	for s, want := range good {
		if got, err := parseSignal(s); got != want || err != nil {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "SIG", "SIGFOO", "-1", "-9", "65", "9x", "0x9", " 9", "99999999999999999999", "RTMIN+1", "SIGSIGTERM"} {
		if got, err := parseSignal(s); err == nil || !strings.HasPrefix(err.Error(), "unknown signal \""+s+"\"") {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}

func TestDefaultRoot(t *testing.T) {
	const run = "/run/user/1"
	tests := []struct {
		name     string
		euid     int
		dir      string
		user     string // "-" is unset
		userNS   bool
		want     string
		wantsXDG bool
	}{
		{"root", 0, "", "root", false, "/run/rt", false},
		{"root, directory set", 0, run, "-", false, "/run/rt", false},
		{"root, other USER", 0, run, "joe", false, "/run/rt", false},
		{"root of a namespace", 0, run, "joe", true, run + "/rt", true},
		{"root of a namespace, no USER", 0, run, "-", true, run + "/rt", true},
		{"root of a namespace, empty USER", 0, run, "", true, run + "/rt", true},
		{"root of a namespace that says so", 0, run, "root", true, "/run/rt", false},
		{"root of a namespace, no directory", 0, "", "-", true, "/run/rt", false},
		{"user", 1000, run, "joe", false, run + "/rt", true},
		{"user called root", 1000, run, "root", false, run + "/rt", true},
		{"user, no directory", 1000, "", "joe", false, "/run/rt", false},
	}
	for _, tt := range tests {
		env := func(name string) (string, bool) {
			if name == "XDG_RUNTIME_DIR" {
				return tt.dir, tt.dir != ""
			}
			return strings.TrimPrefix(tt.user, "-"), tt.user != "-"
		}
		root, xdg := defaultRoot(tt.euid, env, func() bool { return tt.userNS })
		if root != tt.want || xdg != tt.wantsXDG {
			t.Errorf("%s: %s, %v", tt.name, root, xdg)
		}
	}
}

func TestClean(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{`mount "a" on 'b': no`, `mount "a" on 'b': no`},
		{"a\nb\x1b[31m\x00\x7f", `a\nb\x1b[31m\x00\x7f`},
		{"grün \u202e \xff", `grün \u202e \xff`},
		{`back\slash`, `back\slash`},
		{"'\n'", `'\n'`},
		{strings.Repeat("x", maxMessage), strings.Repeat("x", maxMessage)},
		{strings.Repeat("x", maxMessage+1), strings.Repeat("x", maxMessage-3) + "..."},
	}
	for _, tt := range tests {
		if got := clean(tt.in); got != tt.want {
			t.Errorf("%.40q: %.40q", tt.in, got)
		}
	}
	for _, s := range []string{strings.Repeat("ü", maxMessage), strings.Repeat("\n", maxMessage), strings.Repeat("x", maxMessage-1) + "\n"} {
		if got := clean(s); len(got) > maxMessage || !strings.HasSuffix(got, "...") {
			t.Errorf("%.8q...: %d bytes, ends in %q", s, len(got), got[len(got)-4:])
		}
	}
}

func TestListenFDs(t *testing.T) {
	self := func() string { b, _ := os.Readlink("/proc/self"); return b }()
	tests := []struct {
		pid, fds string
		want     int
	}{
		{self, "2", 2}, {self, "0", 0}, {self, "-1", 0}, {self, "x", 0}, {self, "", 0},
		{"1", "2", 0}, {"", "2", 0}, {self + " ", "2", 0},
	}
	for _, tt := range tests {
		t.Setenv("LISTEN_PID", tt.pid)
		t.Setenv("LISTEN_FDS", tt.fds)
		if got := listenFDs(); got != tt.want {
			t.Errorf("%+v: %d", tt, got)
		}
	}
}

func TestFilterPS(t *testing.T) {
	const out = "UID   PID  PPID CMD\nroot    1     0 init\nroot   12     1 sh -c 7\n\nroot    7     1 x\n"
	tests := []struct {
		name, out string
		pids      []int
		want      string
		err       string
	}{
		{"two", out, []int{12, 7}, "UID   PID  PPID CMD\nroot   12     1 sh -c 7\nroot    7     1 x\n", ""},
		{"none", out, nil, "UID   PID  PPID CMD\n", ""},
		{"first column", "PID\n 5\n 6\n", []int{6}, "PID\n 6\n", ""},
		{"no column", "CMD\nx\n", []int{6}, "", "filter the output of ps: it has no PID column"},
		{"empty", "", []int{6}, "", "filter the output of ps: it has no PID column"},
		{"no number", "PID\nx\n", []int{6}, "", "filter the output of ps: no pid in \"x\""},
		{"short row", "USER PID\nx\n", []int{6}, "", "filter the output of ps: no pid in \"x\""},
	}
	for _, tt := range tests {
		got, err := filterPS(tt.out, tt.pids)
		if string(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	for want, pids := range map[string][]int{"null\n": nil, "[1]\n": {1}, "[1,22]\n": {1, 22}} {
		if got := string(pidsJSON(pids)); got != want {
			t.Errorf("%v: %q", pids, got)
		}
	}
}

func TestWriteList(t *testing.T) {
	s := &libcontainer.State{
		Version: "1.3.0", ID: "c", Pid: 5, Status: libcontainer.Running, Bundle: "/b <x>", Rootfs: "/b/r",
		Created: time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC), Annotations: map[string]string{"k=v": "\"", "a": "b"}, Owner: "joe",
	}
	tests := []struct {
		format string
		states []*libcontainer.State
		want   string
	}{
		{"json", nil, "null\n"},
		{"json", []*libcontainer.State{s}, `[{"ociVersion":"1.3.0","id":"c","pid":5,"status":"running","bundle":"/b <x>","rootfs":"/b/r",` +
			`"created":"2020-01-02T03:04:05.0000006Z","annotations":{"a":"b","k=v":"\""},"owner":"joe"}]` + "\n"},
		{"table", nil, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"},
		{"table", []*libcontainer.State{s}, "ID          PID         STATUS      BUNDLE      CREATED                        OWNER\n" +
			"c           5           running     /b <x>      2020-01-02T03:04:05.0000006Z   joe\n"},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if err := writeList(&b, tt.format, tt.states); err != nil || b.String() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s\n%v", tt.format, b.String(), tt.want, err)
		}
	}
	if err := writeList(new(bytes.Buffer), "xml", nil); err == nil || !strings.Contains(err.Error(), "invalid format option") {
		t.Errorf("xml: %v", err)
	}
}
