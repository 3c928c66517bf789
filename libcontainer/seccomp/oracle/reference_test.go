package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// target is an architecture in the terms of both sides.
type target struct {
	name   string
	lib    libseccomp.ScmpArch
	audit  uint32
	first  uint32
	big    bool
	mux    bool
	setup  bool
	narrow bool
}

const x32Bit = 1 << 30

// All that package seccomp and Debian's libseccomp both have.
var targets = []target{
	{name: "SCMP_ARCH_X86_64", lib: libseccomp.ArchAMD64, audit: 0xc000003e},
	{name: "SCMP_ARCH_X86", lib: libseccomp.ArchX86, audit: 0x40000003, mux: true, narrow: true},
	{name: "SCMP_ARCH_X32", lib: libseccomp.ArchX32, audit: 0xc000003e, first: x32Bit, narrow: true},
	{name: "SCMP_ARCH_ARM", lib: libseccomp.ArchARM, audit: 0x40000028, narrow: true},
	{name: "SCMP_ARCH_AARCH64", lib: libseccomp.ArchARM64, audit: 0xc00000b7},
	{name: "SCMP_ARCH_MIPSEL", lib: libseccomp.ArchMIPSEL, audit: 0x40000008, first: 4000, mux: true, narrow: true},
	{name: "SCMP_ARCH_MIPSEL64", lib: libseccomp.ArchMIPSEL64, audit: 0xc0000008, first: 5000},
	{name: "SCMP_ARCH_PPC64LE", lib: libseccomp.ArchPPC64LE, audit: 0xc0000015, mux: true},
	{name: "SCMP_ARCH_RISCV64", lib: libseccomp.ArchRISCV64, audit: 0xc00000f3},
	{name: "SCMP_ARCH_MIPS", lib: libseccomp.ArchMIPS, audit: 0x00000008, first: 4000, mux: true, big: true, narrow: true},
	{name: "SCMP_ARCH_MIPS64", lib: libseccomp.ArchMIPS64, audit: 0x80000008, first: 5000, big: true},
	{name: "SCMP_ARCH_PPC", lib: libseccomp.ArchPPC, audit: 0x00000014, mux: true, big: true, narrow: true},
	{name: "SCMP_ARCH_PPC64", lib: libseccomp.ArchPPC64, audit: 0x80000015, mux: true, big: true},
	{name: "SCMP_ARCH_S390X", lib: libseccomp.ArchS390X, audit: 0x80000016, mux: true, big: true, setup: true},
}

func targetOf(name string) *target {
	for i := range targets {
		if targets[i].name == name {
			return &targets[i]
		}
	}
	panic(name)
}

// data is a struct seccomp_data.
type data struct {
	number, arch uint32
	args         [6]uint64
}

// packet makes d what a filter for sockets reads, big endian word by word.
func (d *data) packet(big bool) []byte {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[0:], d.number)
	binary.BigEndian.PutUint32(b[4:], d.arch)
	for i, v := range d.args {
		high, low := uint32(v>>32), uint32(v)
		if !big {
			high, low = low, high
		}
		binary.BigEndian.PutUint32(b[16+8*i:], high)
		binary.BigEndian.PutUint32(b[20+8*i:], low)
	}
	return b
}

// machine runs a filter: golang.org/x/net/bpf does too (TestMachine), ten times slower.
type machine struct {
	insns []bpf.RawInstruction
	big   bool
}

func newMachine(filter []byte, big bool) (*machine, error) {
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	m := &machine{big: big}
	for i := 0; i+8 <= len(filter); i += 8 {
		m.insns = append(m.insns, bpf.RawInstruction{Op: order.Uint16(filter[i:]), Jt: filter[i+2], Jf: filter[i+3], K: order.Uint32(filter[i+4:])})
	}
	for i, in := range m.insns {
		switch in.Op {
		case load, and, jump, equal, greater, atLeast, ret:
		default:
			return nil, fmt.Errorf("instruction %d of the filter is unknown: %+v", i, in)
		}
	}
	return m, nil
}

// What filters are made of (linux/bpf_common.h).
const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	and     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	jump    = unix.BPF_JMP | unix.BPF_JA
	equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	greater = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	ret     = unix.BPF_RET | unix.BPF_K
)

