package test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

func makedev(major, minor uint32) uint64 { return unix.Mkdev(major, minor) }

func groups(ids ...uint32) plan.Operand {
	var b []byte
	for _, id := range ids {
		b = binary.NativeEndian.AppendUint32(b, id)
	}
	return s(string(b))
}

// A whole container, with nearly every operation.
func TestContainer(t *testing.T) {
	dir := rootfs(t)
	write(t, filepath.Join(dir, "etc/secret"), "secret\n")
	write(t, filepath.Join(dir, "etc/conf"), "conf\n")
	before := mountinfo(t)
	caps := uint64(1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE)
	b := inRoot(dir).add(
		slot(flag(op(plan.KindClone, s("/dev/null")), plan.FlagNull|plan.FlagNoFollow), 1),
		slot(op(plan.KindEmptyDir), 2),
		num(op(plan.KindDumpable), 0),
		op(plan.KindKeyring, s("_ses.test")),
		op(plan.KindLoopback),
		op(plan.KindHostname, s("stagehost")),
		op(plan.KindDomainname, s("stagedomain")),
		op(plan.KindSysctl, s("kernel/shmmni"), s("123")),
		op(plan.KindSysctl, s("net/ipv4/ip_forward"), s("1")),
		num(mount("proc", "/proc"), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC),
		num(mount("tmpfs", "/dev", "mode=755", "size=64k"), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_STRICTATIME),
		mount("devpts", "/dev/pts", "newinstance", "ptmxmode=0666", "mode=0620"),
		mount("mqueue", "/dev/mqueue"),
		num(mount("tmpfs", "/data/deep", "size=1m"), unix.MOUNT_ATTR_RDONLY),
		num(op(plan.KindNode, s("/dev/null")), unix.S_IFCHR|0o666, makedev(1, 3)),
		num(op(plan.KindNode, s("/dev/zero")), unix.S_IFCHR|0o640, makedev(1, 5), 5, 6),
		op(plan.KindSymlink, s("/dev/fd"), s("/proc/self/fd")),
		flag(op(plan.KindSymlink, s("/dev/core"), s("/proc/nothing")), plan.FlagIfExists),
		op(plan.KindReadonly, s("/proc/sys")),
		op(plan.KindReadonly, s("/proc/missing")),
		num(slot(op(plan.KindMask, s("/etc/secret")), 1), 2),
		num(slot(op(plan.KindMask, s("/etc/conf")), 1), 2),
		num(slot(op(plan.KindMask, s("/proc/fs")), 1), 2),
		num(slot(op(plan.KindMask, s("/proc/bus")), 1), 2),
		num(slot(op(plan.KindMask, s("/missing")), 1), 2),
		num(op(plan.KindAwait), plan.MsgMounted),
		num(op(plan.KindRootattr), unix.MOUNT_ATTR_RDONLY),
		op(plan.KindPivot),
		op(plan.KindSetsid),
		num(op(plan.KindStdio), 1000),
		flag(op(plan.KindCwd, s("/tmp")), plan.FlagTry),
		flag(op(plan.KindCwd, s("/tmp")), plan.FlagAgain),
		num(op(plan.KindRlimit), unix.RLIMIT_NOFILE, 500, 600),
		num(op(plan.KindUmask), 0o027),
		num(op(plan.KindBounding), caps),
		op(plan.KindGroups, groups(44, 7, 9)),
		num(op(plan.KindIds), 1000, 1001),
		num(op(plan.KindCaps), caps, caps, caps, caps),
		op(plan.KindNoNewPrivs),
		num(op(plan.KindAwait), plan.MsgReady),
	).add(shell(`
cat /proc/self/status | grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs)'
hostname
cat /proc/sys/kernel/domainname /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward
stat -c '%n %F %t:%T %a %u %g' /dev/null /dev/zero
readlink /dev/fd
test -e /dev/core || echo no core
cat /etc/secret /etc/conf | wc -c
ls /proc/fs /proc/bus | wc -l
umask
pwd
ulimit -n; ulimit -Hn
echo pid $$
env
touch /x 2>&1
touch /data/deep/x 2>&1
echo 5 2>&1 >/proc/sys/kernel/shmmni
cat /proc/mounts
ls /proc/self/fd | wc -l
cat /proc/net/if_inet6 | grep -c lo
`)...)
	r := must(t, launch{plan: b.plan(0)}.run(t))
	if want := []uint32{plan.MsgChild, plan.MsgMounted, plan.MsgReady, plan.MsgAck, plan.MsgExec}; !slices.Equal(r.types(), want) {
		t.Errorf("messages %v, want %v", r.types(), want)
	}
	contains(t, r.output,
		"Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001\t1001\t1001", "Groups:\t7 9 44 ",
		"CapInh:\t0000000000000420", "CapPrm:\t0000000000000420", "CapEff:\t0000000000000420",
		"CapBnd:\t0000000000000420", "CapAmb:\t0000000000000420", "NoNewPrivs:\t1",
		"stagehost", "stagedomain", "123", "1",
		"/dev/null character special file 1:3 666 0 0", "/dev/zero character special file 1:5 640 5 6",
		"/proc/self/fd", "no core", "0", "/tmp", "500", "600", "pid 1", "0027", "A=b",
		"touch: /x: Read-only file system", "touch: /data/deep/x: Read-only file system",
		"4", // 0, 1, 2 and that of the directory
	)
	for _, want := range []string{
		"proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0",
		"proc /proc/sys proc ro,nosuid,nodev,noexec,relatime 0 0",
		"tmpfs /proc/fs tmpfs ro,", "nr_inodes=1", "tmpfs /data/deep tmpfs ro,relatime,size=1024k",
	} {
		if !strings.Contains(r.output, want) {
			t.Errorf("no mount %q:\n%s", want, r.output)
		}
	}
	if strings.Contains(r.output, dir) {
		t.Errorf("the host's mounts are visible:\n%s", r.output)
	}
	if r.status.ExitStatus() != 0 {
		t.Errorf("exit status %d:\n%s", r.status.ExitStatus(), r.output)
	}
	if after := mountinfo(t); after != before {
		t.Errorf("the host's mounts have changed:\n%s\nbefore:\n%s", after, before)
	}
	if _, err := os.Stat(filepath.Join(dir, "data/deep")); err != nil {
		t.Errorf("mount point: %v", err)
	}
}

