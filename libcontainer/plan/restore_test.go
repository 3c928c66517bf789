package plan

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func restoreSpec() *RestoreSpec {
	return &RestoreSpec{Program: "/usr/sbin/criu", Args: []string{"criu", "swrk", "3"}, Env: []string{"PATH=/usr/sbin:/bin"}}
}

func hybridFacts() *Facts {
	f := v1Facts()
	f.Cgroup.Into = true
	return f
}

// bindMounts has mounts of the host's in a tmpfs, below one another and with everything that a mount can ask for.
func bindMounts(s *specs.Spec) {
	s.Root.Readonly = true
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/data", Source: "data", Type: "bind", Options: []string{"rbind", "ro", "rro", "rslave", "nosuid"}},
		specs.Mount{Destination: "/run", Source: "tmpfs", Type: "tmpfs", Options: []string{"ro", "tmpcopyup", "mode=755"}},
		specs.Mount{Destination: "/run/secrets", Source: "/src/secrets", Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "run/secrets/deep/", Source: "/src/deep", Options: []string{"rbind", "rshared"}},
		specs.Mount{Destination: "/proc/meminfo", Source: "/src/meminfo", Type: "bind", Options: []string{"bind"}},
		specs.Mount{Destination: "/long", Source: "overlay", Type: "overlay", Options: []string{"lowerdir=" + strings.Repeat("/l", 200), "nodev"}},
		specs.Mount{Destination: "/sys", Options: []string{"remount", "bind", "rw"}},
	)
}

// goldenRestores are plans as in goldenPlans, in testdata/restore-NAME.plan.
var goldenRestores = []struct {
	name  string
	facts func() *Facts
	spec  func(*specs.Spec)
}{
	{"default-v2", v2Facts, func(*specs.Spec) {}},
	{"hybrid", hybridFacts, func(*specs.Spec) {}},
	{"binds", v2Facts, bindMounts},
	{"userns", v2Facts, userNamespace},
	{"privileges", v2Facts, func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
	// CRIU or other plans see to all of this.
	{"busy", func() *Facts {
		f := v1Facts()
		f.NotifyDir, f.Home, f.ListenFDs, f.Filter = "/run/rt/c1/notify", "", 2, "12345678"
		f.Rdt = []string{"/sys/fs/resctrl/c1/tasks"}
		f.HardLimits = make([]uint64, Rlimits)
		return f
	}, func(s *specs.Spec) {
		addNamespace(s, specs.CgroupNamespace, "")
		addNamespace(s, specs.TimeNamespace, "")
		addNamespace(s, specs.NetworkNamespace, "/run/ns/net")
		addNamespace(s, specs.PIDNamespace, "/run/ns/pid")
		s.Root.Readonly = false
		s.Domainname = "example"
		s.Process.Cwd = "/work"
		s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_BATCH"}
		s.Process.ApparmorProfile, s.Process.SelinuxLabel = "confined", "u:r:container_t:s0"
		s.Linux.MountLabel = "u:r:container_file_t:s0"
		s.Linux.RootfsPropagation = "rshared"
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 7}}
		s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, UID: ptr(uint32(5))}}
		h := []specs.Hook{{Path: "/h"}}
		s.Hooks = &specs.Hooks{CreateRuntime: h, CreateContainer: h, StartContainer: h}
	}},
}

func TestGoldenRestore(t *testing.T) {
	t.Parallel()
	for _, row := range goldenRestores {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, before := bundle.Default(true), bundle.Default(true)
			row.spec(s)
			row.spec(before)
			if _, _, err := Compile(s, row.facts()); err != nil {
				t.Fatal("such a container cannot be made:", err)
			}
			r := restoreSpec()
			p, err := CompileRestore(s, row.facts(), r)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := p.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			compareGolden(t, "restore-"+row.name, b.Bytes())
			checkRestore(t, s, p, r)
			if !reflect.DeepEqual(s, before) {
				t.Error("the config has been changed")
			}
			a, err := p.Encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := CompileRestore(s, row.facts(), r)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := again.Encode(nil); !bytes.Equal(a, b) {
				t.Error("the same input gave other bytes")
			}
		})
	}
}

