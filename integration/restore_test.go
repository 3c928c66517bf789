package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rt/integration/ground"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// restores makes the container, a counter, from the images.
func (b *box) restores(args ...string) *numbers {
	b.t.Helper()
	p, n := b.piped(slices.Concat([]string{"restore", "-d", "--image-path", b.path("images")}, args, []string{b.id})...)
	if r := p.end(); r.code != 0 || r.err != "" {
		b.t.Fatalf("%v\n%s", r, b.errorsIn("images/restore.log"))
	}
	return n
}

// A container goes on where it was when it was written, with all that its config gives it, and under
// another id as well.
func TestRestoreGoesOn(t *testing.T) {
	t.Parallel()
	volume := func(b *box) string { return b.path("volume") }
	for name, c := range map[string]struct {
		edits []func(*specs.Spec)
		mount func(b *box) []specs.Mount
		see   string // what exec prints after the restore
	}{
		"default":             {see: "counted"},
		"readonly":            {edits: []func(*specs.Spec){func(s *specs.Spec) { s.Root.Readonly = true }}, see: "counted"},
		"host network":        {edits: []func(*specs.Spec){noNS("network")}, see: "counted"},
		"cgroup namespace":    {edits: []func(*specs.Spec){ns("cgroup", "")}, see: "counted"},
		"no cgroup namespace": {edits: []func(*specs.Spec){noNS("cgroup")}, see: "counted"},
		"confined": {
			edits: []func(*specs.Spec){
				profile(rule(specs.ActErrno, "getpriority")),
				func(s *specs.Spec) {
					s.Process.NoNewPrivileges = true
					if lane == "vm" { // CRIU reads the limits of another user's processes with CAP_SYS_RESOURCE only
						s.Process.User.UID = 1000
					}
					s.Process.Capabilities = &specs.LinuxCapabilities{}
				},
			},
			see: "CapEff:0000000000000000 NoNewPrivs:1 Seccomp:2",
		},
		// Elsewhere CRIU may not look at another user's processes, see below.
		"user namespace": {edits: []func(*specs.Spec){mapped(map[bool]uint32{true: 100000}[lane == "vm"])}, see: "counted"},
		"limits": {
			edits: []func(*specs.Spec){func(s *specs.Spec) {
				pids := int64(123)
				s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}
			}},
			see: "counted",
		},
		"volumes": {
			mount: func(b *box) []specs.Mount {
				b.must(os.MkdirAll(volume(b)+"/dir/below", 0o755))
				b.must(os.WriteFile(volume(b)+"/dir/file", []byte("of the host\n"), 0o644))
				b.must(os.WriteFile(volume(b)+"/one", []byte("one file\n"), 0o644))
				return []specs.Mount{
					{Destination: "/data/volume", Source: volume(b) + "/dir", Options: []string{"rbind", "ro"}},
					{Destination: "/twice", Source: volume(b) + "/dir", Options: []string{"bind"}},
					{Destination: "/twice", Source: volume(b) + "/dir/below", Options: []string{"bind"}},
					{Destination: "/etc/one", Source: volume(b) + "/one", Options: []string{"bind"}},
					{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs"},
					{Destination: "/scratch/nested", Source: volume(b) + "/dir", Options: []string{"bind"}},
				}
			},
			see: "of the host one file of the host kept",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "limits" {
				needs(t, "pids")
			}
			b := newBox(t, append(c.edits, script("[ ! -d /scratch ] || echo kept >/scratch/own; "+counter))...)
			b.needCRIU()
			if c.mount != nil {
				b.spec.Mounts = append(b.spec.Mounts, c.mount(b)...)
				b.write()
			}
			n := b.counts()
			if r := b.rt("checkpoint", "--image-path", b.path("images"), b.id); r.code != 0 || r.out != "" || r.err != "" {
				t.Fatalf("%v\n%s", r, b.errorsIn("images/dump.log"))
			}
			b.clean()
			last := n.last()
			// Another root file system, as engines give it: without the mount points.
			if !b.spec.Root.Readonly {
				b.must(os.RemoveAll(b.rootfs))
				b.must(makeRootfs(b.rootfs))
			}
			first := b.id
			b.id += "again"
			b.spec.Linux.CgroupsPath = "/" + top + "/" + b.id
			b.write()
			n = b.restores("--pid-file", b.path("pid"))
			if i := n.next(); i <= last || i > last+20 {
				t.Errorf("it goes on with %d after %d", i, last)
			}
			s := b.state()
			if s.Status != "running" || b.read("pid") != strconv.Itoa(s.Pid) {
				t.Errorf("state %+v, pid file %q", s, b.read("pid"))
			}
			for _, line := range strings.Split(cgroupsOf(t, s.Pid), "\n") {
				if strings.Contains(line, first) && !strings.Contains(line, b.id) {
					t.Errorf("it is in the cgroup %q of the first", line)
				}
			}
			see := "echo counted"
			switch name {
			case "confined":
				see = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/1/status | tr -d ' \t'"
			case "volumes":
				see = "cat /data/volume/file /etc/one /scratch/nested/file /scratch/own; ! touch /data/volume/new 2>/dev/null"
			case "limits":
				see = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null | grep 123 >/dev/null && echo counted"
			}
			if got := strings.Join(strings.Fields(b.exec(see)), " "); got != c.see {
				t.Errorf("it sees %q, expected %q", got, c.see)
			}
			b.ok("pause", b.id)
			b.is("paused")
			b.ok("resume", b.id)
			b.ok("kill", b.id, "KILL")
			b.is("stopped")
			b.ok("delete", b.id)
			b.clean()
		})
	}
}

