package security

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"rt/integration/ground"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Names of cgroups and of their files lead nowhere else.
func TestS27CgroupNames(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"/../x", "a/../../x", "/..", "../" + top + "/x", "/" + top + "/../../x", "/" + top + "/a\nb", "/" + top + "/a\x00b"} {
		b := newBox(t, func(s *specs.Spec) { s.Linux.CgroupsPath = p })
		before := cgroupTops()
		r := b.rt("run", b.id)
		// runc takes ".." as leading nowhere above the root; to be refused is as good.
		if r.code == 1 && !strings.Contains(r.err, "/linux/cgroupsPath") {
			t.Errorf("cgroupsPath %q: %v", p, r)
		}
		if r.code == 0 {
			b.ok("delete", "--force", b.id)
		}
		if now := cgroupTops(); !slices.Equal(now, before) {
			t.Errorf("cgroupsPath %q: cgroups were %v, are %v", p, before, now)
		}
	}
	for _, key := range []string{"../cgroup.procs", "a/b", "cgroup.procs", "cgroup.threads", "cgroup.type", "cgroup.subtree_control", "cgroup.freeze", "cgroup.kill", ".", "..", "", "memory", "memory.max\n", "/etc/passwd"} {
		b := newBox(t, func(s *specs.Spec) { s.Linux.Resources.Unified = map[string]string{key: "1"} })
		b.refused([]string{"/linux/resources/unified"}, "run", b.id)
	}
	for _, c := range []string{"../x", "/../..", "..", "a/../../../x"} {
		b := newBox(t, args("sleep", "1000"))
		b.launch()
		if r := b.rt("exec", "--cgroup", c, b.id, "true"); r.code == 0 {
			t.Errorf("exec in cgroup %q: %v", c, r)
		}
	}
}

// cgroupTops lists what is at the top of each hierarchy and below the tests' cgroup's neighbours.
func cgroupTops() []string {
	var list []string
	for _, h := range hierarchies {
		entries, _ := os.ReadDir(h)
		for _, e := range entries {
			if e.IsDir() && e.Name() != top {
				list = append(list, filepath.Join(h, e.Name()))
			}
		}
	}
	return list
}

// Where the container asks for a read-only cgroup tree it gets one, in whatever way
// it comes to be.
func TestS28CgroupsReadOnly(t *testing.T) {
	t.Parallel()
	const try = `cd /sys/fs/cgroup || exit; for d in . *; do [ -e $d/cgroup.procs ] || continue
		mkdir $d/rt-attack 2>&1; echo 0 2>&1 >$d/cgroup.procs; done; true`
	for name, e := range map[string][]edit{
		"default":            nil,
		"user namespace":     {mapped},
		"no namespace":       {without(specs.CgroupNamespace)},
		"user, no namespace": {mapped, without(specs.CgroupNamespace)},
		"rbind of sys":       {mapped, without(specs.CgroupNamespace), noMount("/sys"), noMount("/sys/fs/cgroup"), mnt("bind", "/sys", "/sys", "rbind", "rro")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, append([]edit{script(try), func(s *specs.Spec) {
				// As root it would be allowed to.
				s.Process.Capabilities = nil
			}}, e...)...)
			r := b.rt("run", b.id)
			said := strings.ToLower(r.out + r.err)
			if !strings.Contains(said, "read-only file system") {
				t.Errorf("%v; expected attempts to fail with EROFS", r)
			}
			for _, h := range hierarchies {
				for _, d := range []string{h, filepath.Join(h, top), filepath.Join(h, top, b.id)} {
					if _, err := os.Stat(filepath.Join(d, "rt-attack")); err == nil {
						t.Errorf("the container has made a cgroup in %s", d)
						os.Remove(filepath.Join(d, "rt-attack"))
					}
				}
			}
		})
	}
}