// checkRestore checks what no line of the text shows, and what must hold for every config.
func checkRestore(t *testing.T, s *specs.Spec, p *Plan, r *RestoreSpec) {
	t.Helper()
	// In the host's namespaces all else is the host's. The parent is asked for nothing but to commit.
	allowed := map[Kind]bool{}
	for _, k := range []Kind{
		KindReceive, KindTasks, KindFork, KindPropagate, KindClone, KindRoot, KindMount, KindAttach, KindNode, KindSymlink,
		KindKeyring, KindLabel, KindRootattr, KindNoNewPrivs, KindUmask, KindAwait, KindGate, KindFind, KindExec,
	} {
		allowed[k] = true
	}
	sheds := false
	forks, received, cloned := 0, map[int]bool{}, map[int32]bool{-1: true}
	for i := range p.Ops {
		op := &p.Ops[i]
		at := fmt.Sprintf("operation %d, %s of %s", i+1, op.Kind.Info().Verb, op.Origin)
		if !allowed[op.Kind] {
			t.Error(at)
		}
		switch op.Kind {
		case KindReceive:
			for _, file := range op.Received() {
				received[file] = true
			}
		case KindFork:
			if forks++; op.Num[0] != unix.CLONE_NEWNS {
				t.Errorf("%s: makes namespaces %#x", at, op.Num[0])
			}
		case KindMount:
			if op.Data[0].String != "tmpfs" || op.Data[2].List != nil || op.Num != [6]uint64{} || op.Slot != -1 {
				t.Errorf("%s: it is no empty tmpfs: %+v", at, op)
			}
			if op.Flags&^(FlagReal|FlagInProc) != 0 {
				t.Errorf("%s: flags %#x", at, op.Flags)
			}
			if op.Data[3].String == "/proc" && op.Flags != FlagReal|FlagInProc {
				t.Errorf("%s: a link may lead away from it", at)
			}
		case KindClone:
			cloned[op.Slot] = true
		case KindAttach:
			if op.Num != [6]uint64{} {
				t.Errorf("%s: no mount point can be made below it: %v", at, op.Num)
			}
		case KindAwait:
			if op.Num[0] != MsgReady {
				t.Errorf("%s: waits for %d", at, op.Num[0])
			}
		case KindPropagate:
			if op.Num[0] != unix.MS_SLAVE && op.Num[0] != unix.MS_PRIVATE || op.Num[1] != 1 || op.Data[0].String != "/" {
				t.Errorf("%s: the host would see the mounts", at)
			}
		case KindLabel:
			if op.Data[0].String != "thread-self/attr/keycreate" {
				t.Errorf("%s: CRIU itself gets a label: %+v", at, op)
			}
		case KindRootattr:
			if !s.Root.Readonly || op.Num != [6]uint64{unix.MOUNT_ATTR_RDONLY} {
				t.Errorf("%s: %v", at, op.Num)
			}
		case KindNoNewPrivs:
			sheds = true
		case KindFind:
			if op.Data[0].String != r.Program || !slices.Equal(op.Data[1].List, []string{r.Program}) {
				t.Errorf("%s: %q, %q", at, op.Data[0].String, op.Data[1].List)
			}
		}
		if !cloned[op.Slot] {
			t.Errorf("%s: there is no source %d", at, op.Slot)
		}
		if op.FD >= 0 && !received[int(op.FD)] {
			t.Errorf("%s: descriptor %d has not been received", at, op.FD)
		}
	}
	if want := s.Process.NoNewPrivileges && s.Process.SelinuxLabel == ""; sheds != want {
		t.Error("no new privileges:", sheds)
	}
	if forks != 1 {
		t.Error("forks:", forks)
	}
	last := &p.Ops[len(p.Ops)-1]
	if last.Kind != KindExec || !slices.Equal(last.Data[0].List, r.Args) || !slices.Equal(last.Data[1].List, r.Env) || last.Flags != 0 {
		t.Errorf("the last operation is %+v", last)
	}
	checkMountPoints(t, s, p)
}