func cgroupsOf(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Images of a pre-dump hold the memory that has not changed since.
func TestRestoreFromPreDump(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(counter))
	b.needCRIU()
	n := b.counts()
	if out, err := exec.Command(ground.NeedCRIU(t, "lanes")+"/criu", "check", "--feature", "mem_dirty_track").CombinedOutput(); err != nil {
		b.refused([]string{"criu failed: type PRE_DUMP"}, "checkpoint", "--pre-dump", "--image-path", b.path("before"), b.id)
		b.is("running")
		n.next()
		t.Skipf("this kernel does not track what memory changes: %s", out)
	}
	b.ok("checkpoint", "--pre-dump", "--image-path", b.path("before"), b.id)
	b.is("running")
	n.next()
	b.checkpoint("--parent-path", "../before")
	last := n.last()
	if target, err := os.Readlink(b.path("images/parent")); err != nil || target != "../before" {
		t.Errorf("the parent of the images is %q: %v", target, err)
	}
	n = b.restores()
	if i := n.next(); i <= last {
		t.Errorf("it goes on with %d after %d", i, last)
	}
}

// The profile of the images has to be that of the config, or the one that the caller names.
func TestRestoreAppArmor(t *testing.T) {
	t.Parallel()
	needAppArmor(t)
	loadProfile(t, "rt-test-restore")
	loadProfile(t, "rt-test-restore-other")
	b := newBox(t, script(counter), func(s *specs.Spec) { s.Process.ApparmorProfile = "rt-test-restore" })
	b.needCRIU()
	restore := func(args ...string) result {
		t.Helper()
		p, n := b.piped(slices.Concat([]string{"restore", "-d", "--image-path", b.path("images")}, args, []string{b.id})...)
		r := p.end()
		if r.code == 0 {
			n.next()
		}
		return r
	}
	b.counts()
	b.checkpoint()
	for _, profile := range []string{"rt-test-restore", "rt-test-restore-other"} {
		b.spec.Process.ApparmorProfile = profile
		b.write()
		var args []string
		if profile != "rt-test-restore" {
			if r := restore(); r.code != 1 || !strings.Contains(r.err, "/process/apparmorProfile") {
				t.Errorf("%v; expected it to refuse another profile", r)
			}
			b.clean()
			args = []string{"--lsm-profile", "apparmor:" + profile}
		}
		if r := restore(args...); r.code != 0 || r.err != "" {
			t.Fatalf("%v\n%s", r, b.errorsIn("images/restore.log"))
		}
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", b.state().Pid))
		if err != nil || string(data) != profile+" (enforce)\n" {
			t.Errorf("it is confined by %q, expected %s (%v)", data, profile, err)
		}
		b.ok("delete", "--force", b.id)
	}
}

