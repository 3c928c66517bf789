package seccomp

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// data is a struct seccomp_data.
type data struct {
	number, arch uint32
	args         [6]uint64
}

// load is the 32-bit word at an offset, which must be one of the struct's.
func (d *data) load(off uint32, big bool) (uint32, error) {
	switch {
	case off == 0:
		return d.number, nil
	case off == 4:
		return d.arch, nil
	case off%4 != 0 || off < 16 || off >= 64:
		return 0, fmt.Errorf("load from offset %d", off)
	}
	v := d.args[(off-16)/8]
	if (off%8 == 0) == big {
		v >>= 32
	}
	return uint32(v), nil
}

// interpreter runs a filter as the kernel would, and refuses what the kernel would.
type interpreter struct {
	insns []insn
	big   bool
}

func decode(b []byte, big bool) (*interpreter, error) {
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	if len(b)%8 != 0 || len(b) == 0 || len(b)/8 > MaxInstructions {
		return nil, fmt.Errorf("filter of %d bytes", len(b))
	}
	p := &interpreter{big: big}
	for i := 0; i < len(b); i += 8 {
		p.insns = append(p.insns, insn{order.Uint16(b[i:]), b[i+2], b[i+3], order.Uint32(b[i+4:])})
	}
	for i, in := range p.insns {
		n := uint64(len(p.insns) - i - 1) // instructions that follow
		switch in.code {
		case opLoad:
			if _, err := new(data).load(in.k, big); err != nil {
				return nil, fmt.Errorf("instruction %d: %w", i, err)
			}
			fallthrough
		case opAnd:
			if n == 0 {
				return nil, fmt.Errorf("instruction %d: the filter ends without a return", i)
			}
		case opJump:
			if uint64(in.k) >= n {
				return nil, fmt.Errorf("instruction %d: jump of %d beyond the end", i, in.k)
			}
		case opJEQ, opJGT, opJGE:
			if uint64(max(in.jt, in.jf)) >= n {
				return nil, fmt.Errorf("instruction %d: jump beyond the end", i)
			}
		case opRet:
		default:
			return nil, fmt.Errorf("instruction %d: unexpected code %#x", i, in.code)
		}
	}
	return p, nil
}

// run returns the verdict and the number of instructions it took.
func (p *interpreter) run(d *data) (verdict uint32, steps int) {
	var acc uint32
	for pc := 0; ; pc++ {
		in := &p.insns[pc]
		steps++
		jump := false
		switch in.code {
		case opLoad:
			acc, _ = d.load(in.k, p.big)
			continue
		case opAnd:
			acc &= in.k
			continue
		case opJump:
			pc += int(in.k)
			continue
		case opRet:
			return in.k, steps
		case opJEQ:
			jump = acc == in.k
		case opJGT:
			jump = acc > in.k
		case opJGE:
			jump = acc >= in.k
		}
		if jump {
			pc += int(in.jt)
		} else {
			pc += int(in.jf)
		}
	}
}

// evaluator gives a profile's verdict straight from the profile and a table of
// numbers by name.
type evaluator struct {
	profile *specs.LinuxSeccomp
	archs   []*arch
	def     uint32
}

func newEvaluator(p *specs.LinuxSeccomp, native string) *evaluator {
	own, err := nativeArch(native)
	if err != nil {
		panic(err)
	}
	e := &evaluator{profile: p, archs: []*arch{own}, def: actionValue(p.DefaultAction, p.DefaultErrnoRet)}
	for _, name := range p.Architectures {
		if a := findArch(string(name)); !slices.Contains(e.archs, a) {
			e.archs = append(e.archs, a)
		}
	}
	return e
}

func actionValue(name specs.LinuxSeccompAction, errno *uint) uint32 {
	data := uint32(1)
	if errno != nil {
		data = uint32(*errno)
	}
	switch name {
	case specs.ActKill, specs.ActKillThread:
		return 0
	case specs.ActKillProcess:
		return 0x80000000
	case specs.ActTrap:
		return 0x00030000
	case specs.ActErrno:
		return 0x00050000 | data
	case specs.ActNotify:
		return 0x7fc00000
	case specs.ActTrace:
		return 0x7ff00000 | data
	case specs.ActLog:
		return 0x7ffc0000
	case specs.ActAllow:
		return 0x7fff0000
	}
	panic(name)
}

// numberOf is the number of a call, without the packing of the tables.
func numberOf(a *arch, name string) (uint32, bool) {
	i := findName(name)
	if i < 0 || numbers[a.row][i] == absent {
		return 0, false
	}
	return a.number(int(numbers[a.row][i])), true
}

