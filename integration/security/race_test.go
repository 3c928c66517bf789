package security

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"rt/integration/leak"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// met counts what a victim of a race has met: both forms of what is being
// flipped at least 20 times, or the race proves nothing.
type met map[string]int

func (m met) check(t *testing.T, forms ...string) {
	t.Helper()
	t.Logf("met %v", map[string]int(m))
	for _, f := range forms {
		if m[f] < 20 {
			t.Skipf("inconclusive: %q was met %d times, expected 20", f, m[f])
		}
	}
}

// careless shows that a flipped path leads outside now and then: it goes by the path
// from the host, as a runtime must not.
func careless(t *testing.T, path, outside string) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if a, err := os.Stat(path); err == nil {
			if b, err := os.Stat(outside); err == nil && os.SameFile(a, b) {
				return
			}
		}
	}
	t.Fatalf("the careless way never led from %s to %s: the attack does not work", path, outside)
}

// flip lets a container, which shares the volume, exchange two names in it.
func (b *box) flip(volume, one, other string) {
	b.t.Helper()
	a := newBox(b.t, mnt("bind", volume, "/vol", "bind"), args("/attacker", "flip", "/vol/"+one, "/vol/"+other))
	c := a.command("run", a.id).begin()
	b.t.Cleanup(func() {
		a.ok("delete", "--force", a.id)
		c.end()
	})
	eventually(b.t, func() error {
		if !strings.Contains(c.said(), "ready") {
			return fmt.Errorf("the attacker is not ready: %q %q", c.said(), contents(c.err))
		}
		return nil
	})
}

// race runs the box's container until the time is up.
func (b *box) race(each func(r result)) {
	b.t.Helper()
	for end := time.Now().Add(raceTime()); time.Now().Before(end) && !b.t.Failed(); {
		each(b.rt("run", b.id))
	}
}

func TestS07ComponentSwapped(t *testing.T) {
	b := newBox(t, script(showMounts+"; cat /m/marker"))
	vol, source := filepath.Join(b.top, "vol"), filepath.Join(b.top, "source")
	b.must(os.MkdirAll(filepath.Join(vol, "x"), 0o755))
	b.must(os.Mkdir(source, 0o755))
	b.must(os.WriteFile(filepath.Join(source, "marker"), []byte("genuine\n"), 0o644))
	b.must(os.Symlink(b.outside, filepath.Join(vol, "y")))
	b.edit(mnt("bind", vol, "/vol", "bind"), mnt("tmpfs", "attack", "/vol/x"), mnt("bind", source, "/m", "bind"))
	b.flip(vol, "x", "y")
	careless(t, filepath.Join(vol, "x"), b.outside)
	host := mine(b)
	seen := met{}
	b.race(func(r result) {
		if r.code != 0 {
			seen["failed"]++
			if !strings.Contains(r.err, "/mounts/") || r.took > 5*time.Second {
				t.Error(r)
			}
			return
		}
		if !strings.HasSuffix(r.out, "\ngenuine\n") {
			t.Errorf("/m is not what it should be: %v", r)
		}
		for _, m := range leak.ParseMounts(r.out) {
			switch {
			case m.Source != "attack":
			case m.Path == "/vol/x" || m.Path == "/vol/y":
				seen["directory"]++
			case m.Path == b.outside:
				seen["link"]++
			default:
				t.Errorf("mounted on %s", m.Path)
			}
		}
		if now := mine(b); now != host {
			t.Errorf("mounts of the host were %s, are %s", host, now)
		}
	})
	seen.check(t, "directory", "link")
}

// The parent of a mount point that has to be made is exchanged.
func TestS08ParentSwapped(t *testing.T) {
	b := newBox(t, script(showMounts))
	vol := filepath.Join(b.top, "vol")
	b.must(os.MkdirAll(filepath.Join(vol, "x"), 0o755))
	b.must(os.Symlink(b.outside, filepath.Join(vol, "y")))
	b.must(os.MkdirAll(filepath.Join(b.rootfs, b.outside), 0o755))
	b.edit(mnt("bind", vol, "/vol", "bind"), mnt("tmpfs", "attack", "/vol/x/new/deep"), mnt("bind", "/etc/hostname", "/vol/x/file", "bind"))
	b.flip(vol, "x", "y")
	careless(t, filepath.Join(vol, "x"), b.outside)
	seen := met{}
	b.race(func(r result) {
		if r.code != 0 {
			seen["failed"]++
			if !strings.Contains(r.err, "/mounts/") || r.took > 5*time.Second {
				t.Error(r)
			}
		}
		for _, m := range leak.ParseMounts(r.out) {
			if m.Source != "attack" {
				continue
			}
			if strings.HasPrefix(m.Path, "/vol/") {
				seen["directory"]++
			} else {
				seen["link"]++
			}
		}
		// So that they have to be made each time.
		for _, d := range []string{filepath.Join(vol, "x"), filepath.Join(vol, "y"), filepath.Join(b.rootfs, b.outside)} {
			for _, made := range []string{"new/deep", "new", "file"} {
				if info, err := os.Lstat(d); err == nil && info.IsDir() {
					os.Remove(filepath.Join(d, made))
				}
			}
		}
		// The flip may have led these removals outside, where there is nothing of
		// that name unless rt has made it: that is looked at first.
		if entries, err := os.ReadDir(b.outside); err != nil || len(entries) != 1 {
			t.Errorf("outside is %v, %v", entries, err)
		}
	})
	seen.check(t, "directory", "link")
}

