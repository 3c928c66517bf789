package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// nsFiles are the names under /proc/PID/ns of the types of the specification.
var nsFiles = map[specs.LinuxNamespaceType]string{
	"pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts", "user": "user", "cgroup": "cgroup", "time": "time",
}

// kernelHas says whether this kernel has a type of namespace: user-mode Linux has no time
// namespaces.
func kernelHas(kind specs.LinuxNamespaceType) bool {
	_, err := os.Lstat("/proc/self/ns/" + nsFiles[kind])
	return err == nil
}

// namespacesOf reads the links of a directory /proc/PID/ns.
func namespacesOf(t *testing.T, pid any) map[string]string {
	t.Helper()
	links := map[string]string{}
	for kind, f := range nsFiles {
		if !kernelHas(kind) {
			continue
		}
		link, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", pid, f))
		if err != nil {
			t.Fatal(err)
		}
		links[f] = link
	}
	return links
}

// ns is an edit that replaces or adds a namespace.
func ns(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		noNS(kind)(s)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: path})
	}
}

// noNS is an edit that takes a namespace away.
func noNS(kind specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
	}
}

// mapped is an edit that puts the container in a user namespace with root and the users
// up to 65535 mapped to host users from first on.
func mapped(first uint32) func(*specs.Spec) {
	return func(s *specs.Spec) {
		ns("user", "")(s)
		m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
	}
}

// Each type is new when listed, and the caller's when not.
func TestNewNamespaces(t *testing.T) {
	t.Parallel()
	ours := namespacesOf(t, "self")
	all := []specs.LinuxNamespaceType{"pid", "network", "mount", "ipc", "uts", "cgroup", "time"}
	all = slices.DeleteFunc(all, func(kind specs.LinuxNamespaceType) bool { return !kernelHas(kind) })
	for _, kind := range append(all, "none", "all") {
		b := newBox(t, args("sleep", "600"), noNS("cgroup"))
		if kind == "all" {
			ns("cgroup", "")(b.spec)
			if kernelHas("time") {
				ns("time", "")(b.spec)
			}
			mapped(100000)(b.spec)
		} else {
			// The default ones without this one, or with it.
			if slices.ContainsFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind }) {
				if kind == "mount" {
					continue // nomount_test.go
				}
				noNS(kind)(b.spec)
				if kind == "uts" {
					b.spec.Hostname = ""
				}
				if kind == "network" {
					b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Type == "sysfs" || m.Type == "cgroup" })
				}
			} else if kind != "none" {
				ns(kind, "")(b.spec)
			}
		}
		b.write()
		b.launch()
		theirs := namespacesOf(t, b.state().Pid)
		for spec, file := range nsFiles {
			listed := slices.ContainsFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == spec })
			if (theirs[file] != ours[file]) != listed {
				t.Errorf("%s: namespace %s is listed: %v, but is %s, rt's own is %s", kind, spec, listed, theirs[file], ours[file])
			}
		}
		// What joins the container is in all of its namespaces.
		out := b.exec("cd /proc/self/ns; for n in *; do readlink $n; done")
		for _, link := range theirs {
			if !strings.Contains(out, link+"\n") {
				t.Errorf("%s: exec is in %q, the container in %q", kind, out, link)
			}
		}
		b.ok("delete", "--force", b.id)
	}
}

// The container's own network has a loopback that is up, and nothing else.
func TestNewNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("ls /sys/class/net; ip addr show lo"))
	out := b.run()
	if lines := strings.SplitN(out, "\n", 2); strings.TrimSpace(lines[0]) != "lo" && lane != "uml" {
		t.Errorf("interfaces: %q", lines[0])
	}
	if !strings.Contains(out, "LOOPBACK,UP") || !strings.Contains(out, "127.0.0.1/8") {
		t.Errorf("the loopback interface: %s", out)
	}
}

