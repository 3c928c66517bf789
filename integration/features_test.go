package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rt/integration/leak"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
)

// supported is what rt says of itself.
func supported(t *testing.T) *features.Features {
	t.Helper()
	b := newBox(t)
	var f features.Features
	b.must(json.Unmarshal([]byte(b.ok("features")), &f))
	return &f
}

// TestFeatures walks the document: every member has a test here or is named with the tests that
// it has elsewhere, and every item of a list is used in a container.
func TestFeatures(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	var document map[string]any
	b.must(json.Unmarshal([]byte(b.ok("features")), &document))
	known := strings.Fields(`/ociVersionMin /ociVersionMax /hooks /mountOptions /annotations /potentiallyUnsafeConfigAnnotations
		/linux/namespaces /linux/capabilities /linux/cgroup/v1 /linux/cgroup/v2 /linux/cgroup/systemd /linux/cgroup/systemdUser /linux/cgroup/rdma
		/linux/seccomp/enabled /linux/seccomp/actions /linux/seccomp/operators /linux/seccomp/archs /linux/seccomp/knownFlags /linux/seccomp/supportedFlags
		/linux/memoryPolicy/modes /linux/memoryPolicy/flags /linux/apparmor/enabled /linux/selinux/enabled
		/linux/intelRdt/enabled /linux/intelRdt/schemata /linux/intelRdt/monitoring /linux/mountExtensions/idmap/enabled /linux/netDevices/enabled`)
	var walk func(pointer string, v any)
	walk = func(pointer string, v any) {
		if m, ok := v.(map[string]any); ok && pointer != "/annotations" {
			for name, member := range m {
				walk(pointer+"/"+name, member)
			}
			return
		}
		if !slices.Contains(known, pointer) {
			t.Errorf("%s: claimed, and no test knows it", pointer)
		}
		// All that has a switch is on.
		if on, ok := v.(bool); ok && !on {
			t.Errorf("%s is false", pointer)
		}
	}
	walk("", document)
	f := supported(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *features.Features)
	}{
		{"versions", featureVersions}, {"hooks", featureHooks}, {"annotations", featureAnnotations}, {"namespaces", featureNamespaces},
		{"capabilities", featureCapabilities}, {"cgroup", featureCgroup}, {"seccomp actions", featureActions}, {"seccomp operators", featureOperators},
		{"seccomp architectures", featureArchs}, {"seccomp flags", featureFlags}, {"memory policy", featureMemoryPolicy}, {"modules", featureModules},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, f)
		})
	}
}

func featureVersions(t *testing.T, f *features.Features) {
	for version, accepted := range map[string]bool{f.OCIVersionMin: true, f.OCIVersionMax: true, "0.9.0": false, "2.0.0": false} {
		b := newBox(t, func(s *specs.Spec) { s.Version = version })
		if accepted {
			b.run()
		} else {
			b.refused([]string{"/ociVersion", version}, "create", b.id)
		}
	}
}

func featureHooks(t *testing.T, f *features.Features) {
	b := newBox(t)
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Source: b.dir, Destination: "/bundle", Options: []string{"bind"}})
	allHooks(b.dir, "echo >$D/ran.$KIND")(b.spec)
	b.write()
	b.run()
	ran, err := os.ReadDir(b.dir)
	b.must(err)
	var kinds []string
	for _, e := range ran {
		if kind, ok := strings.CutPrefix(e.Name(), "ran."); ok {
			kinds = append(kinds, kind)
		}
	}
	claimed := slices.Sorted(slices.Values(f.Hooks))
	if !slices.Equal(kinds, claimed) {
		t.Errorf("hooks that ran: %q, claimed %q", kinds, claimed)
	}
}

// What is said to be acted upon is. That other annotations change nothing is TestS30Annotations.
func featureAnnotations(t *testing.T, f *features.Features) {
	if !slices.Equal(f.PotentiallyUnsafeConfigAnnotations, []string{"org.systemd.property."}) {
		t.Errorf("unsafe annotations: %q", f.PotentiallyUnsafeConfigAnnotations)
	}
	if f.Annotations["org.opencontainers.runc.checkpoint.enabled"] != "true" { // see checkpoint_test.go
		t.Errorf("annotations: %q", f.Annotations)
	}
}

