package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rt/integration/leak"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mnt is an edit that adds a mount.
func mnt(fstype, source, destination string, options ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Type: fstype, Source: source, Destination: destination, Options: options})
	}
}

const showMounts = "cat /proc/self/mountinfo"

// check fails unless every word of want is among have, or is not if it begins with "!".
func check(t *testing.T, what string, have []string, want ...string) {
	t.Helper()
	for _, w := range want {
		name, not := strings.CutPrefix(w, "!")
		if slices.Contains(have, name) == not {
			t.Errorf("%s: %q, expected %q", what, have, w)
		}
	}
}

// The options of a file system that a container mounts for itself.
func TestTmpfsOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options []string
		mount   string // expected among the mount's own options
		super   string // and those of the file system
	}{
		{nil, "rw relatime !nosuid !nodev !noexec", "rw"},
		{[]string{"defaults"}, "rw relatime", "rw"},
		{[]string{"defaults", "nosuid", "size=64k"}, "nosuid", "size=64k"},
		{[]string{"ro"}, "ro", ""},
		{[]string{"ro", "rw"}, "rw", "rw"},
		{[]string{"rw", "ro"}, "ro", ""},
		{[]string{"nosuid", "nodev", "noexec"}, "nosuid nodev noexec", ""},
		{[]string{"nosuid", "nodev", "noexec", "suid", "dev", "exec"}, "!nosuid !nodev !noexec", ""},
		{[]string{"suid", "nosuid"}, "nosuid", ""},
		{[]string{"noatime"}, "noatime !relatime", ""},
		{[]string{"noatime", "atime"}, "!noatime", ""},
		{[]string{"strictatime"}, "!noatime !relatime", ""},
		{[]string{"strictatime", "nostrictatime"}, "relatime", ""},
		{[]string{"noatime", "relatime"}, "relatime !noatime", ""},
		{[]string{"relatime", "noatime"}, "noatime !relatime", ""},
		{[]string{"nodiratime"}, "nodiratime", ""},
		{[]string{"nodiratime", "diratime"}, "!nodiratime", ""},
		{[]string{"nosymfollow"}, "nosymfollow", ""},
		{[]string{"nosymfollow", "symfollow"}, "!nosymfollow", ""},
		{[]string{"sync"}, "", "sync"},
		{[]string{"sync", "async"}, "", "!sync"},
		{[]string{"dirsync"}, "", "dirsync"},
		{[]string{"lazytime"}, "", "lazytime"},
		{[]string{"lazytime", "nolazytime"}, "", "!lazytime"},
		{[]string{"silent"}, "rw", ""},
		{[]string{"loud", "mand", "nomand"}, "rw", ""},
		{[]string{"iversion", "size=64k"}, "rw", "size=64k"},
		{[]string{"noiversion"}, "rw", ""},
		{[]string{"rro"}, "ro", ""},
		{[]string{"rro", "rrw"}, "rw", ""},
		{[]string{"rnosuid", "rnodev", "rnoexec", "rnosymfollow"}, "nosuid nodev noexec nosymfollow", ""},
		{[]string{"rnoatime"}, "noatime", ""},
		{[]string{"rstrictatime"}, "!noatime !relatime", ""},
		{[]string{"rnodiratime"}, "nodiratime", ""},
		{[]string{"nosuid", "rsuid"}, "!nosuid", ""},
		{[]string{"mode=0711", "uid=5", "gid=6"}, "", "mode=711 uid=5 gid=6"},
		{[]string{"size=64k", "size=128k"}, "", "size=128k"},
	} {
		t.Run(strings.Join(c.options, ","), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, mnt("tmpfs", "tmpfs", "/made/for/it", c.options...), script(showMounts))
			m := mounted(t, leak.ParseMounts(b.run()), "/made/for/it")
			if m.Type != "tmpfs" {
				t.Errorf("mounted %s", m.Type)
			}
			check(t, "mount options", m.Options, strings.Fields(c.mount)...)
			check(t, "file system options", m.SuperOptions, strings.Fields(c.super)...)
		})
	}
}

