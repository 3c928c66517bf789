package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"rt/integration/ground"

	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// user is somebody who is not root, with ids of his own and 65536 subordinate ones. He
// exists only in the mount namespaces of the commands that run as him.
type user struct{ id, sub int }

var users atomic.Int32

func newUser() user {
	n := int(users.Add(1))
	return user{id: 70000 + n, sub: 10_000_000 + n<<16}
}

// reachable is a copy of the runtime that every user may execute.
var reachable = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile(bin)
	if err != nil {
		return "", err
	}
	p := filepath.Join(work, "rt")
	return p, ground.WriteProgram(p, string(data))
})

// become makes all commands of b run as u. He owns the bundle. cgroup is the directory of
// a cgroup that they are put into, "" for that of the test.
func (b *box) become(u user, cgroup string) {
	b.t.Helper()
	var err error
	b.bin, err = reachable()
	b.must(err)
	etc := b.path("etc")
	b.must(os.Mkdir(etc, 0o755))
	text := "set -e\n"
	if cgroup != "" {
		text += "echo 0 >" + cgroup + "/cgroup.procs\n"
	}
	for name, line := range map[string]string{
		"passwd": fmt.Sprintf("u:x:%d:%d::/:/bin/sh\n", u.id, u.id),
		"group":  fmt.Sprintf("u:x:%d:\n", u.id),
		"subuid": fmt.Sprintf("u:%d:65536\n", u.sub),
		"subgid": fmt.Sprintf("u:%d:65536\n", u.sub),
	} {
		b.must(os.WriteFile(filepath.Join(etc, name), []byte(line), 0o644))
		text += fmt.Sprintf("mount --bind %s /etc/%s\n", filepath.Join(etc, name), name)
	}
	text += fmt.Sprintf("exec setpriv --reuid %d --regid %d --clear-groups \"$@\"\n", u.id, u.id)
	b.must(os.WriteFile(b.path("become"), []byte(text), 0o644))
	b.must(filepath.WalkDir(b.dir, func(p string, d fs.DirEntry, err error) error {
		// The programs are links that all containers share.
		if err != nil || d.Type().IsRegular() && strings.HasPrefix(p, b.rootfs) {
			return err
		}
		return os.Lchown(p, u.id, u.id)
	}))
	b.as = []string{"unshare", "--mount", "--propagation", "private", "sh", b.path("become")}
	b.user = &u
}

// processes are those with one of the user's ids.
func (u user) processes() []string {
	var list []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		var st unix.Stat_t
		exe, err := os.Readlink(d + "/exe")
		if err == nil && unix.Stat(d, &st) == nil && (int(st.Uid) == u.id || int(st.Uid) >= u.sub && int(st.Uid) < u.sub+65536) {
			list = append(list, d+" "+exe)
		}
	}
	return list
}

// rootless makes a box of the user u with the configuration of spec --rootless.
func rootless(t *testing.T, u user, edits ...func(*specs.Spec)) *box {
	t.Helper()
	if _, err := os.Stat("/usr/bin/newuidmap"); err != nil {
		t.Fatalf("%v: Debian's package uidmap has it", err)
	}
	b := newBox(t, append([]func(*specs.Spec){func(s *specs.Spec) {
		bundle.Rootless(s, uint32(u.id), uint32(u.id))
		s.Linux.CgroupsPath = ""
	}}, edits...)...)
	b.become(u, "")
	return b
}

// ranges is an edit that maps the user to root and his subordinate ids to those from 1 on.
func ranges(u user) func(*specs.Spec) {
	return func(s *specs.Spec) {
		m := []specs.LinuxIDMapping{
			{ContainerID: 0, HostID: uint32(u.id), Size: 1},
			{ContainerID: 1, HostID: uint32(u.sub), Size: 65535},
		}
		s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
	}
}

// A user without anything but his own id.
func TestRootlessOwnID(t *testing.T) {
	t.Parallel()
	u := newUser()
	b := rootless(t, u, noNS("cgroup"), script("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; hostname; echo x >/tmp/new; cat /proc/self/cgroup"))
	out := b.run()
	mine := fmt.Sprintf("0 %d 1", u.id)
	got := strings.Fields(out)
	if want := strings.Fields("0 0 " + mine + " " + mine + " deny rt"); strings.Join(got[:len(want)], " ") != strings.Join(want, " ") {
		t.Errorf("seen from inside: %q, expected %q first", got, want)
	}
	var st unix.Stat_t
	b.must(unix.Stat(filepath.Join(b.rootfs, "tmp/new"), &st))
	if int(st.Uid) != u.id {
		t.Errorf("what root of the container writes belongs to %d", st.Uid)
	}
	// He may make no cgroup, so the container is in the one of its caller.
	ours, err := os.ReadFile("/proc/self/cgroup")
	b.must(err)
	if !strings.HasSuffix(out, string(ours)) {
		t.Errorf("in cgroups %q, expected those of the caller %q", out, ours)
	}
}