// muxed returns the call that stands for name on such architectures, and its code.
func muxed(a *arch, name string) (uint32, uint64, bool) {
	socket := []string{"", "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send",
		"recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"}
	ipc := map[string]uint64{"semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13,
		"msgctl": 14, "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24}
	if !a.mux {
		return 0, 0, false
	}
	if i := slices.Index(socket, name); i > 0 {
		n, _ := numberOf(a, "socketcall")
		return n, uint64(i), true
	}
	if code, ok := ipc[name]; ok {
		n, _ := numberOf(a, "ipc")
		return n, code, true
	}
	return 0, 0, false
}

func (e *evaluator) verdict(d *data) uint32 {
	var a *arch
	for _, b := range e.archs {
		if b.audit != d.arch {
			continue
		}
		x32 := b.name == "SCMP_ARCH_X32"
		if b.audit != unix.AUDIT_ARCH_X86_64 || x32 == (d.number >= 1<<30) {
			a = b
		} else if d.number == math.MaxUint32 && a == nil {
			a = b // skipped by a tracer
		}
	}
	if a == nil {
		return 0
	}
	if v, ok := e.young(a, d.number); ok {
		return v
	}
	type candidate struct {
		verdict uint32
		conds   []cond
	}
	var all []candidate
	for _, s := range e.profile.Syscalls {
		v := actionValue(s.Action, s.ErrnoRet)
		if v == e.def {
			continue
		}
		for _, name := range s.Names {
			var at []candidate
			if n, code, ok := muxed(a, name); ok && n == d.number {
				for _, r := range split(s.Args) {
					r = slices.DeleteFunc(r, func(c cond) bool { return c.arg == 0 })
					at = append(at, candidate{v, append([]cond{{value: code, mask: math.MaxUint64}}, r...)})
				}
			}
			if n, ok := numberOf(a, name); ok && n == d.number {
				for _, r := range split(s.Args) {
					at = append(at, candidate{v, r})
				}
			}
			for _, c := range at {
				c.conds = slices.DeleteFunc(c.conds, func(c cond) bool { return c.mask == 0 || !a.wide && uint32(c.mask) == 0 })
				if len(c.conds) == 0 {
					return c.verdict
				}
				if !a.wide {
					for i := range c.conds {
						c.conds[i].mask &= math.MaxUint32
						c.conds[i].value &= math.MaxUint32
					}
				}
				all = append(all, c)
			}
		}
	}
	slices.SortStableFunc(all, func(x, y candidate) int { return order(rule{0, x.conds}, rule{0, y.conds}) })
	for _, c := range all {
		if !slices.ContainsFunc(c.conds, func(c cond) bool { return !holds(c, d.args, a.wide) }) {
			return c.verdict
		}
	}
	return e.def
}

// young says whether a number is above all that the profile names.
func (e *evaluator) young(a *arch, number uint32) (uint32, bool) {
	switch e.profile.DefaultAction {
	case specs.ActAllow, specs.ActLog, specs.ActTrace:
		return 0, false
	}
	const private = 0x0f0000
	var ordinary, own, any uint32
	named := map[bool]bool{}
	for _, s := range e.profile.Syscalls {
		for _, name := range s.Names {
			if n, _, ok := muxed(a, name); ok {
				ordinary, named[true] = max(ordinary, n), true
			}
			n, ok := numberOf(a, name)
			switch {
			case !ok:
			case a.name == "SCMP_ARCH_ARM" && n >= private:
				own, named[false] = max(own, n), true
			default:
				ordinary, named[true] = max(ordinary, n), true
			}
		}
	}
	any = max(ordinary, own)
	if len(named) == 0 || a.name == "SCMP_ARCH_X86_64" && number == math.MaxUint32 {
		return 0, false
	}
	if number > any || named[true] && number > ordinary && number < private || a.setup && number == 0 {
		return 0x00050000 | 38, true
	}
	return 0, false
}

// split makes the rules of one member of syscalls.
func split(args []specs.LinuxSeccompArg) [][]cond {
	ops := map[specs.LinuxSeccompOperator]operator{
		specs.OpEqualTo: opEQ, specs.OpNotEqual: opNE, specs.OpLessThan: opLT, specs.OpLessEqual: opLE,
		specs.OpGreaterEqual: opGE, specs.OpGreaterThan: opGT,
	}
	var conds []cond
	count := map[uint]int{}
	or := false
	for _, x := range args {
		c := cond{arg: uint8(x.Index), value: x.Value, mask: math.MaxUint64}
		if x.Op == specs.OpMaskedEqual {
			c.op, c.mask, c.value = opEQ, x.Value, x.ValueTwo&x.Value
		} else {
			c.op = ops[x.Op]
		}
		conds = append(conds, c)
		count[x.Index]++
		or = or || count[x.Index] > 1
	}
	if !or {
		slices.SortFunc(conds, func(a, b cond) int { return int(a.arg) - int(b.arg) })
		return [][]cond{conds}
	}
	var rules [][]cond
	for _, c := range conds {
		rules = append(rules, []cond{c})
	}
	return rules
}

func holds(c cond, args [6]uint64, wide bool) bool {
	v := args[c.arg]
	if !wide {
		v = uint64(uint32(v))
	}
	switch v &= c.mask; c.op {
	case opEQ:
		return v == c.value
	case opNE:
		return v != c.value
	case opLT:
		return v < c.value
	case opLE:
		return v <= c.value
	case opGE:
		return v >= c.value
	case opGT:
		return v > c.value
	}
	panic(c.op)
}
