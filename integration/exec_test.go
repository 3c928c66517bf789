package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sleeper is newBox with a container that runs.
func sleeper(t *testing.T, edits ...func(*specs.Spec)) *box {
	t.Helper()
	b := newBox(t, append([]func(*specs.Spec){args("sleep", "1000")}, edits...)...)
	b.launch()
	return b
}

func TestExecUser(t *testing.T) {
	t.Parallel()
	b := sleeper(t, func(s *specs.Spec) { s.Process.User = specs.User{UID: 0, GID: 7, AdditionalGids: []uint32{9}} })
	b.file("etc/passwd", "joe:x:1000:1001::/home/joe:/bin/sh\n")
	for _, c := range []struct {
		flags            []string
		uid, gid, groups string
	}{
		{nil, "0", "7", "9"},
		{[]string{"--user", "1000:1001"}, "1000", "1001", "9"},
		{[]string{"--user", "1000"}, "1000", "7", "9"},
		{[]string{"--user", "0:0", "--additional-gids", "5", "-g", "70000"}, "0", "0", "5 70000 9"},
		{[]string{"-u", "4294967294:4294967294"}, "4294967294", "4294967294", "9"},
	} {
		out := b.ok(slices.Concat([]string{"exec"}, c.flags, []string{b.id, "cat", "/proc/self/status"})...)
		four := func(id string) string { return strings.Join([]string{id, id, id, id}, "\t") }
		groups := strings.Fields(field(out, "Groups"))
		slices.Sort(groups)
		if u, g := field(out, "Uid"), field(out, "Gid"); u != four(c.uid) || g != four(c.gid) || strings.Join(groups, " ") != c.groups {
			t.Errorf("%v: uids %q, gids %q, groups %q", c.flags, u, g, groups)
		}
	}
	// The flag is of numbers, as runc's is: a name is the engine's to look up.
	for _, user := range []string{"joe", "1000:joe", "-1", "4294967295", "0:", ""} {
		b.rt("exec", "--user", user, b.id, "true").refused(255, "exec failed: ", strconv.Quote(user))
	}
	b.rt("exec", "--additional-gids", "-1", b.id, "true").refused(255, "bad gid: -1")
}

func TestExecEnvAndCwd(t *testing.T) {
	t.Parallel()
	b := sleeper(t, func(s *specs.Spec) {
		s.Process.Env = []string{"PATH=/bin", "A=1", "B=2"}
		s.Process.Cwd = "/tmp"
	})
	b.file("etc/passwd", "joe:x:1000:1001::/home/joe:/bin/sh\n")
	b.must(os.Mkdir(b.path("rootfs/dir"), 0o755))
	// The container's variables, then those of the flags; HOME is the user's.
	out := b.ok("exec", "--env", "A=x=y z", "-e", "C=", "--user", "1000", b.id, "env")
	if want := "PATH=/bin\nA=x=y z\nB=2\nC=\nHOME=/home/joe\n"; !sameLines(out, want) {
		t.Errorf("the environment is %q, expected %q", out, want)
	}
	if out := b.ok("exec", "--env", "HOME=/x", b.id, "env"); !strings.Contains(out, "HOME=/x\n") || strings.Count(out, "HOME=") != 1 {
		t.Errorf("with a HOME of its own: %q", out)
	}
	if out := b.ok("exec", b.id, "pwd"); out != "/tmp\n" {
		t.Errorf("without --cwd it runs in %q", out)
	}
	if out := b.ok("exec", "--cwd", "/dir/../dir", b.id, "pwd"); out != "/dir\n" {
		t.Errorf("with --cwd it runs in %q", out)
	}
	b.rt("exec", "--cwd", "dir", b.id, "pwd").refused(255, `"dir"`)
	b.rt("exec", "--cwd", "/bin/busybox", b.id, "pwd").refused(255, "/bin/busybox", "not a directory")
	b.rt("exec", "--env", "NOVALUE", b.id, "env").refused(255, `"NOVALUE"`)
}

