package seccomp

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The values at which comparisons of halves go wrong.
var edges = []uint64{
	0, 1, 2, 5, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 5<<32 | 5, 1<<63 - 1, 1 << 63, math.MaxUint64,
}

func ptr[T any](v T) *T { return &v }

// source draws numbers below n: from a generator, or from a fuzzer's bytes.
type source interface{ IntN(n int) int }

type bytesSource struct{ b []byte }

func (s *bytesSource) IntN(n int) int {
	if len(s.b) == 0 {
		return 0
	}
	v := int(s.b[0])
	s.b = s.b[1:]
	if n > 256 && len(s.b) > 0 {
		v, s.b = v<<8|int(s.b[0]), s.b[1:]
	}
	return v % n
}

func randomProfile(r source) *specs.LinuxSeccomp {
	acts := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActTrap, specs.ActKill, specs.ActLog, specs.ActTrace, specs.ActKillProcess}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	action := func() (specs.LinuxSeccompAction, *uint) {
		a := acts[r.IntN(len(acts))]
		if (a == specs.ActErrno || a == specs.ActTrace) && r.IntN(2) == 0 {
			return a, ptr(uint(r.IntN(40)))
		}
		return a, nil
	}
	p := &specs.LinuxSeccomp{}
	p.DefaultAction, p.DefaultErrnoRet = action()
	for range r.IntN(4) {
		p.Architectures = append(p.Architectures, specs.Arch(archs[r.IntN(len(archs))].name))
	}
	pool := make([]string, 6+r.IntN(120))
	for i := range pool {
		pool[i] = callName(r.IntN(nameCount))
	}
	pool = append(pool, "socket", "semop", "recv", "socketcall", "ioctl")
	for range r.IntN(12) {
		var s specs.LinuxSyscall
		s.Action, s.ErrnoRet = action()
		for range 1 + r.IntN(20) {
			s.Names = append(s.Names, pool[r.IntN(len(pool))])
		}
		for range r.IntN(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{
				Index: uint(r.IntN(6)), Op: ops[r.IntN(len(ops))],
				Value: edges[r.IntN(len(edges))], ValueTwo: edges[r.IntN(len(edges))],
			})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	return p
}

// compare checks a filter against the evaluator on the numbers around all that
// any architecture has.
func compare(t testing.TB, p *specs.LinuxSeccomp, native string, r source, every int) {
	t.Helper()
	prog, _, err := Compile(p, native)
	if err != nil && strings.Contains(err.Error(), "contradicts") {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if prog == nil {
		t.Fatal("no filter")
	}
	own, _ := nativeArch(native)
	vm, err := decode(prog.Filter, own.big)
	if err != nil {
		t.Fatal(err)
	}
	e := newEvaluator(p, native)
	check := func(audit, number uint32) {
		for range 3 {
			d := data{number: number, arch: audit}
			for i := range d.args {
				d.args[i] = edges[r.IntN(len(edges))]
			}
			want := e.verdict(&d)
			if got, _ := vm.run(&d); got != want {
				t.Fatalf("native %s, arch %#x, number %#x, args %#x: verdict %#x, want %#x\n%+v", native, audit, number, d.args, got, want, p)
			}
		}
	}
	for _, a := range archs {
		for n := range 480 {
			if n%every == 0 || every == 1 {
				check(a.audit, a.first+uint32(n))
			}
		}
		for _, n := range []uint32{0, 1000, 3999, 4500, 5999, 0xeffff, 0xf0000, 0xf0001, 0xf0005, 0xf0007, x32Bit - 1, x32Bit, x32Bit + 512, x32Bit + 547, x32Bit + 548, 1 << 31, math.MaxUint32} {
			check(a.audit, n)
		}
	}
	check(0x12345678, 1)
}

func TestRandomProfiles(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		compare(t, randomProfile(r), archs[r.IntN(len(archs))].name, r, 7)
	}
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte("seccomp"))
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.IntN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &bytesSource{b}
		compare(t, randomProfile(s), archs[s.IntN(len(archs))].name, rand.New(rand.NewPCG(5, 6)), 31)
	})
}
