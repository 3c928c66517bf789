package hooks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func sh(script string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}}
}

func within(h specs.Hook, seconds int) specs.Hook {
	h.Timeout = &seconds
	return h
}

// As in rt, no descriptor that this process was started with reaches a hook.
func TestMain(m *testing.M) {
	unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	os.Exit(m.Run())
}

func TestRunErrors(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("s", 1<<20)
	for _, c := range []struct {
		name  string
		h     specs.Hook
		state string
		want  string // of the error; "" for none
	}{
		{"success", sh("echo x; echo y >&2"), "{}", ""},
		{"status", sh("echo out; echo err >&2; exit 3"), "{}", "error running createRuntime hook #2: exit status 3, stdout: out, stderr: err"},
		{"signal", sh("kill -TERM $$"), "{}", "error running createRuntime hook #2: signal: terminated, stdout: , stderr: "},
		{"missing", specs.Hook{Path: dir + "/none"}, "{}", "error running createRuntime hook #2: fork/exec " + dir + "/none: no such file or directory"},
		{"not executable", specs.Hook{Path: plain}, "{}", "fork/exec " + plain + ": permission denied"},
		{"directory", specs.Hook{Path: dir}, "{}", "fork/exec " + dir + ": permission denied"},
		{"relative", specs.Hook{Path: "sh"}, "{}", "fork/exec sh: the path is not absolute"},
		{"empty path", specs.Hook{}, "{}", "the path is not absolute"},
		{"no args", specs.Hook{Path: "/bin/true"}, "{}", ""},
		{"stdin", sh(`test "$(cat)" = '{"id":"x"}'`), `{"id":"x"}`, ""},
		{"empty stdin", sh(`test -z "$(cat)"`), "", ""},
		{"F38 stdin closed unread", sh("exec 0<&-; sleep 0.1"), big, ""},
		{"F38 stdin never read", sh("true"), big, ""},
		{"large stdin", sh(`test $(wc -c) = 1048576`), big, ""},
		{"in time", within(sh("exit 4"), 10), "{}", "exit status 4"},
		{"zero timeout is none", within(sh("sleep 0.1"), 0), "{}", ""},
		{"negative timeout is none", within(sh("sleep 0.1"), -1), "{}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Run(CreateRuntime, 2, c.h, []byte(c.state), Options{Dir: dir})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v\nwant %q", err, c.want)
			}
		})
	}
	err := Run(CreateRuntime, 0, specs.Hook{Path: dir + "/none"}, nil, Options{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestS31EnvironmentAndDirectory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOOK_TEST", "of rt")
	out := filepath.Join(dir, "out")
	for _, c := range []struct {
		name     string
		env, def []string
		want     string
	}{
		{"absent", nil, nil, "HOOK_TEST=of rt"},
		{"absent with default", nil, []string{"D=1"}, "D=1"},
		{"absent with empty default", nil, []string{}, ""},
		{"empty", []string{}, []string{"D=1"}, ""},
		{"given", []string{"A=b c"}, []string{"D=1"}, "A=b c"},
	} {
		h := specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "tr '\\0' '\\n' < /proc/self/environ > " + out + "; pwd -P > " + out + ".cwd"}, Env: c.env}
		// environ of tr is what sh passes on, which adds some of its own.
		if err := Run(Prestart, 0, h, nil, Options{Dir: dir, Env: c.def}); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(out)
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			name, _, _ := strings.Cut(line, "=")
			if c.name == "absent" && name != "HOOK_TEST" || name == "" || name == "PWD" || name == "OLDPWD" || name == "SHLVL" || name == "_" {
				continue
			}
			got = append(got, line)
		}
		if strings.Join(got, "\n") != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
		if cwd, err := os.ReadFile(out + ".cwd"); err != nil || strings.TrimSpace(string(cwd)) != dir {
			t.Errorf("%s: cwd %q, %v", c.name, cwd, err)
		}
	}
	// No descriptor but the three, and a process group of its own.
	r, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = Run(Prestart, 0, sh(`ls /proc/$$/fd; cut -d" " -f5 /proc/$$/stat; echo $$; exit 1`), nil, Options{})
	f := strings.Fields(strings.TrimPrefix(err.Error(), "error running prestart hook #0: exit status 1, stdout: "))
	if len(f) < 5 || strings.Join(f[:3], " ") != "0 1 2" || strings.Trim(f[3], ",") != strings.Trim(f[4], ",") {
		t.Errorf("%v", err)
	}
}

