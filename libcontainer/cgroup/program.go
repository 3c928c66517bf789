package cgroup

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceProgram compiles a policy for BPF_PROG_TYPE_CGROUP_DEVICE; nil if it
// allows everything. The rules are tried from the last to the first, those for character
// and for block devices apart; an allow rule takes its accesses off the wanted
// ones, a deny rule ends it if one of its own is still wanted. Those that earlier ones
// of the program leave nothing to do are skipped, as the time to load it goes with its length.
func deviceProgram(rules []deviceRule) []insn {
	allowed := false
	for i := len(rules) - 1; i >= 0; i-- {
		if rules[i].kind == 'a' {
			allowed = rules[i].allow
			rules = rules[i+1:]
			break
		}
	}
	chars, charsAllowed := backwards(rules, 'c', allowed)
	blocks, blocksAllowed := backwards(rules, 'b', allowed)
	if charsAllowed && blocksAllowed && len(chars)+len(blocks) == 0 {
		return nil
	}
	// struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }, access_type
	// is access << 16 | type.
	p := program{insns: []insn{
		{code: bpfLDXW, dst: wanted, src: context, off: 0},
		{code: bpfLDXW, dst: major, src: context, off: 4},
		{code: bpfLDXW, dst: minor, src: context, off: 8},
		{code: bpfMOVX, dst: kind, src: wanted},
		{code: bpfAND, dst: kind, imm: 0xffff},
		{code: bpfRSH, dst: wanted, imm: 16},
		{code: bpfJNE, dst: kind, imm: unix.BPF_DEVCG_DEV_CHAR, target: "block"},
	}}
	p.section(chars, charsAllowed)
	p.label = "block"
	p.section(blocks, blocksAllowed)
	p.end(true)
	p.end(false)
	return p.insns
}

// Registers of the program.
const (
	result  = 0
	context = 1
	wanted  = 2
	major   = 3
	minor   = 4
	kind    = 5
)

// backwards returns the rules of one kind from the last to the first, without
// those that do nothing, and what holds after them.
func backwards(rules []deviceRule, kind byte, allowed bool) ([]deviceRule, bool) {
	var out []deviceRule
next:
	for i := len(rules) - 1; i >= 0; i-- {
		r := rules[i]
		if r.kind != kind {
			continue
		}
		if r.access == accessAll && r.major == anyNumber && r.minor == anyNumber {
			allowed = r.allow
			break
		}
		for j := range out {
			if r.access&^out[j].access == 0 && r.within(&out[j]) {
				continue next
			}
		}
		out = append(out, r)
	}
	for len(out) > 0 && out[len(out)-1].allow == allowed {
		out = out[:len(out)-1]
	}
	return out, allowed
}

// program is a device program in the making.
type program struct {
	insns  []insn
	label  string // of the next instruction
	labels int
}

func (p *program) add(i insn) {
	i.label, p.label = p.label, ""
	p.insns = append(p.insns, i)
}

func (p *program) newLabel() string {
	p.labels++
	return "l" + strconv.Itoa(p.labels)
}

func verdict(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

// end adds a verdict, if anything jumps to it: the verifier refuses
// instructions that cannot be reached.
func (p *program) end(allow bool) {
	label := verdict(allow)
	if !slices.ContainsFunc(p.insns, func(i insn) bool { return i.target == label }) {
		return
	}
	p.label = label
	v := int32(0)
	if allow {
		v = 1
	}
	p.add(insn{code: bpfMOV, dst: result, imm: v})
	p.add(insn{code: bpfEXIT})
}

// section adds the rules of one kind. Those with one major number that follow
// each other share its test.
func (p *program) section(rules []deviceRule, allowed bool) {
	for len(rules) > 0 {
		n := 1
		for n < len(rules) && rules[n].major == rules[0].major {
			n++
		}
		next := ""
		if m := rules[0].major; m != anyNumber {
			next = p.newLabel()
			p.add(insn{code: bpfJNE32, dst: major, imm: int32(m), target: next})
		}
		for i := range rules[:n] {
			p.rule(&rules[i])
		}
		if next != "" {
			p.join(next)
		}
		rules = rules[n:]
	}
	p.add(insn{code: bpfJA, target: verdict(allowed)})
}

// join gives the next instruction a label that jumps may know by another name
// already.
func (p *program) join(label string) {
	if p.label == "" {
		p.label = label
		return
	}
	for i := range p.insns {
		if p.insns[i].target == label {
			p.insns[i].target = p.label
		}
	}
}

// rule adds the test of the minor number and what follows from it.
func (p *program) rule(r *deviceRule) {
	all := r.access == accessAll
	if r.minor != anyNumber && all {
		p.add(insn{code: bpfJEQ32, dst: minor, imm: int32(r.minor), target: verdict(r.allow)})
		return
	}
	next := ""
	if r.minor != anyNumber {
		next = p.newLabel()
		p.add(insn{code: bpfJNE32, dst: minor, imm: int32(r.minor), target: next})
	}
	switch {
	case all:
		p.add(insn{code: bpfJA, target: verdict(r.allow)})
	case r.allow:
		p.add(insn{code: bpfAND, dst: wanted, imm: int32(accessAll &^ r.access)})
		p.add(insn{code: bpfJEQ, dst: wanted, imm: 0, target: "allow"})
	default:
		p.add(insn{code: bpfJSET, dst: wanted, imm: int32(r.access), target: "deny"})
	}
	if next != "" {
		p.join(next)
	}
}

// attachDevices loads the program and attaches it to the cgroup2 directory fd,
// beside any that others attached: all of them must allow.
func attachDevices(fd int, insns []insn) error {
	code, err := assemble(insns)
	if err != nil {
		return err
	}
	prog, err := loadDevices(code)
	if err != nil {
		return fmt.Errorf("load device program of %d instructions: %w", len(code)/insnSize, err)
	}
	defer unix.Close(prog)
	// union bpf_attr for BPF_PROG_ATTACH
	attr := struct{ target, prog, kind, flags uint32 }{
		uint32(fd), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI,
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach device program: %w", err)
	}
	return nil
}

func loadDevices(code []byte) (int, error) {
	license := [...]byte{'M', 'I', 'T', 0} // the program calls no GPL-only helper
	// union bpf_attr for BPF_PROG_LOAD
	attr := struct {
		kind, count    uint32
		insns, license uint64
		logLevel       uint32
		logSize        uint32
		logBuf         uint64
		kernVersion    uint32
		flags          uint32
		name           [16]byte
		ifindex        uint32
		attachType     uint32
	}{
		kind:       unix.BPF_PROG_TYPE_CGROUP_DEVICE,
		count:      uint32(len(code) / insnSize),
		insns:      uint64(uintptr(unsafe.Pointer(&code[0]))),
		license:    uint64(uintptr(unsafe.Pointer(&license[0]))),
		name:       [16]byte{'r', 't', '_', 'd', 'e', 'v', 'i', 'c', 'e', 's'},
		attachType: unix.BPF_CGROUP_DEVICE,
	}
	var pin runtime.Pinner
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	defer pin.Unpin()
	for i := 0; ; i++ {
		fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		// EAGAIN: the verifier saw a signal, which Go sends itself now and then.
		if err == unix.EAGAIN && i < 10 {
			continue
		}
		return fd, err
	}
}

func bpf(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		r, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return -1, e
		}
		return int(r), nil
	}
}
