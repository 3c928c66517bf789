package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// profile is an edit that sets a profile which allows all but rules.
func profile(rules ...specs.LinuxSyscall) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: rules}
	}
}

func rule(action specs.LinuxSeccompAction, name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: action, Args: args}
}

// What the kernel does with each call of a program is what the profile says, in
// create, run and exec alike, with no_new_privs and without.
func TestSeccompVerdicts(t *testing.T) {
	t.Parallel()
	enosys := uint(unix.ENOSYS)
	calls := []string{"getppid", "getpgid", "personality", "personality-other", "sync", "uname", "umask", "newest"}
	want := "getppid: operation not permitted\ngetpgid: function not implemented\npersonality: ok\npersonality-other: operation not permitted\n" +
		"sync: ok\nuname: ok\numask: ok\nnewest: function not implemented\n"
	for _, privileged := range []bool{false, true} {
		for _, uid := range []uint32{0, 1000} {
			b := newBox(t, args(append([]string{"/probe", "call"}, calls...)...), profile(
				rule(specs.ActErrno, "getppid"),
				specs.LinuxSyscall{Names: []string{"getpgid"}, Action: specs.ActErrno, ErrnoRet: &enosys},
				rule(specs.ActErrno, "personality", specs.LinuxSeccompArg{Index: 0, Value: 0xffffffff, Op: specs.OpNotEqual}),
				rule(specs.ActLog, "sync"),
				rule(specs.ActAllow, "no_such_call"),
			), func(s *specs.Spec) {
				s.Process.NoNewPrivileges = !privileged
				s.Process.User.UID = uid
			})
			r := b.rt("run", b.id)
			if r.code != 0 || r.out != want {
				t.Errorf("privileged %v, uid %d: %v, expected %q", privileged, uid, r, want)
			}
			b.spec.Process.Args = []string{"sleep", "1000"}
			b.write()
			b.rt("create", b.id)
			b.ok("start", b.id)
			for _, where := range []string{"exec", "exec --process"} {
				p := &specs.Process{Args: append([]string{"/probe", "call"}, calls...), Cwd: "/", NoNewPrivileges: !privileged, User: specs.User{UID: uid}}
				out := ""
				if where == "exec" {
					out = b.ok(append([]string{"exec", b.id}, p.Args...)...)
				} else {
					out = b.execProcess(p)
				}
				if out != want {
					t.Errorf("%s, privileged %v, uid %d: %q, expected %q", where, privileged, uid, out, want)
				}
			}
		}
	}
}

// The actions that end a program do so.
func TestSeccompFatal(t *testing.T) {
	t.Parallel()
	for action, status := range map[specs.LinuxSeccompAction]int{
		specs.ActKill: 128 + 31, specs.ActKillThread: 128 + 31, specs.ActKillProcess: 128 + 31, specs.ActTrap: 128 + 31,
		// Without a tracer there is no such call.
		specs.ActTrace: 1,
	} {
		b := newBox(t, args("sync"), profile(rule(action, "sync")))
		b.must(os.Symlink("busybox", b.path("rootfs/bin/sync")))
		r := b.rt("run", b.id)
		if action == specs.ActTrace {
			if r.code != 0 { // sync(1) does not look
				t.Errorf("%s: %v", action, r)
			}
			continue
		}
		if r.code != status {
			t.Errorf("%s: %v, expected status %d", action, r, status)
		}
	}
}

// ordinaryCalls are those without which a Go program does not run.
var ordinaryCalls = strings.Fields(`access arch_prctl brk capget capset chdir clock_gettime clone clone3 close close_range dup dup2 dup3
	epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group fcntl fstat futex getdents64 getpid getppid getrandom
	getrlimit gettid getuid ioctl lseek madvise mincore mmap mprotect munmap nanosleep newfstatat open openat pipe2 poll prctl
	pread64 prlimit64 read readlinkat restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield
	set_robust_list set_tid_address sigaltstack statx tgkill timer_create timer_delete timer_settime uname write writev getegid
	geteuid getgid setitimer wait4 kill`)

// A default of ENOSYS for what is younger than the profile; its own for the rest.
func TestSeccompAllowlist(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("/probe", "call", "sync", "getppid", "newest"), func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: ordinaryCalls, Action: specs.ActAllow}}}
	})
	if out := b.run(); out != "sync: operation not permitted\ngetppid: ok\nnewest: function not implemented\n" {
		t.Errorf("%q", out)
	}
}