// Only what belongs to the container's own namespaces can be set, and one value at a time.
func TestS29Sysctl(t *testing.T) {
	t.Parallel()
	before := sysctls()
	for key, value := range map[string]string{
		"kernel.core_pattern": "|/x", "net/../kernel/core_pattern": "|/x", "net..x": "1", "net": "1", "net.": "1", "": "1", ".": "1",
		"/kernel/core_pattern": "|/x", "../kernel/core_pattern": "|/x", "kernel/core_pattern": "|/x", "vm.swappiness": "1", "fs.file-max": "1000",
		"net.ipv4.ip_forward\x00": "1", "kernel.hostname": "x", "net/ipv4/../../kernel/core_pattern": "|/x",
		"kernel.shmmax": "1+kernel.core_pattern=|/x", "kernel.msgmax": "1\n2", "net.ipv4.ip_default_ttl": "64\x00",
	} {
		b := newBox(t, func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{key: value} })
		b.refused([]string{"/linux/sysctl"}, "run", b.id)
	}
	for _, c := range []struct {
		key string
		e   edit
	}{
		{"kernel/shm_rmid_forced", without(specs.IPCNamespace)},
		{"kernel.shmmax", without(specs.IPCNamespace)},
		{"fs.mqueue.msg_max", without(specs.IPCNamespace)},
		{"net.ipv4.ip_forward", without(specs.NetworkNamespace)},
		{"kernel.domainname", without(specs.UTSNamespace)},
		{"net.ipv4.ip_forward", func(s *specs.Spec) { hostNamespace(s, specs.NetworkNamespace, "net") }},
		{"kernel.shmmax", func(s *specs.Spec) { hostNamespace(s, specs.IPCNamespace, "ipc") }},
		{"kernel.domainname", func(s *specs.Spec) { hostNamespace(s, specs.UTSNamespace, "uts") }},
	} {
		b := newBox(t, c.e, noMount("/dev/mqueue"), noMount("/sys"), noMount("/sys/fs/cgroup"), func(s *specs.Spec) {
			// What it is already: nothing happens if it is not refused.
			now, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(c.key, ".", "/"))
			if err != nil {
				t.Fatal(err)
			}
			s.Linux.Sysctl = map[string]string{c.key: strings.TrimSpace(string(now))}
			s.Hostname = ""
		})
		b.refused([]string{"/linux/sysctl"}, "run", b.id)
	}
	if now := sysctls(); !maps.Equal(now, before) {
		for k := range now {
			if now[k] != before[k] {
				t.Errorf("the host's %s was %q, now is %q", k, before[k], now[k])
			}
		}
	}
	// What may be set is set.
	b := newBox(t, func(s *specs.Spec) {
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"}
	}, script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"))
	if out := b.run(); out != "1\n4096\n" {
		t.Errorf("its own sysctls are %q", out)
	}
}

func hostNamespace(s *specs.Spec, kind specs.LinuxNamespaceType, file string) {
	for i := range s.Linux.Namespaces {
		if n := &s.Linux.Namespaces[i]; n.Type == kind {
			n.Path = "/proc/self/ns/" + file
		}
	}
}

// sysctls are the host's, but for those that change by themselves.
func sysctls() map[string]string {
	all := map[string]string{}
	for _, dir := range []string{"kernel", "net/ipv4", "vm", "fs/mqueue"} {
		filepath.WalkDir("/proc/sys/"+dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			name := filepath.Base(path)
			if strings.Contains(path, "random") || strings.Contains(path, "sched_domain") || slices.Contains([]string{"ns_last_pid", "pty", "nr", "stat_refresh", "sched_rt_runtime_us", "tcp_mem", "drop_caches"}, name) || strings.Contains(path, "/pty/") || strings.Contains(path, "/neigh/") {
				return nil
			}
			if info, err := d.Info(); err != nil || info.Mode()&0o222 == 0 {
				return nil
			}
			data, _ := os.ReadFile(path)
			all[path] = string(data)
			return nil
		})
	}
	return all
}