func TestExecPrivileges(t *testing.T) {
	t.Parallel()
	caps := &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}}
	b := sleeper(t, func(s *specs.Spec) { s.Process.NoNewPrivileges, s.Process.Capabilities = false, caps })
	status := func(flags ...string) string {
		t.Helper()
		return b.ok(slices.Concat([]string{"exec"}, flags, []string{b.id, "cat", "/proc/self/status"})...)
	}
	const kill, netRaw, chown = 1 << 5, 1 << 13, 1 << 0
	for _, c := range []struct {
		flags []string
		caps  uint64
		nnp   string
	}{
		{nil, kill, "0"},
		{[]string{"--no-new-privs"}, kill, "1"},
		{[]string{"--cap", "CAP_NET_RAW", "-c", "CAP_CHOWN"}, kill | netRaw | chown, "0"},
		{[]string{"--cap", "CAP_NET_RAW", "--no-new-privs"}, kill | netRaw, "1"},
	} {
		out := status(c.flags...)
		for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
			if n, _ := strconv.ParseUint(field(out, set), 16, 64); n != c.caps {
				t.Errorf("%v: %s is %#x, expected %#x", c.flags, set, n, c.caps)
			}
		}
		if got := field(out, "NoNewPrivs"); got != c.nnp {
			t.Errorf("%v: NoNewPrivs is %s", c.flags, got)
		}
	}
	// One that raises its privileges by a file does so, or not.
	b.must(os.Mkdir(b.path("rootfs/suid"), 0o755))
	b.must(os.Link(filepath.Join(work, "base/suid"), b.path("rootfs/suid/probe")))
	for _, flags := range [][]string{nil, {"--no-new-privs"}} {
		out := b.ok(slices.Concat([]string{"exec", "--user", "1000"}, flags, []string{b.id, "/suid/probe", "status"})...)
		if root := slices.Contains(strings.Fields(field(out, "Uid")), "0"); root != (flags == nil) {
			t.Errorf("%v: a set-uid program has uids %q", flags, field(out, "Uid"))
		}
	}
}

// All that a document for --process says is so, and flags about the process do not count with it.
func TestExecProcess(t *testing.T) {
	t.Parallel()
	b := sleeper(t)
	b.must(os.Mkdir(b.path("rootfs/dir"), 0o755))
	umask, score := uint32(0o027), 300
	p := &specs.Process{
		Args: []string{"sh", "-c", "cat /proc/self/status /proc/self/limits /proc/self/oom_score_adj; pwd; env"},
		Env:  []string{"PATH=/bin", "X=1", "HOME=/h"}, Cwd: "/dir",
		User:            specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}, Umask: &umask},
		NoNewPrivileges: true, OOMScoreAdj: &score,
		Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 88}},
		Capabilities: &specs.LinuxCapabilities{
			Bounding: []string{"CAP_CHOWN"}, Permitted: []string{"CAP_CHOWN"}, Inheritable: []string{"CAP_CHOWN"}, Ambient: []string{"CAP_CHOWN"}, Effective: []string{"CAP_CHOWN"},
		},
	}
	out := b.ok("exec", "--process", b.processFile(p), "--user", "0", "--cwd", "/", "--env", "Y=2", b.id)
	for _, want := range []string{
		"Uid:\t1000\t1000\t1000\t1000\n", "Gid:\t1001\t1001\t1001\t1001\n", "Groups:\t5 6", "Umask:\t0027\n", "NoNewPrivs:\t1\n",
		"CapPrm:\t0000000000000001\n", "CapEff:\t0000000000000001\n", "CapBnd:\t0000000000000001\n", "CapAmb:\t0000000000000001\n",
		fmt.Sprintf("%-25s %-20d %-20d ", "Max open files", 77, 88), "\n300\n/dir\n", "X=1\n", "HOME=/h\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, "Y=2") {
		t.Errorf("--env counts with --process: %s", out)
	}
	for _, c := range []struct{ document, pointer string }{
		{`{"cwd":"/","args":[]}`, "/args"}, {`{"args":["true"],"cwd":"x"}`, "Cwd"}, {`{"args":["true"],"cwd":"/","user":{"uid":-1}}`, "/user/uid"},
		{`{`, "process"}, {`{"args":["true"],"cwd":"/","args":["false"]}`, "/args"},
		{`{"args":["true"],"cwd":"/","rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]}`, "/rlimits/0/type"},
	} {
		b.must(os.WriteFile(b.path("document"), []byte(c.document), 0o644))
		b.rt("exec", "--process", b.path("document"), b.id).refused(255, "document", c.pointer)
	}
	b.rt("exec", "--process", b.path("nosuch"), b.id).refused(255, "nosuch", "no such file or directory")
}