// With the systemd driver it comes back as a unit.
func testUnitRestore(t *testing.T) {
	u := newUnitBox(t, script(counter), func(s *specs.Spec) {
		limit := int64(77)
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
	})
	u.needCRIU()
	p, n := u.piped("--systemd-cgroup", "run", "-d", u.id)
	p.end()
	n.next()
	u.ok("--systemd-cgroup", "checkpoint", "--image-path", u.box.path("images"), u.id)
	if err := u.gone(); err != nil {
		t.Error(err)
	}
	last := n.last()
	p, n = u.piped("--systemd-cgroup", "restore", "-d", "--image-path", u.box.path("images"), u.id)
	if r := p.end(); r.code != 0 || r.err != "" {
		t.Fatalf("%v\n%s", r, u.errorsIn("images/restore.log"))
	}
	if i := n.next(); i <= last {
		t.Errorf("it goes on with %d after %d", i, last)
	}
	u.shows(map[string]string{"ActiveState": "active", "TasksMax": "77"})
	if where := cgroupsOf(t, u.state().Pid); !strings.Contains(where, u.path) {
		t.Errorf("it is in %s, expected %s", where, u.path)
	}
	u.ok("delete", "--force", u.id)
}

// A zombie is not in the way: it never runs again.
func TestRestoreZombie(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("exec </dev/null >/dev/null 2>&1; sleep 0.2 & exec sleep 1000"))
	b.needCRIU()
	b.ok("run", "-d", b.id)
	zombie := func() error {
		if out := b.exec("cat /proc/[0-9]*/stat"); !strings.Contains(out, ") Z ") {
			return fmt.Errorf("there is no zombie: %s", out)
		}
		return nil
	}
	eventually(t, zombie)
	b.checkpoint()
	b.ok("restore", "-d", "--image-path", b.path("images"), b.id)
	eventually(t, zombie)
}

// A mount below a recursive bind comes back with it.
func TestRestoreRecursiveBind(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(counter))
	b.needCRIU()
	below := b.path("volume/below")
	b.must(os.MkdirAll(below, 0o755))
	b.must(unix.Mount("tmpfs", below, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(below, unix.MNT_DETACH) })
	b.must(os.WriteFile(below+"/file", []byte("below\n"), 0o644))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/volume", Source: b.path("volume"), Options: []string{"rbind"}})
	b.write()
	b.counts()
	b.checkpoint()
	n := b.restores()
	n.next()
	if got := b.exec("cat /volume/below/file"); got != "below\n" {
		t.Errorf("it sees %q", got)
	}
}

// In the foreground restore is run: it passes signals on, ends with the program's status, and deletes.
func TestRestoreForeground(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("trap '/probe key add late; /probe key find late; exit 7' TERM; "+counter))
	b.needCRIU()
	n := b.counts()
	b.checkpoint()
	last := n.last()
	p, n := b.piped("restore", "--image-path", b.path("images"), b.id)
	if i := n.next(); i <= last {
		t.Errorf("it goes on with %d after %d", i, last)
	}
	p.signal(unix.SIGTERM)
	if r := p.end(); r.code != 7 || r.err != "" {
		t.Errorf("%v; expected status 7", r)
	}
	// As with create the session keyring is not that of rt's caller.
	if n.last(); n.text != "secret _ses."+b.id {
		t.Errorf("the key was in another keyring: %q", n.text)
	}
	b.clean()
}

