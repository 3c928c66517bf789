package seccomp

import (
	"encoding/binary"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// insn is a struct sock_filter.
type insn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

const (
	opLoad = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opJump = unix.BPF_JMP | unix.BPF_JA
	opJEQ  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opJGT  = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	opJGE  = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	opRet  = unix.BPF_RET | unix.BPF_K

	// Offsets in struct seccomp_data.
	offNumber = 0
	offArch   = 4
	offArgs   = 16

	maxHop = math.MaxUint8
)

// label is the index of an instruction that is there already.
type label int

// assembler writes a program from its end to its start, so that a jump, which
// can only go forward, always goes to what is there already.
type assembler struct {
	insns   []insn // the last comes first
	big     bool
	returns []known // the nearest instruction of each return value
	chains  []chain
	starts  []label // of chains, -1 for those not written yet
}

type known struct {
	value uint32
	at    label
}

// assemble writes the program: the architecture selects a section, a binary search
// over the numbers in it a verdict.
func assemble(f *filter, big bool) []insn {
	l := layout{filter: f}
	sections := l.sections()
	a := assembler{insns: make([]insn, 0, 512), big: big, chains: l.chains, starts: make([]label, len(l.chains))}
	for i := range a.starts {
		a.starts[i] = -1
	}
	starts := make([]label, len(sections))
	for i, s := range slices.Backward(sections) {
		starts[i] = a.search(s.segments, f.fallback)
		if len(s.segments) > 1 {
			starts[i] = a.emit(opLoad, offNumber)
		}
	}
	next := a.ret(unix.SECCOMP_RET_KILL_THREAD)
	for i, s := range slices.Backward(sections) {
		next = a.branch(opJEQ, s.audit, starts[i], next)
	}
	a.emit(opLoad, offArch)
	slices.Reverse(a.insns)
	return a.insns
}

func encode(insns []insn, big bool) []byte {
	var order binary.AppendByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	b := make([]byte, 0, 8*len(insns))
	for _, in := range insns {
		b = order.AppendUint16(b, in.code)
		b = append(b, in.jt, in.jf)
		b = order.AppendUint32(b, in.k)
	}
	return b
}

// emit puts an instruction before all others.
func (a *assembler) emit(code uint16, k uint32) label {
	a.insns = append(a.insns, insn{code: code, k: k})
	return label(len(a.insns) - 1)
}

// far says that an instruction put before all others could not branch to to.
func (a *assembler) far(to label) bool { return len(a.insns)-int(to)-1 > maxHop }

// branch puts a conditional jump before all others.
func (a *assembler) branch(code uint16, k uint32, yes, no label) label {
	for a.far(yes) || a.far(no) {
		if a.far(yes) {
			yes = a.hop(yes)
		} else {
			no = a.hop(no)
		}
	}
	at := len(a.insns)
	a.insns = append(a.insns, insn{code, uint8(at - int(yes) - 1), uint8(at - int(no) - 1), k})
	return label(at)
}

// hop puts an instruction before all others that does what to does.
func (a *assembler) hop(to label) label {
	if in := a.insns[to]; in.code == opRet {
		at := a.emit(opRet, in.k)
		a.remember(in.k, at)
		return at
	}
	return a.emit(opJump, uint32(len(a.insns)-int(to)-1))
}

func (a *assembler) remember(value uint32, at label) {
	for i := range a.returns {
		if a.returns[i].value == value {
			a.returns[i].at = at
			return
		}
	}
	a.returns = append(a.returns, known{value, at})
}

// ret returns an instruction that returns value.
func (a *assembler) ret(value uint32) label {
	for i := range a.returns {
		if a.returns[i].value == value {
			if at := a.returns[i].at; !a.far(at) {
				return at
			}
			break
		}
	}
	at := a.emit(opRet, value)
	a.remember(value, at)
	return at
}

// search writes the binary search for the segment of the number in the accumulator.
func (a *assembler) search(s []segment, fallback uint32) label {
	switch {
	case len(s) == 1:
		return a.verdict(s[0].verdict, fallback)
	case len(s) == 3 && s[0].verdict == s[2].verdict && s[1].start+1 == s[2].start:
		// One number out of line.
		no := a.verdict(s[0].verdict, fallback)
		return a.branch(opJEQ, s[1].start, a.verdict(s[1].verdict, fallback), no)
	}
	half := len(s) / 2
	yes := a.search(s[half:], fallback)
	no := a.search(s[:half], fallback)
	return a.branch(opJGE, s[half].start, yes, no)
}

func (a *assembler) verdict(v verdict, fallback uint32) label {
	if v&kindMask == kindReturn {
		return a.ret(uint32(v))
	}
	start := &a.starts[uint32(v)]
	if *start < 0 {
		*start = a.chain(&a.chains[uint32(v)], fallback)
	}
	return *start
}

// chain writes a chain of rules.
func (a *assembler) chain(c *chain, fallback uint32) label {
	next := a.ret(fallback)
	for i := len(c.rules); i > 0; {
		n := alternatives(c.rules[:i])
		if n > 1 {
			next = a.alternatives(c.rules[i-n:i], c.wide, next)
		} else {
			next = a.rule(&c.rules[i-1], c.wide, next)
		}
		i -= n
	}
	return next
}

// alternatives counts the rules at the end of rules that only compare one
// argument with one value, and the same high half.
func alternatives(rules []rule) int {
	simple := func(r *rule) bool {
		return len(r.conds) == 1 && r.conds[0].op == opEQ && uint32(r.conds[0].mask) == math.MaxUint32
	}
	last := &rules[len(rules)-1]
	n := 0
	for n < len(rules) {
		r := &rules[len(rules)-1-n]
		if !simple(r) || r.conds[0].arg != last.conds[0].arg || r.conds[0].mask != last.conds[0].mask ||
			r.conds[0].value>>32 != last.conds[0].value>>32 {
			break
		}
		n++
	}
	return max(n, 1)
}

// alternatives writes such rules.
func (a *assembler) alternatives(rules []rule, wide bool, next label) label {
	first := &rules[0].conds[0]
	no := next
	for _, r := range slices.Backward(rules) {
		no = a.branch(opJEQ, uint32(r.conds[0].value), a.ret(r.verdict), no)
	}
	at := a.load(first, false, math.MaxUint32)
	if wide {
		at = a.high(first, at, next)
	}
	return at
}

// rule writes one rule; next is where to go on if it does not apply.
func (a *assembler) rule(r *rule, wide bool, next label) label {
	at := a.ret(r.verdict)
	for i := range slices.Backward(r.conds) {
		at = a.cond(&r.conds[i], wide, at, next)
	}
	return at
}

// cond writes one condition, with the half first that decides.
func (a *assembler) cond(c *cond, wide bool, yes, no label) label {
	code := uint16(opJEQ)
	switch c.op {
	case opNE:
		yes, no = no, yes
	case opGT:
		code = opJGT
	case opLE:
		code = opJGT
		yes, no = no, yes
	case opGE:
		code = opJGE
	case opLT:
		code = opJGE
		yes, no = no, yes
	}
	at := yes
	if mask := uint32(c.mask); mask != 0 {
		a.branch(code, uint32(c.value), yes, no)
		at = a.load(c, false, mask)
	}
	if !wide {
		return at
	}
	if code == opJEQ {
		return a.high(c, at, no)
	}
	high := uint32(c.value >> 32)
	at = a.branch(opJEQ, high, at, no)
	a.branch(opJGT, high, yes, at)
	return a.load(c, true, math.MaxUint32)
}

// high writes the comparison of the high halves for equality.
func (a *assembler) high(c *cond, yes, no label) label {
	mask := uint32(c.mask >> 32)
	if mask == 0 {
		return yes
	}
	a.branch(opJEQ, uint32(c.value>>32), yes, no)
	return a.load(c, true, mask)
}

// load puts the loading of one half of an argument before all others.
func (a *assembler) load(c *cond, high bool, mask uint32) label {
	if mask != math.MaxUint32 {
		a.emit(opAnd, mask)
	}
	off := uint32(offArgs + 8*int(c.arg))
	if high != a.big {
		off += 4
	}
	return a.emit(opLoad, off)
}
