package oracle

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	containerd "github.com/containerd/containerd/v2/contrib/seccomp"
	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"

	"rt/libcontainer/seccomp"
)

// edges are the values at which a comparison with one of the profile's may turn.
func edges(p *specs.LinuxSeccomp) []uint64 {
	all := []uint64{0, 1, 1 << 31, math.MaxUint32, 1 << 32, 1<<32 + 1, 1 << 63, math.MaxUint64}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				all = append(all, v, v-1, v+1, v^1<<32, v&math.MaxUint32, v|1<<63)
			}
		}
	}
	for code := range uint64(25) {
		all = append(all, code) // of socketcall and ipc
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// result counts what a comparison found.
type result struct {
	differ int // verdicts that are not libseccomp's, though the profile allows both
	wrong  int // verdicts of libseccomp that the profile does not allow
}

// check compares the verdicts for all numbers. Ours must be one that the profile
// allows.
func check(t *testing.T, p *specs.LinuxSeccomp, native *target, ref *reference, r *rand.Rand, rounds int) result {
	t.Helper()
	prog, _, err := seccomp.Compile(p, native.name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMachine(prog.Filter, native.big)
	if err != nil {
		t.Fatal(err)
	}
	values := edges(p)
	var res result
	one := func(a *target, audit, number uint32) {
		for range rounds {
			d := data{number: number, arch: audit}
			for i := range d.args {
				d.args[i] = values[r.IntN(len(values))]
			}
			got, _, one := m.run(&d)
			want, two := ref.verdict(&d)
			if got == want {
				if !one && !two {
					return // whatever the arguments
				}
				continue
			}
			var allowed []uint32
			if a != nil {
				allowed = direct(p, a, &d)
			}
			if !slices.Contains(allowed, got) {
				t.Errorf("native %s, arch %#x, number %#x, args %#x: %#x, libseccomp %#x, profile %#x: %+v", native.name, audit, number, d.args, got, want, allowed, p)
				t.FailNow()
			}
			if slices.Contains(allowed, want) && finds(t, p, native, &d, got) {
				res.differ++
				if res.differ == 1 {
					name, _ := libseccomp.ScmpSyscall(number).GetNameByArch(a.lib)
					t.Logf("native %s, arch %#x, number %#x (%s), args %#x: %#x, libseccomp %#x", native.name, audit, number, name, d.args, got, want)
					for i, s := range p.Syscalls {
						if slices.Contains(s.Names, name) {
							t.Logf("  rule %d: %s %v", i, s.Action, s.Args)
						}
					}
				}
			} else {
				res.wrong++
			}
		}
	}
	for i := range targets {
		a := &targets[i]
		if a.big != native.big {
			continue
		}
		for i := range uint32(600) {
			one(a, a.audit, a.first+i)
		}
		for _, i := range []uint32{3999, 5999, 0xeffff, 0xf0000, 0xf0001, 0xf0002, 0xf0003, 0xf0004, 0xf0005, 0xf0006, 0xf0007, x32Bit - 1, x32Bit, 1 << 31, math.MaxUint32 - 1, math.MaxUint32} {
			one(a, a.audit, i)
		}
	}
	one(nil, 0x12345678, 1)
	return res
}

// finds says whether libseccomp gives a verdict when no rules for another one are in the way. With
// several conditions on one argument it may lose some of them.
func finds(t *testing.T, p *specs.LinuxSeccomp, native *target, d *data, verdict uint32) bool {
	t.Helper()
	q := *p
	q.Syscalls = slices.DeleteFunc(slices.Clone(p.Syscalls), func(s specs.LinuxSyscall) bool { return value(s.Action, s.ErrnoRet) != verdict })
	ref, err := newReference(&q, native, false)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := ref.rules(d)
	return got == verdict
}

// engines returns the profiles that container engines ship.
func engines(t testing.TB) map[string]*specs.LinuxSeccomp {
	spec := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}}}, Linux: &specs.Linux{}}
	all := map[string]*specs.LinuxSeccomp{"containerd": containerd.DefaultProfile(spec)}
	docker, err := moby.GetDefaultProfile(spec)
	if err != nil {
		t.Fatal(err)
	}
	all["docker"] = docker
	admin := *spec
	admin.Process = &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: append(slices.Clone(spec.Process.Capabilities.Bounding), "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")}}
	if all["docker with CAP_SYS_ADMIN"], err = moby.GetDefaultProfile(&admin); err != nil {
		t.Fatal(err)
	}
	// Podman's is in Debian's golang-github-containers-common.
	body, err := os.ReadFile("/usr/share/containers/seccomp.json")
	if err != nil {
		t.Fatal(err)
	}
	if all["podman"], err = moby.LoadProfile(string(body), spec); err != nil {
		t.Fatal(err)
	}
	return all
}

