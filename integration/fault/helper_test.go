package fault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// help is what the test binary does as "helper COMMAND".
func help(args []string) error {
	switch args[0] {
	case "filter": // NUMBER ERRNO PROGRAM...: runs the program with a system call that fails
		nr, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		errno, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return filtered(uint32(nr), uint32(errno), args[3:])
	case "careless": // PROGRAM...: runs the program, and takes in but never reaps what that leaves behind
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return err
		}
		if err := exec.Command(args[1], args[2:]...).Run(); err != nil {
			return err
		}
		time.Sleep(time.Hour)
		return nil
	case "block": // PROGRAM...: runs the program with SIGTERM blocked
		runtime.LockOSThread()
		set := unix.Sigset_t{}
		set.Val[0] = 1 << (unix.SIGTERM - 1)
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
			return err
		}
		return unix.Exec(args[1], args[1:], os.Environ())
	case "keys": // makes keys until the quota is used up, and keeps them
		for i := 0; ; i++ {
			if _, err := unix.AddKey("user", "fault"+strconv.Itoa(i), []byte("x"), unix.KEY_SPEC_USER_KEYRING); err != nil {
				fmt.Println("ready", i, err)
				break
			}
		}
		time.Sleep(time.Hour)
		return nil
	}
	return fmt.Errorf("unknown command %q", args[0])
}

func filtered(nr, errno uint32, args []string) error {
	runtime.LockOSThread()
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x00050000 | errno}, // SECCOMP_RET_ERRNO
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000},         // SECCOMP_RET_ALLOW
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, 1, 0, uintptr(unsafe.Pointer(&fprog))); e != 0 {
		return fmt.Errorf("load filter: %w", e)
	}
	return unix.Exec(args[0], args, os.Environ())
}

// helper prepares a command of the test binary.
func helper(args ...string) *exec.Cmd {
	return exec.Command(os.Args[0], append([]string{"helper"}, args...)...)
}

// shell runs a script in the bundle; $RT is the runtime with its state root.
func (b *box) shell(script string) result {
	b.t.Helper()
	env := []string{"RT=" + faultBin + " --root " + b.root, "ID=" + b.id}
	return command("/bin/sh", b.dir, env, 0, "-c", script).end(b.t)
}

func (b *box) path(name string) string { return filepath.Join(b.dir, name) }