// L30: the group is killed, a grandchild outside of it that holds the pipes is
// not waited for.
func TestF38Timeout(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, script string }{
		{"sleeps", "echo begun; exec sleep 60"},
		{"child holds the pipes", "echo begun; sleep 60; true"},
		{"ignores SIGTERM", "trap '' TERM INT HUP; echo begun; sleep 60; sleep 60"},
		{"writes all the time", "echo begun; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx; done"},
		{"daemon in another session", "echo begun; setsid sh -c 'echo $$ > " + dir + "/daemon; exec sleep 60' & sleep 60; true"},
		{"stopped", "echo begun; kill -STOP $$"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pidfile := filepath.Join(dir, "pid")
			begin := time.Now()
			err := Run(CreateRuntime, 0, within(sh("echo $$ > "+pidfile+"; "+c.script), 1), []byte("{}"), Options{})
			took := time.Since(begin)
			if err == nil || !strings.Contains(err.Error(), "error running createRuntime hook #0: hook ran past specified timeout of 1.0s") ||
				!strings.Contains(err.Error(), "begun") {
				t.Errorf("%.200v", err)
			}
			if took < time.Second || took > 3*time.Second {
				t.Errorf("took %v", took)
			}
			if pid := readPid(t, pidfile); !groupGone(pid) {
				t.Error("the group is alive")
				unix.Kill(-pid, unix.SIGKILL)
			}
		})
	}
	unix.Kill(readPid(t, filepath.Join(dir, "daemon")), unix.SIGKILL)
}

// An interrupt ends a hook as its timeout does, also one that has come before it began.
func TestF11Interrupt(t *testing.T) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	pidfile := filepath.Join(t.TempDir(), "pid")
	for _, delay := range []time.Duration{200 * time.Millisecond, 0} {
		if delay > 0 {
			time.AfterFunc(delay, func() { unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) })
		}
		begin := time.Now()
		err := Run(CreateRuntime, 0, sh("echo $$ > "+pidfile+"; exec sleep 60"), []byte("{}"), Options{Interrupt: fd})
		if took := time.Since(begin); !errors.Is(err, ErrInterrupted) || took < delay || took > 10*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		if pid := readPid(t, pidfile); !groupGone(pid) {
			t.Error("the group is alive")
		}
	}
	if err := Run(CreateRuntime, 0, sh("true"), []byte("{}"), Options{}); err != nil {
		t.Error("without Interrupt:", err)
	}
}

func TestDaemonOfGoodHookLives(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	begin := time.Now()
	// The daemon keeps the hook's pipes and writes into them.
	err := Run(Poststart, 0, sh("cat /dev/zero & cat /dev/zero & echo $! > "+pidfile), nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Error("took", took)
	}
	// They end by SIGPIPE, not by us; one that sleeps stays.
	err = Run(Poststart, 0, sh("sleep 60 & echo $! > "+pidfile), nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	pid := readPid(t, pidfile)
	if unix.Kill(pid, 0) != nil {
		t.Error("the daemon was killed")
	}
	unix.Kill(pid, unix.SIGKILL)
}

func TestF38Output(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1 GiB")
	}
	begin := time.Now()
	err := Run(Prestart, 0, sh("head -c 1073741824 /dev/zero; echo end >&2; exit 1"), nil, Options{})
	if err == nil || !strings.HasSuffix(err.Error(), "stderr: end") {
		t.Fatalf("%.100v", err)
	}
	if n := len(err.Error()); n < keep || n > keep+200 {
		t.Errorf("kept %d bytes", n)
	}
	t.Log("1 GiB took", time.Since(begin))
}