// The attributes work, they are not only shown.
func TestMountAttributesWork(t *testing.T) {
	t.Parallel()
	b := newBox(t,
		mnt("tmpfs", "tmpfs", "/m/ro", "ro"),
		mnt("tmpfs", "tmpfs", "/m/noexec", "noexec"),
		mnt("tmpfs", "tmpfs", "/m/nodev", "nodev"),
		mnt("tmpfs", "tmpfs", "/m/nosymfollow", "nosymfollow"),
		mnt("tmpfs", "tmpfs", "/m/small", "size=8k"),
		func(s *specs.Spec) {
			c := s.Process.Capabilities
			c.Bounding, c.Effective, c.Permitted = []string{"CAP_MKNOD"}, []string{"CAP_MKNOD"}, []string{"CAP_MKNOD"}
		},
		script(`
			touch /m/ro/x 2>/dev/null || echo ro
			cp /bin/busybox /m/noexec/true; /m/noexec/true 2>/dev/null || echo noexec
			mknod /m/nodev/null c 1 3; cat /m/nodev/null 2>/dev/null || echo nodev
			ln -s /etc /m/nosymfollow/l; ls /m/nosymfollow/l/ 2>/dev/null || echo nosymfollow
			dd if=/dev/zero of=/m/small/x bs=16k count=1 2>/dev/null || echo small
		`))
	if out := b.run(); out != "ro\nnoexec\nnodev\nnosymfollow\nsmall\n" {
		t.Errorf("in force are %q", out)
	}
}

func TestPropagationOptions(t *testing.T) {
	t.Parallel()
	for option, want := range map[string]string{
		"shared": "shared:", "rshared": "shared:", "slave": "", "private": "", "rprivate": "",
		"unbindable": "unbindable", "runbindable": "unbindable",
	} {
		b := newBox(t, mnt("tmpfs", "tmpfs", "/m", option), mnt("tmpfs", "tmpfs", "/m/below"), script(showMounts))
		m := mounted(t, leak.ParseMounts(b.run()), "/m")
		if got := strings.Join(m.Optional, " "); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: propagation is %q, expected %q", option, got, want)
		}
	}
}

// Options that only the file system can judge, and those that it refuses.
func TestMountErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		edit  func(*specs.Spec)
		words []string
	}{
		{mnt("tmpfs", "tmpfs", "/m", "sise=64k"), []string{"/mounts/7", "tmpfs", "sise=64k"}},
		{mnt("tmpfs", "tmpfs", "/m", "size=big"), []string{"/mounts/7", "size=big"}},
		{mnt("nofs", "nofs", "/m"), []string{"/mounts/7", "nofs"}},
		{mnt("", "", "/m"), []string{"/mounts/7", "type"}},
		{mnt("none", "/nonexistent", "/m", "bind"), []string{"/mounts/7", "/nonexistent", "no such file or directory"}},
		{mnt("tmpfs", "tmpfs", "/", "ro"), []string{"/mounts/7", "root"}},
		{mnt("tmpfs", "tmpfs", "/proc/self"), []string{"/mounts/7", "/proc"}},
		{mnt("tmpfs", "tmpfs", "/proc"), []string{"/mounts/7", "/proc"}},
		{mnt("none", "/etc", "/proc", "bind"), []string{"/mounts/7", "verify"}},
		{mnt("tmpfs", "tmpfs", "/m\x00"), []string{"/mounts/7", "NUL"}},
		{mnt("sysfs", "sysfs", "/m", "tmpcopyup"), []string{"/mounts/7", "tmpcopyup"}},
	} {
		b := newBox(t, c.edit)
		b.refused(append(c.words, "rt create failed: "), "create", b.id)
		b.clean()
	}
}

// More than one mount option string of the kernel's (255 bytes) can hold.
func TestLongMountOption(t *testing.T) {
	t.Parallel()
	if fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC); err == nil {
		unix.Close(fd)
	} else if err == unix.ENODEV {
		t.Skip("this kernel has no overlay, the one file system with options as long")
	}
	long := "/" + strings.Repeat("x", 200)
	b := newBox(t, script("cat /m/low /m/up; echo new >/m/new; cat /m/new; "+showMounts))
	var dirs []string
	for _, d := range []string{"low", "up", "work"} {
		dir := b.path("o") + long + d
		b.must(os.MkdirAll(dir, 0o755))
		dirs = append(dirs, dir)
	}
	b.must(os.WriteFile(dirs[0]+"/low", []byte("low\n"), 0o644))
	b.must(os.WriteFile(dirs[1]+"/up", []byte("up\n"), 0o644))
	// The same lower directory twice is refused; a second one makes it long.
	b.must(os.MkdirAll(b.path("o2")+long, 0o755))
	mnt("overlay", "overlay", "/m", "lowerdir="+dirs[0]+":"+b.path("o2")+long, "upperdir="+dirs[1], "workdir="+dirs[2])(b.spec)
	b.write()
	out := b.run()
	if !strings.HasPrefix(out, "low\nup\nnew\n") {
		t.Errorf("the overlay showed %q", out)
	}
}