// Annotations do nothing.
func TestS30Annotations(t *testing.T) {
	t.Parallel()
	plain := newBox(t, dump)
	want := parseStatus(t, plain.run())
	// But for the names of the container.
	plan := func(b *box) string {
		text := strings.ReplaceAll(strings.ReplaceAll(b.ok("plan", b.dir), b.top, ""), b.id, "")
		return strings.Join(strings.Fields(text), " ")
	}
	planned := plan(plain)
	for key, value := range map[string]string{
		"org.systemd.property.ExecStart": "/x", "org.systemd.property.MemoryMax": "1", "run.oci.keep_original_groups": "1",
		"run.oci.hooks.stdout": "/x", "run.oci.seccomp.receiver": "/x", "run.oci.delegate-cgroup": "x", "run.oci.systemd.subgroup": "x",
		"run.oci.mount_context_type": "context", "run.oci.handler": "wasm", "run.oci.pidfd_receiver": "/x", "run.oci.systemd.force_cgroup_v1": "/x",
		"org.criu.config": "/x", "io.podman.annotations.init": "TRUE", "io.kubernetes.cri.sandbox-id": "../x", "org.opencontainers.runc.exec": "1",
	} {
		b := newBox(t, dump, func(s *specs.Spec) { s.Annotations = map[string]string{key: value} })
		got := parseStatus(t, b.run())
		for _, s := range []*status{&got, &want} {
			for n := range s.Namespaces {
				s.Namespaces[n] = ""
			}
			s.Cgroup, s.Keyring = "", ""
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Errorf("with %s=%s the process has %+v, expected %+v", key, value, got, want)
		}
		if p := plan(b); p != planned {
			t.Errorf("with %s=%s the plan is another one", key, value)
		}
	}
}

// A hook of the host's gets nothing of the container's.
func TestS31HookEnvironment(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("true"), func(s *specs.Spec) {
		s.Process.Env = []string{"PATH=/bin", "LD_PRELOAD=./evil.so", "EVIL=1"}
	})
	b.file("evil.so", "evil", 0o755)
	// It would work on a hook that got the container's environment: the loader complains.
	careless := newCommand(t, "/bin/ls", "/dev/null")
	careless.Dir, careless.Env = b.rootfs, []string{"LD_PRELOAD=./evil.so"}
	if r := careless.run(); !strings.Contains(r.err, "evil.so") {
		t.Fatalf("%v; expected the loader to look at it", r)
	}
	out := filepath.Join(b.dir, "out")
	b.must(os.Mkdir(out, 0o777))
	hook := func(name string) []specs.Hook {
		text := "(env; echo cwd=$(pwd); for f in /proc/self/fd/*; do echo fd=$(readlink $f); done; cat >/dev/null) >" + filepath.Join(out, name)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", text}, Env: []string{"OWN=1", "PATH=/bin:/usr/bin"}}}
	}
	b.edit(func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"), Poststart: hook("poststart"), Poststop: hook("poststop")} //nolint:staticcheck // prestart is deprecated, not gone
	})
	b.run()
	for _, name := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
		data, err := os.ReadFile(filepath.Join(out, name))
		b.must(err)
		said := string(data)
		if strings.Contains(said, "EVIL") || strings.Contains(said, "LD_PRELOAD") || !strings.Contains(said, "OWN=1") {
			t.Errorf("the environment of %s: %s", name, said)
		}
		wantCwd := b.dir
		if name == "createContainer" {
			wantCwd = b.rootfs // as the decisions say
		}
		if !strings.Contains(said, "cwd="+wantCwd+"\n") {
			t.Errorf("%s ran elsewhere than in %s: %s", name, wantCwd, said)
		}
		for line := range strings.Lines(said) {
			if fd, ok := strings.CutPrefix(strings.TrimSpace(line), "fd="); ok && fd != "" && !strings.HasPrefix(fd, "pipe:") && !strings.HasPrefix(fd, out) && !strings.HasPrefix(fd, "/proc/") && fd != "/dev/null" {
				t.Errorf("%s has inherited %s", name, fd)
			}
		}
	}
}

