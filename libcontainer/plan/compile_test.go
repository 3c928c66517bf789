package plan

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

func v2Facts() *Facts {
	return &Facts{
		ID: "c1", Bundle: "/b", Rootfs: "/b/rootfs", Home: "/root", Gate: true,
		Cgroup: CgroupFacts{Into: true, Mount: "/sys/fs/cgroup", Path: "/sys/fs/cgroup/c1"},
	}
}

func v1Facts() *Facts {
	f := v2Facts()
	f.Cgroup = CgroupFacts{
		Tasks: []string{"/sys/fs/cgroup/cpu,cpuacct/c1", "/sys/fs/cgroup/memory/c1"},
		V1: []CgroupMount{
			{Name: "cpu,cpuacct", Options: []string{"cpu", "cpuacct"}, Path: "/sys/fs/cgroup/cpu,cpuacct/c1", Links: []string{"cpu", "cpuacct"}},
			{Name: "memory", Options: []string{"memory"}, Path: "/sys/fs/cgroup/memory/c1"},
		},
	}
	return f
}

func addNamespace(s *specs.Spec, t specs.LinuxNamespaceType, path string) {
	for i := range s.Linux.Namespaces {
		if s.Linux.Namespaces[i].Type == t {
			s.Linux.Namespaces[i].Path = path
			return
		}
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: t, Path: path})
}

func userNamespace(s *specs.Spec) {
	addNamespace(s, specs.UserNamespace, "")
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.UIDMappings, s.Linux.GIDMappings = m, m
}