// The terminal of the container is given out anew, to a console socket or to the caller's terminal.
func TestRestoreTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(s *specs.Spec) { s.Process.Terminal = true }, script("echo ready; while read line; do echo \"you said $line\"; done"))
	b.needCRIU()
	receive := func(args ...string) *os.File {
		t.Helper()
		path := b.path("console")
		os.Remove(path)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		b.must(err)
		defer l.Close()
		p := b.begin(slices.Concat(args, []string{"--console-socket", path, b.id})...)
		l.SetDeadline(time.Now().Add(limit / 2))
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatalf("%v: %v\n%s", err, p.end(), b.errorsIn("images/restore.log"))
		}
		defer conn.Close()
		oob := make([]byte, 64)
		conn.SetDeadline(time.Now().Add(limit / 2))
		_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 256), oob)
		if err != nil {
			t.Fatalf("%v: %v\n%s", err, p.end(), b.errorsIn("images/restore.log"))
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		b.must(err)
		fds, err := unix.ParseUnixRights(&messages[0])
		b.must(err)
		if r := p.end(); r.code != 0 || r.err != "" {
			t.Fatalf("%v\n%s", r, b.errorsIn("images/restore.log"))
		}
		b.must(unix.SetNonblock(fds[0], true))
		return os.NewFile(uintptr(fds[0]), "ptmx")
	}
	says := func(ptmx *os.File, what string) {
		t.Helper()
		ptmx.SetReadDeadline(time.Now().Add(limit / 2))
		var said []byte
		buf := make([]byte, 256)
		for !strings.Contains(string(said), what) {
			n, err := ptmx.Read(buf)
			if said = append(said, buf[:n]...); err != nil {
				t.Fatalf("%v after %q, expected %q", err, said, what)
			}
		}
	}
	ptmx := receive("run", "-d")
	says(ptmx, "ready")
	b.checkpoint()
	ptmx.Close()
	ptmx = receive("restore", "-d", "--image-path", b.path("images"))
	ptmx.WriteString("hello\n")
	says(ptmx, "you said hello")
	b.ok("exec", b.id, "test", "-c", "/dev/console")
	b.checkpoint()
	ptmx.Close()
	term, p := b.onTerminal("restore", "--image-path", b.path("images"), b.id)
	eventually(t, func() error {
		term.ptmx.WriteString("again\n")
		if !strings.Contains(term.said(), "you said again") {
			return errors.New("the terminal shows " + strconv.Quote(term.said()) + b.errorsIn("images/restore.log"))
		}
		return nil
	})
	b.ok("kill", b.id, "KILL")
	if r := p.end(); r.code != 128+9 {
		t.Error(r)
	}
}

// A network namespace that the config names is not written but joined again; its content is its owner's.
func TestRestoreJoinsNetwork(t *testing.T) {
	t.Parallel()
	owner := newBox(t, args("sleep", "1000"))
	owner.launch()
	net := fmt.Sprintf("/proc/%d/ns/net", owner.state().Pid)
	b := newBox(t, noNS("network"), ns("network", net), script(counter))
	b.needCRIU()
	b.counts()
	b.checkpoint()
	n := b.restores()
	n.next()
	want, err := os.Readlink(net)
	b.must(err)
	if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", b.state().Pid)); err != nil || got != want {
		t.Errorf("it is in %s, expected %s (%v)", got, want, err)
	}
}

// Restore runs the hooks prestart and createRuntime, with the real pid, and not those that belong to a start; the
// failure of one undoes all. Checkpoint ends with poststop.
func TestRestoreHooks(t *testing.T) {
	t.Parallel()
	log := func(b *box, kind string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/busybox", Args: []string{"sh", "-c", "(printf '" + kind + " '; cat; echo) >>" + b.path("hooks.log")}}}
	}
	b := newBox(t, script(counter))
	b.needCRIU()
	b.spec.Hooks = &specs.Hooks{
		Prestart: log(b, "prestart"), CreateRuntime: log(b, "createRuntime"), Poststart: log(b, "poststart"), Poststop: log(b, "poststop"), //nolint:staticcheck // prestart is deprecated, not gone
	}
	b.write()
	kinds := func() string {
		t.Helper()
		var list []string
		for line := range strings.Lines(b.read("hooks.log")) {
			list = append(list, strings.Fields(line)[0])
		}
		b.must(os.Remove(b.path("hooks.log")))
		return strings.Join(list, " ")
	}
	b.counts()
	b.checkpoint()
	if got := kinds(); got != "prestart createRuntime poststart poststop" {
		t.Errorf("run and checkpoint ran %s", got)
	}
	b.restores().next()
	if want := fmt.Sprintf(`"pid":%d`, b.state().Pid); strings.Count(strings.ReplaceAll(b.read("hooks.log"), " ", ""), want) != 2 {
		t.Errorf("the hooks read %s, expected %s in both", b.read("hooks.log"), want)
	}
	if got := kinds(); got != "prestart createRuntime" {
		t.Errorf("restore ran %s", got)
	}
	b.ok("delete", "--force", b.id)
	kinds()
	b.spec.Hooks.CreateRuntime = []specs.Hook{{Path: "/bin/false"}}
	b.write()
	p, _ := b.piped("restore", "-d", "--image-path", b.path("images"), b.id)
	if r := p.end(); r.code != 1 || !strings.Contains(r.err, "createRuntime") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("%v; expected the hook's failure", r)
	}
	b.clean()
}