// run returns the verdict, the number of instructions that it took, and whether these looked
// at an argument.
func (m *machine) run(d *data) (verdict uint32, steps int, args bool) {
	var acc uint32
	for pc := 0; ; pc++ {
		in := &m.insns[pc]
		steps++
		held := false
		switch in.Op {
		case load:
			switch {
			case in.K == 0:
				acc = d.number
			case in.K == 4:
				acc = d.arch
			default:
				args = true
				v := d.args[(in.K-16)/8]
				if (in.K%8 == 0) == m.big {
					v >>= 32
				}
				acc = uint32(v)
			}
			continue
		case and:
			acc &= in.K
			continue
		case jump:
			pc += int(in.K)
			continue
		case ret:
			return in.K, steps, args
		case equal:
			held = acc == in.K
		case greater:
			held = acc > in.K
		case atLeast:
			held = acc >= in.K
		}
		if held {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
}

// longest is the length of the longest path.
func (m *machine) longest() int {
	length := make([]int, len(m.insns))
	for i := len(m.insns) - 1; i >= 0; i-- {
		switch in := m.insns[i]; in.Op {
		case ret:
			length[i] = 1
		case jump:
			length[i] = 1 + length[i+1+int(in.K)]
		case equal, greater, atLeast:
			length[i] = 1 + max(length[i+1+int(in.Jt)], length[i+1+int(in.Jf)])
		default:
			length[i] = 1 + length[i+1]
		}
	}
	return length[0]
}

// reference is the filter as libseccomp makes it of the calls that runc makes.
type reference struct {
	*machine
	last    []limit         // if unknown calls are ENOSYS
	private uint32          // the same for those that only ARM has
	used    map[uint32]bool // return values of the profile's actions
}

// limit is the highest number that is named for an architecture.
type limit struct {
	*target
	number uint32
}

// errConflict: libseccomp refuses rules that contradict each other.
var errConflict = errors.New("rules contradict each other")

func action(name specs.LinuxSeccompAction, errno *uint) libseccomp.ScmpAction {
	code := int16(syscall.EPERM)
	if errno != nil {
		code = int16(*errno)
	}
	switch name {
	case specs.ActKill, specs.ActKillThread:
		return libseccomp.ActKillThread
	case specs.ActKillProcess:
		return libseccomp.ActKillProcess
	case specs.ActTrap:
		return libseccomp.ActTrap
	case specs.ActErrno:
		return libseccomp.ActErrno.SetReturnCode(code)
	case specs.ActTrace:
		return libseccomp.ActTrace.SetReturnCode(code)
	case specs.ActLog:
		return libseccomp.ActLog
	case specs.ActAllow:
		return libseccomp.ActAllow
	}
	panic(name)
}

// value is what a filter returns for an action.
func value(name specs.LinuxSeccompAction, errno *uint) uint32 {
	code := uint32(syscall.EPERM)
	if errno != nil {
		code = uint32(*errno)
	}
	switch name {
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | code
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | code
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW
	}
	return unix.SECCOMP_RET_KILL_THREAD
}

func condition(a specs.LinuxSeccompArg) libseccomp.ScmpCondition {
	ops := map[specs.LinuxSeccompOperator]libseccomp.ScmpCompareOp{
		specs.OpNotEqual: libseccomp.CompareNotEqual, specs.OpLessThan: libseccomp.CompareLess,
		specs.OpLessEqual: libseccomp.CompareLessOrEqual, specs.OpEqualTo: libseccomp.CompareEqual,
		specs.OpGreaterEqual: libseccomp.CompareGreaterEqual, specs.OpGreaterThan: libseccomp.CompareGreater,
		specs.OpMaskedEqual: libseccomp.CompareMaskedEqual,
	}
	c, err := libseccomp.MakeCondition(a.Index, ops[a.Op], a.Value, a.ValueTwo)
	if err != nil {
		panic(err)
	}
	return c
}

// newReference has libseccomp make the filter, in a process of its own.
func newReference(p *specs.LinuxSeccomp, native *target, optimize bool) (*reference, error) {
	code, err := ask(&request{p, native.name, optimize})
	if err != nil {
		return nil, err
	}
	m, err := newMachine(code, native.big)
	if err != nil {
		return nil, err
	}
	r := &reference{machine: m, used: map[uint32]bool{0: true, value(p.DefaultAction, p.DefaultErrnoRet): true}}
	for _, s := range p.Syscalls {
		r.used[value(s.Action, s.ErrnoRet)] = true
	}
	switch p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
	default:
		r.young(p, architectures(p, native))
	}
	return r, nil
}

func architectures(p *specs.LinuxSeccomp, native *target) []*target {
	all := []*target{native}
	for _, name := range p.Architectures {
		all = append(all, targetOf(string(name)))
	}
	return all
}

// build has libseccomp make the filter.
func build(p *specs.LinuxSeccomp, native *target, optimize bool) ([]byte, error) {
	def := action(p.DefaultAction, p.DefaultErrnoRet)
	f, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	own, err := libseccomp.GetNativeArch()
	if err != nil {
		return nil, err
	}
	if native.lib != own {
		if err := f.RemoveArch(own); err != nil {
			return nil, fmt.Errorf("remove architecture: %w", err)
		}
	}
	for _, t := range architectures(p, native) {
		if err := f.AddArch(t.lib); err != nil {
			return nil, fmt.Errorf("add architecture %s: %w", t.name, err)
		}
	}
	if optimize {
		if err := f.SetOptimize(2); err != nil {
			return nil, err
		}
	}
	for _, s := range p.Syscalls {
		if err := addRules(f, &s, def); err != nil {
			return nil, err
		}
	}
	return export(f)
}

func export(f *libseccomp.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("filter", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "filter")
	defer file.Close()
	if err := f.ExportBPF(file); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(file)
}

func addRules(f *libseccomp.ScmpFilter, s *specs.LinuxSyscall, def libseccomp.ScmpAction) error {
	act := action(s.Action, s.ErrnoRet)
	if act == def {
		return nil
	}
	var conds []libseccomp.ScmpCondition
	count, twice := map[uint]int{}, false
	for _, a := range s.Args {
		conds = append(conds, condition(a))
		count[a.Index]++
		twice = twice || count[a.Index] > 1
	}
	for _, name := range s.Names {
		call, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			continue
		}
		switch {
		case len(conds) == 0:
			err = f.AddRule(call, act)
		case !twice:
			err = f.AddRuleConditional(call, act, conds)
		default:
			for i := range conds {
				if err = f.AddRuleConditional(call, act, conds[i:i+1]); err != nil {
					break
				}
			}
		}
		if errors.Is(err, syscall.EEXIST) {
			return errConflict
		}
		if err != nil {
			return fmt.Errorf("add rule for %s: %w", name, err)
		}
	}
	return nil
}