// holder is a process in new namespaces of the types of flags. It keeps them until
// the end of the test.
func holder(t *testing.T, flags uintptr) int {
	t.Helper()
	c := exec.Command("/bin/busybox", "sleep", "600")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
	if flags&unix.CLONE_NEWUSER != 0 {
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 200000, Size: 65536}}
		c.SysProcAttr.GidMappings = c.SysProcAttr.UidMappings
		c.SysProcAttr.GidMappingsEnableSetgroups = true
		c.SysProcAttr.Credential = &syscall.Credential{}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	endOfTest(t, c)
	return c.Process.Pid
}

// endOfTest kills a process at the end of the test, and waits for its end.
func endOfTest(t *testing.T, c *exec.Cmd) {
	t.Cleanup(func() {
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		c.Process.Kill()
		select {
		case <-ended:
		case <-time.After(limit):
			t.Errorf("killed, but not ended after %v\n%s", limit, situation(c.Process.Pid))
		}
	})
}

// Each type is joined by path; the namespace stays what it was.
func TestJoinNamespaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind specs.LinuxNamespaceType
		flag uintptr
	}{
		{"pid", unix.CLONE_NEWPID}, {"network", unix.CLONE_NEWNET}, {"mount", unix.CLONE_NEWNS}, {"ipc", unix.CLONE_NEWIPC},
		{"uts", unix.CLONE_NEWUTS}, {"cgroup", unix.CLONE_NEWCGROUP}, {"user", unix.CLONE_NEWUSER}, {"time", unix.CLONE_NEWTIME},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			t.Parallel()
			if !kernelHas(c.kind) {
				t.Skipf("this kernel has no %s namespaces", c.kind)
			}
			file := nsFiles[c.kind]
			// Bind mounts of namespaces, as ip-netns(8) makes them, work like any path.
			var pid int
			if c.kind == "time" {
				pid = timeHolder(t)
			} else {
				pid = holder(t, c.flag)
			}
			path := fmt.Sprintf("/proc/%d/ns/%s", pid, file)
			b := newBox(t, args("sleep", "600"), ns(c.kind, path))
			if c.kind == "user" {
				// Other namespaces belong to the new one; the mounts come from outside.
				b.must(os.Chown(b.rootfs, 200000, 200000))
			}
			if c.kind == "network" || c.kind == "cgroup" {
				b.spec.Mounts = slices.DeleteFunc(b.spec.Mounts, func(m specs.Mount) bool { return m.Type == "cgroup" })
			}
			b.write()
			if c.kind == "mount" {
				b.shareMounts(pid)
			}
			b.launch()
			want := namespacesOf(t, pid)[file]
			if got := namespacesOf(t, b.state().Pid)[file]; got != want {
				t.Errorf("the container is in %s, expected %s", got, want)
			}
			if got := b.exec("readlink /proc/self/ns/" + file); got != want+"\n" {
				t.Errorf("exec is in %q, expected %s", got, want)
			}
			if c.kind == "user" {
				if got := field(contentsOf(t, fmt.Sprintf("/proc/%d/status", b.state().Pid)), "Uid"); !strings.HasPrefix(got, "200000\t") {
					t.Errorf("the container's root is host user %s", got)
				}
			}
			b.ok("delete", "--force", b.id)
			if got := namespacesOf(t, pid)[file]; got != want {
				t.Errorf("the joined namespace is now %s", got)
			}
		})
	}
}

// shareMounts makes all mounts of a process's mount namespace shared, as systemd has those of
// the host: pivot_root(2) refuses such ones, and what was mounted on them would reach their peers.
func (b *box) shareMounts(pid int) {
	b.t.Helper()
	p := b.command("nsenter", "-t", strconv.Itoa(pid), "-m", "mount", "--make-rshared", "/")
	if r := p.start().end(); r.code != 0 {
		b.t.Fatal(r)
	}
}

