package cgroup

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The dozen eBPF instructions of a device program, by hand. A library assembles
// them as well, but importing it made every rt command start 0.15 ms later; it
// checks ours in a test. Names and encoding are those of the kernel
// (include/uapi/linux/bpf.h, Documentation/bpf/standardization/instruction-set.rst).
const (
	bpfLDXW  = 0x61 // dst = *(u32 *)(src + off)
	bpfMOV   = 0xb7 // dst = imm
	bpfMOVX  = 0xbf // dst = src
	bpfAND   = 0x57 // dst &= imm
	bpfRSH   = 0x77 // dst >>= imm
	bpfJA    = 0x05 // pc += off
	bpfJEQ   = 0x15 // if dst == imm; imm is sign-extended
	bpfJNE   = 0x55
	bpfJSET  = 0x45 // if dst & imm
	bpfJEQ32 = 0x16 // the same on the lower 32 bits
	bpfJNE32 = 0x56
	bpfEXIT  = 0x95

	insnSize = 8
)

// insn is one instruction. A jump names its target by label; off is filled in
// by assemble.
type insn struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
	label    string // what jumps call this instruction
	target   string // the label that this one jumps to
}

// assemble returns the program as the kernel takes it.
func assemble(insns []insn) ([]byte, error) {
	at := make(map[string]int, 8)
	for i := range insns {
		if l := insns[i].label; l != "" {
			at[l] = i
		}
	}
	b := make([]byte, 0, len(insns)*insnSize)
	for i := range insns {
		in := insns[i]
		if in.target != "" {
			to, ok := at[in.target]
			off := to - i - 1
			if !ok || off < 0 || off > math.MaxInt16 {
				return nil, fmt.Errorf("assemble device program: instruction %d cannot jump to %q, %d away", i, in.target, off)
			}
			in.off = int16(off)
		}
		registers := in.src<<4 | in.dst
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			registers = in.dst<<4 | in.src
		}
		b = append(b, in.code, registers)
		b = binary.NativeEndian.AppendUint16(b, uint16(in.off))
		b = binary.NativeEndian.AppendUint32(b, uint32(in.imm))
	}
	return b, nil
}