// The masks do not depend on what the container has for /dev/null.
func TestS10NullOfContainer(t *testing.T) {
	t.Parallel()
	corePattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func(b *box, p string) error{
		"absent":  func(b *box, p string) error { return nil },
		"file":    func(b *box, p string) error { return os.WriteFile(p, []byte("the container's"), 0o666) },
		"link":    func(b *box, p string) error { return os.Symlink("/proc/sys/kernel/core_pattern", p) },
		"outside": func(b *box, p string) error { return os.Symlink(filepath.Join(b.outside, "secret"), p) },
		"zero":    func(b *box, p string) error { return unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, noMount("/dev"), noMount("/dev/pts"), noMount("/dev/shm"), noMount("/dev/mqueue"))
			dev := filepath.Join(b.dir, "dev")
			b.must(os.Mkdir(dev, 0o755))
			b.must(put(b, filepath.Join(dev, "null")))
			b.edit(mnt("bind", dev, "/dev", "bind"), b.masked)
			b.checkMasks(b.rt("run", b.id))
		})
	}
	if now, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); string(now) != string(corePattern) {
		t.Errorf("the host's core_pattern was %q, now is %q", corePattern, now)
	}
}

// masked is an edit for a container that shows what its masked paths are.
func (b *box) masked(s *specs.Spec) {
	s.Linux.MaskedPaths = []string{"/proc/keys", "/etc/masked", "/etc/masked.d"}
	b.file("etc/masked", "secret\n", 0o666)
	b.file("etc/masked.d/file", "secret\n", 0o666)
	s.Process.Args = []string{"sh", "-c", "for f in /proc/keys /etc/masked; do echo written >$f; stat -c '%F %t:%T' $f; cat $f; done; ls -A /etc/masked.d; touch /etc/masked.d/x; true"}
}

func (b *box) checkMasks(r result) {
	b.t.Helper()
	if want := strings.Repeat("character special file 1:3\n", 2); r.code != 0 || r.out != want || !strings.Contains(r.err, "Read-only") {
		b.t.Errorf("%v; expected %q", r, want)
	}
	if data, _ := os.ReadFile(filepath.Join(b.rootfs, "etc/masked")); string(data) != "secret\n" {
		b.t.Errorf("below the mask is %q", data)
	}
}

