// Package seccomp compiles the seccomp profile of an OCI config to a classic BPF
// program for seccomp(2). It is pure: it makes no system call and opens no file.
//
// A filter gives the verdicts that libseccomp and runc give for the same profile,
// with each architecture's system call numbers of its own:
//
//   - An architecture that is not listed is SCMP_ACT_KILL_THREAD; so are x32
//     numbers (bit 30) without SCMP_ARCH_X32. The native one is always listed.
//   - A rule without conditions outweighs those with, before and after it; of two
//     the first counts. Rules with the same conditions and different actions are an error;
//     where such ones only overlap, order.go says which one counts.
//   - On a 32-bit architecture, and x32, only the low halves are compared.
//   - Where socket and System V IPC calls go through socketcall(2) and ipc(2) as
//     well, a rule for one of them applies there too, by its code in the first
//     argument. Its own condition on the first argument cannot apply there.
//   - If the default action is neither ALLOW, LOG nor TRACE, numbers above the
//     highest that the profile names are ENOSYS: programs then fall back from
//     a call that is younger than the profile.
package seccomp

//go:generate go run ./gen

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// MaxInstructions is the kernel's limit for one filter (BPF_MAXINSNS).
const MaxInstructions = 4096

// Program is a compiled filter.
type Program struct {
	// Filter is an array of struct sock_filter in the byte order of the native
	// architecture: 8 bytes an instruction.
	Filter []byte
	// Flags are SECCOMP_FILTER_FLAG_* for seccomp(2), with NEW_LISTENER if
	// Notify. The kernel refuses WAIT_KILLABLE_RECV before Linux 5.19.
	Flags uint32
	// Notify says that a rule asks for SCMP_ACT_NOTIFY: loading the filter gives
	// a descriptor to send to the profile's listenerPath.
	Notify bool
	// Syscalls counts the different system calls that the profile names and some
	// architecture has.
	Syscalls int
}

// Compile compiles p for the architecture native: a SCMP_ARCH_* name or a GOARCH,
// "" for this build's. Without a default action and rules (or p itself) there is
// no filter, and the program is nil. Warnings name system calls that no architecture
// has. An error names every member of config.json that is wrong, by JSON pointer.
func Compile(p *specs.LinuxSeccomp, native string) (*Program, []string, error) {
	if p == nil || p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil, nil
	}
	own, err := nativeArch(native)
	if err != nil {
		return nil, nil, err
	}
	var c checker
	f := c.profile(p, own)
	if err := c.err(); err != nil {
		return nil, nil, err
	}
	insns := assemble(f, own.big)
	if len(insns) > MaxInstructions {
		return nil, nil, fmt.Errorf("config.json: /linux/seccomp: the filter has %d instructions; accepted: up to %d", len(insns), MaxInstructions)
	}
	return &Program{Filter: encode(insns, own.big), Flags: f.flags, Notify: f.notify, Syscalls: f.named()}, c.warnings, nil
}
