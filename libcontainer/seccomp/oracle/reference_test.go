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

// machine runs a filter.
type machine struct {
	vm    *bpf.VM
	insns []bpf.Instruction
}

func newMachine(filter []byte, big bool) (*machine, error) {
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	var raw []bpf.RawInstruction
	for i := 0; i+8 <= len(filter); i += 8 {
		raw = append(raw, bpf.RawInstruction{Op: order.Uint16(filter[i:]), Jt: filter[i+2], Jf: filter[i+3], K: order.Uint32(filter[i+4:])})
	}
	insns, ok := bpf.Disassemble(raw)
	if !ok {
		return nil, errors.New("the filter has unknown instructions")
	}
	vm, err := bpf.NewVM(insns)
	return &machine{vm, insns}, err
}

func (m *machine) run(packet []byte) uint32 {
	v, err := m.vm.Run(packet)
	if err != nil {
		panic(err)
	}
	return uint32(v)
}

// longest is the length of the longest path.
func (m *machine) longest() int {
	length := make([]int, len(m.insns))
	for i := len(m.insns) - 1; i >= 0; i-- {
		switch in := m.insns[i].(type) {
		case bpf.RetConstant:
			length[i] = 1
		case bpf.Jump:
			length[i] = 1 + length[i+1+int(in.Skip)]
		case bpf.JumpIf:
			length[i] = 1 + max(length[i+1+int(in.SkipTrue)], length[i+1+int(in.SkipFalse)])
		default:
			length[i] = 1 + length[i+1]
		}
	}
	return length[0]
}

// reference is the filter as libseccomp makes it of the calls that runc makes.
type reference struct {
	*machine
	last    map[string]uint32 // highest number named, by architecture, if unknown calls are ENOSYS
	private uint32            // the same for those that only ARM has
	big     bool
	used    map[uint32]bool // return values of the profile's actions
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

func newReference(p *specs.LinuxSeccomp, native *target, optimize bool) (*reference, error) {
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
	all := []*target{native}
	for _, name := range p.Architectures {
		all = append(all, targetOf(string(name)))
	}
	if native.lib != own {
		if err := f.RemoveArch(own); err != nil {
			return nil, fmt.Errorf("remove architecture: %w", err)
		}
	}
	for _, t := range all {
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
	code, err := export(f)
	if err != nil {
		return nil, err
	}
	m, err := newMachine(code, native.big)
	if err != nil {
		return nil, err
	}
	r := &reference{machine: m, big: native.big, used: map[uint32]bool{0: true, value(p.DefaultAction, p.DefaultErrnoRet): true}}
	for _, s := range p.Syscalls {
		r.used[value(s.Action, s.ErrnoRet)] = true
	}
	switch p.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
	default:
		r.young(p, all)
	}
	return r, nil
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
	r.last = map[string]uint32{}
	for _, t := range all {
		for _, s := range p.Syscalls {
			for _, name := range s.Names {
				n := resolve(name, t)
				if t.lib == libseccomp.ArchARM && n >= 0xf0000 {
					r.private = max(r.private, uint32(n))
				} else if n >= 0 {
					r.last[t.name] = max(r.last[t.name], uint32(n))
				}
				// What a call goes through counts as named with it.
				if through, code := code(name); t.mux && code > 0 {
					r.last[t.name] = max(r.last[t.name], uint32(resolve(through, t)))
				}
			}
		}
	}
}

func (r *reference) verdict(d *data, packet []byte) uint32 {
	const enosys = 0x00050000 | uint32(syscall.ENOSYS)
	for name, last := range r.last {
		t := targetOf(name)
		if t.audit != d.arch {
			continue
		}
		switch t.lib {
		case libseccomp.ArchAMD64:
			if d.number > last && d.number < x32Bit {
				return enosys
			}
		case libseccomp.ArchX32:
			if d.number > last {
				return enosys
			}
		case libseccomp.ArchARM:
			if d.number > last && (d.number < 0xf0000 || d.number > r.private) {
				return enosys
			}
		default:
			if d.number > last || t.setup && d.number == 0 {
				return enosys
			}
		}
	}
	if d.arch == 0x40000028 && r.private > 0 && d.number > r.private {
		return enosys
	}
	return r.rules(packet)
}

// rules is the verdict of libseccomp's filter.
func (r *reference) rules(packet []byte) uint32 {
	v := r.run(packet)
	if r.big && !r.used[v] && r.used[bits.ReverseBytes32(v)] {
		// libseccomp 2.5 swaps some return values when it compiles for the other
		// byte order.
		v = bits.ReverseBytes32(v)
	}
	return v
}