// A detached process gets the descriptors that are to be preserved and no others, and is the one of
// the pid file; exec does not wait for it.
func TestExecDetach(t *testing.T) {
	t.Parallel()
	b := sleeper(t)
	from, err := os.Open("/proc/version")
	b.must(err)
	defer from.Close()
	into := memfd(t)
	other, err := os.Open("/dev/null")
	b.must(err)
	defer other.Close()
	p := b.command(b.bin, "--root", b.root, "exec", "--detach", "--pid-file", b.path("pid"), "--preserve-fds", "2", b.id,
		"sh", "-c", "cat <&3 >&4; ls /proc/self/fd >&4; echo $$ >&4; exec sleep 999")
	p.cmd.ExtraFiles = []*os.File{from, into, other}
	if r := p.start().end(); r.code != 0 || r.out != "" || r.err != "" {
		t.Fatal(r)
	}
	pid, err := strconv.Atoi(b.read("pid"))
	b.must(err)
	if theirs, init := namespacesOf(t, pid), namespacesOf(t, b.state().Pid); theirs["pid"] != init["pid"] || theirs["mnt"] != init["mnt"] {
		t.Errorf("process %d of the pid file is in %v, the container in %v", pid, theirs, init)
	}
	eventually(t, func() error {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && string(line) != "sleep\x00999\x00" {
			err = fmt.Errorf("process %d is %q", pid, line)
		}
		return err
	})
	// ls has one more, of the directory that it reads.
	inside := strings.Fields(field(contentsOf(t, fmt.Sprintf("/proc/%d/status", pid)), "NSpid"))
	lines := strings.SplitAfterN(contents(into), "\n", 2)
	if want := "0\n1\n2\n3\n4\n5\n" + inside[len(inside)-1] + "\n"; lines[0] != contentsOf(t, "/proc/version") || lines[1] != want {
		t.Errorf("inside it saw %q, expected %q", lines, want)
	}
	b.must(syscall.Kill(pid, syscall.SIGKILL))
	b.rt("exec", "--detach", "--preserve-fds", "9", b.id, "true").refused(255, "preserved-fd")
}

// terminal is the master of a terminal that a command runs on.
type terminal struct {
	t    *testing.T
	ptmx *os.File
	mu   sync.Mutex
	out  bytes.Buffer
}

// onTerminal starts a command on a terminal of its own, of 24 lines and 80 columns.
func (b *box) onTerminal(args ...string) (*terminal, *process) {
	b.t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	b.must(err)
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	b.must(err)
	b.must(unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	b.must(err)
	defer pts.Close()
	term := &terminal{t: b.t, ptmx: ptmx}
	term.resize(24, 80)
	p := b.command(append([]string{b.bin, "--root", b.root}, args...)...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = pts, pts, pts
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	b.must(p.cmd.Start())
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := ptmx.Read(buf)
			term.mu.Lock()
			term.out.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return // EIO: nobody has the other end
			}
		}
	}()
	b.t.Cleanup(func() { ptmx.Close() })
	return term, p
}

func (term *terminal) resize(rows, columns uint16) {
	term.t.Helper()
	if err := unix.IoctlSetWinsize(int(term.ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		term.t.Fatal(err)
	}
}

func (term *terminal) said() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

// A change of size of the caller's terminal arrives in the container: as its size, and as SIGWINCH.
func TestTerminalResize(t *testing.T) {
	t.Parallel()
	const program = "trap 'echo changed' WINCH; echo ready; until [ \"$line\" = end ]; do read line; stty size; done; exit 7" // the trap ends read
	for _, command := range []string{"run", "exec"} {
		b := newBox(t, args("sleep", "1000"))
		call := []string{"exec", "--tty", b.id, "sh", "-c", program}
		if command == "run" {
			script(program)(b.spec)
			b.spec.Process.Terminal = true
			b.write()
			call = []string{"run", b.id}
		} else {
			b.launch()
		}
		term, p := b.onTerminal(call...)
		await := func(text string) {
			t.Helper()
			eventually(t, func() error {
				if !strings.Contains(term.said(), "ready") {
					return errors.New("not ready: " + term.said())
				}
				if _, err := term.ptmx.WriteString("\n"); err != nil {
					return err
				}
				if said := term.said(); !strings.Contains(said, text) {
					return fmt.Errorf("%s: no %q in %q", command, text, said)
				}
				return nil
			})
		}
		await("24 80")
		term.resize(40, 132)
		await("40 132")
		await("changed")
		if _, err := term.ptmx.WriteString("end\n"); err != nil {
			t.Error(err)
		}
		p.cmd.Wait()
		if code := p.cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("%s ended with %d: %q", command, code, term.said())
		}
	}
}