// newuidmap and newgidmap give him the ids that /etc/subuid has for him.
func TestRootlessRanges(t *testing.T) {
	t.Parallel()
	u := newUser()
	b := rootless(t, u, ranges(u), script("id -u; id -g; id -G; cat /proc/self/setgroups; touch /tmp/new"), func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7, 8}}
	})
	b.must(os.Chmod(filepath.Join(b.rootfs, "tmp"), 0o1777))
	if got, want := strings.Join(strings.Fields(b.run()), " "), "5 6 6 7 8 allow"; got != want {
		t.Errorf("seen from inside: %q, expected %q", got, want)
	}
	var st unix.Stat_t
	b.must(unix.Stat(filepath.Join(b.rootfs, "tmp/new"), &st))
	if int(st.Uid) != u.sub+4 || int(st.Gid) != u.sub+5 {
		t.Errorf("owner on the host is %d:%d, expected %d:%d", st.Uid, st.Gid, u.sub+4, u.sub+5)
	}
}

// The programs that map his ids get numbers and nothing else (S37 of the security list). One that
// hangs keeps nobody from ending rt.
func TestS37HelperArguments(t *testing.T) {
	t.Parallel()
	u := newUser()
	b := rootless(t, u, ranges(u), script("id -u"), func(s *specs.Spec) {
		s.Hostname = "$(touch x)"
		s.Process.Env = append(s.Process.Env, "LD_PRELOAD=/x.so")
	})
	tools := b.path("tools")
	b.must(os.Mkdir(tools, 0o755))
	tool := func(text string) {
		for _, name := range []string{"newuidmap", "newgidmap"} {
			b.must(ground.WriteProgram(filepath.Join(tools, name), "#!/bin/sh\n"+text+"\n"))
		}
	}
	log := b.path("calls")
	b.must(os.WriteFile(log, nil, 0o666))
	b.must(os.Chmod(log, 0o666))
	b.as = append(b.as, "env", "PATH="+tools+":/usr/bin:/bin")
	tool(`echo "$0 $* ${LD_PRELOAD-unset}" >>` + log + `; exec /usr/bin/${0##*/} "$@"`)
	if out := b.run(); out != "0\n" {
		t.Errorf("seen from inside: %q", out)
	}
	lines := strings.Split(strings.TrimSpace(b.read("calls")), "\n")
	slices.Sort(lines)
	for i, name := range []string{"newgidmap", "newuidmap"} {
		want := regexp.MustCompile(fmt.Sprintf(`^%s/%s [0-9]+ 0 %d 1 1 %d 65535 unset$`, tools, name, u.id, u.sub))
		if len(lines) != 2 || !want.MatchString(lines[i]) {
			t.Errorf("calls %q, expected %v", lines, want)
		}
	}
	b.clean()
	tool("echo hangs >>" + log + "; exec sleep 1000")
	p := b.begin("create", b.id)
	eventually(t, func() error {
		if !strings.Contains(b.read("calls"), "hangs") {
			return errors.New("no tool has been called")
		}
		return nil
	})
	p.signal(syscall.SIGTERM)
	if r := p.end(); r.code != 128+int(syscall.SIGTERM) || !strings.Contains(r.err, "interrupted by signal 15") {
		t.Error(r)
	}
	b.clean()
}

