package test

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

const faultBinary = "../stage-fault"

func hook(script string, timeout, pidAt uint64, input string) plan.Op {
	o := op(plan.KindHook, s("/bin/busybox"), l("sh", "-c", script), l("PATH=/bin", "H=hook"), s(input))
	return num(o, timeout, pidAt)
}

func TestHook(t *testing.T) {
	dir := rootfs(t)
	mark := filepath.Join(t.TempDir(), "mark")
	extra, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	input := `{"pid":,"id":"` + strings.Repeat("x", 200_000) + `"}`
	b := inRoot(dir).add(
		mount("proc", "/proc"),
		// Before the pivot: the host's files, any cwd.
		hook("cat >"+mark+"; echo noise", 5000, 7, input),
		flag(hook("pwd >"+mark+".cwd", 5000, 0, ""), plan.FlagInRoot),
		hook("true", 0, 0, input), // does not read its input
		num(op(plan.KindUmask), 0o077),
		op(plan.KindPivot),
		op(plan.KindHome),
		// After: the container's.
		flag(hook("echo $PPID $H $HOME $(ulimit -n) >/tmp/hook; umask >>/tmp/hook; ls /proc/self/fd | wc -l >>/tmp/hook", 5000, 0, ""), plan.FlagHome),
		// Not by a shell, which ignores some signals itself.
		op(plan.KindHook, s("/bin/busybox"), l("grep", "-q", "SigIgn:.0000000000000000", "/proc/self/status"), l(), s("")),
		op(plan.KindHook, s("/bin/busybox"), l("grep", "-q", "SigBlk:.0000000000000000", "/proc/self/status"), l(), s("")),
	).add(program("cat", "/tmp/hook")...)
	r := must(t, launch{plan: b.plan(0), extra: []*os.File{extra}, dir: "/tmp", reply: func(f *frame) (string, int, bool) {
		if f.Type != plan.MsgHome {
			return "", -1, true
		}
		// What came is the root.
		if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/bin/busybox", f.Files[0].Fd())); err != nil {
			t.Error(err)
		}
		return "/home/of", -1, true
	}}.run(t))
	contains(t, r.output, fmt.Sprintf("1 hook /home/of %d", currentLimit(t)), "0077", "4")
	got, err := os.ReadFile(mark)
	if err != nil || string(got) != strings.Replace(input, `"pid":`, `"pid":1`, 1) {
		t.Errorf("hook read %.20q (%d bytes), %v", got, len(got), err)
	}
	if cwd, err := os.ReadFile(mark + ".cwd"); err != nil || strings.TrimSpace(string(cwd)) == "/tmp" {
		t.Errorf("cwd of the hook %q, %v", cwd, err)
	}
}