// setTid is struct clone_args of clone3(2) as far as it is needed.
type setTid struct {
	flags, pidfd, childTid, parentTid, exitSignal, stack, stackSize, tls, setTid, setTidSize, cgroup uint64
}

// victimPid is what clone3(2) is told by its address: a variable of a function lies on the
// stack, and that may move. Guarded by syscall.ForkLock.
var victimPid [1]int32

// victim is a process of a pid that was another's.
func victim(t *testing.T, pid int) int {
	t.Helper()
	a := &setTid{exitSignal: uint64(unix.SIGCHLD), setTid: uint64(uintptr(unsafe.Pointer(&victimPid))), setTidSize: 1}
	var got uintptr
	if err := within(5*time.Second, func() error {
		syscall.ForkLock.Lock()
		defer syscall.ForkLock.Unlock()
		victimPid[0] = int32(pid)
		r, _, e := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a), 0)
		if e != 0 {
			return e // EEXIST: the pid is still there
		}
		if r == 0 {
			for {
				unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
			}
		}
		got = r
		return nil
	}); err != nil {
		t.Skipf("give a new process the pid %d: %v", pid, err)
	}
	t.Cleanup(func() {
		syscall.Kill(int(got), syscall.SIGKILL)
		unix.Wait4(int(got), nil, 0, nil)
	})
	return int(got)
}

func TestS32RecycledPid(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"created", "running"} {
		t.Run(status, func(t *testing.T) {
			b := newBox(t, args("sleep", "1000"))
			b.ok("create", b.id)
			if status == "running" {
				b.ok("start", b.id)
			}
			pid := b.state().Pid
			b.must(syscall.Kill(pid, syscall.SIGKILL))
			if got := victim(t, pid); got != pid {
				t.Fatalf("the victim is %d, expected %d", got, pid)
			}
			b.is("stopped")
			for _, command := range [][]string{{"kill", b.id, "KILL"}, {"kill", "--all", b.id, "KILL"}, {"exec", b.id, "true"}, {"start", b.id}, {"pause", b.id}, {"ps", b.id}, {"delete", "--force", b.id}} {
				r := b.rt(command...)
				if (r.code == 0) != (command[0] == "delete" || command[0] == "ps" || command[1] == "--all") {
					t.Error(r)
				}
				var ws unix.WaitStatus
				if got, err := unix.Wait4(pid, &ws, unix.WNOHANG, nil); got != 0 || err != nil {
					t.Fatalf("%v has killed the process that got the pid: %v, %v", command, ws, err)
				}
			}
		})
	}
}

// Whoever boots again has other processes.
func TestS32InitMovesToOtherNamespace(t *testing.T) {
	t.Parallel()
	b := newBox(t, caps("CAP_SYS_ADMIN"), args("/attacker", "unshare"))
	b.launch()
	pid := b.state().Pid
	eventually(t, func() error {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		if !bytes.Contains(data, []byte(" fake ")) {
			return fmt.Errorf("init has not moved yet")
		}
		return nil
	})
	// exec follows init, as in runc, and is never in a namespace of the host's.
	s := parseStatus(t, b.ok("exec", b.id, "/attacker", "status"))
	for name, ns := range s.Namespaces {
		host, _ := os.Readlink("/proc/self/ns/" + name)
		of, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
		if ns != of || name == "mnt" && ns == host {
			t.Errorf("the %s namespace is %s, that of init %s, the host's %s", name, ns, of, host)
		}
	}
}

// A program that looks like the stage is a program: such a container is running, and can be
// paused and entered.
func TestS32ProgramPosesAsStage(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("/attacker", "pose"))
	b.launch()
	exe := fmt.Sprintf("/proc/%d/exe", b.state().Pid)
	eventually(t, func() error {
		if name, err := os.Readlink(exe); !strings.HasPrefix(name, "/memfd:rt-stage") {
			return fmt.Errorf("init has not become the memfd's program yet: %q, %v", name, err)
		}
		return nil
	})
	b.is("running")
	b.ok("exec", b.id, "true")
	b.ok("pause", b.id)
	b.is("paused")
	b.ok("resume", b.id)
	b.refused([]string{"is not stopped: running"}, "delete", b.id)
}