// CLONE_PARENT with every kind of new namespace, and maps written by the parent.
func TestUserNamespace(t *testing.T) {
	dir := rootfs(t)
	// The temporary directory of a test is 0700 of root's; the mapped root must get in.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := (&builder{}).add(
		fork(newAll|unix.CLONE_NEWUSER),
		num(op(plan.KindAwait), plan.MsgMaps),
		op(plan.KindSetroot),
		num(op(plan.KindPropagate, s("/")), unix.MS_SLAVE, 1),
		slot(num(op(plan.KindClone, s(dir)), 1), 0),
		slot(op(plan.KindRoot, s(dir)), 0),
		num(mount("proc", "/proc")),
		flag(mount("tmpfs", "/tmp", "size=64k"), plan.FlagMode),
		op(plan.KindPivot),
	).add(shell("cat /proc/self/uid_map; id -u; stat -c %a /tmp; ls /proc/self/fd | wc -l")...)
	sess := launch{plan: b.plan(0)}.start(t)
	sess.until(plan.MsgMaps)
	for _, f := range []string{"uid_map", "gid_map"} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", sess.child, f), []byte("0 100000 65536"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := sendGo(sess.sock, "", -1); err != nil {
		t.Fatal(err)
	}
	for sess.next() != nil {
	}
	r := must(t, sess.wait())
	contains(t, r.output, "         0     100000      65536", "0", "755", "4")
}

func TestJoinAndTimens(t *testing.T) {
	dir := rootfs(t)
	first := launch{plan: inRoot(dir).add(mount("proc", "/proc"), op(plan.KindPivot), op(plan.KindHostname, s("first"))).
		add(program("sleep", "100")...).plan(0)}.start(t)
	first.until(plan.MsgExec)
	var files []*os.File
	b := &builder{}
	for i, ns := range []struct {
		name string
		typ  uint64
	}{{"ipc", unix.CLONE_NEWIPC}, {"uts", unix.CLONE_NEWUTS}, {"net", unix.CLONE_NEWNET}, {"pid", unix.CLONE_NEWPID}, {"mnt", unix.CLONE_NEWNS}} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", first.child, ns.name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
		b.add(flag(file(num(op(plan.KindJoin), ns.typ), int32(i)), plan.FlagTry))
	}
	b.add(
		flag(file(num(op(plan.KindJoin), unix.CLONE_NEWIPC), 0), plan.FlagAgain), // not again
		num(op(plan.KindDumpable), 0),
		fork(0),
		op(plan.KindTimens),
		op(plan.KindCwd, s("/")),
	).add(shell("hostname; ls /proc | grep -c '^[0-9]'; cat /proc/uptime; ls /proc/self/fd | wc -l")...)
	sess := launch{plan: b.plan(len(files)), files: files}.start(t)
	sess.until(plan.MsgTime)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", sess.child), []byte("boottime 5000000 0\n"), 0); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/time_for_children", sess.child))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := sendGo(sess.sock, "", int(ns.Fd())); err != nil {
		t.Fatal(err)
	}
	for sess.next() != nil {
	}
	r := must(t, sess.wait())
	contains(t, r.output, "first", "4")
	if !strings.Contains(r.output, "\n5") || strings.Index(r.output, ".") < len("first\n3\n5000000") {
		t.Errorf("uptime is not that of the time namespace:\n%s", r.output)
	}
}

