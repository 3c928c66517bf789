package seccomp

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// engineProfile has the shape of the profiles that container engines ship: most
// calls allowed for three architectures, some by their arguments.
func engineProfile() *specs.LinuxSeccomp {
	denied := []string{
		"acct", "add_key", "bpf", "clone", "clone3", "create_module", "delete_module", "finit_module", "fsconfig",
		"fsmount", "fsopen", "fspick", "get_kernel_syms", "init_module", "io_uring_enter", "io_uring_register",
		"io_uring_setup", "ioperm", "iopl", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie", "mount",
		"mount_setattr", "move_mount", "move_pages", "nfsservctl", "open_by_handle_at", "open_tree", "perf_event_open",
		"personality", "pivot_root", "query_module", "quotactl", "reboot", "request_key", "setns", "settimeofday",
		"socket", "socketcall", "stime", "swapoff", "swapon", "sysfs", "_sysctl", "umount", "umount2", "unshare",
		"uselib", "userfaultfd", "ustat", "vm86", "vm86old",
	}
	var allowed []string
	for i := range nameCount {
		if name := callName(i); !slices.Contains(denied, name) {
			allowed = append(allowed, name)
		}
	}
	one := func(name string, op specs.LinuxSeccompOperator, value, two uint64) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Value: value, ValueTwo: two, Op: op}}}
	}
	p := &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls:      []specs.LinuxSyscall{{Names: allowed, Action: specs.ActAllow}},
	}
	for _, v := range []uint64{0, 8, 0x20000, 0x20008, 0xffffffff} {
		p.Syscalls = append(p.Syscalls, one("personality", specs.OpEqualTo, v, 0))
	}
	return &specs.LinuxSeccomp{DefaultAction: p.DefaultAction, Architectures: p.Architectures, Syscalls: append(p.Syscalls,
		one("socket", specs.OpNotEqual, 40, 0),
		one("clone", specs.OpMaskedEqual, 0x7e020000, 0),
		specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: ptr(uint(38))},
	)}
}

func BenchmarkCompile(b *testing.B) {
	p := engineProfile()
	b.ReportAllocs()
	for b.Loop() {
		prog, _, err := Compile(p, "amd64")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(prog.Filter)/8), "insns")
	}
}