// Each row is a whole plan, kept as a person reads it in testdata/NAME.plan.
var goldenPlans = []struct {
	name  string
	facts func() *Facts
	spec  func(*specs.Spec)
}{
	{"default-v2", v2Facts, func(*specs.Spec) {}},
	{"default-v1", v1Facts, func(*specs.Spec) {}},
	{"default-v1-cgroupns", v1Facts, func(s *specs.Spec) { addNamespace(s, specs.CgroupNamespace, "") }},
	{"no-cgroupns", v2Facts, func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:5] }},
	{"hybrid", func() *Facts { f := v1Facts(); f.Cgroup.Into = true; return f }, func(*specs.Spec) {}},
	{"run", func() *Facts { f := v2Facts(); f.Gate = false; return f }, func(*specs.Spec) {}},
	{"userns", v2Facts, userNamespace},
	{"userns-unprivileged", func() *Facts { f := v2Facts(); f.Unprivileged = true; return f }, userNamespace},
	{"no-mknod", func() *Facts { f := v2Facts(); f.Capabilities = 1 << capSysAdmin; return f }, func(*specs.Spec) {}},
	{"joined", v2Facts, func(s *specs.Spec) {
		for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.NetworkNamespace, specs.UserNamespace, specs.CgroupNamespace} {
			addNamespace(s, t, "/run/ns/"+string(t))
		}
	}},
	{"labels", v1Facts, func(s *specs.Spec) {
		s.Process.ApparmorProfile = "confined"
		s.Process.SelinuxLabel = "u:r:container_t:s0:c1,c2"
		s.Linux.MountLabel = "u:r:container_file_t:s0:c1,c2"
		s.Mounts[2].Options = append(s.Mounts[2].Options, "iversion")
	}},
	{"idmap", v2Facts, func(s *specs.Spec) {
		userNamespace(s)
		ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}, {ContainerID: 10, HostID: 5000, Size: 1}}
		s.Mounts = append(s.Mounts,
			specs.Mount{Source: "/a", Destination: "/a", Options: []string{"rbind", "ridmap"}},
			specs.Mount{Source: "/b", Destination: "/b", Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids[:1]})
	}},
	{"time", v2Facts, func(s *specs.Spec) {
		addNamespace(s, specs.TimeNamespace, "")
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 7}}
	}},
	{"netdevices", v2Facts, func(s *specs.Spec) {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"a": {Name: "eth%d"}, "b": {}}
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/h"}}}
	}},
	{"no-mountns", v2Facts, func(s *specs.Spec) {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.PIDNamespace}}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		s.Hostname = ""
	}},
	{"no-pivot", func() *Facts { f := v2Facts(); f.NoPivot, f.NoNewKeyring = true, true; return f }, func(*specs.Spec) {}},
	{"propagation-shared", v2Facts, func(s *specs.Spec) { s.Linux.RootfsPropagation = "shared" }},
	{"propagation-private", v2Facts, func(s *specs.Spec) { s.Linux.RootfsPropagation = "rprivate" }},
	{"propagation-unbindable", v2Facts, func(s *specs.Spec) { s.Linux.RootfsPropagation = "unbindable" }},
	{"mounts", v2Facts, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/data", Source: "data", Type: "bind", Options: []string{"rbind", "ro", "rro", "rslave", "nosuid"}},
			specs.Mount{Destination: "relative", Source: "/src", Options: []string{"bind", "noatime", "atime"}},
			specs.Mount{Destination: "/tmp", Source: "tmpfs", Type: "tmpfs", Options: []string{"ro", "tmpcopyup", "size=1m"}},
			specs.Mount{Destination: "/long", Source: "overlay", Type: "overlay", Options: []string{"lowerdir=" + strings.Repeat("/l", 200), "nodev"}},
			specs.Mount{Destination: "/iv", Source: "none", Type: "tmpfs", Options: []string{"iversion"}},
			specs.Mount{Destination: "/sys", Options: []string{"remount", "bind", "rw"}},
			specs.Mount{Destination: "/proc/meminfo", Source: "/m", Type: "bind", Options: []string{"bind"}},
		)
	}},
	{"devices", v2Facts, func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: ptr(os.FileMode(0o640)), UID: ptr(uint32(5)), GID: ptr(uint32(6))},
			{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
			{Path: "/dev/pipe", Type: "p", Major: 9, Minor: 9},
			{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2},
		}
	}},
	{"dev-bound", v2Facts, func(s *specs.Spec) {
		s.Mounts = []specs.Mount{{Destination: "/dev", Source: "/dev", Type: "bind", Options: []string{"rbind"}}}
	}},
	{"hooks", v2Facts, func(s *specs.Spec) {
		h := []specs.Hook{{Path: "/h", Args: []string{"h", "a"}, Timeout: ptr(3)}}
		s.Hooks = &specs.Hooks{CreateRuntime: h, CreateContainer: h, StartContainer: h}
		s.Annotations = map[string]string{"b": "2", "a": `"1"`}
	}},
	{"process", func() *Facts {
		f := v2Facts()
		f.Home = ""
		f.ListenFDs = 2
		f.NotifyDir = "/run/rt/c1/notify"
		f.HardLimits = make([]uint64, Rlimits)
		return f
	}, func(s *specs.Spec) {
		p := s.Process
		p.Args = []string{"prog", "a b", "$x\x1b[2J"}
		p.Terminal = true
		p.ConsoleSize = &specs.Box{Width: 80, Height: 24}
		p.Env = []string{"A=1", "PATH=/x::/y", "A=2", "HOME="}
		p.User = specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9, 70000}, Umask: ptr(uint32(0o27))}
		p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Hard: ^uint64(0)}}
		p.Capabilities.Ambient = []string{"CAP_KILL", "CAP_NEW"}
		p.Capabilities.Inheritable = []string{"CAP_KILL"}
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/mtu": "2"}
	}},
	{"filter", func() *Facts { f := v2Facts(); f.Filter, f.FilterFlags = "12345678", 4; return f }, func(*specs.Spec) {}},
	{"filter-privs", func() *Facts { f := v2Facts(); f.Filter = "12345678"; return f }, func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
	{"filter-listener", func() *Facts {
		f := v2Facts()
		f.Filter, f.FilterFlags = "12345678", unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
		f.ListenerState = ListenerJSON("c1", "creating", "/b", nil, "m", 0)
		return f
	}, func(*specs.Spec) {}},
	{"tuned", v2Facts, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_BATCH", Nice: -3, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_RESET_ON_FORK"}}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_IDLE", Priority: 2}
		s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0", Final: "1"} // not for this one
		s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0-2,64", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_STATIC_NODES"}}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	}},
	{"deadline", v2Facts, func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_DEADLINE", Runtime: 1, Deadline: 2, Period: 3}
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/h"}}}
	}},
	{"no-process", v2Facts, func(s *specs.Spec) { s.Process = nil }},
	{"no-linux", v2Facts, func(s *specs.Spec) { s.Linux, s.Hostname, s.Mounts = nil, "", nil }},
}