// young finds the numbers above which calls are ENOSYS.
func (r *reference) young(p *specs.LinuxSeccomp, all []*target) {
	for _, t := range all {
		last, named := uint32(0), false
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				n := resolve(name, t)
				if t.lib == libseccomp.ArchARM && n >= 0xf0000 {
					r.private = max(r.private, uint32(n))
				} else if n >= 0 {
					last, named = max(last, uint32(n)), true
				}
				// What a call goes through counts as named with it.
				if through, code := code(name); t.mux && code > 0 {
					last, named = max(last, uint32(resolve(through, t))), true
				}
			}
		}
		if named {
			r.last = append(r.last, limit{t, last})
		}
	}
}

// verdict is what libseccomp's filter and the stub for unknown calls say, and whether an argument
// mattered.
func (r *reference) verdict(d *data) (uint32, bool) {
	const enosys = 0x00050000 | uint32(syscall.ENOSYS)
	for _, t := range r.last {
		if t.audit != d.arch {
			continue
		}
		young := d.number > t.number
		switch t.lib {
		case libseccomp.ArchAMD64:
			young = young && d.number < x32Bit
		case libseccomp.ArchARM:
			young = young && (d.number < 0xf0000 || d.number > r.private)
		}
		if young || t.setup && d.number == 0 {
			return enosys, false
		}
	}
	if d.arch == 0x40000028 && r.private > 0 && d.number > r.private {
		return enosys, false
	}
	return r.rules(d)
}

// rules is the verdict of libseccomp's filter.
func (r *reference) rules(d *data) (uint32, bool) {
	v, _, args := r.run(d)
	if r.big && !r.used[v] && r.used[bits.ReverseBytes32(v)] {
		// libseccomp 2.5 swaps some return values when it compiles for the other
		// byte order.
		v = bits.ReverseBytes32(v)
	}
	return v, args
}