// The operations that must fail, and how they say so.
func TestErrors(t *testing.T) {
	dir := rootfs(t)
	symlink(t, "/etc", filepath.Join(dir, "link"))
	symlink(t, "b", filepath.Join(dir, "a"))
	symlink(t, "a", filepath.Join(dir, "b"))
	write(t, filepath.Join(dir, "plain"), "")
	write(t, filepath.Join(dir, "tmp/denied"), "")
	if err := os.Mkdir(filepath.Join(dir, "tmp/directory"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		ops   []plan.Op
		errno unix.Errno
		step  plan.Step
		text  string
	}{
		{"unknown option", []plan.Op{mount("tmpfs", "/tmp", "size=1m", "sise=64k")}, unix.EINVAL, plan.StepOption,
			"sise=64k\x00e tmpfs: Unknown parameter 'sise'"},
		{"bad value", []plan.Op{mount("tmpfs", "/tmp", "size=zz")}, unix.EINVAL, plan.StepOption,
			"size=zz\x00e tmpfs: Bad value for 'size'"},
		{"unknown flag", []plan.Op{mount("tmpfs", "/tmp", "foo")}, unix.EINVAL, plan.StepOption,
			"foo\x00e tmpfs: Unknown parameter 'foo'"},
		{"long key", []plan.Op{mount("tmpfs", "/tmp", strings.Repeat("k", 300)+"=1")}, unix.EINVAL, plan.StepOption,
			strings.Repeat("k", 300) + "=1\x00"},
		{"unknown type", []plan.Op{mount("nosuchfs", "/tmp")}, unix.ENODEV, plan.StepFS, ""},
		{"needs a device", []plan.Op{op(plan.KindMount, s("ext4"), s("/nodev"), l(), s("/tmp"))}, unix.ENOENT, plan.StepFS,
			"*"},
		{"target is a file", []plan.Op{mount("tmpfs", "/plain")}, unix.ENOTDIR, plan.StepAttach, ""},
		{"below a file", []plan.Op{mount("tmpfs", "/plain/x")}, unix.ENOTDIR, plan.StepResolve, ""},
		{"loop", []plan.Op{mount("tmpfs", "/a/x")}, unix.ELOOP, plan.StepResolve, ""},
		{"link with real", []plan.Op{flag(mount("tmpfs", "/link"), plan.FlagReal)}, unix.ELOOP, plan.StepResolve, ""},
		{"link with real, missing", []plan.Op{flag(mount("tmpfs", "/link/new/x"), plan.FlagReal)}, unix.ELOOP, plan.StepResolve, ""},
		{"in procfs", []plan.Op{mount("proc", "/proc"), mount("tmpfs", "/proc/sys")}, unix.EPERM, plan.StepVerify, "in a procfs"},
		{"magic link", []plan.Op{mount("proc", "/proc"), mount("tmpfs", "/proc/self/root/tmp")}, unix.ELOOP, plan.StepResolve, ""},
		{"long name", []plan.Op{mount("tmpfs", "/tmp/"+strings.Repeat("n", 256))}, unix.ENAMETOOLONG, plan.StepResolve, ""},
		{"long path", []plan.Op{mount("tmpfs", "/"+strings.Repeat("n/", 3000))}, unix.ENAMETOOLONG, plan.StepResolve, ""},
		{"clone of what is not there", []plan.Op{slot(op(plan.KindClone, s("/nonexistent/x")), 1)}, unix.ENOENT, plan.StepSource, ""},
		{"not the null device", []plan.Op{slot(flag(op(plan.KindClone, s("/dev/zero")), plan.FlagNull), 1)}, unix.EINVAL, plan.StepVerify, "character device"},
		{"not a procfs", []plan.Op{slot(flag(op(plan.KindClone, s("/dev")), plan.FlagProcfs), 1)}, unix.EINVAL, plan.StepVerify, "directory"},
		{"a link", []plan.Op{slot(flag(op(plan.KindClone, s("/proc/self")), plan.FlagNoFollow), 1)}, unix.ELOOP, plan.StepVerify, "symbolic link"},
		{"file over directory", []plan.Op{slot(op(plan.KindClone, s("/dev/null")), 1), slot(op(plan.KindAttach, s("/tmp")), 1)}, unix.ENOTDIR, plan.StepAttach, ""},
		{"bad attribute", []plan.Op{num(mount("tmpfs", "/tmp"), 1<<30)}, unix.EINVAL, plan.StepFS, ""},
		{"remount of no mount", []plan.Op{num(op(plan.KindRemount, s("/tmp")), 1)}, unix.EINVAL, plan.StepAttr, ""},
		{"remount of nothing", []plan.Op{num(op(plan.KindRemount, s("/none")), 1)}, unix.ENOENT, plan.StepResolve, ""},
		{"remount option", []plan.Op{mount("tmpfs", "/tmp"), op(plan.KindRemount, s("/tmp"), plan.Operand{}, l("sise=1"))}, unix.EINVAL, plan.StepOption,
			"sise=1\x00e tmpfs: Unknown parameter 'sise'"},
		{"node over another", []plan.Op{num(op(plan.KindNode, s("/plain")), unix.S_IFCHR|0o600, makedev(1, 3))}, unix.EEXIST, plan.StepVerify, "regular file"},
		{"node over a link", []plan.Op{num(op(plan.KindNode, s("/link")), unix.S_IFCHR|0o600, makedev(1, 3))}, unix.EEXIST, plan.StepVerify, "symbolic link"},
		{"replace a directory", []plan.Op{num(flag(op(plan.KindNode, s("/tmp")), plan.FlagReplace), unix.S_IFCHR|0o600, makedev(1, 3))}, unix.EEXIST, plan.StepVerify, "directory"},
		{"link over a directory", []plan.Op{flag(op(plan.KindSymlink, s("/tmp"), s("x")), plan.FlagReplace)}, unix.EEXIST, plan.StepVerify, "directory"},
		{"dot", []plan.Op{op(plan.KindSymlink, s("/tmp/.."), s("x"))}, unix.EINVAL, plan.StepResolve, ""},
		{"mask loop", []plan.Op{slot(op(plan.KindEmptyDir), 1), num(slot(op(plan.KindMask, s("/a")), 1), 1)}, unix.ELOOP, plan.StepResolve, ""},
		{"no sysctl", []plan.Op{op(plan.KindSysctl, s("kernel/nothing"), s("1"))}, unix.ENOENT, plan.StepResolve, ""},
		{"sysctl outside", []plan.Op{op(plan.KindSysctl, s("../self/comm"), s("1"))}, unix.EXDEV, plan.StepResolve, ""},
		{"bad sysctl", []plan.Op{op(plan.KindSysctl, s("net/ipv4/ip_forward"), s("x"))}, unix.EINVAL, plan.StepNone, ""},
		{"no such program", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("nothing"), l("/bin/nothing", "/plain/nothing"))}, unix.ENOENT, plan.StepSearch, ""},
		{"no such path", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("/bin/nothing"), l("/bin/nothing"))}, unix.ENOENT, plan.StepNone, ""},
		{"a directory", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("/tmp"), l("/tmp"))}, unix.EISDIR, plan.StepIsDir, ""},
		{"a directory in PATH", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("directory"), l("/tmp/directory"))}, unix.ENOENT, plan.StepSearch, ""},
		{"denied", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("/tmp/denied"), l("/tmp/denied"))}, unix.EACCES, plan.StepNone, ""},
		{"denied in PATH", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("denied"), l("/bin/denied", "/tmp/denied", "/etc/denied"))}, unix.EACCES, plan.StepNone, "/tmp/denied"},
		{"fifo", []plan.Op{op(plan.KindPivot), op(plan.KindFind, s("/fifo"), l("/fifo"))}, unix.EACCES, plan.StepVerify, "fifo"},
		{"cwd missing", []plan.Op{op(plan.KindPivot), op(plan.KindCwd, s("/none"))}, unix.ENOENT, plan.StepResolve, ""},
		{"cwd a file", []plan.Op{op(plan.KindPivot), op(plan.KindCwd, s("/plain"))}, unix.ENOTDIR, plan.StepResolve, ""},
		{"cwd by descriptor", []plan.Op{mount("proc", "/proc"), op(plan.KindPivot), op(plan.KindCwd, s("/proc/self/fd/0"))}, unix.ELOOP, plan.StepResolve, ""},
		{"no devpts", []plan.Op{op(plan.KindSetsid), op(plan.KindConsole)}, unix.ENOENT, plan.StepResolve, ""},
		{"console elsewhere", []plan.Op{mount("tmpfs", "/dev/pts"), op(plan.KindConsole)}, unix.ENOTTY, plan.StepVerify, "/dev/pts is not the root of a devpts"},
		{"caps beyond the bounding set", []plan.Op{num(op(plan.KindCaps), 0, 0, 0, 0), num(op(plan.KindCaps), 1, 1, 0, 0)}, unix.EPERM, plan.StepNone, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := inRoot(dir).add(c.ops...)
			index := uint32(len(b.ops) - 1)
			r := launch{plan: b.plan(0)}.run(t)
			f := r.failure()
			if f == nil {
				t.Fatalf("no error; messages %v", r.types())
			}
			if f.Errno != c.errno || f.Step != c.step || (f.Text != c.text && c.text != "*") || f.Op != index {
				t.Errorf("operation %d: %v (%d), step %d, text %q; want operation %d: %v, step %d, text %q",
					f.Op, f.Errno, f.Errno, f.Step, f.Text, index, c.errno, c.step, c.text)
			}
			if r.status.ExitStatus() != 1 {
				t.Errorf("exit status %d, want 1", r.status.ExitStatus())
			}
			if r.output != "" {
				t.Errorf("the stage wrote to stdio: %q", r.output)
			}
		})
	}
}

