package test

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

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