func TestS10NullSwapped(t *testing.T) {
	b := newBox(t, noMount("/dev"), noMount("/dev/pts"), noMount("/dev/shm"), noMount("/dev/mqueue"))
	dev := filepath.Join(b.top, "dev")
	b.must(os.Mkdir(dev, 0o755))
	b.must(unix.Mknod(filepath.Join(dev, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	b.must(os.Symlink(filepath.Join(b.outside, "secret"), filepath.Join(dev, "other")))
	b.edit(mnt("bind", dev, "/dev", "bind"), b.masked)
	b.flip(dev, "null", "other")
	careless(t, filepath.Join(dev, "null"), filepath.Join(b.outside, "secret"))
	seen := met{}
	b.race(func(r result) {
		b.checkMasks(r)
		if info, err := os.Lstat(filepath.Join(dev, "null")); err == nil {
			seen[info.Mode().Type().String()]++
		}
	})
	seen.check(t, (os.ModeDevice | os.ModeCharDevice).String(), os.ModeSymlink.String())
}

// A terminal comes from the container's devpts, or not at all.
func TestS11ConsoleLinks(t *testing.T) {
	t.Parallel()
	const pattern = "/proc/sys/kernel/core_pattern"
	before, err := os.ReadFile(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{pattern, "/secret", "../../../../../../secret"} {
		for _, name := range []string{"pts", "console", "ptmx", "pts/ptmx", "pts/0"} {
			t.Run(name+" to "+strings.ReplaceAll(target, "/", "_"), func(t *testing.T) {
				b := newBox(t, noMount("/dev"), noMount("/dev/shm"), noMount("/dev/mqueue"), args("tty"))
				b.spec.Process.Terminal = true
				dev := filepath.Join(b.dir, "dev")
				b.must(os.MkdirAll(filepath.Join(dev, "pts"), 0o755))
				b.must(os.RemoveAll(filepath.Join(dev, name)))
				b.must(os.Symlink(target, filepath.Join(dev, name)))
				b.file("secret", "", 0o644)
				// First without, then with a devpts of its own.
				b.edit(mnt("bind", dev, "/dev", "bind"))
				mounts := b.spec.Mounts
				var without []specs.Mount
				for _, m := range mounts {
					if m.Destination != "/dev/pts" {
						without = append(without, m)
					}
				}
				for _, list := range [][]specs.Mount{without, mounts} {
					b.spec.Mounts = list
					b.edit()
					if r := b.terminal("run"); r.code == 0 && !strings.Contains(r.out, "/dev/pts/0") || r.took > 5*time.Second {
						t.Errorf("%v; expected a refusal or a terminal of its own", r)
					}
				}
				if data, _ := os.ReadFile(filepath.Join(b.rootfs, "secret")); len(data) != 0 {
					t.Errorf("the file that the link means holds %q", data)
				}
			})
		}
	}
	if now, _ := os.ReadFile(pattern); string(now) != string(before) {
		t.Errorf("the host's core_pattern was %q, now is %q", before, now)
	}
}

// A running container covers its devpts.
func TestS11ExecWithHostilePts(t *testing.T) {
	t.Parallel()
	for name, attack := range map[string]string{
		"file over ptmx":   "touch /tmp/f && mount -o bind /tmp/f /dev/pts/ptmx",
		"device over ptmx": "mknod /tmp/n c 5 2; mount -o bind /dev/zero /dev/pts/ptmx",
		"tmpfs over pts":   "mount -t tmpfs x /dev/pts && ln -s /proc/sys/kernel/core_pattern /dev/pts/ptmx",
		"link":             "umount /dev/pts; rm -rf /dev/pts; ln -s /tmp /dev/pts",
		"proc over pts":    "mount -t proc x /dev/pts",
		"file in pts":      "umount /dev/pts; mknod /dev/pts/ptmx c 1 5",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, caps("CAP_SYS_ADMIN", "CAP_MKNOD"), script(attack+"; touch /ready; exec sleep 1000"))
			b.launch()
			eventually(t, func() error {
				_, err := os.Stat(filepath.Join(b.rootfs, "ready"))
				return err
			})
			r := b.terminal("exec")
			if r.code != 255 || !strings.Contains(r.err, "exec failed") || r.took > 5*time.Second {
				t.Errorf("%v; expected a refusal", r)
			}
		})
	}
}

// Sysctls and the OOM score get to where they belong, whatever is mounted over the
// container's proc meanwhile.
func TestS13ProcCovered(t *testing.T) {
	adj := 123
	b := newBox(t, func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_default_ttl": "77"}
		s.Process.OOMScoreAdj = &adj
	}, script("cat /proc/self/oom_score_adj; umount -l /proc 2>/dev/null; true"))
	b.edit(args("/attacker", "status"))
	b.must(unix.Mount(b.top, b.top, "", unix.MS_BIND, ""))
	b.must(unix.Mount("", b.top, "", unix.MS_SHARED, ""))
	t.Cleanup(func() {
		for unix.Unmount(b.top, unix.MNT_DETACH) == nil {
		}
	})
	b.canary = b.look()
	cover := helper(t, "cover", filepath.Join(b.rootfs, "proc"), "sys/net/ipv4/ip_default_ttl", "self/oom_score_adj", "thread-self/oom_score_adj", "1/oom_score_adj")
	seen := met{}
	for end := time.Now().Add(raceTime()); time.Now().Before(end) && !t.Failed(); {
		r := b.rt("create", b.id)
		if r.code != 0 {
			// A mount over the one that rt has just made may be in its way.
			seen["failed"]++
			if !strings.Contains(r.err, "config.json /") {
				t.Error(r)
			}
			continue
		}
		pid := b.state().Pid
		score, _ := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
		ttl := inNetwork(t, pid, "/proc/sys/net/ipv4/ip_default_ttl")
		if strings.TrimSpace(string(score)) != "123" || ttl != "77" {
			t.Errorf("the OOM score is %q, the sysctl %q", score, ttl)
		}
		covered := false
		for _, m := range leak.Mounts(fmt.Sprintf("/proc/%d/mountinfo", pid)) {
			covered = covered || m.Source == "cover"
		}
		seen[fmt.Sprint("covered ", covered)]++
		b.ok("delete", "--force", b.id)
	}
	cover.Process.Kill()
	cover.Wait()
	for unix.Unmount(filepath.Join(b.rootfs, "proc"), unix.MNT_DETACH) == nil {
	}
	if strings.Contains(cover.said(), "caught") {
		t.Errorf("the fake files were written: %s", cover.said())
	}
	unix.Unmount(b.top, unix.MNT_DETACH)
	b.canary = nil
	seen.check(t, "covered false")
}

// inNetwork reads a file as it is seen in the network namespace of a process.
func inNetwork(t *testing.T, pid int, file string) string {
	t.Helper()
	c := newCommand(t, "/bin/cat", file)
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	done := make(chan result)
	go func() {
		// The thread is not given back: it ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: err.Error()}
			return
		}
		c.SysProcAttr = &syscall.SysProcAttr{}
		done <- c.run()
	}()
	return strings.TrimSpace((<-done).out)
}