// Links on the way to a missing mount point never lead out of the root.
func TestDanglingLinks(t *testing.T) {
	for _, c := range []struct{ name, link, target, destination, made string }{
		{"absolute", "etc/resolv.conf", "/run/new", "/etc/resolv.conf", "run/new"},
		{"upwards", "etc/resolv.conf", "/../../outside/new", "/etc/resolv.conf", "outside/new"},
		{"relative", "etc/resolv.conf", "../x/./y/../new", "/etc/resolv.conf", "x/new"},
		{"relative upwards", "etc/resolv.conf", "../../../../outside/new", "/etc/resolv.conf", "outside/new"},
		{"in the middle", "var", "/srv/../gone", "/var/a/b", "gone/a/b"},
		{"trailing dot", "var", "gone", "/var/a/./../b", "gone/b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := rootfs(t)
			symlink(t, c.target, filepath.Join(dir, c.link))
			b := inRoot(dir).add(
				slot(op(plan.KindClone, s("/dev/null")), 1),
				slot(op(plan.KindAttach, s(c.destination)), 1),
				op(plan.KindPivot),
			).add(shell("stat -c '%t:%T' /" + c.made)...)
			r := must(t, launch{plan: b.plan(0)}.run(t))
			contains(t, r.output, "1:3")
			fi, err := os.Lstat(filepath.Join(dir, c.made))
			if err != nil || !fi.Mode().IsRegular() || fi.Size() != 0 || fi.Mode().Perm() != 0o644 {
				t.Errorf("%s: %v, %v", c.made, fi, err)
			}
		})
	}
	t.Run("too many links", func(t *testing.T) {
		dir := rootfs(t)
		for i := range 42 {
			symlink(t, fmt.Sprintf("l%d", i+1), filepath.Join(dir, fmt.Sprintf("l%d", i)))
		}
		r := launch{plan: inRoot(dir).add(mount("tmpfs", "/l0")).plan(0)}.run(t)
		if f := r.failure(); f == nil || f.Errno != unix.ELOOP {
			t.Errorf("got %+v, want ELOOP", f)
		}
		r = launch{plan: inRoot(dir).add(mount("tmpfs", "/l10")).plan(0)}.run(t)
		must(t, r)
		if _, err := os.Lstat(filepath.Join(dir, "l42")); err != nil {
			t.Error(err)
		}
	})
}
