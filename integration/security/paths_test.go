package security

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rt/integration/leak"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const showMounts = "cat /proc/self/mountinfo"

// mountpoints are those of a container that printed its mountinfo.
func mountpoints(out string) []string {
	var list []string
	for _, m := range leak.ParseMounts(out) {
		list = append(list, m.Path)
	}
	return list
}

// Links in a mount's destination stay within the root file system.
func TestS06LinkInDestination(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, dest string
		make       func(b *box) (lands string) // the mount point that is expected; "" if it must fail
	}{
		{"absolute", "/m/x", func(b *box) string { b.link(b.outside, "m"); return b.outside + "/x" }},
		{"relative", "/m/x", func(b *box) string { b.link("../../../../.."+b.outside, "m"); return b.outside + "/x" }},
		{"last is a link", "/m", func(b *box) string { b.link(b.outside, "m"); return b.outside }},
		{"slash after", "/m/", func(b *box) string { b.link(b.outside, "m"); return b.outside }},
		{"dot after", "/m/.", func(b *box) string { b.link(b.outside, "m"); return b.outside }},
		{"39 deep", "/l39", func(b *box) string {
			b.link(b.outside, "l0")
			for i := 1; i < 40; i++ {
				b.link(fmt.Sprintf("l%d", i-1), fmt.Sprintf("l%d", i))
			}
			return b.outside
		}},
		{"loop", "/m/x", func(b *box) string { b.link("n", "m"); b.link("m", "n"); return "" }},
		{"through proc", "/m/tmp", func(b *box) string { b.link("/proc/self/root", "m"); return "" }},
		{"to a descriptor", "/m", func(b *box) string { b.link("/proc/self/fd/3", "m"); return "" }},
		{"to cwd", "/m/outside", func(b *box) string { b.link("/proc/1/cwd", "m"); return "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, script(showMounts))
			lands := c.make(b)
			// Whoever goes by the path leaves the root file system.
			if c.name == "absolute" || c.name == "relative" {
				if real, err := filepath.EvalSymlinks(filepath.Join(b.rootfs, "m")); err != nil || c.name == "absolute" && real != b.outside {
					t.Fatalf("the careless way leads to %q, %v", real, err)
				}
			}
			b.edit(mnt("tmpfs", "attack", c.dest))
			r := b.rt("run", b.id)
			var at []string
			for _, m := range leak.ParseMounts(r.out) {
				if m.Source == "attack" {
					at = append(at, m.Path)
				}
			}
			switch {
			case lands == "" && (r.code == 0 || !strings.Contains(r.err, "/mounts/")):
				t.Errorf("%v; expected a refusal that names the mount", r)
			case lands != "" && (r.code != 0 || !slices.Equal(at, []string{lands})):
				t.Errorf("%v; mounted on %v, expected %s in the container", r, at, lands)
			}
		})
	}
}

// What is made to mount on is made inside.
func TestS06DanglingLink(t *testing.T) {
	t.Parallel()
	b := newBox(t, mnt("bind", "/etc/hostname", "/etc/resolv.conf", "bind", "ro"), script("cat /etc/resolv.conf >/dev/null && "+showMounts))
	target := filepath.Join(b.outside, "new")
	b.link("/../.."+target, "etc/resolv.conf")
	if points := mountpoints(b.run()); !slices.Contains(points, target) {
		t.Errorf("mount points %v, expected %s", points, target)
	}
	if info, err := os.Lstat(filepath.Join(b.rootfs, target)); err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
		t.Errorf("in the root file system: %v, %v", info, err)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("it was made outside")
	}
}

// A missing mount point is made neither outside nor by opening what is there.
func TestS08SpecialFileAsMountPoint(t *testing.T) {
	t.Parallel()
	for name, node := range map[string]func(path string) error{
		"fifo":   func(p string) error { return unix.Mkfifo(p, 0o666) },
		"socket": func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o666, 0) },
		"tty":    func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))) },
		// To open it has an effect: it gives a new terminal.
		"ptmx": func(p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 2))) },
		// To open it fails: there is no such device.
		"device": func(p string) error { return unix.Mknod(p, unix.S_IFBLK|0o666, int(unix.Mkdev(250, 250))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, script("cat /etc/target"))
			b.must(node(b.in("etc/target")))
			b.must(os.WriteFile(filepath.Join(b.dir, "source"), []byte("mounted\n"), 0o644))
			b.edit(mnt("bind", filepath.Join(b.dir, "source"), "/etc/target", "bind"))
			if r := b.rt("run", b.id); r.code != 0 || r.out != "mounted\n" || r.took > 10*time.Second {
				t.Error(r)
			}
			// A directory cannot cover it.
			b.edit(noMount("/etc/target"), mnt("tmpfs", "tmpfs", "/etc/target/in"))
			if r := b.rt("run", b.id); r.code != 1 || !strings.Contains(r.err, "not a directory") || r.took > 10*time.Second {
				t.Error(r)
			}
		})
	}
}

