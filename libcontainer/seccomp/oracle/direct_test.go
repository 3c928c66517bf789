package oracle

import (
	"slices"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
)

// direct are the verdicts that a profile itself allows for d, without the
// stub for unknown calls: more than one where rules of different actions overlap.
func direct(p *specs.LinuxSeccomp, t *target, d *data) []uint32 {
	def := value(p.DefaultAction, p.DefaultErrnoRet)
	var all []uint32
	for i := range p.Syscalls {
		s := &p.Syscalls[i]
		v := value(s.Action, s.ErrnoRet)
		if v == def {
			continue
		}
		for _, name := range s.Names {
			if t.mux {
				through, code := code(name)
				if code > 0 && resolve(through, t) == int(d.number) && uint64(uint32(d.args[0])) == code && (t.narrow || d.args[0] == code) {
					if applies(s.Args, t, d, true) {
						all = append(all, v)
					}
				}
			}
			if resolve(name, t) != int(d.number) {
				continue
			}
			if unconditional(s.Args, t) {
				return []uint32{v}
			}
			if applies(s.Args, t, d, false) {
				all = append(all, v)
			}
		}
	}
	if len(all) == 0 {
		return []uint32{def}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// code returns the call that name may go through, and its code there.
func code(name string) (through string, code uint64) {
	for _, through := range []string{"socketcall", "ipc"} {
		if i := slices.Index(multiplexed[through], name); i >= 0 {
			return through, uint64(i)
		}
	}
	return "", 0
}

var multiplexed = map[string][]string{
	"socketcall": {1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
		"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg"},
	"ipc": {1: "semop", "semget", "semctl", "semtimedop", 11: "msgsnd", "msgrcv", "msgget", "msgctl", 21: "shmat", "shmdt", "shmget", "shmctl"},
}

// numbers are those of all calls, as libseccomp's tables have them, by architecture.
var numbers = sync.OnceValue(func() map[libseccomp.ScmpArch]map[string]int {
	all := map[libseccomp.ScmpArch]map[string]int{}
	for _, t := range targets {
		all[t.lib] = map[string]int{}
		for _, first := range []uint32{t.first, 0xf0000} {
			for i := range uint32(600) {
				if name, err := libseccomp.ScmpSyscall(first + i).GetNameByArch(t.lib); err == nil {
					all[t.lib][name] = int(first + i)
				}
			}
		}
	}
	return all
})

// resolve is the number of a call, -1 if it has none.
// (Asked for the number of a call that may go through socketcall or ipc, libseccomp
// gives one of its pseudo numbers instead.)
func resolve(name string, t *target) int {
	if n, ok := numbers()[t.lib][name]; ok {
		return n
	}
	return -1
}

func twice(args []specs.LinuxSeccompArg) bool {
	for i, a := range args {
		if slices.ContainsFunc(args[:i], func(b specs.LinuxSeccompArg) bool { return a.Index == b.Index }) {
			return true
		}
	}
	return false
}

func always(a specs.LinuxSeccompArg, t *target) bool {
	return a.Op == specs.OpMaskedEqual && (a.Value == 0 || t.narrow && uint32(a.Value) == 0)
}

func unconditional(args []specs.LinuxSeccompArg, t *target) bool {
	no := 0
	for _, a := range args {
		if !always(a, t) {
			no++
		}
	}
	return no == 0 || no < len(args) && twice(args)
}

func applies(args []specs.LinuxSeccompArg, t *target, d *data, multiplexed bool) bool {
	or := twice(args)
	held := 0
	for _, a := range args {
		if multiplexed && a.Index == 0 || holds(a, t, d) {
			held++
		}
	}
	return held == len(args) || or && held > 0
}

func holds(a specs.LinuxSeccompArg, t *target, d *data) bool {
	v, w, x := d.args[a.Index], a.Value, a.ValueTwo
	if t.narrow {
		v, w, x = uint64(uint32(v)), uint64(uint32(w)), uint64(uint32(x))
	}
	switch a.Op {
	case specs.OpNotEqual:
		return v != w
	case specs.OpLessThan:
		return v < w
	case specs.OpLessEqual:
		return v <= w
	case specs.OpEqualTo:
		return v == w
	case specs.OpGreaterEqual:
		return v >= w
	case specs.OpGreaterThan:
		return v > w
	case specs.OpMaskedEqual:
		return v&w == x&w
	}
	panic(a.Op)
}