func TestBind(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(`
		cat /dir/file /file /made/relative; touch /dir/new
		stat -c %F:%a /dir /file /made /made/relative
		touch /rodir/new 2>/dev/null || echo rodir
		echo x 2>/dev/null >/rofile || echo rofile
		`+showMounts))
	b.must(os.Mkdir(b.path("src"), 0o751))
	b.must(os.WriteFile(b.path("src/file"), []byte("content\n"), 0o640))
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Destination: "/dir", Type: "none", Source: b.path("src"), Options: []string{"bind"}},
		specs.Mount{Destination: "/file", Type: "bind", Source: b.path("src/file")},
		specs.Mount{Destination: "made/relative", Type: "anything", Source: "src/file", Options: []string{"rbind"}},
		specs.Mount{Destination: "/rodir", Source: b.path("src"), Options: []string{"bind", "ro", "nosuid"}},
		specs.Mount{Destination: "/rofile", Source: b.path("src/file"), Options: []string{"ro", "rbind", "noexec"}},
		// Data is what the kernel ignores on a bind (D4).
		specs.Mount{Destination: "/data", Source: b.path("src"), Options: []string{"bind", "mode=1777", "size=10k"}},
	)
	b.write()
	r := b.rt("run", b.id)
	want := "content\ncontent\ncontent\ndirectory:751\nregular file:640\ndirectory:755\nregular file:640\nrodir\nrofile\n"
	if r.code != 0 || !strings.HasPrefix(r.out, want) {
		t.Fatal(r)
	}
	b.read("src/new")
	list := leak.ParseMounts(r.out)
	check(t, "/rodir", mounted(t, list, "/rodir").Options, "ro", "nosuid", "!noexec")
	check(t, "/rofile", mounted(t, list, "/rofile").Options, "ro", "noexec", "!nosuid")
	check(t, "/dir", mounted(t, list, "/dir").Options, "rw")
	// What was made to mount on stays behind, as empty as it was made.
	if info, err := os.Stat(b.path("rootfs/made/relative")); err != nil || info.Size() != 0 || info.Mode() != 0o644 {
		t.Errorf("the mount point made for a file: %v %v", info, err)
	}
	if info, err := os.Stat(b.path("rootfs/rodir")); err != nil || info.Mode() != os.ModeDir|0o755 {
		t.Errorf("the mount point made for a directory: %v %v", info, err)
	}
}

// Mounts happen in the order of the list.
func TestMountOrder(t *testing.T) {
	t.Parallel()
	b := newBox(t, mnt("tmpfs", "a", "/m"), mnt("tmpfs", "b", "/m/in"), mnt("tmpfs", "c", "/m"), mnt("tmpfs", "d", "/m/in/deep"),
		script("ls /m; "+showMounts))
	out := b.run()
	if !strings.HasPrefix(out, "in\n") {
		t.Errorf("on top of /m is %q", out)
	}
	if m := mounted(t, leak.ParseMounts(out), "/m"); m.Source != "c" {
		t.Errorf("on top of /m is %q", m.Source)
	}
}

func TestRemount(t *testing.T) {
	t.Parallel()
	b := newBox(t,
		mnt("tmpfs", "tmpfs", "/m", "size=64k"),
		mnt("tmpfs", "tmpfs", "/m", "remount", "size=128k", "nosuid"),
		mnt("tmpfs", "tmpfs", "/n"),
		mnt("none", "", "/n", "remount", "bind", "ro"),
		script(showMounts))
	list := leak.ParseMounts(b.run())
	m, n := mounted(t, list, "/m"), mounted(t, list, "/n")
	check(t, "/m", m.SuperOptions, "size=128k")
	check(t, "/m", m.Options, "nosuid")
	check(t, "/n", n.Options, "ro")
	check(t, "/n", n.SuperOptions, "rw")
}