// checkMountPoints makes sure that each mount of the config has its mount point made, in the order of the
// config.
func checkMountPoints(t *testing.T, s *specs.Spec, p *Plan) {
	t.Helper()
	var got, want []string
	for i := range p.Ops {
		op := &p.Ops[i]
		if !strings.HasPrefix(op.Origin, "/mounts/") {
			continue
		}
		target := ""
		switch op.Kind {
		case KindMount:
			target = op.Data[3].String
		case KindAttach:
			target = op.Data[0].String
		default:
			continue
		}
		// More than one operation may be one mount's.
		if n := len(got); n == 0 || target != got[n-1] && !strings.HasPrefix(target, "/sys/fs/cgroup/") {
			got = append(got, target)
		}
	}
	for i := range s.Mounts {
		if !slices.Contains(s.Mounts[i].Options, "remount") {
			want = append(want, cleanDest(s.Mounts[i].Destination))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("mount points %q, expected %q", got, want)
	}
}

func TestRestoreRefused(t *testing.T) {
	t.Parallel()
	const without = "config.json: /linux/namespaces: a container without a new mount namespace can be neither checkpointed nor restored"
	for _, row := range []struct {
		name string
		spec func(*specs.Spec)
		want string
	}{
		{"no mount namespace", func(s *specs.Spec) { s.Linux.Namespaces = s.Linux.Namespaces[:4] }, without},
		{"no namespace", func(s *specs.Spec) { s.Linux.Namespaces = nil }, without},
		{"joined", func(s *specs.Spec) { addNamespace(s, specs.MountNamespace, "/run/ns/mnt") }, without},
		{"no linux", func(s *specs.Spec) { s.Linux = nil }, without},
		{"unknown namespace", func(s *specs.Spec) { addNamespace(s, "x", "") }, `/linux/namespaces/6/type: "x"`},
		// What Compile refuses is no better here.
		{"mount over the root", func(s *specs.Spec) { s.Mounts[0].Destination = "/a/.." }, "/mounts/0/destination"},
		{"into proc", func(s *specs.Spec) { s.Mounts[1].Destination = "/proc/sys" }, "/mounts/1/destination"},
		{"id map of nothing", func(s *specs.Spec) {
			s.Mounts[1] = specs.Mount{Destination: "/a", Source: "/a", Options: []string{"bind", "idmap"}}
		}, "/mounts/1/options"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := bundle.Default(true)
			row.spec(s)
			p, err := CompileRestore(s, v2Facts(), restoreSpec())
			if p != nil || err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, %v, expected an error with %q", p, err, row.want)
			}
		})
	}
}