// The nodes and links of /dev are made in the container's /dev.
func TestS09DevIsLink(t *testing.T) {
	t.Parallel()
	for name, prefix := range map[string]string{"absolute": "", "relative": "../../../../../../.."} {
		for _, mounted := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " mounted ", mounted), func(t *testing.T) {
				b := newBox(t, script("ls -l /dev/null"))
				for _, f := range []string{"ptmx", "null", "console", "fd", "zero", "stdin"} {
					b.decoy("dev/"+f, "the host's")
				}
				b.link(prefix+filepath.Join(b.outside, "dev"), "dev")
				if _, err := os.Stat(filepath.Join(b.rootfs, "dev/ptmx")); name == "absolute" && err != nil {
					t.Fatalf("the careless way: %v", err)
				}
				if !mounted {
					for _, d := range []string{"/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"} {
						b.edit(noMount(d))
					}
				}
				r := b.rt("run", b.id)
				if r.code == 0 && !strings.Contains(r.out, "1,   3") {
					t.Errorf("%v; expected its own null device", r)
				}
				if r.code != 0 && !strings.Contains(r.err, "/mounts/") {
					t.Errorf("%v; expected it to work or to name the mount", r)
				}
				b.spec.Process.Terminal = true
				b.edit()
				b.terminal("run") // whatever comes of it: the canary looks
			})
		}
	}
}

// terminal runs the container, or an exec in it, with a terminal.
func (b *box) terminal(args ...string) result {
	b.t.Helper()
	ptmx, tty := openPTY(b.t)
	defer ptmx.Close()
	defer tty.Close()
	c := b.command(append(args, b.id)...)
	if args[0] == "exec" {
		c = b.command("exec", "-t", b.id, "tty")
	}
	c.Stdin = tty
	return c.run()
}

// The kernel's own file systems are mounted on real directories only.
func TestS12KernelFileSystemOnLink(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"proc", "sys"} {
		for name, put := range map[string]func(b *box){
			"absolute": func(b *box) { b.link(b.outside, dir) },
			"relative": func(b *box) { b.link("tmp", dir) },
			"dangling": func(b *box) { b.link("/nowhere/at/all", dir) },
			"loop":     func(b *box) { b.link(dir, dir) },
			"file":     func(b *box) { b.file(dir, "x", 0o644) },
			"fifo":     func(b *box) { b.must(unix.Mkfifo(b.in(dir), 0o644)) },
		} {
			t.Run(dir+" "+name, func(t *testing.T) {
				b := newBox(t)
				put(b)
				index := slices.IndexFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/"+dir })
				b.refused([]string{fmt.Sprintf("/mounts/%d", index)}, "run", b.id)
			})
		}
	}
	for _, c := range []struct{ dest, fstype, link string }{
		{"/proc/self/attr", "tmpfs", ""},
		{"/proc/../proc/sys", "tmpfs", ""},
		{"/proc/./sys/kernel", "tmpfs", ""},
		{"/proc//sys", "bind", ""},
		{"proc/1", "tmpfs", ""},
		{"/p/sys/kernel", "tmpfs", "/proc"},
		{"/p/self", "bind", "proc"},
		{"/p", "tmpfs", "/proc/sys"},
		{"/proc", "tmpfs", ""},
		{"/proc", "sysfs", ""},
		{"/proc", "bind", ""},
	} {
		t.Run(c.fstype+" on "+c.dest, func(t *testing.T) {
			b := newBox(t)
			if c.link != "" {
				b.link(c.link, "p")
			}
			if c.fstype == "bind" {
				b.edit(mnt("bind", b.outside, c.dest, "bind"))
			} else {
				b.edit(mnt(c.fstype, c.fstype, c.dest))
			}
			b.refused([]string{fmt.Sprintf("/mounts/%d", len(b.spec.Mounts)-1)}, "run", b.id)
		})
	}
	// The same does work where it may.
	b := newBox(t, mnt("bind", "/etc/hostname", "/proc/uptime", "bind"), args("true"))
	b.run()
}