func TestSeccompFlags(t *testing.T) {
	t.Parallel()
	for _, f := range []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, "SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagWaitKillableRecv} {
		b := newBox(t, profile(rule(specs.ActErrno, "sync")))
		b.spec.Linux.Seccomp.Flags = []specs.LinuxSeccompFlag{f}
		b.write()
		b.run()
	}
}

func TestSeccompRefused(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	errno := uint(1)
	for pointer, p := range map[string]specs.LinuxSeccomp{
		"/defaultAction: \"SCMP_ACT_X\"":         {DefaultAction: "SCMP_ACT_X"},
		"/defaultErrnoRet: cannot be set":        {DefaultAction: specs.ActAllow, DefaultErrnoRet: &errno},
		"/architectures/0: \"SCMP_ARCH_VAX\"":    {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"SCMP_ARCH_VAX"}},
		"/flags/0: \"F\"":                        {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"F"}},
		"/syscalls/0/names: must not be empty":   {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno}}},
		"/syscalls/0/args/0/index: 6":            {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "sync", specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo})}},
		"/syscalls/0/args/0/op: \"SCMP_CMP_X\"":  {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActErrno, "sync", specs.LinuxSeccompArg{Op: "SCMP_CMP_X"})}},
		"/listenerPath: must be specified":       {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{rule(specs.ActNotify, "sync")}},
		"/listenerMetadata: cannot be set":       {DefaultAction: specs.ActAllow, ListenerMetadata: "m"},
		"SCMP_ACT_NOTIFY cannot be used for it":  {DefaultAction: specs.ActAllow, ListenerPath: "/s", Syscalls: []specs.LinuxSyscall{rule(specs.ActNotify, "write")}},
		"listenerPath: connect to socket \"/s\"": {DefaultAction: specs.ActAllow, ListenerPath: "/s", Syscalls: []specs.LinuxSyscall{rule(specs.ActNotify, "sync")}},
	} {
		b.spec.Linux.Seccomp = &p
		b.write()
		b.refused([]string{"/linux/seccomp", pointer}, "create", b.id)
		b.clean()
	}
	// A path that nobody needs is not looked at.
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/nonexistent"}
	b.write()
	b.run()
}

// agent receives listeners and answers what they ask with errno.
type agent struct {
	t      *testing.T
	l      *net.UnixListener
	states chan specs.ContainerProcessState
}

func newAgent(t *testing.T, path string, errno unix.Errno) *agent {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t, l, make(chan specs.ContainerProcessState, 10)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go a.serve(c, errno)
		}
	}()
	return a
}

func (a *agent) serve(c *net.UnixConn, errno unix.Errno) {
	defer c.Close()
	buf, oob := make([]byte, 32768), make([]byte, 128)
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return // rt has given up
	}
	var state specs.ContainerProcessState
	if err := json.Unmarshal(buf[:n], &state); err != nil {
		a.t.Errorf("state %q: %v", buf[:n], err)
		return
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		a.t.Errorf("control messages %v, %v", msgs, err)
		return
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != len(state.Fds) {
		a.t.Errorf("descriptors %v for %v, %v", fds, state.Fds, err)
		return
	}
	if more, err := c.Read(buf); more != 0 || err == nil {
		a.t.Errorf("after the state came %d bytes, %v", more, err)
	}
	a.states <- state
	defer unix.Close(fds[0])
	for {
		p := []unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 20000); err == unix.EINTR {
			continue
		} else if n == 0 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		var req [80]byte // struct seccomp_notif
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&req))); e != 0 {
			continue
		}
		resp := struct {
			id    uint64
			val   int64
			err   int32
			flags uint32
		}{id: *(*uint64)(unsafe.Pointer(&req)), err: -int32(errno)}
		unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp)))
	}
}

func (a *agent) state() (s specs.ContainerProcessState) {
	a.t.Helper()
	select {
	case s = <-a.states:
	case <-time.After(10 * time.Second):
		a.t.Fatal("no listener was sent")
	}
	return s
}

