package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"

	"rt/cli"
	"rt/libcontainer"
	"rt/libcontainer/bundle"
)

// call runs rt in dir.
func call(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := rtCommand(t, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &o, &e
	code = exitCode(t, cmd.Run())
	return o.String(), e.String(), code
}

func rtCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &exec.Cmd{Path: self, Args: append([]string{"rt"}, args...)}
}

// exitCode is -1 for a process that a signal killed.
func exitCode(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	var e *exec.ExitError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	return e.ExitCode()
}

func TestExitCodes(t *testing.T) {
	root := t.TempDir()
	tests := []struct {
		args   string
		code   int
		stdout string // contained
		stderr string // contained; "" is nothing at all
	}{
		{"", 0, "COMMANDS:", ""},
		{"help", 0, "COMMANDS:", ""},
		{"--root R", 0, "COMMANDS:", ""},
		{"--help", 0, "features", ""},
		{"help create", 0, "--console-socket", ""},
		{"create --help", 0, "--console-socket", ""},
		{"--help create", 0, "--console-socket", ""},
		{"create --help c", 1, "", "No help topic for 'c'"},
		{"nosuch", 3, "", "No help topic for 'nosuch'"},
		{"help nosuch", 3, "", "No help topic for 'nosuch'"},
		{"checkpoint --help", 0, "--leave-running", ""}, // podman asks whether this succeeds
		{"--root R checkpoint none", 1, "", "container does not exist"},
		{"restore --lsm-mount-context", 1, "NAME:\n   rt restore", "flag needs an argument"}, // and this fails so
		{"--root R events none", 1, "", "container does not exist"},
		{"--root R events --stats none", 1, "", "container does not exist"},
		{"--root R events --interval 0 none", 1, "", "duration interval must be greater than 0"},
		{"--root R events --interval 5 none", 1, "NAME:", "invalid value"},
		{"--root R events --interval 0s none", 1, "", "duration interval must be greater than 0"},
		{"--root R events --interval -1s none", 1, "", "duration interval must be greater than 0"},
		{"create", 1, "Incorrect Usage.\n\nNAME:", `rt: \"create\" requires exactly 1 argument(s)`},
		{"list x", 1, "Incorrect Usage.\n\nNAME:", `rt: \"list\" requires exactly 0 argument(s)`},
		{"exec", 1, "Incorrect Usage.\n\nNAME:", `rt: \"exec\" requires a minimum of 1 argument(s)`},
		{"kill c 9 9", 1, "Incorrect Usage.\n\nNAME:", `rt: \"kill\" requires a maximum of 2 argument(s)`},
		{"create --nosuch c", 1, "NAME:\n   rt create", "Incorrect Usage: flag provided but not defined: -nosuch\n"},
		{"--nosuch", 1, "COMMANDS:", "Incorrect Usage: flag provided but not defined: -nosuch\n"},
		{"create c --bundle", 1, "NAME:\n   rt create", "Incorrect Usage: flag needs an argument: --bundle\n"},
		{"create --preserve-fds x c", 1, "NAME:\n   rt create", `invalid value "x" for flag -preserve-fds`},
		{"exec -g 8,9 c ls", 1, "NAME:\n   rt exec", "additional-gids"},
		{"--debug=x list", 1, "COMMANDS:", "Incorrect Usage: invalid boolean value"},
		{"--root R create --preserve-fds -1 c", 1, "", "rt create failed: --preserve-fds: -1 is negative"},
		{"--root R exec --preserve-fds -1 c ls", 255, "", "exec failed: --preserve-fds: -1 is negative"},
		{"--root R exec c", 255, "", "exec failed: process args cannot be empty"},
		{"--root R exec none ls", 255, "", "exec failed: "},
		{"--root R exec -p /nosuch none", 255, "", "exec failed: open /nosuch: no such file or directory"},
		{"--root R exec -u root none ls", 255, "", "exec failed: user:"},
		{"--root R exec -u= none ls", 255, "", "exec failed: user:"},
		{"--root R exec -g 4294967295 none ls", 255, "", "bad gid: 4294967295"},
		{"--root R exec -g -1 none ls", 255, "", "bad gid: -1"},
		{"--root R state none", 1, "", "container does not exist"},
		{"--root R start none", 1, "", "container does not exist"},
		{"--root R pause none", 1, "", "container does not exist"},
		{"--root R resume none", 1, "", "container does not exist"},
		{"--root R ps none", 1, "", "container does not exist"},
		{"--root R ps -f xml none", 1, "", "invalid format option"},
		{"--root R update none", 1, "", "container does not exist"},
		{"--root R update --l3-cache-schema L3:0=f none", 1, "", "container does not exist"},
		{"update --nosuch c", 1, "NAME:\n   rt update", "Incorrect Usage: flag provided but not defined: -nosuch\n"},
		{"--root R kill none", 1, "", "container does not exist"},
		{"--root R kill none FOO", 1, "", `unknown signal \"FOO\"`},
		{"--root R delete none", 1, "", "container does not exist"},
		{"--root R delete none --force", 0, "", ""},
		{"--root R delete ../none --force", 1, "", "invalid container ID format"},
		{"--root R state h", 1, "", "container does not exist"},
		{"--root R state help", 1, "", "container does not exist"},
		{"--root / state none", 1, "", "Option --root argument should not be set to /"},
		{"--root /run/.. state none", 1, "", "Option --root argument should not be set to /"},
		{"--log-format xml --root R list", 1, "", "invalid log-format: xml"},
		{"--log R/no/log --root R list", 1, "", "no such file or directory"},
		{"--log R --root R list", 1, "", "is a directory"},
		{"--rootless x --root R create c", 1, "", "strconv.ParseBool"},
		{"--rootless x --root R list", 0, "ID ", ""},
		{"--systemd-cgroup --root R exec c ls", 255, "", "container does not exist"},
		{"--systemd-cgroup --root R delete --force c", 0, "", ""},
		{"--root R list", 0, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n", ""},
		{"--root R list -q", 0, "", ""},
		{"--root R list -f json", 0, "null\n", ""},
		{"--root R list -f xml", 1, "", "invalid format option"},
		{"--root R/no list", 1, "", "no such file or directory"},
		{"--root R plan --format xml .", 1, "", "invalid format option"},
		{"--root R plan R", 1, "", "config.json"},
	}
	for _, tt := range tests {
		args := strings.Fields(strings.ReplaceAll(tt.args, "R", root))
		stdout, stderr, code := call(t, root, args...)
		if code != tt.code || !strings.Contains(stdout, tt.stdout) || tt.stdout == "" && stdout != "" ||
			!strings.Contains(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
			t.Errorf("rt %s: exit %d\nstdout %.300s\nstderr %.300s", tt.args, code, stdout, stderr)
		}
	}
	if left, err := os.ReadDir(root); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestVersion(t *testing.T) {
	out, stderr, code := call(t, "", "--version")
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if code != 0 || stderr != "" || len(lines) != 4 {
		t.Fatalf("exit %d, %q, %q", code, out, stderr)
	}
	for i, prefix := range []string{"rt version 0.", "commit: ", "spec: 1.3.0", "go: go1."} {
		if !strings.HasPrefix(lines[i], prefix) {
			t.Errorf("line %d: %s", i, lines[i])
		}
	}
	// moby takes the last line with this word.
	if strings.Count(out, "version") != 1 {
		t.Errorf("the word version is there more than once: %s", out)
	}
}

func TestFeatures(t *testing.T) {
	out, stderr, code := call(t, "", "features")
	if code != 0 || stderr != "" || !strings.HasSuffix(out, "\n}\n") {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	var f features.Features
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	if f.OCIVersionMin != "1.0.0" || f.OCIVersionMax != libcontainer.SpecVersion {
		t.Errorf("versions %s to %s", f.OCIVersionMin, f.OCIVersionMax)
	}
	if len(f.Hooks) != 6 || len(f.Linux.Namespaces) != 8 || len(f.Linux.Capabilities) != 41 {
		t.Errorf("%d hooks, %d namespaces, %d capabilities", len(f.Hooks), len(f.Linux.Namespaces), len(f.Linux.Capabilities))
	}
	for _, o := range []string{"ro", "rro", "rbind", "tmpcopyup"} {
		if !slices.Contains(f.MountOptions, o) {
			t.Errorf("mount option %s is missing", o)
		}
	}
	if f.PotentiallyUnsafeConfigAnnotations == nil || f.Linux.Seccomp.Enabled == nil || f.Linux.Cgroup.Systemd == nil {
		t.Error("what is not supported must be said, not left out")
	}
}

func TestSpec(t *testing.T) {
	for _, args := range [][]string{{"spec"}, {"spec", "--rootless"}} {
		dir := t.TempDir()
		if out, stderr, code := call(t, dir, args...); code != 0 || out != "" || stderr != "" {
			t.Fatalf("%v: exit %d, %q, %q", args, code, out, stderr)
		}
		b, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte("{\n\t\"ociVersion\"")) {
			t.Errorf("%v: begins with %.20q", args, b)
		}
		spec, warnings, err := bundle.Parse("config.json", b)
		if err != nil || len(warnings) != 0 {
			t.Fatalf("%v: %v, %v", args, warnings, err)
		}
		if got, want := len(spec.Linux.UIDMappings), len(args)-1; got != want {
			t.Errorf("%v: %d uid mappings", args, got)
		}
		_, stderr, code := call(t, "/", "spec", "-b", dir)
		if again, _ := os.ReadFile(filepath.Join(dir, "config.json")); code != 1 || !bytes.Equal(again, b) ||
			!strings.Contains(stderr, "File config.json exists. Remove it first") {
			t.Errorf("%v again: exit %d, %s", args, code, stderr)
		}
	}
}

// record is a line of a JSON log.
type record struct {
	Level, Msg, Time string
}

func readLog(t *testing.T, file string) []record {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var records []record
	for line := range strings.Lines(string(b)) {
		var r record
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, err := time.Parse(time.RFC3339, r.Time); err != nil {
			t.Error(err)
		}
		records = append(records, r)
	}
	return records
}

func TestLog(t *testing.T) {
	root := t.TempDir()
	log := filepath.Join(root, "log")
	state := []string{"--root", root, "--log", log, "--log-format", "json", "state"}

	// A flag error writes no log, and makes none.
	if _, _, code := call(t, root, append(state, "--nosuch", "none")...); code != 1 {
		t.Errorf("flag error: exit %d", code)
	}
	if _, err := os.Lstat(log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("flag error: there is a log (%v)", err)
	}

	for i, tt := range []struct {
		args []string
		code int
		msg  string
	}{
		{append(state, "none"), 1, "container does not exist"},
		{state, 1, `rt: "state" requires exactly 1 argument(s)`},
		{append(state[:len(state)-1:len(state)-1], "nosuch"), 3, "No help topic for 'nosuch'"},
	} {
		_, stderr, code := call(t, root, tt.args...)
		records := readLog(t, log)
		if code != tt.code || len(records) != i+1 || records[i].Level != "error" ||
			!strings.Contains(records[i].Msg, tt.msg) || stderr != records[i].Msg+"\n" {
			t.Errorf("%v: exit %d, stderr %q, log %v", tt.args, code, stderr, records)
		}
	}
	info, err := os.Stat(log)
	if err != nil || info.Mode().Perm()&^0o644 != 0 {
		t.Errorf("log: %v, %v", info, err)
	}
}

func TestBadLogs(t *testing.T) {
	root := t.TempDir()
	fifo := filepath.Join(root, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := call(t, root, "--root", root, "--log", fifo, "list"); code != 1 || !strings.Contains(stderr, "open --log") {
		t.Errorf("fifo without a reader: exit %d, %q", code, stderr)
	}

	// Nobody reads it, and it is full.
	r, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for err == nil {
		_, err = unix.Write(int(r.Fd()), make([]byte, 4096))
		if err == unix.EAGAIN {
			break
		}
	}
	for _, log := range []string{fifo, "/dev/full"} {
		if _, stderr, code := call(t, root, "--root", root, "--log", log, "state", "none"); code != 1 || !strings.HasSuffix(stderr, "container does not exist\n") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("full %s: exit %d, %q", log, code, stderr)
		}
	}
}

func TestStandardDescriptors(t *testing.T) {
	root := t.TempDir()
	log := filepath.Join(root, "log")

	// Were the log opened as descriptor 2, the plain text would be in it.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("bash", "-c", `exec -a rt "$0" --root "$1" --log "$1/log" --log-format json state none <&- >&- 2>&-`, self, root)
	if code := exitCode(t, shell.Run()); code != 1 {
		t.Errorf("closed: exit %d", code)
	}
	if records := readLog(t, log); len(records) != 1 {
		t.Errorf("closed: log %v", records)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := rtCommand(t, "--root", root, "state", "none")
	cmd.Stderr = w
	if code := exitCode(t, cmd.Run()); code != 1 {
		t.Errorf("pipe without a reader: exit %d", code)
	}
}

func TestSetuid(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a set-user-ID program")
	}
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Flags&unix.ST_NOSUID != 0 {
		t.Skipf("no set-user-ID programs in %s (%v)", dir, err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := rtCommand(t, "--version")
	in, err := os.Open(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd.Path = filepath.Join(dir, "rt")
	out, err := os.OpenFile(cmd.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(out.Chmod(0o755|os.ModeSetuid), out.Close()); err != nil {
		t.Fatal(err)
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	b, err := cmd.CombinedOutput()
	if code := exitCode(t, err); code != 1 || !bytes.Contains(b, []byte("refuse to run")) {
		t.Errorf("exit %d, %s", code, b)
	}
}

func TestLimitsFromFlags(t *testing.T) {
	for _, tt := range []struct{ args, want string }{ // want: JSON, or an error
		{"", `{"memory":{},"cpu":{},"pids":{},"blockIO":{}}`},
		{"--memory 100m --memory-swap=-1 --memory-reservation 1g", `{"memory":{"limit":104857600,"reservation":1073741824,"swap":-1},"cpu":{},"pids":{},"blockIO":{}}`},
		{"--memory 0", `{"memory":{"limit":0},"cpu":{},"pids":{},"blockIO":{}}`},
		{"--memory= --pids-limit=", `{"memory":{},"cpu":{},"pids":{},"blockIO":{}}`},
		{"--cpu-period 100000 --cpu-quota -1 --cpu-burst 5 --cpu-share 1024 --cpu-rt-period 6 --cpu-rt-runtime -1 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-idle 1",
			`{"memory":{},"cpu":{"shares":1024,"quota":-1,"burst":5,"period":100000,"realtimeRuntime":-1,"realtimePeriod":6,"cpus":"0-1","mems":"0","idle":1},"pids":{},"blockIO":{}}`},
		{"--blkio-weight 1000 --pids-limit -1 --kernel-memory 5 --kernel-memory-tcp 6k", `{"memory":{},"cpu":{},"pids":{"limit":-1},"blockIO":{"weight":1000}}`},
		{"--memory 1x", "invalid value for memory: invalid suffix: 'x'"},
		{"--memory x", `invalid value for memory: invalid size: 'x'`},
		{"--kernel-memory x", `invalid value for kernel-memory: invalid size: 'x'`},
		{"--memory -2", "invalid value for memory: invalid size: '-2'"},
		{"--memory 9999999999999t", "update: --memory"},
		{"--memory-swap 1m --memory 2m", "update: --memory-swap: 1048576: below the memory limit"},
		{"--cpu-quota 9223372036854775808", "invalid value for cpu-quota"},
		{"--cpu-share -1", "invalid value for cpu-share"},
		{"--cpu-period 18446744073709551616", "invalid value for cpu-period"},
		{"--cpu-idle 2", "update: --cpu-idle: 2: out of range; accepted: 0 or 1"},
		{"--cpu-idle x", "invalid value for cpu-idle"},
		{"--blkio-weight 65536", "invalid value for blkio-weight"},
		{"--blkio-weight 9", "update: --blkio-weight: 9: out of range; accepted: an integer from 10 to 1000"},
		{"--cpuset-cpus 1-0", `update: --cpuset-cpus: "1-0": range`},
	} {
		cmd := updateCommand()
		var got string
		cmd.Action = func(c *cli.Context) error {
			var o libcontainer.UpdateOptions
			if err := limitsFromFlags(c, &o); err != nil {
				got = err.Error()
				return nil
			}
			b, err := json.Marshal(o.Resources)
			got = string(b)
			return err
		}
		words := append([]string{"update"}, strings.Fields(tt.args)...)
		l, err := cli.Parse(append(words, "c"), globalFlags(), func(string) *cli.Command { return cmd })
		if err == nil {
			err = cmd.Action(&l.Context)
		}
		if err != nil {
			t.Fatal(tt.args, err)
		}
		if strings.HasPrefix(tt.want, "{") && got != tt.want || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %s, want %s", tt.args, got, tt.want)
		}
	}
}

// exec --process reads no more than a config.json may have, of a file or a pipe.
func TestProcessFile(t *testing.T) {
	root := t.TempDir()
	large := filepath.Join(root, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<40); err != nil {
		t.Fatal(err)
	}
	endless, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()
	for _, tt := range []struct {
		name, file string
		stdin      io.Reader
		want       string
	}{
		{"missing", root + "/none", nil, "open " + root + "/none: no such file or directory"},
		{"directory", root, nil, "--process: open " + root + ": neither a regular file nor a pipe"},
		{"device", "/dev/zero", nil, "--process: open /dev/zero: neither a regular file nor a pipe"},
		{"large", large, nil, "--process: read " + large + ": more than the accepted 16777216 bytes"},
		// exec copies from a reader that is no file through a pipe.
		{"endless pipe", "/dev/stdin", struct{ io.Reader }{endless}, "--process: read /dev/stdin: more than the accepted 16777216 bytes"},
		{"pipe", "/dev/stdin", struct{ io.Reader }{strings.NewReader(`{"cwd":"/","args":["true"]}`)}, "container does not exist"},
	} {
		var stderr bytes.Buffer
		cmd := rtCommand(t, "--root", root, "exec", "--process", tt.file, "none")
		cmd.Stdin, cmd.Stderr = tt.stdin, &stderr
		err := cmd.Run() // its own error may be that the pipe was closed early
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != 255 || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%s: exit %d, %q; expected %q", tt.name, code, stderr.String(), tt.want)
		}
		if peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; peak > 128<<10 {
			t.Errorf("%s: it took %d KiB", tt.name, peak)
		}
	}
}