func TestTmpfsTakesMode(t *testing.T) {
	t.Parallel()
	b := newBox(t, mnt("tmpfs", "tmpfs", "/sticky"), mnt("tmpfs", "tmpfs", "/given"), mnt("tmpfs", "tmpfs", "/fresh"),
		script("stat -c %a /sticky /given /fresh"))
	b.must(os.Mkdir(b.path("rootfs/sticky"), 0o755))
	b.must(os.Chmod(b.path("rootfs/sticky"), 0o750|os.ModeSticky))
	b.must(os.Mkdir(b.path("rootfs/given"), 0o700))
	b.spec.Mounts[8].Options = []string{"mode=711"}
	b.write()
	if out := b.run(); !strings.HasPrefix(out, "1750\n711\n") {
		t.Errorf("modes of mounted tmpfs: %q", out)
	}
}

func TestTmpcopyup(t *testing.T) {
	t.Parallel()
	b := newBox(t, mnt("tmpfs", "tmpfs", "/full", "tmpcopyup", "mode=0777"), mnt("tmpfs", "tmpfs", "/ro", "tmpcopyup", "ro"),
		mnt("tmpfs", "tmpfs", "/new", "tmpcopyup"),
		script(`
			cat /full/dir/file /ro/file
			readlink /full/link
			stat -c '%F %a %u:%g' /full/dir /full/dir/file /full/link
			ls /full
			touch /full/more; ls -A /new
			touch /ro/x 2>/dev/null || echo ro
		`))
	b.file("full/dir/file", "copied\n")
	b.file("ro/file", "too\n")
	b.must(os.Symlink("/etc/shadow", b.path("rootfs/full/link")))
	b.must(unix.Mkfifo(b.path("rootfs/full/fifo"), 0o600))
	b.must(os.Chmod(b.path("rootfs/full/dir"), 0o2751))
	b.must(os.Chmod(b.path("rootfs/full/dir"), 0o751|os.ModeSetgid))
	b.must(os.Chown(b.path("rootfs/full/dir/file"), 12, 34))
	b.must(os.Chmod(b.path("rootfs/full/dir/file"), 0o4755|os.ModeSetuid))
	out := b.run()
	want := "copied\ntoo\n/etc/shadow\ndirectory 2751 0:0\nregular file 4755 12:34\nsymbolic link 777 0:0\ndir\nlink\nro\n"
	// Nothing but files, directories and links is copied.
	if out != want {
		t.Errorf("after copying up: %q, expected %q", out, want)
	}
	if _, err := os.Stat(b.path("rootfs/full/more")); err == nil {
		t.Error("what was written to the tmpfs is in the directory below it")
	}
}

// hostMount mounts something on the host, in a private namespace, outside all boxes.
func hostMount(t *testing.T, source, name, fstype string, flags uintptr) string {
	t.Helper()
	p := filepath.Join(work, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, p, fstype, flags, ""); err != nil {
		t.Fatalf("mount %s on %s: %v", fstype, p, err)
	}
	t.Cleanup(func() { unix.Unmount(p, unix.MNT_DETACH) })
	return p
}

// Attributes of bind mounts: those without an r change the top mount alone and
// leave the source as it is, those with one change all below, too.
func TestBindAttributes(t *testing.T) {
	if !privately(t) {
		return
	}
	src := hostMount(t, "top", "src", "tmpfs", unix.MS_NODEV)
	hostMount(t, "sub", "src/sub", "tmpfs", unix.MS_NOEXEC|unix.MS_NOATIME)
	for _, c := range []struct {
		options  []string
		top, sub string
	}{
		{[]string{"rbind"}, "rw nodev !nosuid", "rw noexec noatime !nodev"},
		{[]string{"rbind", "ro"}, "ro nodev", "rw noexec"},
		{[]string{"rbind", "rro"}, "ro nodev", "ro noexec noatime"},
		{[]string{"rbind", "nosuid", "rnoexec"}, "nosuid noexec nodev", "noexec !nosuid"},
		{[]string{"rbind", "rnosuid", "rnodev", "rnosymfollow"}, "nosuid nodev nosymfollow", "nosuid nodev nosymfollow noexec"},
		{[]string{"rbind", "rdev", "rexec"}, "!nodev !noexec", "!nodev !noexec noatime"},
		{[]string{"rbind", "rnoatime"}, "noatime", "noatime"},
		{[]string{"rbind", "rrelatime"}, "relatime !noatime", "relatime !noatime"},
		{[]string{"rbind", "rstrictatime"}, "!relatime !noatime", "!relatime !noatime"},
		{[]string{"rbind", "rstrictatime", "rrelatime"}, "relatime", "relatime"},
		{[]string{"rbind", "rnodiratime"}, "nodiratime", "nodiratime noatime"},
		{[]string{"bind", "dev"}, "!nodev", "absent"},
		{[]string{"bind", "ro", "nodev", "noexec"}, "ro nodev noexec", "absent"},
	} {
		t.Run(strings.Join(c.options, ","), func(t *testing.T) {
			b := newBox(t, mnt("none", src, "/m", c.options...), script(showMounts))
			list := leak.ParseMounts(b.run())
			check(t, "/m", mounted(t, list, "/m").Options, strings.Fields(c.top)...)
			below := slices.IndexFunc(list, func(m leak.Mount) bool { return m.Path == "/m/sub" })
			if (below < 0) != (c.sub == "absent") {
				t.Fatalf("mounts below /m: %v", list)
			}
			if below >= 0 {
				check(t, "/m/sub", list[below].Options, strings.Fields(c.sub)...)
			}
			host := leak.Mounts("/proc/self/mountinfo")
			check(t, "the source", mounted(t, host, src).Options, "rw", "nodev", "!nosuid", "!noexec", "relatime")
			check(t, "the mount below it", mounted(t, host, src+"/sub").Options, "rw", "noexec", "noatime", "!nodev")
		})
	}
}