// A bind of what is nosuid, nodev and read-only stays so.
func TestS15FlagsOfSourceStay(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(showMounts))
	source := filepath.Join(b.top, "source")
	b.must(os.Mkdir(source, 0o755))
	b.must(unix.Mount("source", source, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY|unix.MS_NOEXEC, ""))
	t.Cleanup(func() { unix.Unmount(source, unix.MNT_DETACH) })
	b.edit(mnt("bind", source, "/m", "bind"), mnt("bind", source, "/clear", "bind", "suid"))
	seen := 0
	for _, m := range leak.ParseMounts(b.run()) {
		want := []string{"ro", "nosuid", "nodev", "noexec"}
		switch m.Path {
		case "/m":
		case "/clear":
			want = []string{"ro", "nodev", "noexec"}
		default:
			continue
		}
		seen++
		for _, w := range want {
			if !slices.Contains(m.Options, w) {
				t.Errorf("%s is %v, expected %s", m.Path, m.Options, w)
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d of 2 mounts are there", seen)
	}
}

// From the moment that it is attached no mount is more permissive than it should be. The
// stage is held at the operation after each mount.
func TestS15MountsAreRestrictedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("true"))
	hard := []string{"ro", "nosuid", "nodev", "noexec"}
	b.edit(mnt("bind", b.outside, "/bind", append([]string{"bind"}, hard...)...), mnt("sysfs", "sysfs", "/sysfs", hard...), mnt("proc", "proc", "/proc2", hard...))
	want := map[string]bool{"/bind": true, "/sysfs": true, "/proc2": true}
	var points []string
	for line := range strings.Lines(b.ok("plan", b.dir)) {
		f := strings.Fields(line)
		if (f[1] == "mount" || f[1] == "bind") && strings.Contains(line, "/mounts/") {
			points = append(points, f[0])
		}
	}
	seen := map[string]bool{}
	for _, n := range points {
		var op int
		fmt.Sscan(n, &op)
		c := b.command("create", b.id)
		c.Path = rtFault
		c.Env = append(os.Environ(), fmt.Sprintf("RT_FAULT=stage.%d:stop", op+1))
		c.begin()
		var pid string
		eventually(t, func() error {
			where := leak.Container{ID: b.id, Top: top, Cgroups: hierarchies, Dir: b.dir}
			for _, p := range where.Processes() {
				pid = strings.Fields(p)[0]
				call, _ := os.ReadFile("/proc/" + pid + "/syscall")
				if number, _, _ := strings.Cut(string(call), " "); number == strconv.Itoa(unix.SYS_PAUSE) {
					return nil
				}
			}
			return fmt.Errorf("no stage waits at operation %d", op+1)
		})
		for _, m := range leak.Mounts("/proc/" + pid + "/mountinfo") {
			at := strings.TrimPrefix(m.Path, b.rootfs)
			if !want[at] {
				continue
			}
			seen[at] = true
			for _, o := range hard {
				if !slices.Contains(m.Options, o) {
					t.Errorf("after operation %d %s is %v", op, at, m.Options)
				}
			}
		}
		c.Process.Kill()
		c.end()
		b.ok("delete", "--force", b.id)
	}
	if len(seen) != len(want) {
		t.Errorf("seen were %v of %v", seen, want)
	}
}