func featureNamespaces(t *testing.T, f *features.Features) {
	if len(f.Linux.Namespaces) != len(nsFiles) {
		t.Errorf("claimed are %q", f.Linux.Namespaces)
	}
	for _, name := range f.Linux.Namespaces {
		kind := specs.LinuxNamespaceType(name)
		file, ok := nsFiles[kind]
		if !ok {
			t.Errorf("%s: claimed, and no test knows it", name)
			continue
		}
		b := newBox(t, ns(kind, ""), args("readlink", "/proc/self/ns/"+file))
		if kind == "user" {
			mapped(100000)(b.spec)
			b.write()
		}
		if !kernelHas(kind) {
			b.refused([]string{"this kernel has no namespaces of this type"}, "create", b.id)
			continue
		}
		if out := b.run(); !strings.HasPrefix(out, file+":[") || out == namespacesOf(t, "self")[file]+"\n" {
			t.Errorf("%s: the container is in %q", name, out)
		}
	}
	b := newBox(t, ns("net", ""))
	b.refused([]string{`"net": unknown namespace type`}, "create", b.id)
}

// lastCapability is the highest that linux/capability.h of runtime-spec 1.3 has.
const lastCapability = unix.CAP_CHECKPOINT_RESTORE

// Each capability alone is the bit that the kernel has for it, in all sets.
func featureCapabilities(t *testing.T, f *features.Features) {
	// In the order of the kernel's numbers.
	if len(f.Linux.Capabilities) != lastCapability+1 {
		t.Fatalf("claimed are %d", len(f.Linux.Capabilities))
	}
	for name, n := range map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_KILL": unix.CAP_KILL, "CAP_SETPCAP": unix.CAP_SETPCAP, "CAP_NET_RAW": unix.CAP_NET_RAW,
		"CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_SYSLOG": unix.CAP_SYSLOG, "CAP_AUDIT_READ": unix.CAP_AUDIT_READ,
		"CAP_PERFMON": unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF, "CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	} {
		if got := f.Linux.Capabilities[n]; got != name {
			t.Errorf("number %d is %s, expected %s", n, got, name)
		}
	}
	held, err := strconv.ParseUint(field(contentsOf(t, "/proc/self/status"), "CapPrm"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	b := sleeper(t)
	for n, name := range f.Linux.Capabilities {
		one := []string{name}
		out := b.execProcess(&specs.Process{
			Args: []string{"cat", "/proc/self/status"}, Cwd: "/", Env: []string{"PATH=/bin"}, User: specs.User{UID: 1000},
			Capabilities: &specs.LinuxCapabilities{Bounding: one, Permitted: one, Effective: one, Inheritable: one, Ambient: one},
		})
		// One that rt has not it cannot give (decision D5).
		want := fmt.Sprintf("%016x", held&(1<<n))
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if got := field(out, set); got != want {
				t.Errorf("%s: %s is %s, expected %s", name, set, got, want)
			}
		}
	}
}

// The layout that the lane has; the systemd drivers are TestSystemd's, in the vm lanes.
func featureCgroup(t *testing.T, f *features.Features) {
	limit := int64(77)
	b := newBox(t, args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	})
	there := false
	for _, m := range cgroup {
		there = there || exists(m+"/"+top+"/pids.max") || strings.Contains(" "+readable(m+"/cgroup.controllers")+" ", " pids ")
	}
	if !there { // on host-v2 cgroup v1 has it; package cgroup tests the files of v2 there
		b.refused([]string{"/linux/resources/pids/limit", "controller pids"}, "create", b.id)
	} else {
		b.launch()
		text := ""
		for _, m := range cgroup {
			text += readable(m + "/" + top + "/" + b.id + "/pids.max")
		}
		if text != "77" {
			t.Errorf("pids.max is %q", text)
		}
	}
	// A limit for a device that the machine has not is refused as such.
	handles := uint32(3)
	rdma := newBox(t, func(s *specs.Spec) {
		s.Linux.Resources.Rdma = map[string]specs.LinuxRdma{"nosuch0": {HcaHandles: &handles}}
	})
	rdma.refused([]string{"rdma"}, "create", rdma.id)
	rdma.clean()
}

