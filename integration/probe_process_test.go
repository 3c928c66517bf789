package integration

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probeTuned prints a line an attribute, as the kernel has it for the first thread.
func probeTuned() error {
	attr, err := unix.SchedGetAttr(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("sched_getattr: %w", err)
	}
	fmt.Printf("scheduler policy=%d flags=%d nice=%d priority=%d\n", attr.Policy, attr.Flags, attr.Nice, attr.Priority)
	const whoProcess = 1
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, whoProcess, uintptr(os.Getpid()), 0)
	if errno != 0 {
		return fmt.Errorf("ioprio_get: %w", errno)
	}
	fmt.Printf("ioprio class=%d priority=%d\n", io>>13, io&7)
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(os.Getpid(), &cpus); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	fmt.Print("cpus")
	for i := range 1024 {
		if cpus.IsSet(i) {
			fmt.Print(" ", i)
		}
	}
	fmt.Println()
	var mode int32
	var nodes [16]uint64
	_, _, errno = unix.Syscall6(unix.SYS_GET_MEMPOLICY, uintptr(unsafe.Pointer(&mode)), uintptr(unsafe.Pointer(&nodes)), 1024, 0, 0, 0)
	if errno == 0 {
		fmt.Printf("memory mode=%d nodes=%#x\n", mode, nodes[0])
	} else {
		fmt.Println("memory", errno)
	}
	p, _, errno := unix.Syscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	if errno != 0 {
		return fmt.Errorf("personality: %w", errno)
	}
	fmt.Printf("personality %d\n", p)
	return nil
}

func probeKey(what, name string) error {
	if what == "add" {
		_, err := unix.AddKey("user", name, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
		return err
	}
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", name, 0)
	if err != nil {
		fmt.Println(err)
		return nil
	}
	var b [16]byte
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, b[:], 0)
	if err != nil {
		return err
	}
	keyring, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, unix.KEY_SPEC_SESSION_KEYRING)
	fmt.Println(string(b[:n]), keyring[strings.LastIndexByte(keyring, ';')+1:])
	return err
}

// probeCalls makes calls that do nothing, but for what a filter does to them.
func probeCalls(names []string) error {
	for _, name := range names {
		var errno error
		var r uintptr
		call := func(nr uintptr, args ...uintptr) {
			var a [6]uintptr
			copy(a[:], args)
			var e unix.Errno
			if r, _, e = unix.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
				errno = e
			}
		}
		switch name {
		case "getppid":
			call(unix.SYS_GETPPID)
		case "getpgid":
			call(unix.SYS_GETPGID, 0)
		case "getsid":
			call(unix.SYS_GETSID, 0)
		case "personality":
			call(unix.SYS_PERSONALITY, 0xffffffff)
		case "personality-other":
			call(unix.SYS_PERSONALITY, 0x20000)
		case "sync":
			call(unix.SYS_SYNC)
		case "uname":
			var u unix.Utsname
			call(unix.SYS_UNAME, uintptr(unsafe.Pointer(&u)))
		case "newest": // a number that no kernel has yet
			call(1000)
		case "umask":
			call(unix.SYS_UMASK, 0o22)
		default:
			return fmt.Errorf("unknown call %q", name)
		}
		if errno != nil {
			fmt.Printf("%s: %v\n", name, errno)
		} else {
			fmt.Printf("%s: ok\n", name)
		}
		_ = r
	}
	return nil
}