// The listener comes with the state of the container, for init and for each exec,
// and answers what the program asks.
func TestSeccompNotify(t *testing.T) {
	t.Parallel()
	for _, privileged := range []bool{false, true} {
		for _, uid := range []uint32{0, 1000} {
			b := newBox(t, script("/probe call sync getppid; ls -l /proc/self/fd 2>/dev/null | grep -c -e seccomp -e socket; ls /proc/self/task | wc -l; sleep 1000"),
				profile(rule(specs.ActNotify, "sync")), func(s *specs.Spec) {
					s.Process.NoNewPrivileges = !privileged
					s.Process.User.UID = uid
					s.Annotations = map[string]string{"a": "b"}
					s.Linux.Seccomp.ListenerMetadata = "meta \"x\""
				})
			a := newAgent(t, b.path("agent"), unix.EDOM)
			b.spec.Linux.Seccomp.ListenerPath = b.path("agent")
			b.write()
			out, err := os.Create(b.path("out"))
			b.must(err)
			p := b.command(bin, "--root", b.root, "create", b.id)
			p.cmd.Stdout, p.cmd.Stderr = out, out
			b.must(p.cmd.Run())
			out.Close()
			b.ok("start", b.id)
			pid := b.state().Pid
			want := specs.ContainerProcessState{
				Version: "1.3.0", Fds: []string{"seccompFd"}, Pid: pid, Metadata: "meta \"x\"",
				State: specs.State{Version: "1.3.0", ID: b.id, Status: specs.StateCreating, Pid: pid, Bundle: b.dir, Annotations: map[string]string{"a": "b"}},
			}
			if got := a.state(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("state %+v, expected %+v", got, want)
			}
			eventually(t, func() error {
				text, err := os.ReadFile(b.path("out"))
				if err == nil && !strings.HasPrefix(string(text), "sync: numerical argument out of domain\ngetppid: ok\n0\n1\n") {
					err = fmt.Errorf("the program printed %q", text)
				}
				return err
			})
			bare := &specs.Process{Args: []string{"/probe", "call", "sync"}, Cwd: "/", NoNewPrivileges: !privileged}
			for _, how := range []string{"exec", "exec --process"} {
				printed := ""
				if how == "exec" {
					printed = b.ok("exec", b.id, "/probe", "call", "sync")
				} else {
					printed = b.execProcess(bare)
				}
				if printed != "sync: numerical argument out of domain\n" {
					t.Errorf("%s printed %q", how, printed)
				}
				got := a.state()
				if got.State.Status != specs.StateRunning || got.State.Pid != pid || got.Pid == pid || got.Pid == 0 || got.Metadata != want.Metadata {
					t.Errorf("%s: state %+v", how, got)
				}
			}
			// Without a receiver nothing runs.
			a.l.Close()
			b.rt("exec", b.id, "true").refused(255, "/linux/seccomp/listenerPath", "connect to socket")
		}
	}
}

// A receiver that vanishes between create and start fails the start, clearly.
func TestSeccompNotifyGone(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("touch /tmp/ran"), profile(rule(specs.ActNotify, "sync")))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.path("agent"), Net: "unix"})
	b.must(err)
	b.spec.Linux.Seccomp.ListenerPath = b.path("agent")
	b.write()
	b.ok("create", b.id)
	c, err := l.Accept()
	b.must(err)
	c.Close()
	l.Close()
	b.refused([]string{"filter", "/linux/seccomp", "send the listener: broken pipe", "the receiver at listenerPath"}, "start", b.id)
	b.is("stopped")
	if _, err := os.Stat(b.path("rootfs/tmp/ran")); err == nil {
		t.Error("the program has run")
	}
}

// Whatever call the filter denies or hands over, run ends soon, with success or an error.
func TestSeccompOwnCalls(t *testing.T) {
	t.Parallel()
	most := 5 * time.Second
	if lane == "uml" {
		most = limit - 5*time.Second // where any run takes seconds, beside others
	}
	for _, privileged := range []bool{false, true} {
		for _, action := range []specs.LinuxSeccompAction{specs.ActErrno, specs.ActNotify, specs.ActTrap} {
			for _, call := range []string{"write", "close", "close_range", "sendmsg", "execve", "execveat", "exit_group", "getcwd", "capset", "prctl"} {
				if action == specs.ActNotify && call == "write" {
					continue // refused
				}
				b := newBox(t, profile(rule(action, call)), func(s *specs.Spec) { s.Process.NoNewPrivileges = !privileged })
				newAgent(t, b.path("agent"), unix.EPERM)
				if action == specs.ActNotify {
					b.spec.Linux.Seccomp.ListenerPath = b.path("agent")
					b.write()
				}
				begin := time.Now()
				r := b.rt("run", b.id)
				if d := time.Since(begin); d > most {
					t.Errorf("%s on %s, privileged %v: took %v: %v", action, call, privileged, d, r)
				}
				if call == "getcwd" && r.code != 0 {
					t.Errorf("%s on getcwd: %v", action, r)
				}
				if r.code == 1 && r.err == "" && !strings.HasPrefix(call, "ex") {
					t.Errorf("%s on %s, privileged %v: no reason given: %v", action, call, privileged, r)
				}
			}
		}
	}
}