// Whatever the propagation, nothing reaches the host, and nothing there goes.
func TestS16Propagation(t *testing.T) {
	t.Parallel()
	for _, propagation := range []string{"", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"} {
		t.Run(propagation, func(t *testing.T) {
			b := newBox(t, caps("CAP_SYS_ADMIN"), script("mkdir -p /x && mount -t tmpfs inner /x; umount /proc/acpi 2>/dev/null; true"))
			b.spec.Linux.RootfsPropagation = propagation
			b.edit()
			// The bundle is on a shared mount, as on a host with systemd.
			b.must(unix.Mount(b.top, b.top, "", unix.MS_BIND, ""))
			t.Cleanup(func() { unix.Unmount(b.top, unix.MNT_DETACH) })
			b.must(unix.Mount("", b.top, "", unix.MS_SHARED, ""))
			before := mine(b)
			for _, command := range [][]string{{"run", b.id}, {"create", b.id}} {
				if r := b.rt(command...); r.code != 0 {
					t.Error(r)
				}
				if shared := strings.HasSuffix(propagation, "shared"); !shared && mine(b) != before {
					t.Errorf("%s: mounts on the host were %s, are %s", command[0], before, mine(b))
				}
			}
			b.ok("delete", "--force", b.id)
			if err := within(2*time.Second, func() error {
				if now := mine(b); now != before {
					return fmt.Errorf("mounts on the host were %s, are %s", before, now)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			b.canary = nil // its top has been mounted over
		})
	}
}

// mine lists the host's mounts below the box.
func mine(b *box) string {
	var list []string
	for _, m := range leak.Mounts("/proc/self/mountinfo") {
		if leak.Within(m.Path, b.top) {
			list = append(list, m.Type+" on "+m.Path)
		}
	}
	return strings.Join(list, ", ")
}

// A hostile /etc/passwd names no home, and costs nothing.
func TestS17Passwd(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(b *box, p string) error{
		"fifo": func(b *box, p string) error { return unix.Mkfifo(p, 0o644) },
		"zero": func(b *box, p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
		"link": func(b *box, p string) error { return os.Symlink("/dev/zero", p) },
		"outside": func(b *box, p string) error {
			return os.Symlink("../../.."+b.decoy("passwd", "root:x:0:0::/outside:/bin/sh\n"), p)
		},
		"sparse": func(b *box, p string) error {
			if err := os.WriteFile(p, []byte("root:x:0:0::/sparse:/bin/sh\n"), 0o644); err != nil {
				return err
			}
			return os.Truncate(p, 2<<30)
		},
		"long line": func(b *box, p string) error {
			return os.WriteFile(p, []byte("root:x:0:0:"+strings.Repeat("x", 1<<19)+":/long:/bin/sh\n"), 0o644)
		},
		"NUL": func(b *box, p string) error { return os.WriteFile(p, []byte("root:x:0:0::/nul\x00:/bin/sh\n"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, script("echo $HOME"))
			b.spec.Process.Env = []string{"PATH=/bin"}
			b.must(put(b, b.in("etc/passwd")))
			// Also where it is looked up from inside.
			for _, e := range []edit{func(*specs.Spec) {}, mnt("tmpfs", "tmpfs", "/elsewhere")} {
				b.edit(e)
				if r := b.command("run", b.id).measured().run(); r.code != 0 || r.out != "/\n" || r.took > 10*time.Second || r.memory > 64<<20 {
					t.Errorf("%v; %d bytes of memory", r, r.memory)
				}
			}
		})
	}
	b := newBox(t, script("echo $HOME"))
	b.file("etc/passwd", "root:x:0:0::/found:/bin/sh\n", 0o644)
	b.spec.Process.Env = []string{"PATH=/bin"}
	b.edit()
	if out := b.run(); out != "/found\n" {
		t.Errorf("HOME is %q where nothing is wrong", out)
	}
}

func TestS17CopyUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		make func(b *box, d string) error
		says string // "" if it succeeds
	}{
		"link out": {func(b *box, d string) error {
			return os.Symlink(filepath.Join(b.outside, "secret"), filepath.Join(d, "l"))
		}, ""},
		"fifo": {func(b *box, d string) error { return unix.Mkfifo(filepath.Join(d, "l"), 0o644) }, ""},
		"device": {func(b *box, d string) error {
			return unix.Mknod(filepath.Join(d, "l"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
		}, ""},
		"hole": {func(b *box, d string) error {
			if err := os.WriteFile(filepath.Join(d, "l"), nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(filepath.Join(d, "l"), 1<<40)
		}, "larger"},
		"many": {func(b *box, d string) error {
			for i := range 70_000 {
				if err := unix.Mknod(filepath.Join(d, fmt.Sprint(i)), unix.S_IFIFO|0o644, 0); err != nil {
					return err
				}
			}
			return nil
		}, "entries"},
		"deep": {func(b *box, d string) error {
			return os.MkdirAll(filepath.Join(d, strings.Repeat("d/", 300)), 0o755)
		}, "levels deep"},
		"itself a link": {func(b *box, d string) error {
			if err := os.Remove(d); err != nil {
				return err
			}
			return os.Symlink(b.outside, d)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, mnt("tmpfs", "tmpfs", "/up", "tmpcopyup"), script("cat /up/secret /up/l 2>&1 | cat; true"))
			d := b.in("up")
			b.must(os.Mkdir(d, 0o755))
			b.must(c.make(b, d))
			r := b.command("run", b.id).measured().run()
			if r.took > 5*time.Second || r.memory > 64<<20 || strings.Contains(r.out, "the host's") {
				t.Errorf("%v; %d bytes of memory", r, r.memory)
			}
			if c.says == "" && r.code != 0 || c.says != "" && (r.code != 1 || !strings.Contains(r.err, c.says)) {
				t.Errorf("%v; expected it to say %q", r, c.says)
			}
		})
	}
}

// The runtime writes no file into the root file system, and its own files follow no
// link at the end of their path.
func TestS18OwnFiles(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "1000"))
	pidFile := filepath.Join(b.dir, "pid")
	b.must(os.Symlink(filepath.Join(b.outside, "secret"), pidFile))
	b.must(os.Symlink(filepath.Join(b.outside, "secret"), filepath.Join(b.dir, ".pid"))) // the temporary name
	if err := os.WriteFile(pidFile+"-careless", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.ok("create", "--pid-file", pidFile, b.id)
	if info, err := os.Lstat(pidFile); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the pid file: %v, %v", info, err)
	}
	for _, e := range b.files(b.rootfs) {
		if strings.HasPrefix(e, "regular") && !strings.Contains(e, "busybox") && !strings.Contains(e, "attacker") {
			t.Errorf("in the root file system: %s", e)
		}
	}
	for _, name := range []string{"pid1", "pid2"} {
		p := filepath.Join(b.dir, name)
		b.must(os.Symlink(filepath.Join(b.outside, "secret"), p))
		b.ok("exec", "--detach", "--pid-file", p, b.id, "true")
		if info, err := os.Lstat(p); err != nil || !info.Mode().IsRegular() {
			t.Errorf("the pid file of exec: %v, %v", info, err)
		}
	}
}

// files lists all below a directory.
func (b *box) files(dir string) []string {
	b.t.Helper()
	var list []string
	entries, err := os.ReadDir(dir)
	b.must(err)
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			list = append(list, b.files(p)...)
		case e.Type().IsRegular():
			list = append(list, "regular "+p)
		default:
			list = append(list, e.Type().String()+" "+p)
		}
	}
	return list
}

