package seccomp

import (
	"fmt"
	"runtime"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// arch is an architecture as the kernel's struct seccomp_data shows it.
type arch struct {
	name   string
	goarch string
	audit  uint32 // AUDIT_ARCH_*
	row    int    // of numbers
	first  uint32 // number that the row counts from
	wide   bool   // arguments are compared as 64 bits
	big    bool   // most significant half of an argument first
	mux    bool   // has socketcall(2) and ipc(2)
	setup  bool   // number 0 stands for an unknown call
}

// x32Bit is set in the numbers of x32, which has the AUDIT_ARCH_* of x86-64.
const x32Bit = 0x40000000

// archs is sorted by name.
var archs = [...]arch{
	{name: "SCMP_ARCH_AARCH64", goarch: "arm64", audit: unix.AUDIT_ARCH_AARCH64, row: rowAARCH64, wide: true},
	{name: "SCMP_ARCH_ARM", goarch: "arm", audit: unix.AUDIT_ARCH_ARM, row: rowARM},
	{name: "SCMP_ARCH_LOONGARCH64", goarch: "loong64", audit: unix.AUDIT_ARCH_LOONGARCH64, row: rowLOONG64, wide: true},
	{name: "SCMP_ARCH_MIPS", goarch: "mips", audit: unix.AUDIT_ARCH_MIPS, row: rowMIPS, first: 4000, big: true, mux: true},
	{name: "SCMP_ARCH_MIPS64", goarch: "mips64", audit: unix.AUDIT_ARCH_MIPS64, row: rowMIPS64, first: 5000, wide: true, big: true},
	{name: "SCMP_ARCH_MIPSEL", goarch: "mipsle", audit: unix.AUDIT_ARCH_MIPSEL, row: rowMIPS, first: 4000, mux: true},
	{name: "SCMP_ARCH_MIPSEL64", goarch: "mips64le", audit: unix.AUDIT_ARCH_MIPSEL64, row: rowMIPS64, first: 5000, wide: true},
	{name: "SCMP_ARCH_PPC", goarch: "ppc", audit: unix.AUDIT_ARCH_PPC, row: rowPPC, big: true, mux: true},
	{name: "SCMP_ARCH_PPC64", goarch: "ppc64", audit: unix.AUDIT_ARCH_PPC64, row: rowPPC64, wide: true, big: true, mux: true},
	{name: "SCMP_ARCH_PPC64LE", goarch: "ppc64le", audit: unix.AUDIT_ARCH_PPC64LE, row: rowPPC64, wide: true, mux: true},
	{name: "SCMP_ARCH_RISCV64", goarch: "riscv64", audit: unix.AUDIT_ARCH_RISCV64, row: rowRISCV64, wide: true},
	{name: "SCMP_ARCH_S390X", goarch: "s390x", audit: unix.AUDIT_ARCH_S390X, row: rowS390X, wide: true, big: true, mux: true, setup: true},
	{name: "SCMP_ARCH_X32", audit: unix.AUDIT_ARCH_X86_64, row: rowX32, first: x32Bit},
	{name: "SCMP_ARCH_X86", goarch: "386", audit: unix.AUDIT_ARCH_I386, row: rowX86, mux: true},
	{name: "SCMP_ARCH_X86_64", goarch: "amd64", audit: unix.AUDIT_ARCH_X86_64, row: rowX8664, wide: true},
}

// Architectures of the specification whose numbers golang.org/x/sys/unix has not.
var noArchs = [...]string{
	"SCMP_ARCH_M68K", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PARISC",
	"SCMP_ARCH_PARISC64", "SCMP_ARCH_S390", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
}

// Architectures returns the architectures that a profile may list, sorted.
func Architectures() []string {
	names := make([]string, len(archs))
	for i := range archs {
		names[i] = archs[i].name
	}
	return names
}

func findArch(name string) *arch {
	for i := range archs {
		if archs[i].name == name {
			return &archs[i]
		}
	}
	return nil
}

func nativeArch(name string) (*arch, error) {
	if name == "" {
		name = runtime.GOARCH
	}
	for i := range archs {
		if archs[i].name == name || archs[i].goarch == name {
			return &archs[i], nil
		}
	}
	return nil, fmt.Errorf("compile seccomp filter for architecture %q: unknown; accepted: a GOARCH or %s", name, strings.Join(Architectures(), ", "))
}

// number is the system call number of a slot of the architecture's row. The order
// of numbers is that of slots.
func (a *arch) number(slot int) uint32 {
	if slot >= privateSlot {
		return 0x0f0000 + uint32(slot-privateSlot)
	}
	return a.first + uint32(slot)
}

// findName returns the index of a system call's name in numbers, or -1.
func findName(name string) int {
	i := sort.Search(nameCount, func(i int) bool { return callName(i) >= name })
	if i == nameCount || callName(i) != name {
		return -1
	}
	return i
}

func callName(i int) string {
	start := 0
	if i > 0 {
		start = int(nameEnds[i-1]) + 1
	}
	return nameText[start:nameEnds[i]]
}