func featureActions(t *testing.T, f *features.Features) {
	denied := "sync: " + unix.EPERM.Error() + "\n"
	// How a program ends, or what it prints.
	want := map[string]any{
		"SCMP_ACT_ALLOW": "sync: ok\n", "SCMP_ACT_LOG": "sync: ok\n", "SCMP_ACT_ERRNO": denied,
		"SCMP_ACT_KILL": 128 + 31, "SCMP_ACT_KILL_THREAD": 128 + 31, "SCMP_ACT_KILL_PROCESS": 128 + 31, "SCMP_ACT_TRAP": 128 + 31,
		"SCMP_ACT_TRACE": "sync: " + unix.ENOSYS.Error() + "\n", "SCMP_ACT_NOTIFY": "sync: " + unix.EDOM.Error() + "\n",
	}
	if len(f.Linux.Seccomp.Actions) != len(want) {
		t.Errorf("claimed are %q", f.Linux.Seccomp.Actions)
	}
	for _, name := range f.Linux.Seccomp.Actions {
		action := specs.LinuxSeccompAction(name)
		b := newBox(t, args("/probe", "call", "sync"), profile(rule(action, "sync")))
		switch w := want[name].(type) {
		case int:
			// A program of one thread.
			b.must(os.Symlink("busybox", b.path("rootfs/bin/sync")))
			b.spec.Process.Args = []string{"sync"}
			b.write()
			if r := b.rt("run", b.id); r.code != w {
				t.Errorf("%s: %v, expected status %d", name, r, w)
			}
		case string:
			switch action {
			case specs.ActAllow: // what is denied without it
				b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: ordinaryCalls, Action: specs.ActAllow}}}
				b.write()
				if out := b.run(); out != denied {
					t.Errorf("without a rule: %q", out)
				}
				b.spec.Linux.Seccomp.Syscalls = append(b.spec.Linux.Seccomp.Syscalls, rule(action, "sync"))
			case specs.ActNotify:
				newAgent(t, b.path("agent"), unix.EDOM)
				b.spec.Linux.Seccomp.ListenerPath = b.path("agent")
			}
			b.write()
			if out := b.run(); out != w {
				t.Errorf("%s: %q, expected %q", name, out, w)
			}
		default:
			t.Errorf("%s: claimed, and no test knows it", name)
		}
	}
	b := newBox(t, profile(rule("SCMP_ACT_NONE", "sync")))
	b.refused([]string{`"SCMP_ACT_NONE": unknown action`}, "create", b.id)
}

func featureOperators(t *testing.T, f *features.Features) {
	// Of the arguments 0xffffffff and 0x20000 the rule holds for the first or for the second.
	const first, second = 0xffffffff, 0x20000
	want := map[string]struct {
		value, two uint64
		first      bool
	}{
		"SCMP_CMP_EQ": {first, 0, true}, "SCMP_CMP_NE": {first, 0, false}, "SCMP_CMP_LT": {first, 0, false}, "SCMP_CMP_LE": {second, 0, false},
		"SCMP_CMP_GT": {second, 0, true}, "SCMP_CMP_GE": {first, 0, true}, "SCMP_CMP_MASKED_EQ": {1, 1, true},
	}
	if len(f.Linux.Seccomp.Operators) != len(want) {
		t.Errorf("claimed are %q", f.Linux.Seccomp.Operators)
	}
	for _, name := range f.Linux.Seccomp.Operators {
		c, ok := want[name]
		if !ok {
			t.Errorf("%s: claimed, and no test knows it", name)
			continue
		}
		b := newBox(t, args("/probe", "call", "personality", "personality-other"), profile(rule(specs.ActErrno, "personality",
			specs.LinuxSeccompArg{Op: specs.LinuxSeccompOperator(name), Value: c.value, ValueTwo: c.two})))
		said := [2]string{"ok", "ok"}
		if c.first {
			said[0] = unix.EPERM.Error()
		} else {
			said[1] = unix.EPERM.Error()
		}
		if out := b.run(); out != "personality: "+said[0]+"\npersonality-other: "+said[1]+"\n" {
			t.Errorf("%s: %q", name, out)
		}
	}
}