// What the images have the say in, and what is done to the container later, is nothing to CRIU itself.
func TestRestoreIgnores(t *testing.T) {
	t.Parallel()
	compile := func(facts *Facts, change func(*specs.Spec)) []byte {
		s := bundle.Default(true)
		change(s)
		p, err := CompileRestore(s, facts, restoreSpec())
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := compile(v2Facts(), func(*specs.Spec) {})
	for name, change := range map[string]func(*specs.Spec){
		"shared":          func(s *specs.Spec) { s.Linux.RootfsPropagation = "rshared" },
		"private":         func(s *specs.Spec) { s.Linux.RootfsPropagation = "private" },
		"process":         func(s *specs.Spec) { s.Process.User.UID, s.Process.Terminal, s.Process.Args = 7, false, []string{"x"} },
		"host name":       func(s *specs.Spec) { s.Hostname = "y" },
		"joined network":  func(s *specs.Spec) { addNamespace(s, specs.NetworkNamespace, "/run/ns/net") },
		"read-only paths": func(s *specs.Spec) { s.Linux.ReadonlyPaths = nil },
	} {
		if !bytes.Equal(compile(v2Facts(), change), want) {
			t.Errorf("%s: another plan", name)
		}
	}
	f := v2Facts()
	f.NoPivot, f.Home = true, ""
	if !bytes.Equal(compile(f, func(s *specs.Spec) { s.Linux.RootfsPropagation = "private" }), want) {
		t.Error("no pivot: another plan")
	}
}

func TestBinds(t *testing.T) {
	t.Parallel()
	null := func(i int, target string) Bind {
		return Bind{Target: target, Source: "/dev/null", Origin: fmt.Sprintf("/linux/maskedPaths/%d", i)}
	}
	bare := func(s *specs.Spec) {
		s.Mounts, s.Linux.MaskedPaths = nil, nil
	}
	for _, row := range []struct {
		name  string
		facts func() *Facts
		spec  func(*specs.Spec)
		want  []Bind
	}{
		{"nothing but a root file system", v2Facts, bare, nil},
		{"masks", v2Facts, func(s *specs.Spec) {
			bare(s)
			s.Linux.MaskedPaths = []string{"/proc/kcore", "/a//b/../c", "/proc/kcore", "/sys/firmware"}
		}, []Bind{null(0, "/proc/kcore"), null(1, "/a/c"), null(3, "/sys/firmware")}},
		{"new file systems", v2Facts, func(s *specs.Spec) { s.Linux.MaskedPaths = nil }, nil},
		{"bind mounts", v2Facts, func(s *specs.Spec) {
			bare(s)
			bindMounts(s)
		}, []Bind{
			{"/data", "/b/data", true, "/mounts/0"},
			{"/run/secrets", "/src/secrets", false, "/mounts/2"},
			{"/run/secrets/deep", "/src/deep", true, "/mounts/3"},
			{"/proc/meminfo", "/src/meminfo", false, "/mounts/4"},
		}},
		{"the same twice, and a mask", v2Facts, func(s *specs.Spec) {
			bare(s)
			s.Mounts = []specs.Mount{
				{Destination: "/a", Source: "/x", Options: []string{"bind"}},
				{Destination: "/b", Source: "/x", Options: []string{"rbind"}},
			}
			s.Linux.MaskedPaths = []string{"/m"}
		}, []Bind{{"/a", "/x", false, "/mounts/0"}, {"/b", "/x", true, "/mounts/1"}, null(0, "/m")}},
		{"cgroup v2 of the host", v2Facts, func(s *specs.Spec) {
			s.Linux.MaskedPaths = nil
			s.Linux.Namespaces = s.Linux.Namespaces[:5]
		}, []Bind{{"/sys/fs/cgroup", "/sys/fs/cgroup", false, "/mounts/6"}}},
		{"cgroup v1", v1Facts, func(s *specs.Spec) {
			s.Linux.MaskedPaths = nil
			s.Linux.Namespaces = s.Linux.Namespaces[:5]
		}, []Bind{
			{"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/c1", false, "/mounts/6"},
			{"/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/c1", false, "/mounts/6"},
		}},
		// Nodes that cannot be made are the host's.
		{"user namespace", v2Facts, func(s *specs.Spec) {
			bare(s)
			userNamespace(s)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}, {Path: "/dev/p", Type: "p"}}
			s.Mounts = []specs.Mount{{Destination: "/a", Source: "/x", Options: []string{"rbind", "ridmap"}}}
		}, []Bind{
			{"/a", "/x", true, "/mounts/0"},
			{"/dev/null", "/dev/null", false, "runtime"},
			{"/dev/zero", "/dev/zero", false, "runtime"},
			{"/dev/full", "/dev/full", false, "runtime"},
			{"/dev/tty", "/dev/tty", false, "runtime"},
			{"/dev/random", "/dev/random", false, "runtime"},
			{"/dev/urandom", "/dev/urandom", false, "runtime"},
			{"/dev/fuse", "/dev/fuse", false, "/linux/devices/0"},
		}},
		{"notify", func() *Facts { f := v2Facts(); f.NotifyDir = "/run/rt/c1/notify"; return f }, bare,
			[]Bind{{"/run/notify", "/run/rt/c1/notify", false, "runtime"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := bundle.Default(true)
			row.spec(s)
			p, _, err := Compile(s, row.facts())
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Binds(); !slices.Equal(got, row.want) {
				t.Errorf("got      %+v\nexpected %+v", got, row.want)
			}
		})
	}
}