// timeHolder is holder for a time namespace, which only the children of who made it enter.
func timeHolder(t *testing.T) int {
	t.Helper()
	c := exec.Command("unshare", "--time", "--fork", "/bin/busybox", "sleep", "601")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	endOfTest(t, c)
	var child int
	eventually(t, func() error {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", c.Process.Pid, c.Process.Pid))
		if err == nil {
			child, err = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		return err
	})
	t.Cleanup(func() { syscall.Kill(child, syscall.SIGKILL) })
	return child
}

// Two containers in one pod: network, ipc, uts and pid of the first.
func TestJoinContainer(t *testing.T) {
	t.Parallel()
	a := newBox(t, args("sleep", "600"), func(s *specs.Spec) { s.Hostname = "pod" })
	a.launch()
	p := "/proc/" + strconv.Itoa(a.state().Pid) + "/ns/"
	b := newBox(t, ns("network", p+"net"), ns("ipc", p+"ipc"), ns("uts", p+"uts"), ns("pid", p+"pid"), func(s *specs.Spec) {
		s.Hostname = ""
	}, script("hostname; ps; sleep 60"))
	b.begin("run", "--detach", b.id).end()
	theirs, ours := namespacesOf(t, a.state().Pid), namespacesOf(t, b.state().Pid)
	for _, f := range []string{"net", "ipc", "uts", "pid"} {
		if theirs[f] != ours[f] {
			t.Errorf("namespace %s is %s in one, %s in the other", f, theirs[f], ours[f])
		}
	}
	if theirs["mnt"] == ours["mnt"] {
		t.Error("they share the mount namespace")
	}
	// KILL reaches all of the second and none of the first.
	b.exec("sleep 61 >/dev/null 2>&1 &")
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	b.ok("delete", b.id)
	if out := a.exec("hostname"); out != "pod\n" {
		t.Errorf("the first container's hostname is %q", out)
	}
}

func TestNamespaceErrors(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	file := b.path("file")
	b.must(os.WriteFile(file, nil, 0o644))
	b.must(unix.Mkfifo(b.path("fifo"), 0o600))
	for _, c := range []struct {
		edit  func(*specs.Spec)
		words []string
	}{
		{ns("network", "/nonexistent"), []string{"/nonexistent", "no such file or directory"}},
		{ns("network", "/proc/self/ns/ipc"), []string{"namespace of another type"}},
		{ns("network", file), []string{"not a namespace"}},
		{ns("network", b.path("fifo")), []string{"not a namespace"}},
		{ns("network", "relative"), []string{"/linux/namespaces/4/path"}},
		{ns("nosuch", ""), []string{"/linux/namespaces/5/type", "nosuch"}},
		{func(s *specs.Spec) { s.Linux.Namespaces = append(s.Linux.Namespaces, s.Linux.Namespaces[0]) }, []string{"/linux/namespaces/5"}},
		{ns("user", ""), []string{"Mappings"}},
		{noNS("uts"), []string{"/hostname"}},
		{func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1}} }, []string{"/linux/timeOffsets"}},
		{func(s *specs.Spec) {
			ns("time", "")(s)
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 1}}
		}, []string{"/linux/timeOffsets/realtime"}},
		{func(s *specs.Spec) {
			mapped(1)(s)
			s.Linux.GIDMappings = nil
		}, []string{"Mappings"}},
		{func(s *specs.Spec) {
			mapped(1)(s)
			s.Linux.UIDMappings = append(slices.Clone(s.Linux.UIDMappings), s.Linux.UIDMappings...)
		}, []string{"uid"}},
	} {
		fresh := newBox(t, noNS("cgroup"), c.edit)
		fresh.refused(c.words, "create", fresh.id)
		fresh.clean()
	}
}