// known drops the names that this libseccomp does not know.
func known(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	q := *p
	q.Syscalls = nil
	for _, s := range p.Syscalls {
		s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(name string) bool {
			_, err := libseccomp.GetSyscallFromName(name)
			return err != nil
		})
		if len(s.Names) > 0 {
			q.Syscalls = append(q.Syscalls, s)
		}
	}
	return &q
}

func TestEngines(t *testing.T) {
	for name, p := range engines(t) {
		t.Run(name, func(t *testing.T) {
			full, warnings, err := seccomp.Compile(p, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d syscalls named, unknown: %q", full.Syscalls, warnings)
			p := known(p)
			for _, native := range targets[:1] {
				ref, err := newReference(p, &native, true)
				if err != nil {
					t.Fatal(err)
				}
				prog, _, err := seccomp.Compile(p, native.name)
				if err != nil {
					t.Fatal(err)
				}
				m, err := newMachine(prog.Filter, native.big)
				if err != nil {
					t.Fatal(err)
				}
				linear, err := newReference(p, &native, false)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d instructions, longest path %d; libseccomp's tree %d and %d (and the stub), its list %d and %d",
					len(m.insns), m.longest(), len(ref.insns), ref.longest(), len(linear.insns), linear.longest())
				// The list is what libseccomp makes unless it is told otherwise.
				if m.longest()*10 > linear.longest() {
					t.Errorf("the longest path has %d instructions, more than a tenth of libseccomp's %d", m.longest(), linear.longest())
				}
				if res := check(t, p, &native, ref, rand.New(rand.NewPCG(1, 1)), 60); res != (result{}) {
					t.Errorf("%+v", res)
				}
			}
			for _, native := range targets[1:] {
				q := *p
				q.Architectures = nil
				ref, err := newReference(&q, &native, !native.big)
				if err != nil {
					t.Fatal(err)
				}
				if res := check(t, &q, &native, ref, rand.New(rand.NewPCG(1, 1)), 10); res != (result{}) {
					t.Errorf("%s: %+v", native.name, res)
				}
			}
		})
	}
}

// names are all calls of any architecture that libseccomp knows.
func names() []string {
	var all []string
	for _, t := range targets {
		for i := range uint32(600) {
			if name, err := libseccomp.ScmpSyscall(t.first + i).GetNameByArch(t.lib); err == nil {
				all = append(all, name)
			}
		}
	}
	all = append(all, "cacheflush", "set_tls", "breakpoint")
	slices.Sort(all)
	return slices.Compact(all)
}

// newer are calls whose number on some architecture this libseccomp lacks.
var newer = []string{"memfd_secret"}

type options struct {
	// mixed is for conditional rules of different actions. They have no alternatives: libseccomp
	// loses some, and then it is another rule that counts.
	mixed    bool
	maxConds int
	values   []uint64
}