func TestRunList(t *testing.T) {
	for _, c := range []struct {
		kind  string
		ran   string
		fails string
		warns int
	}{
		{Prestart, "a", "prestart hook #1", 0},
		{CreateRuntime, "a", "createRuntime hook #1", 0},
		{Poststart, "a", "poststart hook #1", 0},
		{Poststop, "ab", "", 2}, // L33
	} {
		out := filepath.Join(t.TempDir(), "out")
		list := []specs.Hook{sh("printf a >> " + out), sh("exit 1"), sh("printf b >> " + out), {Path: "/none"}}
		var warns []error
		err := RunList(c.kind, list, []byte("{}"), Options{Warn: func(e error) { warns = append(warns, e) }})
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v", c.kind, err)
		}
		b, _ := os.ReadFile(out)
		if string(b) != c.ran || len(warns) != c.warns {
			t.Errorf("%s: ran %q, warned %v", c.kind, b, warns)
		}
	}
	if err := RunList(Poststop, []specs.Hook{sh("exit 1")}, nil, Options{}); err != nil {
		t.Error("without Warn:", err)
	}
	if err := RunList(Prestart, nil, nil, Options{}); err != nil {
		t.Error(err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	fds := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	Run(Prestart, 0, sh("true"), nil, Options{})
	before := fds()
	for range 10 {
		Run(Prestart, 0, sh("true"), []byte("{}"), Options{})
		Run(Prestart, 0, sh("exit 1"), []byte("{}"), Options{})
		Run(Prestart, 0, specs.Hook{Path: "/none"}, nil, Options{})
		Run(Prestart, 0, specs.Hook{Path: "/"}, nil, Options{})
	}
	Run(Prestart, 0, within(sh("sleep 60"), 1), nil, Options{})
	if after := fds(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	var ws syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

// F14: every number of free descriptors gives an error, and leaks none.
func TestF14Descriptors(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	Run(Prestart, 0, sh("true"), nil, Options{})
	probe, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(probe)
	failed := 0
	for n := range 20 {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(probe + n), Max: old.Max}); err != nil {
			t.Fatal(err)
		}
		if err := Run(Prestart, 0, sh("true"), nil, Options{}); err != nil {
			failed++
			if !errors.Is(err, unix.EMFILE) {
				t.Error(n, err)
			}
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
		again, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(again)
		if again != probe {
			t.Fatalf("%d free descriptors: a leak, %d became %d", n, probe, again)
		}
	}
	if failed < 6 || failed == 20 {
		t.Errorf("%d of 20 failed", failed)
	}
}

func TestEncode(t *testing.T) {
	ten := 10
	for _, list := range [][]specs.Hook{
		nil,
		{{Path: "/a"}},
		{{Path: "/a", Args: []string{"x", ""}, Env: []string{}, Timeout: &ten}, {Path: "/b", Env: []string{"A=\"b\""}}},
	} {
		v, err := Encode(list)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(v)
		if err != nil || !reflect.DeepEqual(got, list) {
			t.Errorf("%s: %+v, %v", v, got, err)
		}
	}
	if _, err := Decode([]byte(`{`)); err == nil {
		t.Error("malformed JSON was decoded")
	}
}

func readPid(t *testing.T, path string) int {
	t.Helper()
	for range 200 {
		b, _ := os.ReadFile(path)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(fmt.Errorf("no pid in %q", path))
	return 0
}

// groupGone waits until no process of the group is left but zombies: the hook's
// orphans are reaped by init, when it likes.
func groupGone(pgid int) bool {
	for range 100 {
		alive := false
		stats, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, stat := range stats {
			b, _ := os.ReadFile(stat)
			_, rest, _ := strings.Cut(string(b), ") ")
			if f := strings.Fields(rest); len(f) > 2 && f[2] == strconv.Itoa(pgid) && f[0] != "Z" && f[0] != "X" {
				alive = true
			}
		}
		if !alive {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}