// All commands work for him.
func TestRootlessLife(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		edit func(user) func(*specs.Spec)
	}{
		{"own id", func(user) func(*specs.Spec) { return func(*specs.Spec) {} }},
		{"ranges", ranges},
		// Root of the container is somebody that the caller is not.
		{"subordinate root", func(u user) func(*specs.Spec) {
			return func(s *specs.Spec) {
				m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(u.sub), Size: 1000}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUser()
			b := rootless(t, u, c.edit(u), script("trap 'exit 7' TERM; while :; do sleep 0.1; done"))
			b.ok("create", "--pid-file", b.path("pid"), b.id)
			b.is("created")
			if got := b.read("pid"); got != strconv.Itoa(b.state().Pid) {
				t.Errorf("pid file %q", got)
			}
			b.rt("exec", b.id, "true").refused(255, "cannot exec", "start it first")
			if out, want := b.ok("ps", "--format", "json", b.id), fmt.Sprintf("[%d]\n", b.state().Pid); out != want {
				t.Errorf("ps: %q, expected %q", out, want)
			}
			b.ok("start", b.id)
			b.is("running")
			out := b.exec("id -u; id -g; for n in pid mnt ipc uts user cgroup; do readlink /proc/self/ns/$n; done")
			if !strings.HasPrefix(out, "0\n0\n") {
				t.Errorf("exec as %q", out)
			}
			for _, n := range []string{"pid", "mnt", "ipc", "uts", "user"} {
				if ours := nsLink(t, b.state().Pid, n); !strings.Contains(out, ours+"\n") {
					t.Errorf("exec is in %q, expected %s", out, ours)
				}
			}
			if out := b.ok("list"); !strings.Contains(out, b.id) || !strings.Contains(out, "running") {
				t.Errorf("list: %s", out)
			}
			if out := b.ok("ps", "--format", "json", b.id); !strings.Contains(out, strconv.Itoa(b.state().Pid)) {
				t.Errorf("ps: %s lacks %d", out, b.state().Pid)
			}
			b.refused([]string{"no cgroup"}, "pause", b.id)
			b.refused([]string{"cannot delete container", "not stopped"}, "delete", b.id)
			b.ok("kill", b.id, "TERM")
			b.is("stopped")
			b.ok("delete", b.id)
			b.launch()
			b.ok("kill", b.id, "KILL")
			b.is("stopped")
			b.ok("delete", b.id)
			b.launch() // for delete --force to end
		})
	}
}

func nsLink(t *testing.T, pid int, name string) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// What no file permission lets a mapped root reach is bound all the same, if the
// caller can reach it.
func TestRootlessHiddenSource(t *testing.T) {
	t.Parallel()
	u := newUser()
	b := rootless(t, u, script("cat /tmp/f"), func(s *specs.Spec) {
		m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(u.sub), Size: 1000}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
	})
	b.must(os.MkdirAll(b.path("hidden/open"), 0o755))
	b.must(os.WriteFile(b.path("hidden/open/f"), []byte("seen"), 0o644))
	b.must(os.Chmod(b.path("hidden"), 0o700))
	b.must(os.Chown(b.path("hidden"), u.id, u.id))
	mnt("bind", b.path("hidden/open"), "/tmp", "rbind", "ro")(b.spec)
	b.write()
	if out := b.run(); out != "seen" {
		t.Errorf("read %q", out)
	}
}

func TestRootlessJoins(t *testing.T) {
	t.Parallel()
	u := newUser()
	first := rootless(t, u, args("sleep", "600"))
	first.launch()
	pid := first.state().Pid
	second := rootless(t, u, script("readlink /proc/self/ns/user; readlink /proc/self/ns/ipc; id -u"), func(s *specs.Spec) {
		s.Linux.UIDMappings, s.Linux.GIDMappings = nil, nil
		ns("user", fmt.Sprintf("/proc/%d/ns/user", pid))(s)
		ns("ipc", fmt.Sprintf("/proc/%d/ns/ipc", pid))(s)
	})
	second.user = nil // whose processes are not all of this container
	if got, want := second.run(), nsLink(t, pid, "user")+"\n"+nsLink(t, pid, "ipc")+"\n0\n"; got != want {
		t.Errorf("in %q, expected %q", got, want)
	}
}

// Without --root the state is in $XDG_RUNTIME_DIR/rt.
func TestRootlessDefaultRoot(t *testing.T) {
	t.Parallel()
	b := rootless(t, newUser(), args("sleep", "600"))
	b.env = []string{"XDG_RUNTIME_DIR=" + b.root}
	if r := b.command(b.bin, "create", b.id).start().end(); r.code != 0 {
		t.Fatal(r)
	}
	if _, err := os.Stat(filepath.Join(b.root, "rt", b.id, "state.json")); err != nil {
		t.Error(err)
	}
	if r := b.command(b.bin, "delete", "--force", b.id).start().end(); r.code != 0 || r.err != "" {
		t.Error(r)
	}
	b.must(os.RemoveAll(filepath.Join(b.root, "rt")))
}

func TestRootlessTimeNamespace(t *testing.T) {
	t.Parallel()
	if lane == "uml" {
		t.Skip("user-mode Linux has no time namespaces")
	}
	u := newUser()
	b := rootless(t, u, args("/probe", "time"), ranges(u), ns("time", ""), func(s *specs.Spec) {
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1_000_000_000}}
	})
	if n, err := strconv.Atoi(strings.Fields(b.run())[0]); err != nil || n < 1_000_000_000 {
		t.Errorf("monotonic clock is at %d, %v", n, err)
	}
}