// That the filters are right for each is what the oracle of package seccomp finds out; another
// architecture's calls are made by TestS24OtherArchitecture.
func featureArchs(t *testing.T, f *features.Features) {
	var all []specs.Arch
	for _, name := range f.Linux.Seccomp.Archs {
		all = append(all, specs.Arch(name))
	}
	lists := slices.Collect(slices.Chunk(all, 1))
	if lane == "uml" { // where a container takes half a second
		lists = [][]specs.Arch{all}
	}
	for _, list := range lists {
		b := newBox(t, args("/probe", "call", "sync"), profile(rule(specs.ActErrno, "sync")))
		b.spec.Linux.Seccomp.Architectures = list
		b.write()
		if out := b.run(); out != "sync: operation not permitted\n" {
			t.Errorf("%s: %q", list, out)
		}
	}
	for _, name := range []specs.Arch{"SCMP_ARCH_PARISC", "SCMP_ARCH_S390", "SCMP_ARCH_VAX"} {
		if slices.Contains(f.Linux.Seccomp.Archs, string(name)) {
			continue
		}
		b := newBox(t, profile(rule(specs.ActErrno, "sync")))
		b.spec.Linux.Seccomp.Architectures = []specs.Arch{name}
		b.write()
		b.refused([]string{"/linux/seccomp/architectures/0", string(name)}, "create", b.id)
	}
}

func featureFlags(t *testing.T, f *features.Features) {
	if !slices.Equal(f.Linux.Seccomp.KnownFlags, []string{
		"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
	}) {
		t.Errorf("known are %q", f.Linux.Seccomp.KnownFlags)
	}
	for _, name := range f.Linux.Seccomp.KnownFlags {
		b := newBox(t, args("/probe", "call", "sync"), profile(rule(specs.ActNotify, "sync")))
		newAgent(t, b.path("agent"), unix.EDOM)
		b.spec.Linux.Seccomp.ListenerPath = b.path("agent")
		b.spec.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(name)}
		b.write()
		r := b.rt("run", b.id)
		if works := r.code == 0 && r.out == "sync: "+unix.EDOM.Error()+"\n"; works != slices.Contains(f.Linux.Seccomp.SupportedFlags, name) {
			t.Errorf("%s: supported are %q: %v", name, f.Linux.Seccomp.SupportedFlags, r)
		}
	}
	b := newBox(t, profile(rule(specs.ActErrno, "sync")))
	b.spec.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_NEW_LISTENER"}
	b.write()
	b.refused([]string{"/linux/seccomp/flags/0", "SECCOMP_FILTER_FLAG_NEW_LISTENER"}, "create", b.id)
}