func TestHookErrors(t *testing.T) {
	dir := rootfs(t)
	for _, c := range []struct {
		name  string
		hook  plan.Op
		errno unix.Errno
		step  plan.Step
		value uint64
		text  string
	}{
		{"status", hook("echo out; echo err >&2; exit 3", 5000, 0, ""), unix.ECHILD, plan.StepStatus, 3 << 8, "out\nerr\n"},
		{"signal", hook("kill -9 $$", 5000, 0, ""), unix.ECHILD, plan.StepStatus, 9, ""},
		{"missing", op(plan.KindHook, s("/bin/none"), l("x"), l(), s("")), unix.ENOENT, plan.StepSpawn, 0, ""},
		{"directory", op(plan.KindHook, s("/bin"), l("x"), l(), s("")), unix.EACCES, plan.StepSpawn, 0, ""},
		{"timeout", hook("echo slow; sleep 100", 200, 0, ""), unix.ETIMEDOUT, plan.StepTimeout, 0, "slow\n"},
		{"timeout of a grandchild", hook("echo slow; sleep 100 & sleep 100", 200, 0, ""), unix.ETIMEDOUT, plan.StepTimeout, 0, "slow\n"},
		{"long output", hook("head -c 1000000 /dev/zero; exit 1", 9000, 0, ""), unix.ECHILD, plan.StepStatus, 1 << 8, string(make([]byte, plan.MaxText))},
		{"pipe held", hook("sleep 3 & exit 4", 9000, 0, ""), unix.ECHILD, plan.StepStatus, 4 << 8, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			r := launch{plan: inRoot(dir).add(c.hook).plan(0)}.run(t)
			f := r.failure()
			if f == nil || f.Errno != c.errno || f.Step != c.step || f.Value != c.value || f.Text != c.text {
				t.Fatalf("got %+v, want %v, step %d, value %d, text %.50q", f, c.errno, c.step, c.value, c.text)
			}
			if d := time.Since(begin); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// The stage, and with it a hook, ends with its parent until the commit.
func TestLifeline(t *testing.T) {
	dir := rootfs(t)
	pid := filepath.Join(t.TempDir(), "pid")
	for _, c := range []struct {
		name string
		op   plan.Op
		msg  uint32
	}{
		{"await", num(op(plan.KindAwait), plan.MsgReady), plan.MsgReady},
		{"hook", hook("echo 1 >"+pid+"; exec sleep 1000", 0, 0, ""), plan.MsgMounted},
	} {
		t.Run(c.name, func(t *testing.T) {
			sess := launch{plan: inRoot(dir).add(num(op(plan.KindAwait), plan.MsgMounted), c.op).add(shell("exit 0")...).plan(0)}.start(t)
			sess.until(c.msg)
			if c.msg == plan.MsgMounted {
				if err := sendGo(sess.sock, "", -1); err != nil {
					t.Fatal(err)
				}
				for range 500 {
					if _, err := os.Stat(pid); err == nil {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			sess.close()
			if r := sess.wait(); !r.status.Exited() || r.status.ExitStatus() != 1 {
				t.Errorf("status %#x, want exit 1", r.status)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	dir := rootfs(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		name string
		send func(sock int) error
		op   plan.Op
	}{
		{"text where none belongs", func(sock int) error { return sendGo(sock, "x", -1) }, num(op(plan.KindAwait), plan.MsgMounted)},
		{"descriptor where none belongs", func(sock int) error { return sendGo(sock, "", int(null.Fd())) }, num(op(plan.KindAwait), plan.MsgMounted)},
		{"no descriptor", func(sock int) error { return sendGo(sock, "", -1) }, op(plan.KindTimens)},
		{"three descriptors", func(sock int) error {
			n := int(null.Fd())
			return unix.Sendmsg(sock, goFrame(plan.MsgGo, 0), unix.UnixRights(n, n, n), nil, 0)
		}, op(plan.KindTimens)},
		{"many descriptors", func(sock int) error {
			n := int(null.Fd())
			return unix.Sendmsg(sock, goFrame(plan.MsgGo, 0), unix.UnixRights(slices.Repeat([]int{n}, 200)...), nil, 0)
		}, op(plan.KindTimens)},
		{"other type", func(sock int) error { return unix.Sendmsg(sock, goFrame(plan.MsgAck, 0), nil, nil, 0) }, op(plan.KindHome)},
		{"short", func(sock int) error { return unix.Sendmsg(sock, []byte("x"), nil, nil, 0) }, op(plan.KindHome)},
		{"wrong length", func(sock int) error { return unix.Sendmsg(sock, goFrame(plan.MsgGo, 5), nil, nil, 0) }, op(plan.KindHome)},
		{"too long", func(sock int) error { return sendGo(sock, strings.Repeat("h", plan.MaxText+1), -1) }, op(plan.KindHome)},
		{"NUL", func(sock int) error { return sendGo(sock, "/a\x00b", -1) }, op(plan.KindHome)},
	} {
		t.Run(c.name, func(t *testing.T) {
			sess := launch{plan: inRoot(dir).add(c.op).plan(0)}.start(t)
			for f := sess.next(); f != nil && !waits(f.Type); f = sess.next() {
			}
			if err := c.send(sess.sock); err != nil {
				t.Fatal(err)
			}
			f := sess.next()
			if f == nil || f.Type != plan.MsgError || f.Step != plan.StepReply || f.Errno != unix.EPROTO {
				t.Errorf("got %+v, want EPROTO", f)
			}
			sess.close()
			sess.wait()
		})
	}
}

func goFrame(msg byte, length byte) []byte {
	b := make([]byte, plan.FrameSize)
	b[0], b[24] = msg, length
	return b
}

func fifo(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func gated(t *testing.T, dir string, after ...plan.Op) (sess *session, gate, result *os.File) {
	t.Helper()
	gate, result = fifo(t), fifo(t)
	b := inRoot(dir).add(
		op(plan.KindPivot),
		op(plan.KindFind, s("echo"), l("/bin/echo")),
		num(op(plan.KindAwait), plan.MsgReady),
		file(num(op(plan.KindGate), 1), 0),
	).add(after...)
	sess = launch{plan: b.plan(2), files: []*os.File{gate, result}}.start(t)
	for sess.next() != nil {
		if f := sess.result.frames[len(sess.result.frames)-1]; f.Type == plan.MsgReady {
			if err := sendGo(sess.sock, "", -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	sess.close()
	return sess, gate, result
}

func TestGate(t *testing.T) {
	dir := rootfs(t)
	read := func(t *testing.T, result *os.File) *frame {
		t.Helper()
		b := make([]byte, 4096)
		n, err := result.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		f, err := decodeFrame(b[:n], nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	exec := op(plan.KindExec, l("echo", "through"), l())
	t.Run("start", func(t *testing.T) {
		sess, gate, result := gated(t, dir, exec)
		if want := []uint32{plan.MsgChild, plan.MsgReady, plan.MsgAck}; !slices.Equal(sess.result.types(), want) {
			t.Errorf("messages %v, want %v", sess.result.types(), want)
		}
		gate.Write([]byte{0})
		if f := read(t, result); f.Type != plan.MsgExec || f.Op != 9 {
			t.Errorf("got %+v, want MsgExec of operation 8", f)
		}
		if r := sess.wait(); r.output != "through\n" {
			t.Errorf("output %q", r.output)
		}
	})
	t.Run("error", func(t *testing.T) {
		sess, gate, result := gated(t, dir, hook("echo no; exit 1", 0, 0, ""), exec)
		gate.Write([]byte{0})
		if f := read(t, result); f.Type != plan.MsgError || f.Step != plan.StepStatus || f.Text != "no\n" {
			t.Errorf("got %+v, want the hook's status", f)
		}
		sess.wait()
	})
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGPIPE, unix.Signal(33), unix.Signal(64)} {
		t.Run("signal "+sig.String(), func(t *testing.T) {
			sess, _, _ := gated(t, dir, exec)
			// The handlers are set once the stage sleeps in read.
			waitAsleep(t, sess.child)
			if err := unix.Kill(sess.child, sig); err != nil {
				t.Fatal(err)
			}
			if r := sess.wait(); r.status.ExitStatus() != 128+int(sig) {
				t.Errorf("status %#x, want exit %d", r.status, 128+int(sig))
			}
		})
	}
	t.Run("other signals", func(t *testing.T) {
		sess, gate, _ := gated(t, dir, exec)
		waitAsleep(t, sess.child)
		// A container that waits for its start is to be small.
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", sess.child)); err == nil {
			for _, line := range strings.Split(string(b), "\n") {
				if strings.HasPrefix(line, "Private_Dirty:") {
					t.Log(line)
					if n, err := strconv.Atoi(strings.Fields(line)[1]); err != nil || n > 128 {
						t.Errorf("%s, at most 128 kB", line)
					}
				}
			}
		}
		for _, sig := range []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGWINCH, unix.SIGURG, unix.SIGTSTP} {
			if err := unix.Kill(sess.child, sig); err != nil {
				t.Fatal(err)
			}
		}
		gate.Write([]byte{0})
		if r := sess.wait(); r.output != "through\n" {
			t.Errorf("output %q, status %#x", r.output, r.status)
		}
	})
}

func waitAsleep(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if bytes.HasPrefix(b, []byte(strconv.Itoa(unix.SYS_READ)+" ")) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the stage does not wait at the gate")
}

func TestConsole(t *testing.T) {
	dir := rootfs(t)
	b := inRoot(dir).add(
		mount("proc", "/proc"), mount("tmpfs", "/dev"),
		mount("devpts", "/dev/pts", "newinstance", "ptmxmode=0666"),
		num(op(plan.KindNode, s("/dev/tty")), unix.S_IFCHR|0o666, makedev(5, 0)),
		op(plan.KindSetsid),
		flag(num(op(plan.KindConsole), 91, 47, 1000), plan.FlagBind),
		op(plan.KindPivot),
	).add(shell("tty; stat -c '%u %t:%T' /dev/console; echo to >/dev/tty; ls /proc/self/fd | wc -l; exec 0</dev/console; tty")...)
	var out bytes.Buffer
	r := must(t, launch{plan: b.plan(0), reply: func(f *frame) (string, int, bool) {
		if f.Type == plan.MsgConsole {
			size, err := unix.IoctlGetWinsize(int(f.Files[0].Fd()), unix.TIOCGWINSZ)
			if err != nil || size.Col != 91 || size.Row != 47 {
				t.Errorf("size %+v, %v", size, err)
			}
			go io.Copy(&out, f.Files[0])
		}
		return "", -1, true
	}}.run(t))
	time.Sleep(50 * time.Millisecond)
	if got := strings.ReplaceAll(out.String(), "\r", ""); got != "/dev/pts/0\n1000 88:0\nto\n4\n/dev/console\n" {
		t.Errorf("terminal shows %q; output %q", got, r.output)
	}
}

func TestConsoleLink(t *testing.T) {
	dir := rootfs(t)
	symlink(t, "/etc/target", filepath.Join(dir, "dev/console"))
	b := inRoot(dir).add(
		mount("devpts", "/dev/pts", "newinstance"),
		op(plan.KindSetsid),
		flag(op(plan.KindConsole), plan.FlagBind),
	)
	f := launch{plan: b.plan(0)}.run(t).failure()
	if f == nil || f.Errno != unix.ELOOP || f.Step != plan.StepVerify {
		t.Errorf("got %+v, want ELOOP", f)
	}
	// The container has covered its ptmx.
	b = inRoot(dir).add(
		mount("devpts", "/dev/pts", "newinstance"),
		slot(op(plan.KindClone, s("/dev/null")), 1),
		slot(op(plan.KindAttach, s("/dev/pts/ptmx")), 1),
		op(plan.KindSetsid),
		op(plan.KindConsole),
	)
	f = launch{plan: b.plan(0)}.run(t).failure()
	if f == nil || f.Errno != unix.EXDEV || f.Step != plan.StepResolve {
		t.Errorf("got %+v, want EXDEV", f)
	}
}

func TestMounts(t *testing.T) {
	dir := rootfs(t)
	source := t.TempDir()
	write(t, filepath.Join(source, "sub/file"), "content\n")
	write(t, filepath.Join(dir, "data/old"), "old\n")
	if err := unix.Chmod(filepath.Join(dir, "data"), 0o1751); err != nil {
		t.Fatal(err)
	}
	b := inRoot(dir).add(
		mount("proc", "/proc"),
		slot(num(op(plan.KindClone, s(source)), 1), 1),
		slot(op(plan.KindClone, s(filepath.Join(source, "sub/file"))), 2),
		slot(num(op(plan.KindAttach, s("/a/b")), unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOATIME, 0, unix.MOUNT_ATTR_NODEV, 0, unix.MS_SHARED, 1), 1),
		slot(op(plan.KindAttach, s("/c/file")), 2),
		slot(op(plan.KindAttach, s("/c/again")), 2), // a clone of the same
		flag(mount("tmpfs", "/data"), plan.FlagMode|plan.FlagCopyUp),
		slot(mount("tmpfs", "/slot"), 3),
		slot(num(op(plan.KindSetattr), unix.MOUNT_ATTR_NOEXEC), 3),
		num(mount("tmpfs", "/re", "size=1m"), unix.MOUNT_ATTR_NOSUID),
		num(op(plan.KindRemount, s("/re"), plan.Operand{}, l("size=2m")), unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOSUID),
		slot(num(op(plan.KindMountOld, s("tmpfs"), s("old"), s("size=3m,mode=711"), s("/very/old")), unix.MOUNT_ATTR_NODEV, 0, 0, 0, unix.MS_SHARED), 4),
		// The first fails with EBUSY or EPERM and has an alternative; the other is not needed.
		flag(mount("tmpfs", "/proc/sys"), plan.FlagElse),
		mount("tmpfs", "/else"),
		flag(mount("tmpfs", "/first"), plan.FlagElse),
		flag(mount("tmpfs", "/second"), plan.FlagElse),
		mount("tmpfs", "/third"),
		num(op(plan.KindNode, s("/nodes/fifo")), unix.S_IFIFO|0o640, 0, 1, 2),
		num(op(plan.KindNode, s("/nodes/fifo")), unix.S_IFIFO|0o600, 0, 3, 4), // kept, changed
		flag(num(op(plan.KindNode, s("/nodes/fifo")), unix.S_IFCHR|0o604, makedev(1, 5)), plan.FlagReplace),
		num(op(plan.KindNode, s("/c/file2")), unix.S_IFIFO|0o600),
		op(plan.KindSymlink, s("/nodes/fifo"), s("kept")),
		flag(op(plan.KindSymlink, s("/c/file2"), s("replaced")), plan.FlagReplace),
		flag(op(plan.KindSymlink, s("/c/exists"), s("/a/b")), plan.FlagIfExists),
		op(plan.KindPivot),
	).add(shell(`cat /a/b/sub/file /c/file /c/again /data/new; stat -c '%a %n' /data /very/old /nodes/fifo
stat -c '%t:%T %u %g' /nodes/fifo; readlink /c/file2; readlink /c/exists
test -e /second -o -e /third && echo alternative used; cat /proc/self/mountinfo | while read a b c d target opts rest; do echo $target $opts $rest; done`)...)
	r := must(t, launch{plan: b.plan(0), reply: func(f *frame) (string, int, bool) {
		if f.Type == plan.MsgCopyUp {
			if len(f.Files) != 2 {
				t.Fatalf("%d descriptors", len(f.Files))
			}
			from, err := f.Files[0].ReadDir(-1)
			if err != nil || len(from) != 1 || from[0].Name() != "old" {
				t.Errorf("covered directory: %v, %v", from, err)
			}
			fd, err := unix.Openat(int(f.Files[1].Fd()), "new", unix.O_CREAT|unix.O_WRONLY, 0o644)
			if err != nil {
				t.Error(err)
			}
			unix.Write(fd, []byte("copied\n"))
			unix.Close(fd)
		}
		return "", -1, true
	}}.run(t))
	contains(t, r.output, "content\ncontent\ncontent\ncopied", "1751 /data", "711 /very/old", "604 /nodes/fifo", "1:5 0 0", "replaced", "/a/b")
	for _, want := range []string{
		"/a/b ro,nodev,noatime shared:", "/slot rw,noexec,relatime -", "/re ro,relatime - tmpfs tmpfs rw,size=2048k",
		"/very/old rw,nodev,relatime shared:", "/else rw", "/first rw",
	} {
		if !strings.Contains(r.output, "\n"+want) {
			t.Errorf("no mount %q:\n%s", want, r.output)
		}
	}
	if strings.Contains(r.output, "alternative used") {
		t.Errorf("an alternative was used:\n%s", r.output)
	}
}

// A node that is a mount point, as of a bound host device, keeps its owner and mode.
func TestNodeOnMount(t *testing.T) {
	dir := rootfs(t)
	var before, after unix.Stat_t
	if err := unix.Stat("/dev/null", &before); err != nil {
		t.Fatal(err)
	}
	must(t, launch{plan: inRoot(dir).add(
		slot(op(plan.KindClone, s("/dev/null")), 1),
		slot(op(plan.KindAttach, s("/dev/null")), 1),
		num(op(plan.KindNode, s("/dev/null")), unix.S_IFCHR|0o600, makedev(1, 3), 1000, 1000),
	).plan(0)}.run(t))
	if err := unix.Stat("/dev/null", &after); err != nil {
		t.Fatal(err)
	}
	if before.Mode != after.Mode || before.Uid != after.Uid || before.Gid != after.Gid {
		t.Errorf("the host's /dev/null is now %o %d %d", after.Mode, after.Uid, after.Gid)
	}
}

func TestRoots(t *testing.T) {
	dir := rootfs(t)
	t.Run("as it is", func(t *testing.T) {
		b := (&builder{}).add(fork(newAll), num(op(plan.KindPropagate, s("/")), unix.MS_SLAVE, 1),
			op(plan.KindRoot, s(dir)), op(plan.KindChroot)).add(shell("echo /*; pwd")...)
		r := must(t, launch{plan: b.plan(0)}.run(t))
		contains(t, r.output, "/bin /dev /etc /proc /tmp", "/")
	})
	t.Run("shared", func(t *testing.T) {
		before := mountinfo(t)
		b := (&builder{}).add(fork(newAll), num(op(plan.KindPropagate, s("/")), unix.MS_SHARED, 1),
			slot(num(op(plan.KindClone, s(dir)), 1), 0),
			slot(num(op(plan.KindRoot, s(dir)), 0, 0, 0, 0, unix.MS_PRIVATE, unix.MS_PRIVATE), 0),
			num(op(plan.KindPivot), 1),
			num(op(plan.KindPropagate, s("/")), unix.MS_SHARED),
		).add(shell("echo /*")...)
		r := must(t, launch{plan: b.plan(0)}.run(t))
		contains(t, r.output, "/bin /dev /etc /proc /tmp")
		if after := mountinfo(t); after != before {
			t.Errorf("the host's mounts have changed:\n%s\nbefore:\n%s", after, before)
		}
	})
	for _, kind := range []plan.Kind{plan.KindPivot, plan.KindMoveroot, plan.KindChroot} {
		t.Run(kind.Info().Verb, func(t *testing.T) {
			b := inRoot(dir)
			b.ops[3] = num(b.ops[3], 0, 0, 0, 0, unix.MS_PRIVATE)
			b.add(op(kind)).add(shell("echo /*; pwd")...)
			r := must(t, launch{plan: b.plan(0)}.run(t))
			contains(t, r.output, "/bin /dev /etc /proc /tmp", "/")
		})
	}
}

// Descriptors: the preserved ones arrive, all others do not; limits are as at the start.
func TestExecDescriptors(t *testing.T) {
	dir := rootfs(t)
	var extra []*os.File
	for range 2 {
		f, err := os.Open("/etc/hostname")
		if err != nil {
			f, err = os.Open("/etc/passwd")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		extra = append(extra, f)
	}
	b := inRoot(dir).add(mount("proc", "/proc"), slot(mount("tmpfs", "/tmp"), 1), op(plan.KindPivot)).
		add(shell("cd /proc/self/fd; echo *; grep Sig /proc/self/status; ulimit -n; umask")...)
	r := must(t, launch{plan: b.plan(0), extra: extra}.run(t))
	contains(t, r.output, fmt.Sprint(currentLimit(t)), "SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0000")
	if first, _, _ := strings.Cut(r.output, "\n"); !strings.HasPrefix(first, "0 1 2 3 4") || len(first) > len("0 1 2 3 4 10") {
		t.Errorf("descriptors %q", first)
	}
}

func TestStdio(t *testing.T) {
	dir := rootfs(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	b := inRoot(dir).add(mount("tmpfs", "/dev"),
		num(op(plan.KindNode, s("/dev/null")), unix.S_IFCHR|0o666, makedev(1, 3)),
		op(plan.KindPivot), num(op(plan.KindStdio), 1234))
	must(t, launch{plan: b.plan(0), stdin: in}.run(t))
	var st unix.Stat_t
	if err := unix.Fstat(int(in.Fd()), &st); err != nil || st.Uid != 1234 {
		t.Errorf("owner of the pipe %d, %v", st.Uid, err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	b.add(mount("proc", "/proc")).add(program("stat", "-L", "-c", "%d %t:%T", "/proc/self/fd/0", "/dev/null")...)
	r := must(t, launch{plan: b.plan(0), stdin: null}.run(t))
	if a, b, _ := strings.Cut(strings.TrimSpace(r.output), "\n"); a != b || a == "" {
		t.Errorf("stdin is %q, the container's null device %q", a, b)
	}
}

// What a build without faults, or any build, refuses before it does anything.
func TestDecodeErrors(t *testing.T) {
	needRoot(t)
	ok := (&builder{}).add(fork(0)).add(shell("exit 0")...).plan(0)
	good, err := ok.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(good)
	broken[0] ^= 1
	late := (&builder{}).add(fork(0), file(op(plan.KindTasks), 0)).plan(1)
	slotless := (&builder{}).add(fork(0), slot(op(plan.KindAttach, s("/")), 5)).plan(0)
	for _, c := range []struct {
		name string
		l    launch
		op   uint32
		text string
	}{
		{"magic", launch{raw: broken}, ^uint32(0), "magic"},
		{"truncated", launch{raw: good[:len(good)-1]}, ^uint32(0), "size"},
		{"tiny", launch{raw: good[:7]}, ^uint32(0), "size"},
		{"unsealed", launch{raw: good, loose: true}, ^uint32(0), "not sealed"},
		{"fault", launch{plan: ok, fault: &plan.Fault{Action: plan.FaultKill}}, ^uint32(0), "fault in a build without faults"},
		{"order", launch{plan: late}, 2, "operation of the first process after the fork"},
		{"slot", launch{plan: slotless}, 1, "slot that is not set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.l.run(t)
			f := r.failure()
			if f == nil || len(r.frames) != 1 || f.Step != plan.StepDecode || f.Op != c.op || f.Text != c.text {
				t.Errorf("got %+v, want operation %d, text %q", r.frames, c.op, c.text)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	dir := rootfs(t)
	if _, err := os.Stat(faultBinary); err != nil {
		t.Skip("not built: make -C nsenter/stage stage-fault")
	}
	plain := inRoot(dir).add(op(plan.KindPivot)).add(shell("echo done")...)
	for _, pos := range []int32{0, 3} {
		run := func(action uint32, arg int32) (*result, time.Duration) {
			begin := time.Now()
			r := launch{binary: faultBinary, plan: plain.plan(0), fault: &plan.Fault{Op: pos, Action: action, Arg: arg}}.run(t)
			return r, time.Since(begin)
		}
		if r, _ := run(plan.FaultErrno, int32(unix.ENOSPC)); r.failure() == nil || r.failure().Errno != unix.ENOSPC || r.failure().Op != uint32(pos) {
			t.Errorf("operation %d: errno: %+v", pos, r.frames)
		}
		if r, d := run(plan.FaultSleep, 1); r.output != "done\n" || d < time.Second {
			t.Errorf("operation %d: sleep: %q after %v", pos, r.output, d)
		}
		if r, _ := run(plan.FaultKill, 0); r.output != "" || pos > 0 && (!r.status.Signaled() || r.status.Signal() != unix.SIGKILL) {
			t.Errorf("operation %d: kill: %q, status %#x", pos, r.output, r.status)
		}
	}
}

// The first process enters cgroups: v1 by their tasks files, v2 by clone3.
func TestCgroups(t *testing.T) {
	needRoot(t)
	dir := rootfs(t)
	name := fmt.Sprintf("rt-stage-test-%d", os.Getpid())
	make := func(t *testing.T, parent string) string {
		path := filepath.Join(parent, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() {
			for range 100 {
				if err := os.Remove(path); err == nil || errors.Is(err, os.ErrNotExist) {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("cgroup %s is left", path)
		})
		return path
	}
	t.Run("v1", func(t *testing.T) {
		path := make(t, "/sys/fs/cgroup/pids")
		tasks, err := os.OpenFile(filepath.Join(path, "tasks"), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tasks.Close()
		b := inRoot(dir)
		b.ops = append([]plan.Op{file(op(plan.KindTasks), 0)}, b.ops...)
		b.add(mount("proc", "/proc"), op(plan.KindPivot)).add(shell("cat /proc/self/cgroup; cd /proc/self/fd; echo *")...)
		r := must(t, launch{plan: b.plan(1), files: []*os.File{tasks}}.run(t))
		if !strings.Contains(r.output, ":pids:") || !strings.Contains(r.output, name) {
			t.Errorf("not in the cgroup:\n%s", r.output)
		}
	})
	t.Run("v2", func(t *testing.T) {
		parent := "/sys/fs/cgroup/unified"
		if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
			parent = "/sys/fs/cgroup"
		}
		path := make(t, parent)
		d, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		b := inRoot(dir)
		b.ops[0] = file(b.ops[0], 0)
		b.ops[0].Num[0] |= unix.CLONE_NEWCGROUP
		b.add(mount("proc", "/proc"), op(plan.KindPivot)).add(shell("cat /proc/self/cgroup")...)
		r := must(t, launch{plan: b.plan(1), files: []*os.File{d}}.run(t))
		contains(t, r.output, "0::/") // the cgroup namespace begins there
	})
}

// A static file without interpreter, executable stack or writable code.
func TestBinary(t *testing.T) {
	f, err := elf.Open(stageBinary)
	if err != nil {
		t.Skipf("the stage is not built: %v", err)
	}
	defer f.Close()
	var stack, relro bool
	for _, p := range f.Progs {
		switch {
		case p.Type == elf.PT_INTERP:
			t.Error("it has an interpreter")
		case p.Type == elf.PT_DYNAMIC:
			t.Error("it is dynamic")
		case p.Type == elf.PT_LOAD && p.Flags&(elf.PF_W|elf.PF_X) == elf.PF_W|elf.PF_X:
			t.Error("a segment is writable and executable")
		case p.Type == elf.PT_GNU_STACK:
			stack = p.Flags&elf.PF_X == 0
		case p.Type == elf.PT_GNU_RELRO:
			relro = true
		}
	}
	if !stack || !relro {
		t.Errorf("stack not executable %t, relro %t", stack, relro)
	}
	fi, err := os.Stat(stageBinary)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > 64<<10 {
		t.Errorf("%d bytes, at most 64 KiB", fi.Size())
	}
}

// Run by someone else it does nothing.
func TestArguments(t *testing.T) {
	needRoot(t)
	for _, args := range [][]string{{}, {"x"}, {"x", ""}, {"x", "2"}, {"x", "3a"}, {"x", "-3"}, {"x", "99999999999"}, {"x", "3", "4"}} {
		cmd := &exec.Cmd{Path: stageBinary, Args: args, Env: []string{}}
		out, err := cmd.CombinedOutput()
		if err == nil || len(out) > 0 {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
}

// currentLimit is the soft limit of descriptors that a child begins with.
func currentLimit(t *testing.T) uint64 {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", "ulimit -n").Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