// Nothing survives delete --force.
func TestS33NothingSurvives(t *testing.T) {
	t.Parallel()
	b := newBox(t, without(specs.PIDNamespace), caps("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"), func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Type == "cgroup" {
				s.Mounts[i].Options = []string{"rw"}
			}
		}
	})
	// On v1 the container moves its processes in the freezer's hierarchy.
	dir := "/sys/fs/cgroup"
	if !v2 {
		dir = "/sys/fs/cgroup/freezer"
	} else {
		// Its own cgroup is what its root shows.
		b.edit(without(specs.CgroupNamespace), func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		})
	}
	n := 200
	if long() {
		n = 500
	}
	b.edit(args("/attacker", "bomb", strconv.Itoa(n), dir))
	c := b.command("run", b.id).begin()
	eventually(t, func() error {
		if !strings.Contains(c.said(), "ready") {
			return fmt.Errorf("the bomb is not ready: %q %q", c.said(), contents(c.err))
		}
		return nil
	})
	pids := strings.Fields(b.ok("ps", "--format", "json", b.id))
	began := time.Now()
	b.ok("delete", "--force", b.id)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	c.end()
	list := strings.FieldsFunc(strings.Join(pids, ""), func(r rune) bool { return r < '0' || r > '9' })
	if len(list) < n {
		t.Errorf("ps knew of %d processes of %d", len(list), n)
	}
	alive := 0
	for _, p := range list {
		stat, _ := os.ReadFile("/proc/" + p + "/stat")
		if strings.Contains(string(stat), "(sleep) ") && !strings.Contains(string(stat), ") Z ") {
			alive++
		}
	}
	if alive > 0 {
		t.Errorf("%d processes are alive", alive)
	}
}

// A tree of cgroups that is as deep, wide and odd as a container can make it.
func TestS34HostileCgroups(t *testing.T) {
	t.Parallel()
	b := newBox(t, caps("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"), without(specs.CgroupNamespace), func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		for i := range s.Mounts {
			if s.Mounts[i].Type == "cgroup" {
				s.Mounts[i].Options = []string{"rw"}
			}
		}
	})
	dir := "/sys/fs/cgroup"
	if !v2 {
		dir = "/sys/fs/cgroup/pids"
	}
	b.edit(args("/attacker", "cgtree", dir))
	c := b.command("run", b.id).begin()
	eventually(t, func() error {
		if !strings.Contains(c.said(), "ready") {
			return fmt.Errorf("the tree is not ready: %q %q", c.said(), contents(c.err))
		}
		return nil
	})
	t.Log(strings.TrimSpace(c.said()))
	if r := b.rt("exec", b.id, "true"); r.code != 0 && !strings.Contains(r.err, "cgroup") {
		t.Error(r)
	}
	began := time.Now()
	b.ok("delete", "--force", b.id)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	c.end()
}