func TestGolden(t *testing.T) {
	for _, row := range goldenPlans {
		t.Run(row.name, func(t *testing.T) {
			s := bundle.Default(true)
			row.spec(s)
			p, warnings, err := Compile(s, row.facts())
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := p.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				b.WriteString("warning: " + w + "\n")
			}
			compareGolden(t, row.name, b.Bytes())
			checkAhead(t, s, p)
			if _, err := p.Encode(nil); err != nil {
				t.Error(err)
			}
			again, _, err := Compile(s, row.facts())
			if err != nil {
				t.Fatal(err)
			}
			a, _ := p.Encode(nil)
			if b, _ := again.Encode(nil); !bytes.Equal(a, b) {
				t.Error("the same input gave other bytes")
			}
		})
	}
}

// checkAhead checks that what the stage may begin with is what the first process unshares, and
// that nothing of consequence comes before.
func checkAhead(t *testing.T, s *specs.Spec, p *Plan) {
	t.Helper()
	var flags uint64
	for i := range p.Ops {
		switch op := &p.Ops[i]; op.Kind {
		case KindRaise, KindReceive:
		case KindUnshare:
			flags |= op.Num[0]
		default:
			if flags != Ahead(s.Linux) {
				t.Errorf("unshared first is %#x, the stage would begin with %#x", flags, Ahead(s.Linux))
			}
			return
		}
	}
}

func compareGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".plan")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", file, got)
	}
}

func TestGoldenExec(t *testing.T) {
	s := bundle.Default(true)
	e := &ExecSpec{Process: s.Process}
	for _, n := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace, specs.CgroupNamespace, specs.UserNamespace} {
		e.Namespaces = append(e.Namespaces, specs.LinuxNamespace{Type: n, Path: "/proc/42/ns/" + NamespaceFile(n)})
	}
	for name, facts := range map[string]*Facts{"exec-v2": v2Facts(), "exec-v1": v1Facts()} {
		facts.Gate = false
		p, _, err := CompileExec(e, facts)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		p.WriteText(&b)
		compareGolden(t, name, b.Bytes())
	}
	// Without a user namespace capabilities go before the process can be seen.
	e.Namespaces = e.Namespaces[:3]
	p, _, err := CompileExec(e, v2Facts())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	p.WriteText(&b)
	compareGolden(t, "exec-nouser", b.Bytes())
}

func TestGoldenExecTuned(t *testing.T) {
	s := bundle.Default(true)
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "0-1", Final: "3"}
	s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_RR", Priority: 9}
	facts := v1Facts()
	facts.Gate = false
	p, _, err := CompileExec(&ExecSpec{
		Process: s.Process, Personality: &specs.LinuxPersonality{Domain: specs.PerLinux32},
		MemoryPolicy: &specs.LinuxMemoryPolicy{Mode: "MPOL_LOCAL"},
		Namespaces:   []specs.LinuxNamespace{{Type: specs.MountNamespace, Path: "/proc/42/ns/mnt"}},
	}, facts)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	p.WriteText(&b)
	compareGolden(t, "exec-tuned", b.Bytes())
}