// Root of a user namespace only, as rootless engines run rt.
func TestNestedRoot(t *testing.T) {
	t.Parallel()
	u := newUser()
	b := newBox(t, script("id -u; echo x >/dev/null; cat /dev/zero | head -c 3 | wc -c"), func(s *specs.Spec) {
		s.Linux.CgroupsPath = ""
		for i := range s.Mounts {
			s.Mounts[i].Options = deleteOption(s.Mounts[i].Options, "gid=5")
		}
	})
	b.become(u, "")
	b.as = append(b.as, "unshare", "--user", "--map-root-user", "--mount")
	if got := strings.Join(strings.Fields(b.run()), " "); got != "0 3" {
		t.Errorf("seen from inside: %q", got)
	}
	// exec has to come from the same user namespace as create.
	b.spec.Process.Args = []string{"sleep", "60"}
	b.write()
	b.as = append(b.as, "sh", "-c", `"$@" && `+b.bin+` --root `+b.root+` exec `+b.id+` id -u`, "sh")
	if r := b.command(b.bin, "--root", b.root, "run", "-d", b.id).start().end(); r.code != 0 || r.out != "0\n" {
		t.Error(r)
	}
	b.as = b.as[:len(b.as)-8] // the owner of its user namespace
}

func deleteOption(options []string, o string) []string {
	var l []string
	for _, s := range options {
		if s != o {
			l = append(l, s)
		}
	}
	return l
}

// Where a subtree is delegated to him the container gets its cgroup in it.
func TestRootlessDelegated(t *testing.T) {
	t.Parallel()
	if !v2 {
		t.Skip("delegation to users is a matter of cgroup v2")
	}
	u := newUser()
	deleg, own := delegate(t, u, filepath.Join(cgroup[0], top))
	b := newBox(t, args("sleep", "600"), func(s *specs.Spec) {
		bundle.Rootless(s, uint32(u.id), uint32(u.id))
		s.Linux.CgroupsPath = ""
		if lane == "uml" {
			n := int64(7)
			s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}
		}
	})
	if lane == "uml" {
		// As systemd does for what it delegates.
		for _, p := range []string{filepath.Dir(filepath.Dir(deleg)), filepath.Dir(deleg)} {
			if err := os.WriteFile(p+"/cgroup.subtree_control", []byte("+pids"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.become(u, own)
	b.launch()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.state().Pid))
	b.must(err)
	if !strings.HasSuffix(strings.TrimSpace(string(data)), filepath.Join("/", filepath.Base(deleg), b.id)) {
		t.Errorf("in cgroup %q", data)
	}
	if lane == "uml" {
		max, err := os.ReadFile(filepath.Join(deleg, b.id, "pids.max"))
		if err != nil || string(max) != "7\n" {
			t.Errorf("pids.max %q, %v", max, err)
		}
		if r := b.program("sh", "-c", "for i in 1 2 3 4 5 6 7; do sleep 9 & done 2>/dev/null; echo never"); r.code == 0 || r.out != "" {
			t.Errorf("%v: eight processes and the first under a limit of 7", r)
		}
	}
	b.ok("pause", b.id)
	b.is("paused")
	b.ok("resume", b.id)
	b.exec("true")
	b.ok("delete", "--force", b.id)
	if _, err := os.Stat(filepath.Join(deleg, b.id)); err == nil {
		t.Error("left: the cgroup")
	}
}

// delegate makes a cgroup below the directory above and one below that, in which the user
// runs, and gives both to him.
func delegate(t *testing.T, u user, above string) (deleg, own string) {
	t.Helper()
	deleg = filepath.Join(above, fmt.Sprintf("deleg%d", u.id))
	own = filepath.Join(deleg, "own")
	t.Cleanup(func() { os.Remove(own); os.Remove(deleg) })
	for _, d := range []string{deleg, own} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{deleg, deleg + "/cgroup.procs", deleg + "/cgroup.subtree_control", deleg + "/cgroup.threads", own, own + "/cgroup.procs"} {
		if err := os.Chown(p, u.id, u.id); err != nil {
			t.Fatal(err)
		}
	}
	return deleg, own
}

// A controller that is not delegated to him is one that the container cannot be limited by.
// Where the limit is not asked for nothing is missed.
func TestRootlessNotDelegated(t *testing.T) {
	t.Parallel()
	if !v2 {
		t.Skip("delegation to users is a matter of cgroup v2")
	}
	u := newUser()
	bare := filepath.Join(cgroup[0], top, fmt.Sprintf("bare%d", u.id)) // shares nothing out
	t.Cleanup(func() { os.Remove(bare) })
	if err := os.Mkdir(bare, 0o755); err != nil {
		t.Fatal(err)
	}
	deleg, own := delegate(t, u, bare)
	b := newBox(t, args("cat", "/proc/self/cgroup"), func(s *specs.Spec) {
		bundle.Rootless(s, uint32(u.id), uint32(u.id))
		s.Linux.CgroupsPath = ""
		s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: to(int64(7))}}
	})
	b.become(u, own)
	for _, command := range []string{"create", "run"} {
		b.refused([]string{"/linux/resources/pids/limit", "controller pids is not in"}, command, b.id)
		if left, err := filepath.Glob(deleg + "/*/cgroup.procs"); err != nil || len(left) != 1 {
			t.Errorf("left: cgroups %v, %v", left, err)
		}
		b.clean()
	}
	b.spec.Linux.Resources = nil
	b.write()
	if out := b.run(); !strings.Contains(out, "/"+b.id+"\n") && !strings.Contains(out, "0::/\n") {
		t.Errorf("the container is in %q", out)
	}
}

