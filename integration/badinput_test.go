package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rt/integration/ground"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// What of a seccomp profile is wrong, and what only looks so. (TestSeccompRefused has more.)
func TestBadProfiles(t *testing.T) {
	t.Parallel()
	arg := func(index uint, value uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: index, Value: value, Op: specs.OpEqualTo}
	}
	b := newBox(t, args("/probe", "call", "sync", "getppid"))
	// Unknown names are skipped with a warning, as runc does; what is said twice counts once; of two rules
	// without conditions the first counts.
	log := b.path("log")
	for name, c := range map[string]struct {
		rules []specs.LinuxSyscall
		want  string
		warns string
	}{
		"unknown name": {[]specs.LinuxSyscall{{Names: []string{"no_such_call", "sync"}, Action: specs.ActErrno}}, "sync: operation not permitted\ngetppid: ok\n",
			`/linux/seccomp/syscalls/0/names/0: "no_such_call": unknown system call, skipped`},
		"twice in a rule":                {[]specs.LinuxSyscall{{Names: []string{"sync", "sync"}, Action: specs.ActErrno}}, "sync: operation not permitted\ngetppid: ok\n", ""},
		"duplicate rules":                {[]specs.LinuxSyscall{rule(specs.ActErrno, "sync"), rule(specs.ActErrno, "sync")}, "sync: operation not permitted\ngetppid: ok\n", ""},
		"duplicate rules, conditional":   {[]specs.LinuxSyscall{rule(specs.ActErrno, "sync", arg(0, 0)), rule(specs.ActErrno, "sync", arg(0, 0))}, "sync: operation not permitted\ngetppid: ok\n", ""},
		"the first of two counts":        {[]specs.LinuxSyscall{rule(specs.ActErrno, "sync"), rule(specs.ActTrap, "sync")}, "sync: operation not permitted\ngetppid: ok\n", ""},
		"one without conditions counts":  {[]specs.LinuxSyscall{rule(specs.ActTrap, "sync", arg(0, 0)), rule(specs.ActErrno, "sync")}, "sync: operation not permitted\ngetppid: ok\n", ""},
		"and outweighs a contradiction":  {[]specs.LinuxSyscall{rule(specs.ActTrap, "sync", arg(0, 0)), rule(specs.ActKill, "sync", arg(0, 0)), rule(specs.ActErrno, "sync")}, "sync: operation not permitted\ngetppid: ok\n", ""},
		"nothing is what was asked anew": {[]specs.LinuxSyscall{rule(specs.ActAllow, "sync"), rule(specs.ActErrno, "sync")}, "sync: operation not permitted\ngetppid: ok\n", ""},
	} {
		profile(c.rules...)(b.spec)
		b.write()
		b.must(os.RemoveAll(log))
		if out := b.ok("--log", log, "run", b.id); out != c.want {
			t.Errorf("%s: %q, expected %q", name, out, c.want)
		}
		said, _ := os.ReadFile(log)
		if text := strings.ReplaceAll(string(said), `\"`, `"`); c.warns != "" && !strings.Contains(text, c.warns) || c.warns == "" && text != "" {
			t.Errorf("%s: the log says %q, expected %q", name, text, c.warns)
		}
	}
	// Contradictory actions, and too many arguments.
	seven := make([]specs.LinuxSeccompArg, 7)
	for i := range seven {
		seven[i] = arg(uint(i), 1)
	}
	for _, c := range []struct {
		rules []specs.LinuxSyscall
		words []string
	}{
		{[]specs.LinuxSyscall{rule(specs.ActErrno, "sync", arg(0, 1)), rule(specs.ActErrno, "getppid"), rule(specs.ActTrap, "sync", arg(0, 1))},
			[]string{`/linux/seccomp/syscalls/2/action: "SCMP_ACT_TRAP": contradicts /linux/seccomp/syscalls/0, which has the same conditions for "sync"`}},
		{[]specs.LinuxSyscall{rule(specs.ActErrno, "sync", arg(0, 1), arg(1, 2)), rule(specs.ActTrap, "sync", arg(1, 2), arg(0, 1))},
			[]string{`/linux/seccomp/syscalls/1/action: "SCMP_ACT_TRAP": contradicts`}},
		{[]specs.LinuxSyscall{rule(specs.ActErrno, "sync", seven...)}, []string{"/linux/seccomp/syscalls/0/args/6/index: 6: out of range", "0 to 5"}},
	} {
		profile(c.rules...)(b.spec)
		b.write()
		b.refused(c.words, "create", b.id)
		b.clean()
	}
}

// A capability that nobody knows is left out, with a warning: the specification says so.
func TestUnknownCapability(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CAP_UNHEARD_OF", "cap_kill", "KILL", "ALL", ""} {
		b := newBox(t, showStatus, func(s *specs.Spec) {
			caps := []string{name, "CAP_CHOWN"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
		})
		out := b.ok("--log", b.path("log"), "run", b.id)
		if got := field(out, "CapBnd"); got != "0000000000000001" {
			t.Errorf("%q: CapBnd is %s", name, got)
		}
		if said := strings.ReplaceAll(b.read("log"), `\"`, `"`); !strings.Contains(said, "/process/capabilities/bounding/0") || !strings.Contains(said, fmt.Sprintf("%q", name)) {
			t.Errorf("%q: the log says %q", name, said)
		}
	}
}