// Propagation between a bind mount and its source on the host.
func TestBindPropagation(t *testing.T) {
	if !privately(t) {
		return
	}
	src := hostMount(t, "src", "src", "tmpfs", 0)
	if err := unix.Mount("", src, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		option       string
		gives, takes bool // a mount in the container appears on the host, and the other way round
	}{
		{"rshared", true, true},
		{"rslave", false, true},
		{"slave", false, true},
		{"rprivate", false, false},
		{"private", false, false},
		{"", false, true},
	} {
		t.Run(c.option, func(t *testing.T) {
			options := []string{"rbind"}
			if c.option != "" {
				options = append(options, c.option)
			}
			b := newBox(t, mnt("none", src, "/m", options...), func(s *specs.Spec) {
				all := []string{"CAP_SYS_ADMIN"}
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
				s.Linux.RootfsPropagation = map[bool]string{true: "shared", false: ""}[c.gives]
			}, script(`
				mkdir -p /m/in /m/out
				mount -t tmpfs inner /m/in && echo ready >/in-ready
				while [ ! -e /go ]; do sleep 0.01; done
				`+showMounts))
			p := b.begin("run", b.id)
			b.appears("rootfs/in-ready")
			inner := slices.ContainsFunc(leak.Mounts("/proc/self/mountinfo"), func(m leak.Mount) bool { return m.Path == src+"/in" })
			if inner != c.gives {
				t.Errorf("a mount in the container appeared on the host: %v, expected %v", inner, c.gives)
			}
			b.must(unix.Mount("outer", src+"/out", "tmpfs", 0, ""))
			b.file("go", "")
			r := p.end()
			if r.code != 0 {
				t.Error(r)
			}
			outer := slices.ContainsFunc(leak.ParseMounts(r.out), func(m leak.Mount) bool { return m.Path == "/m/out" })
			if outer != c.takes {
				t.Errorf("a mount on the host appeared in the container: %v, expected %v", outer, c.takes)
			}
			unix.Unmount(src+"/out", unix.MNT_DETACH)
			unix.Unmount(src+"/in", unix.MNT_DETACH)
		})
	}
}

func TestManyMounts(t *testing.T) {
	t.Parallel()
	const n = 1000
	b := newBox(t, script("ls -d /many/*/file | wc -l; "+showMounts))
	b.must(os.Mkdir(b.path("src"), 0o755))
	b.must(os.WriteFile(b.path("src/file"), nil, 0o644))
	for i := range n {
		if i%2 == 0 {
			mnt("none", b.path("src"), fmt.Sprintf("/many/%d", i), "bind", "ro")(b.spec)
		} else {
			mnt("tmpfs", "tmpfs", fmt.Sprintf("/many/%d", i), "ro", "size=4k")(b.spec)
		}
	}
	b.write()
	out := b.run()
	if !strings.HasPrefix(out, "500\n") {
		t.Errorf("bind mounts with their file: %.10q", out)
	}
	seen := 0
	for _, m := range leak.ParseMounts(out) {
		if strings.HasPrefix(m.Path, "/many/") && slices.Contains(m.Options, "ro") {
			seen++
		}
	}
	if seen != n {
		t.Errorf("%d of %d mounts are there and read-only", seen, n)
	}
}