// Owner and mode of what belongs to the host do not change.
func TestS19HostInodesKeepOwner(t *testing.T) {
	t.Parallel()
	null := describe("/dev/null")
	for _, e := range []edit{mapped, func(*specs.Spec) {}} {
		b := newBox(t, e, args("id", "-u"), func(s *specs.Spec) { s.Process.User.UID = 1000 })
		file, err := os.OpenFile(b.decoy("stdio", ""), os.O_RDWR, 0)
		b.must(err)
		zero, err := os.OpenFile("/dev/zero", os.O_RDWR, 0)
		b.must(err)
		for _, f := range []*os.File{nil, file, zero} {
			c := b.command("run", b.id)
			if f != nil {
				c.Stdin = f
			}
			if r := c.run(); r.code != 0 || r.out != "1000\n" {
				t.Error(r)
			}
		}
		file.Close()
		zero.Close()
	}
	if now := describe("/dev/null"); now != null {
		t.Errorf("/dev/null was %s, now is %s", null, now)
	}
}

func TestS19DevicePathIsTaken(t *testing.T) {
	t.Parallel()
	mode := os.FileMode(0o777)
	id := uint32(77)
	for name, put := range map[string]func(b *box){
		"link":   func(b *box) { b.link(filepath.Join(b.outside, "secret"), "etc/node") },
		"file":   func(b *box) { b.file("etc/node", "x", 0o644) },
		"device": func(b *box) { b.must(unix.Mknod(b.in("etc/node"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 8)))) },
		"block":  func(b *box) { b.must(unix.Mknod(b.in("etc/node"), unix.S_IFBLK|0o600, int(unix.Mkdev(1, 5)))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, func(s *specs.Spec) {
				s.Linux.Devices = []specs.LinuxDevice{{Path: "/etc/node", Type: "c", Major: 1, Minor: 5, FileMode: &mode, UID: &id, GID: &id}}
			})
			put(b)
			before := describe(filepath.Join(b.rootfs, "etc/node"))
			b.refused([]string{"/linux/devices/0"}, "run", b.id)
			if now := describe(filepath.Join(b.rootfs, "etc/node")); now != before {
				t.Errorf("it was %s, now is %s", before, now)
			}
		})
	}
}