func featureMemoryPolicy(t *testing.T, f *features.Features) {
	numa := unix.SetMemPolicy(0, nil) != unix.ENOSYS
	modes := map[string]int{
		"MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4, "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
	}
	flags := map[string]int{"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
	if len(f.Linux.MemoryPolicy.Modes) != len(modes) || len(f.Linux.MemoryPolicy.Flags) != len(flags) {
		t.Errorf("claimed are %+v", f.Linux.MemoryPolicy)
	}
	try := func(mode string, list ...string) {
		t.Helper()
		n := modes[mode]
		p := &specs.LinuxMemoryPolicy{Mode: specs.MemoryPolicyModeType(mode), Nodes: "0"}
		nodes := "0x1"
		if mode == "MPOL_DEFAULT" || mode == "MPOL_LOCAL" {
			p.Nodes, nodes = "", "0x0"
		}
		for _, flag := range list {
			p.Flags = append(p.Flags, specs.MemoryPolicyFlagType(flag))
			n |= flags[flag]
		}
		b := newBox(t, tuned, func(s *specs.Spec) { s.Linux.MemoryPolicy = p })
		if !numa {
			b.refused([]string{"/linux/memoryPolicy", "this kernel is built without NUMA"}, "run", b.id)
			return
		}
		r := b.rt("run", b.id)
		if n == modes["MPOL_WEIGHTED_INTERLEAVE"] && strings.Contains(r.err, "invalid argument") {
			return // Linux 6.9
		}
		if got, want := line(r.out, "memory"), fmt.Sprintf("mode=%d nodes=%s", n, nodes); got != want {
			t.Errorf("%s %q: %q, expected %q: %v", mode, list, got, want, r)
		}
	}
	for _, mode := range f.Linux.MemoryPolicy.Modes {
		if _, ok := modes[mode]; !ok {
			t.Errorf("%s: claimed, and no test knows it", mode)
			continue
		}
		try(mode)
	}
	for _, flag := range f.Linux.MemoryPolicy.Flags {
		if _, ok := flags[flag]; !ok {
			t.Errorf("%s: claimed, and no test knows it", flag)
			continue
		}
		try("MPOL_BIND", flag)
	}
	for member, p := range map[string]specs.LinuxMemoryPolicy{
		"mode": {Mode: "MPOL_NEAREST"}, "flags/0": {Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_NONE"}},
	} {
		b := newBox(t, func(s *specs.Spec) { s.Linux.MemoryPolicy = &p })
		b.refused([]string{"/linux/memoryPolicy/" + member}, "create", b.id)
	}
}

// AppArmor, SELinux and RDT are used where the machine has them (TestAppArmor in the vm lanes; package
// intelrdt on a tree of its own), and else are refused as the machine's fault, not as unknown.
func featureModules(t *testing.T, f *features.Features) {
	for _, c := range []struct {
		there bool
		edit  func(*specs.Spec)
		words []string
	}{
		{appArmor(), func(s *specs.Spec) { s.Process.ApparmorProfile = "x" }, []string{"/process/apparmorProfile", "AppArmor not supported"}},
		{exists("/sys/fs/selinux/enforce"), func(s *specs.Spec) { s.Process.SelinuxLabel = "a:b:c:s0" }, []string{"/process/selinuxLabel", "SELinux is not enabled"}},
		{exists("/sys/fs/resctrl/schemata"), func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}} }, []string{"/linux/intelRdt", "not available"}},
	} {
		if c.there {
			continue
		}
		b := newBox(t, c.edit)
		b.refused(c.words, "create", b.id)
		b.clean()
	}
	// Network devices are TestNetDevice's, mapped ids TestFeatureMountOptions'.
}

