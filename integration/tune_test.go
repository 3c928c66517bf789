package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var tuned = args("/probe", "tuned")

// line returns the line of out that begins with word, without it.
func line(out, word string) string {
	for l := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(l, "\n"), word+" "); ok {
			return rest
		}
	}
	return ""
}

// realtime gives the container's cgroup to be a real-time budget, which a new one has
// not on v1 (CONFIG_RT_GROUP_SCHED).
func realtime(b *box) {
	for _, m := range cgroup {
		if _, err := os.Stat(filepath.Join(m, "cpu.rt_runtime_us")); err != nil {
			continue
		}
		for _, d := range []struct{ dir, microseconds string }{{top, "300000"}, {top + "/" + b.id, "10000"}} {
			dir := filepath.Join(m, d.dir)
			if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
				b.t.Fatal(err)
			}
			b.must(os.WriteFile(filepath.Join(dir, "cpu.rt_runtime_us"), []byte(d.microseconds), 0))
		}
	}
}

func TestScheduler(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		s    specs.Scheduler
		want string
	}{
		{"other", specs.Scheduler{Policy: "SCHED_OTHER", Nice: 7}, "policy=0 flags=0 nice=7 priority=0"},
		{"other, raised", specs.Scheduler{Policy: "SCHED_OTHER", Nice: -5}, "policy=0 flags=0 nice=-5 priority=0"},
		{"batch", specs.Scheduler{Policy: "SCHED_BATCH", Nice: 19, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_RESET_ON_FORK"}}, "policy=3 flags=1 nice=19 priority=0"},
		{"idle", specs.Scheduler{Policy: "SCHED_IDLE"}, "policy=5 flags=0 nice=0 priority=0"},
		{"fifo", specs.Scheduler{Policy: "SCHED_FIFO", Priority: 7}, "policy=1 flags=0 nice=0 priority=7"},
		{"rr", specs.Scheduler{Policy: "SCHED_RR", Priority: 99, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_RESET_ON_FORK"}}, "policy=2 flags=1 nice=0 priority=99"},
		{"keep", specs.Scheduler{Policy: "SCHED_OTHER", Nice: 3, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS"}}, "policy=0 flags=0 nice=0 priority=0"},
	} {
		if c.s.Priority > 0 && lane == "uml" {
			// CONFIG_RT_GROUP_SCHED without the file of cgroup v1 that gives a budget.
			t.Logf("%s: in this kernel no cgroup but the root can have real-time tasks", c.name)
			continue
		}
		// As another user it has to be done while rt still may.
		for _, uid := range []uint32{0, 1000} {
			b := newBox(t, tuned, func(s *specs.Spec) {
				s.Process.Scheduler = &c.s
				s.Process.User.UID = uid
			})
			if c.s.Priority > 0 {
				realtime(b)
			}
			if out := line(b.run(), "scheduler"); out != c.want {
				t.Errorf("%s: %q, expected %q", c.name, out, c.want)
			}
		}
	}
}

// A deadline task cannot fork, and yet there are hooks.
func TestSchedulerDeadline(t *testing.T) {
	t.Parallel()
	const ms = 1_000_000
	b := newBox(t, args("cat", "/proc/self/stat"), func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_DEADLINE", Runtime: ms, Deadline: 10 * ms, Period: 20 * ms}
		s.Process.User.UID = 1000
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/true"}}}
	})
	r := b.rt("run", b.id)
	if lane == "host-v2" || r.code != 0 && strings.Contains(r.err, "SCHED_DEADLINE no restriction of CPUs") {
		// The machine's own cgroup may have a part of its CPUs only.
		t.Log(r)
	}
	fields := strings.Fields(r.out)
	if r.code != 0 || len(fields) < 41 || fields[40] != "6" {
		t.Errorf("policy is not 6: %v", r)
	}
	if lane == "host" {
		// What the kernel refuses is an error of create that says why.
		b.spec.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_FIFO", Priority: 1}
		b.write()
		b.refused([]string{"tune scheduler policy 1", "/process/scheduler", "operation not permitted", "real-time budget"}, "create", b.id)
		b.clean()
	}
	b.spec.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_ISO"}
	b.write()
	b.refused([]string{"tune scheduler policy 4", "invalid argument", "this kernel does not have the policy"}, "create", b.id)
}

func TestIOPriority(t *testing.T) {
	t.Parallel()
	for class, n := range map[specs.IOPriorityClass]int{"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3} {
		for _, priority := range []int{0, 4, 7} {
			b := newBox(t, tuned, func(s *specs.Spec) {
				s.Process.IOPriority = &specs.LinuxIOPriority{Class: class, Priority: priority}
				s.Process.User.UID = 1000
			})
			if out, want := line(b.run(), "ioprio"), fmt.Sprintf("class=%d priority=%d", n, priority); out != want {
				t.Errorf("%q, expected %q", out, want)
			}
		}
	}
}

func TestPersonality(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("uname -m; /probe tuned"), func(s *specs.Spec) {
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	})
	out := b.run()
	var u unix.Utsname
	b.must(unix.Uname(&u))
	machine, _, _ := strings.Cut(out, "\n")
	renamed := machine != unix.ByteSliceToString(u.Machine[:]) || lane == "uml" // which knows no 32-bit machine
	if !renamed || line(out, "personality") != "8" {
		t.Errorf("with LINUX32: %q", out)
	}
	b.spec.Linux.Personality.Domain = specs.PerLinux
	b.write()
	if out := b.run(); line(out, "personality") != "0" {
		t.Errorf("with LINUX: %q", out)
	}
}

func TestMemoryPolicy(t *testing.T) {
	t.Parallel()
	numa := unix.SetMemPolicy(0, nil) != unix.ENOSYS
	for _, c := range []struct {
		p    specs.LinuxMemoryPolicy
		want string
	}{
		{specs.LinuxMemoryPolicy{Mode: "MPOL_DEFAULT"}, "mode=0 nodes=0x0"},
		{specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0"}, "mode=2 nodes=0x1"},
		{specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: " 0 ,,", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_STATIC_NODES"}}, "mode=32770 nodes=0x1"},
		{specs.LinuxMemoryPolicy{Mode: "MPOL_INTERLEAVE", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_RELATIVE_NODES"}}, "mode=16387 nodes=0x1"},
		{specs.LinuxMemoryPolicy{Mode: "MPOL_PREFERRED", Nodes: "0"}, "mode=1 nodes=0x1"},
		{specs.LinuxMemoryPolicy{Mode: "MPOL_PREFERRED_MANY", Nodes: "0-0"}, "mode=5 nodes=0x1"},
		{specs.LinuxMemoryPolicy{Mode: "MPOL_LOCAL"}, "mode=4 nodes=0x0"},
	} {
		b := newBox(t, tuned, func(s *specs.Spec) { s.Linux.MemoryPolicy = &c.p })
		if !numa {
			b.refused([]string{"/linux/memoryPolicy", "this kernel is built without NUMA"}, "run", b.id)
			continue
		}
		if out := line(b.run(), "memory"); out != c.want {
			t.Errorf("%v: %q, expected %q", c.p, out, c.want)
		}
	}
	if numa {
		b := newBox(t, tuned, func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "1000"}
		})
		b.refused([]string{"/linux/memoryPolicy", "invalid argument", "nodes are not there"}, "create", b.id)
	}
}

// rt's own restriction to some CPUs is not the container's.
func TestAffinityIsNotInherited(t *testing.T) {
	t.Parallel()
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		t.Fatal(err)
	}
	if own.Count() < 2 {
		t.Skip("the machine has one CPU")
	}
	b := newBox(t, tuned)
	all := line(b.run(), "cpus")
	p := b.command("taskset", "1", bin, "--root", b.root, "run", b.id)
	if r := p.start().end(); r.code != 0 || line(r.out, "cpus") != all || !strings.Contains(all, " ") {
		t.Errorf("expected CPUs %s: %v", all, r)
	}
}

func TestExecAffinity(t *testing.T) {
	t.Parallel()
	var own unix.CPUSet
	if err := unix.SchedGetaffinity(0, &own); err != nil {
		t.Fatal(err)
	}
	b := newBox(t, args("sleep", "1000"))
	b.launch()
	all := line(b.ok("exec", b.id, "/probe", "tuned"), "cpus")
	last := all[strings.LastIndexByte(all, ' ')+1:]
	for _, c := range []struct{ initial, final, want string }{
		{"", "", all},
		{"0", "", "0"},
		{"", "0", "0"},
		{"0", last, last},
		{"0", "0-8191", all},
		{" 0 ,, ", "", "0"},
	} {
		process := *b.spec.Process
		process.Args = []string{"/probe", "tuned"}
		process.ExecCPUAffinity = &specs.CPUAffinity{Initial: c.initial, Final: c.final}
		if out := line(b.execProcess(&process), "cpus"); out != c.want {
			t.Errorf("initial %q, final %q: CPUs %q, expected %q", c.initial, c.final, out, c.want)
		}
	}
	process := *b.spec.Process
	process.ExecCPUAffinity = &specs.CPUAffinity{Final: "8191"}
	b.rt("exec", "--process", b.processFile(&process), b.id).refused(255, "/process/execCPUAffinity/final", "none of these CPUs")
}

// processFile writes a process for exec --process.
func (b *box) processFile(p *specs.Process) string {
	b.t.Helper()
	data, err := json.Marshal(p)
	b.must(err)
	f, err := os.CreateTemp(b.dir, "process")
	b.must(err)
	defer f.Close()
	_, err = f.Write(data)
	b.must(err)
	return f.Name()
}

func (b *box) execProcess(p *specs.Process) string {
	b.t.Helper()
	return b.ok("exec", "--process", b.processFile(p), b.id)
}

// All that can be set is the exec'd process's too, whether its document says so or not.
func TestExecIsTuned(t *testing.T) {
	t.Parallel()
	numa := unix.SetMemPolicy(0, nil) != unix.ENOSYS
	b := newBox(t, args("sleep", "1000"), func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_BATCH", Nice: 4}
		s.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_BE", Priority: 6}
		s.Process.ExecCPUAffinity = &specs.CPUAffinity{Final: "0"}
		s.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
		if numa {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0"}
		}
	})
	b.launch()
	want := map[string]string{
		"scheduler": "policy=3 flags=0 nice=4 priority=0", "ioprio": "class=2 priority=6", "cpus": "0", "personality": "8",
	}
	if numa {
		want["memory"] = "mode=2 nodes=0x1"
	}
	bare := &specs.Process{Args: []string{"/probe", "tuned"}, Cwd: "/"}
	other := *bare
	other.Scheduler = &specs.Scheduler{Policy: "SCHED_OTHER", Nice: 1}
	for name, out := range map[string]string{
		"exec": b.ok("exec", b.id, "/probe", "tuned"), "exec --process": b.execProcess(bare),
	} {
		for word, w := range want {
			if got := line(out, word); got != w {
				t.Errorf("%s: %s %q, expected %q", name, word, got, w)
			}
		}
	}
	if out := b.execProcess(&other); line(out, "scheduler") != "policy=0 flags=0 nice=1 priority=0" || line(out, "ioprio") != want["ioprio"] {
		t.Errorf("exec --process with a scheduler of its own: %q", out)
	}
}

func TestTuneRefused(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for pointer, value := range map[string]string{
		"/process/scheduler/policy":        `{"policy":"SCHED_NONE"}`,
		"/process/scheduler/priority":      `{"policy":"SCHED_OTHER","priority":1}`,
		"/process/ioPriority/class":        `{"class":"IOPRIO_CLASS_NONE"}`,
		"/process/execCPUAffinity/initial": `{"initial":"1-"}`,
		"/linux/memoryPolicy/nodes":        `{"mode":"MPOL_BIND"}`,
		"/linux/personality/domain":        `{"domain":"SVR4"}`,
	} {
		b.patch(filepath.Dir(pointer), json.RawMessage(value))
		b.refused([]string{pointer}, "create", b.id)
		b.clean()
	}
}

// The session keyring is a new one, which exec joins; without it it is rt's own.
func TestKeyring(t *testing.T) {
	t.Parallel()
	for _, uid := range []uint32{0, 1000} {
		b := newBox(t, script("/probe key add k && touch /tmp/added && exec sleep 1000"), func(s *specs.Spec) {
			s.Process.User.UID = uid
			s.Process.Cwd = "/tmp"
		})
		b.must(os.Chmod(b.path("rootfs/tmp"), 0o777))
		if own, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "k", 0); err == nil {
			t.Fatalf("rt's own keyring has the key already: %d", own)
		}
		b.launch()
		eventually(t, func() error { _, err := os.Stat(b.path("rootfs/tmp/added")); return err })
		for range 2 {
			if out := b.ok("exec", b.id, "/probe", "key", "find", "k"); out != "secret _ses."+b.id+"\n" {
				t.Errorf("uid %d: exec finds %q", uid, out)
			}
		}
		if _, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "k", 0); err == nil {
			t.Error("the key is in rt's own session keyring")
		}
	}
}

func TestExecOOMScore(t *testing.T) {
	t.Parallel()
	score := 321
	b := newBox(t, args("sleep", "1000"), func(s *specs.Spec) { s.Process.OOMScoreAdj = &score })
	b.launch()
	if out := b.exec("cat /proc/self/oom_score_adj"); out != "321\n" {
		t.Errorf("exec has %q", out)
	}
	own := 555
	p := &specs.Process{Args: []string{"cat", "/proc/self/oom_score_adj"}, Cwd: "/", OOMScoreAdj: &own}
	if out := b.execProcess(p); out != "555\n" {
		t.Errorf("exec --process has %q", out)
	}
}