func random(r *rand.Rand, pool []string, native *target, o options) *specs.LinuxSeccomp {
	acts := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActTrap, specs.ActKill, specs.ActLog, specs.ActTrace, specs.ActKillProcess}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	pick := func() (specs.LinuxSeccompAction, *uint) {
		a := acts[r.IntN(len(acts))]
		if (a == specs.ActErrno || a == specs.ActTrace) && r.IntN(2) == 0 {
			v := uint(r.IntN(40))
			return a, &v
		}
		return a, nil
	}
	p := &specs.LinuxSeccomp{}
	p.DefaultAction, p.DefaultErrnoRet = pick()
	for range r.IntN(4) {
		if t := targets[r.IntN(len(targets))]; t.big == native.big && t.name != native.name && !slices.Contains(p.Architectures, specs.Arch(t.name)) {
			p.Architectures = append(p.Architectures, specs.Arch(t.name))
		}
	}
	condAct, condErrno := pick()
	for range 1 + r.IntN(12) {
		var s specs.LinuxSyscall
		index := r.Perm(6)
		for j := range r.IntN(1 + o.maxConds) {
			if !o.mixed {
				index[j] = r.IntN(6) // conditions on one argument are alternatives
			}
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(index[j]), Op: ops[r.IntN(len(ops))],
				Value: o.values[r.IntN(len(o.values))], ValueTwo: o.values[r.IntN(len(o.values))]})
		}
		s.Action, s.ErrnoRet = pick()
		if len(s.Args) > 0 && !o.mixed {
			s.Action, s.ErrnoRet = condAct, condErrno
		}
		for range 1 + r.IntN(6) {
			s.Names = append(s.Names, pool[r.IntN(len(pool))])
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// rounds is how many random profiles of each kind are tried.
const rounds = 1500

// The interpreter of these tests agrees with that of golang.org/x/net.
func TestMachine(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, p := range engines(t) {
		for i := range targets {
			native := &targets[i]
			q := *p
			q.Architectures = nil
			prog, _, err := seccomp.Compile(&q, native.name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := newMachine(prog.Filter, native.big)
			if err != nil {
				t.Fatal(err)
			}
			insns, ok := bpf.Disassemble(m.insns)
			if !ok {
				t.Fatalf("%s, %s: unknown instructions", name, native.name)
			}
			vm, err := bpf.NewVM(insns)
			if err != nil {
				t.Fatal(err)
			}
			values := edges(p)
			for n := range uint32(600) {
				d := data{number: native.first + n, arch: native.audit}
				for i := range d.args {
					d.args[i] = values[r.IntN(len(values))]
				}
				want, err := vm.Run(d.packet(native.big))
				if err != nil {
					t.Fatal(err)
				}
				if got, _, _ := m.run(&d); got != uint32(want) {
					t.Fatalf("%s, %s, number %d, args %#x: %#x, expected %#x", name, native.name, n, d.args, got, want)
				}
			}
		}
	}
}

func TestRandom(t *testing.T) {
	everything := slices.DeleteFunc(names(), func(s string) bool { return slices.Contains(newer, s) })
	values := []uint64{0, 1, 2, 5, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 5<<32 | 5, 1<<63 - 1, 1 << 63, math.MaxUint64}
	for _, c := range []struct {
		name string
		options
	}{
		{"one action, small values", options{false, 3, []uint64{0, 1, 2, 3, 10}}},
		{"one action, edge values", options{false, 3, values}},
		{"one condition, mixed actions", options{true, 1, values}},
		{"mixed actions", options{true, 3, values}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, 8))
			refused, stuck, differ, wrong := 0, 0, 0, 0
			for range rounds {
				native := &targets[r.IntN(len(targets))]
				pool := make([]string, 20+r.IntN(60))
				for i := range pool {
					pool[i] = everything[r.IntN(len(everything))]
				}
				pool = append(pool, "socket", "semop", "recv", "socketcall")
				p := random(r, pool, native, c.options)
				ref, err := newReference(p, native, false)
				if errors.Is(err, errConflict) {
					refused++
					continue
				}
				if errors.Is(err, errStuck) {
					stuck++
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				res := check(t, p, native, ref, r, 2)
				if res.differ > 0 {
					differ++
				}
				if res.wrong > 0 {
					wrong++
				}
			}
			t.Logf("%d profiles, %d refused by libseccomp, %d from which it does not come back, %d wrong in libseccomp, %d differ", rounds, refused, stuck, wrong, differ)
			// Which of several rules counts that all hold is for libseccomp a matter of how its tree comes
			// out. package seccomp has an order that leads to the same, but for few of the profiles
			// whose rules have several conditions.
			if c.mixed && c.maxConds > 1 && differ <= rounds/200 {
				differ = 0
			}
			if differ > 0 {
				t.Errorf("%d profiles differ", differ)
			}
		})
	}
}