// readable is what is in a file, "" if there is none.
func readable(path string) string {
	data, _ := os.ReadFile(path)
	return strings.TrimSpace(string(data))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Each option that is claimed is seen to do what it is for, or is one that shows nowhere; no file
// system gets it as an option of its own.
func TestFeatureMountOptions(t *testing.T) {
	if !privately(t) {
		return
	}
	f := supported(t)
	// What is bound: once as it is, and once with all that can be taken back.
	plain := hostMount(t, "plain", "plain", "tmpfs", 0)
	hostMount(t, "below", "plain/sub", "tmpfs", 0)
	const all = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_NOSYMFOLLOW
	full := hostMount(t, "full", "full", "tmpfs", 0)
	hostMount(t, "below", "full/sub", "tmpfs", all)
	if err := unix.Mount("", full, "", unix.MS_REMOUNT|unix.MS_BIND|all, ""); err != nil {
		t.Fatal(err)
	}
	attributes := map[string]string{ // of a mount, as /proc/self/mountinfo has it
		"ro": "ro", "rw": "!ro", "nosuid": "nosuid", "suid": "!nosuid", "nodev": "nodev", "dev": "!nodev", "noexec": "noexec", "exec": "!noexec",
		"nodiratime": "nodiratime", "diratime": "!nodiratime", "nosymfollow": "nosymfollow", "symfollow": "!nosymfollow",
		"noatime": "noatime", "atime": "!noatime", "relatime": "relatime", "norelatime": "", "strictatime": "!relatime", "nostrictatime": "",
	}
	filesystem := map[string]string{"sync": "sync", "async": "!sync", "dirsync": "dirsync", "lazytime": "lazytime", "nolazytime": "!lazytime"}
	before := map[string]string{"async": "sync", "nolazytime": "lazytime"}
	propagation := map[string]string{"shared": "shared:", "slave": "", "private": "", "unbindable": "unbindable"}
	silent := []string{"defaults", "loud", "silent", "mand", "nomand", "iversion", "noiversion"}
	for _, option := range f.MountOptions {
		bare, recursive := strings.CutPrefix(option, "r")
		if recursive {
			_, recursive = attributes[bare]
		}
		switch {
		case attributes[option] != "" || recursive:
			// "ro" and the like set it on the first, "rw" and the like take it from the second.
			want := attributes[option]
			if recursive {
				want = attributes[bare]
			}
			source := plain
			if strings.HasPrefix(want, "!") && !strings.HasSuffix(option, "strictatime") {
				source = full
			}
			b := newBox(t, mnt("none", source, "/m", "rbind", option), script(showMounts))
			list := leak.ParseMounts(b.run())
			check(t, option, mounted(t, list, "/m").Options, strings.Fields(want)...)
			if recursive {
				check(t, option+", below", mounted(t, list, "/m/sub").Options, strings.Fields(want)...)
			} else if want != "relatime" && want != "!relatime" {
				// What is mounted below keeps what it had.
				other, not := strings.CutPrefix(want, "!")
				if !not {
					other = "!" + other
				}
				check(t, option+", below", mounted(t, list, "/m/sub").Options, other)
			}
		case slices.Contains(silent, option) || option == "norelatime" || option == "nostrictatime":
			b := newBox(t, mnt("tmpfs", "tmpfs", "/m", option), script(showMounts))
			check(t, option, mounted(t, leak.ParseMounts(b.run()), "/m").Options, "rw", "relatime")
		case filesystem[option] != "":
			options := []string{option}
			if first, ok := before[option]; ok {
				options = []string{first, option}
			}
			b := newBox(t, mnt("tmpfs", "tmpfs", "/m", options...), script(showMounts))
			check(t, option, mounted(t, leak.ParseMounts(b.run()), "/m").SuperOptions, filesystem[option])
		case option == "bind" || option == "rbind":
			b := newBox(t, mnt("none", plain, "/m", option), script(showMounts))
			list := leak.ParseMounts(b.run())
			mounted(t, list, "/m")
			below := slices.ContainsFunc(list, func(m leak.Mount) bool { return m.Path == "/m/sub" })
			if below != (option == "rbind") {
				t.Errorf("%s: the mount below is there: %v", option, below)
			}
		case option == "remount":
			b := newBox(t, mnt("tmpfs", "tmpfs", "/m"), mnt("none", "", "/m", "remount", "bind", "ro"), script(showMounts))
			check(t, option, mounted(t, leak.ParseMounts(b.run()), "/m").Options, "ro")
		case option == "tmpcopyup":
			b := newBox(t, mnt("tmpfs", "tmpfs", "/full", option), script("cat /full/file; "+showMounts))
			b.file("full/file", "copied\n")
			out := b.run()
			mounted(t, leak.ParseMounts(strings.TrimPrefix(out, "copied\n")), "/full")
			if !strings.HasPrefix(out, "copied\n") {
				t.Errorf("%s: %q", option, out)
			}
		case option == "idmap" || option == "ridmap":
			if lane == "uml" {
				continue // TestIDMappedMounts says why
			}
			b := newBox(t, script("cd /tmp && stat -c '%u:%g' f sub/f"))
			idMount(mappable(b), 3000, "rbind", option)(b.spec)
			b.write()
			if out, want := b.run(), map[string]string{"idmap": "3007:3058\n7:8\n", "ridmap": "3007:3058\n3007:3058\n"}[option]; out != want {
				t.Errorf("%s: owners are %q, expected %q", option, out, want)
			}
		default:
			want, ok := propagation[option]
			if !ok {
				want, ok = propagation[bare]
			}
			if !ok {
				t.Errorf("%s: claimed, and no test knows it", option)
				continue
			}
			b := newBox(t, mnt("tmpfs", "tmpfs", "/m", option), script(showMounts))
			got := strings.Join(mounted(t, leak.ParseMounts(b.run()), "/m").Optional, " ")
			if !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s: propagation is %q, expected %q", option, got, want)
			}
		}
	}
	// What is not claimed is the file system's to refuse.
	for _, option := range []string{"rdirsync", "rsync", "copy-symlink", "src-nofollow", "noremount", "bindx"} {
		if slices.Contains(f.MountOptions, option) {
			t.Errorf("%s is claimed", option)
		}
		b := newBox(t, mnt("tmpfs", "tmpfs", "/m", option))
		b.refused([]string{"/mounts/7", option}, "create", b.id)
	}
}