// The pieces of a listener's state are the JSON of the specification's types.
func TestListenerJSON(t *testing.T) {
	for _, initPid := range []int{0, 77} {
		pieces := ListenerJSON("c", "creating", "/b", map[string]string{"k": "v\""}, "meta\n", initPid)
		want := &specs.ContainerProcessState{
			Version: SpecVersion, Fds: []string{specs.SeccompFdName}, Pid: 42, Metadata: "meta\n",
			State: specs.State{Version: SpecVersion, ID: "c", Status: specs.StateCreating, Pid: 42, Bundle: "/b", Annotations: map[string]string{"k": "v\""}},
		}
		if initPid != 0 {
			want.State.Pid = initPid
		}
		got := &specs.ContainerProcessState{}
		if err := json.Unmarshal([]byte(strings.Join(pieces, "42")), got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("init %d: %q: %v\ngot  %+v\nwant %+v", initPid, pieces, err, got, want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, row := range []struct {
		name string
		spec func(*specs.Spec)
		want string
	}{
		{"mount over the root", func(s *specs.Spec) { s.Mounts[0].Destination = "/" }, "config.json: /mounts/0/destination: "},
		{"mount over the root, disguised", func(s *specs.Spec) { s.Mounts[0].Destination = "/a/.." }, "/mounts/0/destination"},
		{"into proc", func(s *specs.Spec) { s.Mounts[1].Destination = "/proc/../proc/sys" }, `/mounts/1/destination: "/proc/../proc/sys"`},
		{"tmpfs on proc", func(s *specs.Spec) { s.Mounts[0].Type = "tmpfs" }, "/mounts/0/type"},
		{"no type", func(s *specs.Spec) { s.Mounts[1].Type = "" }, "/mounts/1/type"},
		{"copy-up of proc", func(s *specs.Spec) { s.Mounts[0].Options = []string{"tmpcopyup"} }, "/mounts/0/options"},
		{"propagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "x" }, `/linux/rootfsPropagation: "x"`},
		{"offsets without namespace", func(s *specs.Spec) {
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {}}
		}, "/linux/timeOffsets"},
		{"namespace", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "x" }, `/linux/namespaces/0/type: "x"`},
		{"sysctl of the host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.core_pattern": "x"} }, "/linux/sysctl/kernel.core_pattern"},
		{"sysctl that climbs", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net/../kernel/core_pattern": "x"} }, "/linux/sysctl/net~1..~1kernel~1core_pattern"},
		{"sysctl with a gap", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net..x": "x"} }, "/linux/sysctl/net..x"},
		{"sysctl without namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
			s.Linux.Sysctl = map[string]string{"kernel/shm_rmid_forced": "1"}
		}, "/linux/sysctl/kernel~1shm_rmid_forced"},
		{"rlimit", func(s *specs.Spec) { s.Process.Rlimits[0].Type = "RLIMIT_TEST" }, "/process/rlimits/0/type"},
		{"no args", func(s *specs.Spec) { s.Process.Args = nil }, "args must not be empty"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := bundle.Default(true)
			row.spec(s)
			_, _, err := Compile(s, v2Facts())
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestMountOptions(t *testing.T) {
	const atime = unix.MOUNT_ATTR__ATIME
	for _, row := range []struct {
		options      string
		set, clear   uint64
		rset, rclear uint64
		data         string
	}{
		{"", 0, 0, 0, 0, ""},
		{"defaults", 0, 0, 0, 0, ""},
		{"ro", unix.MOUNT_ATTR_RDONLY, 0, 0, 0, "ro"},
		{"ro,rw", 0, unix.MOUNT_ATTR_RDONLY, 0, 0, ""},
		{"rw,ro", unix.MOUNT_ATTR_RDONLY, 0, 0, 0, "ro"},
		{"bind,ro", unix.MOUNT_ATTR_RDONLY, 0, 0, 0, ""},
		{"relatime", 0, atime, 0, 0, ""},
		{"noatime", unix.MOUNT_ATTR_NOATIME, atime, 0, 0, ""},
		{"noatime,relatime", 0, atime, 0, 0, ""},
		{"strictatime,noatime", unix.MOUNT_ATTR_NOATIME, atime, 0, 0, ""},
		{"noatime,atime", 0, atime, 0, 0, ""},
		{"nodiratime", unix.MOUNT_ATTR_NODIRATIME, 0, 0, 0, ""},
		{"norelatime", 0, 0, 0, 0, ""},
		{"rro", 0, 0, unix.MOUNT_ATTR_RDONLY, 0, ""},
		{"rro,rrw", 0, 0, 0, unix.MOUNT_ATTR_RDONLY, ""},
		{"rnosuid,rnodev,rnoexec,rnosymfollow", 0, 0,
			unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW, 0, ""},
		{"rstrictatime", 0, 0, unix.MOUNT_ATTR_STRICTATIME, atime, ""},
		{"sync,async,dirsync,size=1,acl", 0, 0, 0, 0, "dirsync,size=1,acl"},
		{"rexec,suid", 0, unix.MOUNT_ATTR_NOSUID, 0, unix.MOUNT_ATTR_NOEXEC, ""},
	} {
		m := parseMountOptions(strings.Split(row.options, ","))
		if m.set != row.set || m.clear != row.clear || m.rset != row.rset || m.rclear != row.rclear {
			t.Errorf("%q: set %#x clear %#x rset %#x rclear %#x", row.options, m.set, m.clear, m.rset, m.rclear)
		}
		if got := strings.Join(m.fsOptions(), ","); got != row.data {
			t.Errorf("%q: data %q, want %q", row.options, got, row.data)
		}
	}
}

func TestPropagationOptions(t *testing.T) {
	for _, row := range []struct {
		options   string
		flag      uint64
		recursive bool
	}{
		{"shared", unix.MS_SHARED, false}, {"rshared", unix.MS_SHARED, true},
		{"slave,rprivate", unix.MS_PRIVATE, true}, {"runbindable", unix.MS_UNBINDABLE, true},
	} {
		m := parseMountOptions(strings.Split(row.options, ","))
		if m.propagation != row.flag || m.rpropagation != row.recursive || len(m.data) != 0 {
			t.Errorf("%q: %#x %v data %q", row.options, m.propagation, m.rpropagation, m.data)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, row := range []struct{ arg, env, want string }{
		{"sh", "PATH=/a:/b", "/a/sh /b/sh"},
		{"sh", "PATH=", "./sh"},
		{"sh", "PATH=/a::/b", "/a/sh ./sh /b/sh"},
		{"sh", "X=1", "/usr/local/bin/sh /bin/sh /usr/bin/sh"},
		{"./sh", "PATH=/a", "./sh"},
		{"/bin/sh", "PATH=/a", "/bin/sh"},
	} {
		if got := strings.Join(candidates(row.arg, []string{row.env}), " "); got != row.want {
			t.Errorf("%s %s: %s", row.arg, row.env, got)
		}
	}
}

func TestStateJSON(t *testing.T) {
	s, at := StateJSON("c", "creating", "/b", map[string]string{"z": "1", "a\"": "\n"})
	got := s[:at] + "42" + s[at:]
	const want = `{"ociVersion":"1.3.0","id":"c","status":"creating","pid":42,"bundle":"/b","annotations":{"a\"":"\n","z":"1"}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A kind that is missing from the table would be encoded without its operands.
func TestKindsComplete(t *testing.T) {
	seen := map[Kind]bool{}
	for _, k := range Kinds {
		if seen[k.Kind] {
			t.Errorf("kind %d stands twice", k.Kind)
		}
		seen[k.Kind] = true
	}
	for k := KindRaise; k <= KindFork; k++ {
		if !seen[k] {
			t.Errorf("kind %d is missing", k)
		}
	}
	for k := KindAwait; k <= KindLabel; k++ {
		if !seen[k] {
			t.Errorf("kind %d is missing", k)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	s, f := bundle.Default(true), v2Facts()
	for b.Loop() {
		p, _, err := Compile(s, f)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Encode(nil); err != nil {
			b.Fatal(err)
		}
	}
}