func TestTimeOffsets(t *testing.T) {
	t.Parallel()
	b := newBox(t, ns("time", ""), args("/probe", "time"), func(s *specs.Spec) {
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 100_000, Nanosecs: 5}, "boottime": {Secs: -1, Nanosecs: 1}}
	})
	if !kernelHas("time") {
		b.refused([]string{`/linux/namespaces/`, `/type: "time": this kernel has no namespaces of this type`}, "run", b.id)
		b.clean()
		return
	}
	out := strings.Fields(b.run())
	for i, clock := range []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME} {
		var now unix.Timespec
		b.must(unix.ClockGettime(clock, &now))
		want := now.Sec + []int64{100_000, -1}[i]
		got, _ := strconv.ParseInt(out[i], 10, 64)
		if d := want - got; d < -2 || d > 30 {
			t.Errorf("clock %d shows %d, expected %d", clock, got, want)
		}
	}
	// exec is in the same time.
	b.spec.Process.Args = []string{"sleep", "60"}
	b.write()
	b.launch()
	out = strings.Fields(b.ok("exec", b.id, "/probe", "time"))
	if got, _ := strconv.Atoi(out[0]); got < 100_000 {
		t.Errorf("exec's clock shows %v", out)
	}
}

func TestUserNamespace(t *testing.T) {
	t.Parallel()
	b := newBox(t, mapped(100000), script(`
		cat /proc/self/uid_map /proc/self/gid_map
		cat /proc/self/status
		stat -c '%u:%g %n' / /host /tmp/new /dev/null /dev/pts /dev/shm /proc /nobody
		mkdir /tmp/new && stat -c '%u:%g %n' /tmp/new
		echo x >/dev/null && echo null works
		id -u
	`))
	for name, id := range map[string]int{"host": 100000, "nobody": 0, "": 100000, "tmp": 100000} {
		p := b.path("rootfs/" + name)
		if _, err := os.Stat(p); err != nil {
			b.must(os.WriteFile(p, nil, 0o644))
		}
		b.must(os.Chown(p, id, id))
	}
	c := b.spec.Process.Capabilities
	c.Bounding = append(c.Bounding, "CAP_SYS_ADMIN")
	b.write()
	r := b.rt("run", b.id)
	if r.code != 0 {
		t.Fatal(r)
	}
	for _, want := range []string{
		"         0     100000      65536\n         0     100000      65536\n",
		"Uid:\t0\t0\t0\t0\n", "Gid:\t0\t0\t0\t0\n",
		"0:0 /\n", "0:0 /host\n", "65534:65534 /nobody\n", "0:0 /dev/shm\n", "0:0 /tmp/new\n", "null works\n",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in %s", want, r.out)
		}
	}
	if info, err := os.Stat(b.path("rootfs/tmp/new")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 100000 {
		t.Errorf("what the container's root made: %v %v", info, err)
	}
	// The root file system keeps its owners.
	if info, _ := os.Stat(b.path("rootfs/nobody")); info.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the owner of a file became %d", info.Sys().(*syscall.Stat_t).Uid)
	}
}

// A user namespace with everything that needs the host's privileges: binds of what the
// mapped root cannot reach, devices, sysctl, masked paths, a created mount point.
func TestUserNamespaceMounts(t *testing.T) {
	t.Parallel()
	b := newBox(t, mapped(100000), script(`
		cat /secret; cat /made/secret
		for d in null zero full random urandom tty; do [ -c /dev/$d ] && echo $d; done
		cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname
		wc -c </proc/timer_list
		touch /proc/sys/kernel/x 2>/dev/null || echo sys
		hostname
	`), func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		s.Domainname = "example"
	})
	b.must(os.Mkdir(b.path("private"), 0o700))
	b.must(os.WriteFile(b.path("private/secret"), []byte("shared\n"), 0o644))
	mnt("none", b.path("private/secret"), "/secret", "bind", "ro")(b.spec)
	mnt("none", b.path("private/secret"), "/made/secret", "rbind")(b.spec)
	b.write()
	b.must(os.Chown(b.rootfs, 100000, 100000))
	r := b.rt("run", b.id)
	want := "shared\nshared\nnull\nzero\nfull\nrandom\nurandom\ntty\n1\nexample\n0\nsys\nrt\n"
	if r.code != 0 || r.out != want {
		t.Errorf("%v; expected %q", r, want)
	}
}

