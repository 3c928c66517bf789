package cgroup

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// The library's assembler must give the same bytes for a program with every
// instruction that ours knows.
func TestAssembleAsLibrary(t *testing.T) {
	got, err := assemble([]insn{
		{code: bpfLDXW, dst: 2, src: 1, off: 4},
		{code: bpfMOVX, dst: 5, src: 2},
		{code: bpfAND, dst: 5, imm: 0xffff},
		{code: bpfRSH, dst: 2, imm: 16},
		{code: bpfJNE, dst: 5, imm: 2, target: "x"},
		{code: bpfJEQ, dst: 2, imm: 0, target: "end"},
		{code: bpfJSET, dst: 2, imm: 3, target: "end"},
		{code: bpfJNE32, dst: 3, imm: -1, target: "x"},
		{code: bpfJEQ32, dst: 4, imm: 229, target: "end"},
		{code: bpfJA, target: "end", label: "x"},
		{code: bpfMOV, imm: 1, label: "end"},
		{code: bpfEXIT},
	})
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := (asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R5, asm.R2),
		asm.And.Imm(asm.R5, 0xffff),
		asm.RSh.Imm(asm.R2, 16),
		asm.JNE.Imm(asm.R5, 2, "x"),
		asm.JEq.Imm(asm.R2, 0, "end"),
		asm.JSet.Imm(asm.R2, 3, "end"),
		asm.JNE.Imm32(asm.R3, -1, "x"),
		asm.JEq.Imm32(asm.R4, 229, "end"),
		asm.Ja.Label("end").WithSymbol("x"),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("end"),
		asm.Return(),
	}).Marshal(&want, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("got  %x\nwant %x", got, want.Bytes())
	}
}

func TestAssembleRefuses(t *testing.T) {
	for _, bad := range [][]insn{
		{{code: bpfJA, target: "nowhere"}},
		{{code: bpfEXIT, label: "back"}, {code: bpfJA, target: "back"}},
	} {
		if _, err := assemble(bad); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}