func TestRootlessRefused(t *testing.T) {
	t.Parallel()
	limit := int64(5)
	one := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1}}
	for _, c := range []struct {
		name  string
		edit  func(*specs.Spec)
		env   string
		words []string
	}{
		{"no user namespace", noNS("user"), "", []string{"/linux/namespaces", "rootless container requires user namespaces"}},
		{"no mapping", func(s *specs.Spec) { s.Linux.UIDMappings = nil }, "", []string{"/linux/uidMappings", "must be specified"}},
		{"the id of another", func(s *specs.Spec) { s.Linux.UIDMappings = one }, "", []string{"/linux/uidMappings", "newuidmap", "not allowed"}},
		{"the group of another", func(s *specs.Spec) { s.Linux.GIDMappings = one }, "", []string{"/linux/gidMappings", "newgidmap", "not allowed"}},
		{"no newuidmap", func(s *specs.Spec) {
			s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: 1, HostID: 1, Size: 1})
		},
			"PATH=/nowhere", []string{"/linux/uidMappings", "newuidmap is needed", "accepted without it"}},
		{"overlap", func(s *specs.Spec) { s.Linux.UIDMappings = append(s.Linux.UIDMappings, s.Linux.UIDMappings...) }, "", []string{"/linux/uidMappings/1", "overlaps entry 0"}},
		{"too many", func(s *specs.Spec) {
			s.Linux.UIDMappings = nil
			for i := range uint32(341) {
				s.Linux.UIDMappings = append(s.Linux.UIDMappings, specs.LinuxIDMapping{ContainerID: i, HostID: i, Size: 1})
			}
		}, "", []string{"/linux/uidMappings", "up to 340"}},
		{"groups", func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{0} }, "", []string{"/process/user/additionalGids", "setgroups"}},
		{"limit", func(s *specs.Spec) { s.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}} }, "",
			[]string{"/linux/resources", "permission denied"}},
		{"cgroup by name", func(s *specs.Spec) { s.Linux.CgroupsPath = "/nobody" }, "", []string{"/linux/cgroupsPath", `"/nobody"`, "permission denied"}},
		{"unmapped mount option", mnt("devpts", "devpts", "/dev/pts", "gid=5"), "", []string{"/mounts/7/options/0", "gid=5", "unmapped gid"}},
		{"mapped mount", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Source: "/", Destination: "/tmp", Options: []string{"rbind", "idmap"}})
		}, "", []string{"/mounts/7", "needs root"}},
	} {
		b := rootless(t, newUser(), c.edit)
		if c.env != "" {
			b.env = []string{c.env}
		}
		if c.env != "" {
			b.as = append(b.as, "env", c.env)
			b.env = nil
		}
		r := b.rt("create", b.id)
		if r.code != 1 {
			t.Errorf("%s: accepted: %v", c.name, r)
		} else {
			r.refused(1, c.words...)
		}
		b.clean()
	}
}

// With --rootless=false nothing is passed over.
func TestRootlessFalse(t *testing.T) {
	t.Parallel()
	b := rootless(t, newUser())
	b.refused([]string{"create cgroup", "permission denied"}, "--rootless=false", "create", b.id)
}