// Nothing that rt makes is open to others, whatever the umask, and it uses nothing
// that is.
func TestS35Permissions(t *testing.T) {
	t.Parallel()
	for _, mask := range []int{0, 0o777} {
		b := newBox(t, args("sleep", "1000"))
		b.must(os.Remove(b.root))
		b.canary = b.look()
		c := newCommand(t, "/bin/sh", "-c", fmt.Sprintf("umask %04o; exec %s --root %s/deep/state create %s", mask, rt, b.root, b.id))
		c.Dir = b.dir
		if r := c.run(); r.code != 0 {
			t.Fatal(r)
		}
		b.root = filepath.Join(b.root, "deep/state")
		b.must(filepath.WalkDir(filepath.Dir(b.root), func(path string, d fs.DirEntry, err error) error {
			b.must(err)
			info, err := d.Info()
			b.must(err)
			want := os.FileMode(0o600)
			if d.IsDir() {
				want = 0o700
			}
			if info.Mode().Perm() != want {
				t.Errorf("umask %04o: %s has mode %v, expected %v", mask, path, info.Mode().Perm(), want)
			}
			return nil
		}))
		b.ok("delete", "--force", b.id)
		b.canary = nil
	}
	for name, make := range map[string]func(b *box) error{
		"foreign":        func(b *box) error { return os.Chown(b.root, 1000, 0) },
		"world writable": func(b *box) error { return os.Chmod(b.root, 0o777) },
		"group writable": func(b *box) error { return os.Chmod(b.root, 0o770) },
		"sticky":         func(b *box) error { return os.Chmod(b.root, 0o777|os.ModeSticky) },
		"link": func(b *box) error {
			os.Remove(b.root)
			return os.Symlink(b.outside, b.root)
		},
		"link with slash": func(b *box) error {
			os.Remove(b.root)
			b.root += "link"
			err := os.Symlink(b.outside, b.root)
			b.root += "/"
			return err
		},
		"file": func(b *box) error {
			os.Remove(b.root)
			return os.WriteFile(b.root, nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			root := b.root
			b.must(make(b))
			for _, command := range [][]string{{"create", b.id}, {"run", b.id}, {"state", b.id}, {"delete", b.id}, {"list"}} {
				b.refused([]string{"state root"}, command...)
			}
			b.untouched()
			b.must(os.RemoveAll(strings.TrimSuffix(b.root, "/")))
			b.root = root
			b.must(os.RemoveAll(b.root))
			b.must(os.Mkdir(b.root, 0o700))
			b.canary = nil // its parent has changed
		})
	}
}

// A setuid copy refuses to work.
func TestS37Setuid(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	data, err := os.ReadFile(rt)
	b.must(err)
	program := filepath.Join(b.dir, "rt-setuid")
	b.must(ground.WriteProgram(program, string(data)))
	b.must(os.Chmod(program, 0o755|os.ModeSetuid))
	b.canary = b.look()
	for _, command := range [][]string{{"run", b.id}, {"create", b.id}, {"list"}, {"delete", "--force", b.id}, {"--version"}, {"spec"}} {
		c := newCommand(t, append([]string{program, "--root", b.root}, command...)...)
		c.Dir = b.dir
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if r := c.run(); r.code != 1 || r.out != "" {
			t.Errorf("%v; expected a refusal", r)
		}
	}
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		t.Errorf("it has made %v", left)
	}
}

// An id is a name, never a path.
func TestS38ContainerID(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must(os.Symlink(b.outside, filepath.Join(b.root, "linked")))
	commands := [][]string{{"create"}, {"run"}, {"start"}, {"state"}, {"kill"}, {"delete"}, {"delete", "--force"}, {"exec"}, {"pause"}, {"resume"}, {"ps"}}
	for _, id := range []string{"..", ".", "a/b", "/etc", "../" + filepath.Base(b.top) + "/outside", "", strings.Repeat("x", 256), "a\nb", "a b", "%s", "é", "a\x01", "-", "linked", "~", "*", "a:b"} {
		for _, c := range commands {
			line := append(slices.Clone(c), "--", id)
			if c[0] == "exec" {
				line = append(line, "true")
			}
			r := b.rt(line...)
			// "-" is a valid id that does not exist.
			if r.code == 0 && !(len(c) == 2 && id == "-") && !((c[0] == "run" || c[0] == "create") && id == "-") {
				t.Errorf("%q: %v", id, r)
			}
			if id == "-" && r.code == 0 {
				b.ok("delete", "--force", "--", id)
			}
		}
	}
	if out := b.rt("list"); strings.Contains(out.out, "linked") {
		t.Errorf("list shows it: %v", out)
	}
	b.must(os.Remove(filepath.Join(b.root, "linked")))
}