// A user that is not mapped is refused, one that is gets its groups.
func TestUserNamespaceIDs(t *testing.T) {
	t.Parallel()
	b := newBox(t, mapped(100000), showStatus, func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7}}
	})
	b.must(os.Chown(b.rootfs, 100000, 100000))
	out := b.run()
	if u, g, l := field(out, "Uid"), field(out, "Gid"), field(out, "Groups"); u != "1000\t1000\t1000\t1000" || g != "1001\t1001\t1001\t1001" || l != "7" {
		t.Errorf("uids %q, gids %q, groups %q", u, g, l)
	}
	for _, user := range []specs.User{{UID: 65536}, {GID: 65536}, {AdditionalGids: []uint32{65536}}} {
		b.spec.Process.User = user
		b.write()
		b.refused([]string{"not mapped"}, "create", b.id)
		b.clean()
	}
}

func TestHostname(t *testing.T) {
	t.Parallel()
	before, _ := os.Hostname()
	b := newBox(t, script("hostname; cat /proc/sys/kernel/domainname"), func(s *specs.Spec) { s.Hostname, s.Domainname = "a.b-c", "example.org" })
	if out := b.run(); out != "a.b-c\nexample.org\n" {
		t.Errorf("names are %q", out)
	}
	b.spec.Hostname, b.spec.Domainname = "", ""
	b.write()
	if out := b.run(); !strings.HasPrefix(out, before+"\n") {
		t.Errorf("without a hostname it is %q", out)
	}
	if after, _ := os.Hostname(); after != before {
		t.Errorf("the host is now called %s", after)
	}
	b.spec.Hostname = strings.Repeat("x", 65)
	b.write()
	b.refused([]string{"/hostname"}, "create", b.id)
}

// The namespaces live as long as somebody is in them: the end of the first
// process ends the pid namespace with all in it.
func TestPidNamespaceEnds(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("sleep 60 & sleep 61 & exit 0"))
	began := time.Now()
	b.run()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("run took %v", took)
	}
	b.clean()
}

// Without a pid namespace of its own, delete ends all processes of the container.
func TestNoPidNamespace(t *testing.T) {
	t.Parallel()
	b := newBox(t, noNS("pid"), script("sleep 60 & sleep 61 & touch /ready; wait"))
	b.must(os.Remove(filepath.Join(b.rootfs, "bin/sleep")))
	b.must(os.Symlink("busybox", filepath.Join(b.rootfs, "bin/sleep")))
	b.reach("running")
	if n := len(b.processes()); n < 3 {
		t.Errorf("running are %v", b.processes())
	}
	// KILL reaches every process (L23).
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	eventually(t, func() error {
		if left := b.processes(); len(left) > 0 {
			return fmt.Errorf("after KILL there are %v", left)
		}
		return nil
	})
	b.ok("delete", b.id)
	b.launch()
	b.exec("sleep 62 >/dev/null 2>&1 & sleep 63 >/dev/null 2>&1 &")
	// TERM reaches the first alone, delete ends the others.
	b.ok("kill", b.id, "TERM")
	b.is("stopped")
	if len(b.processes()) == 0 {
		t.Error("TERM ended the whole container")
	}
	b.ok("delete", b.id)
	b.clean()
	// KILL of a stopped one ends what is left, and is an error when nothing is.
	b.launch()
	b.exec("sleep 62 >/dev/null 2>&1 &")
	b.ok("kill", b.id, "TERM")
	b.is("stopped")
	b.ok("kill", b.id, "KILL")
	eventually(t, func() error {
		if left := b.processes(); len(left) > 0 {
			return fmt.Errorf("after KILL there are %v", left)
		}
		return nil
	})
	b.refused([]string{"container not running"}, "kill", b.id, "KILL")
}