// Each field of a scheduler is refused with a policy that has none of it.
func TestSchedulerContradictions(t *testing.T) {
	t.Parallel()
	const ms = 1_000_000
	for pointer, s := range map[string]specs.Scheduler{
		"/priority":   {Policy: "SCHED_OTHER", Priority: 1},
		"/priority ":  {Policy: "SCHED_FIFO", Priority: 100},
		"/priority  ": {Policy: "SCHED_RR"},
		"/runtime":    {Policy: "SCHED_FIFO", Priority: 1, Runtime: ms},
		"/deadline":   {Policy: "SCHED_BATCH", Deadline: ms},
		"/period":     {Policy: "SCHED_IDLE", Period: ms},
		"/deadline  ": {Policy: "SCHED_DEADLINE", Runtime: 2 * ms, Deadline: ms, Period: 3 * ms},
		"/period ":    {Policy: "SCHED_DEADLINE", Runtime: ms, Deadline: 3 * ms, Period: 2 * ms},
		"/nice":       {Policy: "SCHED_OTHER", Nice: 20},
		"/policy":     {Policy: "SCHED_NONE"},
		"/policy ":    {Nice: 1},
		"/flags/0":    {Policy: "SCHED_OTHER", Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_NONE"}},
	} {
		b := newBox(t, func(spec *specs.Spec) { spec.Process.Scheduler = &s })
		b.refused([]string{"config.json: /process/scheduler" + strings.TrimSpace(pointer) + ": "}, "create", b.id)
		b.clean()
	}
}

// Id maps that the kernel would refuse with "invalid argument".
func TestBadIDMaps(t *testing.T) {
	t.Parallel()
	entry := func(container, host, size uint32) specs.LinuxIDMapping {
		return specs.LinuxIDMapping{ContainerID: container, HostID: host, Size: size}
	}
	long := make([]specs.LinuxIDMapping, 341)
	for i := range long {
		long[i] = entry(uint32(i), uint32(100000+i), 1)
	}
	for words, m := range map[string][]specs.LinuxIDMapping{
		"/linux/uidMappings/1: overlaps entry 0":                         {entry(0, 100000, 10), entry(9, 200000, 10)},
		"/linux/uidMappings/1: overlaps entry 0 ":                        {entry(0, 100000, 10), entry(10, 100009, 10)},
		"/linux/uidMappings: 341 entries; accepted: up to 340":           long,
		"/linux/uidMappings/0/size: 0: must be positive":                 {entry(0, 100000, 0)},
		"/linux/uidMappings/0/size: 2: range goes beyond the largest id": {entry(0, 1<<32-2, 2)},
	} {
		b := newBox(t, mapped(100000), func(s *specs.Spec) { s.Linux.UIDMappings = m })
		b.refused([]string{strings.TrimSpace(words)}, "create", b.id)
		b.clean()
	}
	// The kernel reads no more than a page.
	b := newBox(t, mapped(100000), script("wc -l </proc/self/uid_map"), func(s *specs.Spec) { s.Linux.UIDMappings = long[:340] })
	b.refused([]string{fmt.Sprintf("config.json: /linux/uidMappings: 4310 bytes as the kernel reads it; accepted: up to %d", os.Getpagesize()-1)}, "create", b.id)
	b.clean()
	// The longest map that there is.
	for i := range long {
		long[i] = entry(uint32(i), uint32(1000+i), 1)
	}
	b.write()
	b.must(os.Chown(b.rootfs, 1000, 100000))
	if out := b.run(); out != "340\n" {
		t.Errorf("the map has %q lines", out)
	}
}

// Without newuidmap in $PATH nothing but one id can be mapped, and nothing is made that would have to be undone.
func TestMissingNewuidmap(t *testing.T) {
	t.Parallel()
	u := newUser()
	b := rootless(t, u, ranges(u))
	b.must(os.Mkdir(b.path("nothing"), 0o755))
	p := b.command(append([]string{"env", "PATH=" + b.path("nothing"), b.bin, "--root", b.root}, "create", b.id)...)
	p.start().end().refused(1, "/linux/uidMappings", "newuidmap is needed and not found in $PATH", "Debian's package uidmap")
	b.clean()
	// One that fails is an error with what it says.
	b.must(ground.WriteProgram(filepath.Join(b.path("nothing"), "newuidmap"), "#!/bin/sh\necho no luck >&2; exit 3\n"))
	b.must(os.Symlink("/usr/bin/newgidmap", filepath.Join(b.path("nothing"), "newgidmap")))
	p = b.command(append([]string{"env", "PATH=" + b.path("nothing"), b.bin, "--root", b.root}, "create", b.id)...)
	p.start().end().refused(1, "/linux/uidMappings: newuidmap", "no luck")
	b.clean()
}
