package security

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attack is the program /attacker of hostile root file systems and volumes.
func attack(args []string) {
	if len(args) == 0 {
		args = []string{""}
	}
	commands := map[string]func(args []string) error{
		"status": attackStatus, "fds": attackFDs, "flip": attackFlip, "grab": attackGrab, "overwrite": attackOverwrite,
		"tiocsti": attackTTY, "bomb": attackBomb, "cgtree": attackTree, "devices": attackDevices, "unshare": attackUnshare,
		"cover": attackCover, "pose": attackPose, "measure": measure,
	}
	f, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(os.Stderr, "attacker: unknown command %q\n", args[0])
		os.Exit(2)
	}
	if err := f(args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "attacker: %s: %v\n", args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// measure runs a command, writes how many bytes of memory that had at the most into a file, and
// ends as the command did.
func measure(args []string) error {
	c := exec.Command(args[1], args[2:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := c.Run()
	if c.ProcessState == nil {
		return err
	}
	peak := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if err := os.WriteFile(args[0], []byte(strconv.FormatInt(peak, 10)), 0o600); err != nil {
		return err
	}
	if ws := c.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return unix.Kill(os.Getpid(), ws.Signal())
	}
	os.Exit(c.ProcessState.ExitCode())
	return nil
}

// status is everything that a process is confined by.
type status struct {
	Status     map[string]string // of /proc/self/status
	Limits     string
	Namespaces map[string]string
	Cgroup     string
	OOMScore   string
	Keyring    string
	Numbers    map[string]int // what prctl(2) and the like tell
	Cwd        string
	Env        []string
}

func attackStatus([]string) error {
	runtime.LockOSThread()
	s := status{Status: map[string]string{}, Namespaces: map[string]string{}, Numbers: map[string]int{}, Env: os.Environ()}
	read := func(name string) string {
		data, err := os.ReadFile("/proc/thread-self/" + name)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	for line := range strings.Lines(read("status")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "Umask", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
			"Cpus_allowed", "Mems_allowed", "SigBlk", "SigIgn", "CoreDumping", "THP_enabled":
			s.Status[name] = strings.TrimSpace(value)
		}
	}
	s.Limits, s.Cgroup, s.OOMScore = read("limits"), read("cgroup"), strings.TrimSpace(read("oom_score_adj"))
	for _, name := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		s.Namespaces[name], _ = os.Readlink("/proc/thread-self/ns/" + name)
	}
	s.Cwd, _ = os.Getwd()
	number := func(name string, trap, a, b, c uintptr) {
		r, _, e := unix.Syscall6(trap, a, b, c, 0, 0, 0)
		if e != 0 {
			s.Numbers[name] = -int(e)
		} else {
			s.Numbers[name] = int(r)
		}
	}
	number("securebits", unix.SYS_PRCTL, unix.PR_GET_SECUREBITS, 0, 0)
	number("dumpable", unix.SYS_PRCTL, unix.PR_GET_DUMPABLE, 0, 0)
	number("keepcaps", unix.SYS_PRCTL, unix.PR_GET_KEEPCAPS, 0, 0)
	number("timerslack", unix.SYS_PRCTL, unix.PR_GET_TIMERSLACK, 0, 0)
	number("personality", unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	number("scheduler", unix.SYS_SCHED_GETSCHEDULER, 0, 0, 0)
	number("ioprio", unix.SYS_IOPRIO_GET, 1, 0, 0)
	number("nice", unix.SYS_GETPRIORITY, 0, 0, 0)
	if name, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, unix.KEY_SPEC_SESSION_KEYRING); err == nil {
		s.Keyring = name
	} else {
		s.Keyring = err.Error()
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// attackFDs prints its descriptors but those that Go's runtime has made.
func attackFDs([]string) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "anon_inode:[event") {
			continue
		}
		if fd, _ := strconv.Atoi(e.Name()); fd > 2 && strings.HasPrefix(target, "/proc/") {
			continue // that of this listing
		}
		if strings.HasSuffix(target, "/cpu.max") || strings.HasSuffix(target, "/cpu.cfs_quota_us") || strings.HasSuffix(target, "/cpu.cfs_period_us") {
			continue // Go's runtime keeps an eye on them
		}
		fmt.Println(e.Name(), target)
	}
	return nil
}

// attackFlip exchanges two names for ever.
func attackFlip(args []string) error {
	fmt.Println("ready")
	for {
		if err := unix.Renameat2(unix.AT_FDCWD, args[0], unix.AT_FDCWD, args[1], unix.RENAME_EXCHANGE); err != nil && err != unix.ENOENT {
			return err
		}
	}
}

// attackTTY puts a command into the terminal that is its standard input.
func attackTTY([]string) error {
	for fd := range uintptr(3) {
		c := byte('!')
		_, _, e := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
		fmt.Println("tiocsti", fd, e == 0)
	}
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	fmt.Println("tty", err == nil)
	if err == nil {
		f.WriteString("pwned\n")
	}
	sid, _ := unix.Getsid(0)
	fmt.Println("leader", sid == os.Getpid())
	return nil
}

// attackBomb makes processes that ignore all signals, half of them in nested
// cgroups, and of these some frozen.
func attackBomb(args []string) error {
	signal.Ignore()
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := range n {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Env: nil, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			return err
		}
		for _, dir := range args[1:] {
			d := filepath.Join(dir, "nest"+strconv.Itoa(i%5), "deep")
			if i%2 == 0 || os.MkdirAll(d, 0o755) != nil {
				continue
			}
			os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
	}
	for _, dir := range args[1:] {
		for _, nest := range []string{"nest0", "nest1/deep"} {
			os.WriteFile(filepath.Join(dir, nest, "freezer.state"), []byte("FROZEN"), 0)
			os.WriteFile(filepath.Join(dir, nest, "cgroup.freeze"), []byte("1"), 0)
		}
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// attackTree makes a cgroup tree that is deep, wide and of odd types.
func attackTree(args []string) error {
	at, err := unix.Open(args[0], unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	name := strings.Repeat("n", 200)
	depth := 0
	for fd := at; depth < 30; depth++ {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			break // the cgroup's own limit of depth
		}
		if fd, err = unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
			return err
		}
	}
	wide := 0
	for ; wide < 500; wide++ {
		if err := unix.Mkdirat(at, "w"+strconv.Itoa(wide), 0o755); err != nil {
			break
		}
	}
	threaded := unix.Mkdirat(at, "t", 0o755) == nil && os.WriteFile(filepath.Join(args[0], "t/cgroup.type"), []byte("threaded"), 0) == nil
	if threaded {
		unix.Mkdirat(at, "t/domain", 0o755) // of the type "domain invalid"
	}
	fmt.Println("depth", depth, "wide", wide, "threaded", threaded)
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// attackDevices makes device nodes and opens them.
func attackDevices(args []string) error {
	for _, a := range args {
		var kind string
		var major, minor uint32
		if _, err := fmt.Sscanf(a, "%1s:%d:%d", &kind, &major, &minor); err != nil {
			return err
		}
		mode := uint32(unix.S_IFCHR)
		if kind == "b" {
			mode = unix.S_IFBLK
		}
		name := "/tmp/" + strings.ReplaceAll(a, ":", "-")
		unix.Unlink(name)
		made := unix.Mknod(name, mode|0o600, int(unix.Mkdev(major, minor)))
		fd, opened := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if opened == nil {
			unix.Close(fd)
		}
		fmt.Printf("%s mknod %v open %v\n", a, made, opened)
	}
	return nil
}

// attackUnshare moves the whole process, which is init, to a new mount namespace.
func attackUnshare([]string) error {
	// A second copy of itself, with one thread: a mount namespace cannot be left
	// by one thread of many.
	if os.Getenv("ATTACKER_UNSHARED") == "" {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.Exec("/attacker", []string{"attacker", "unshare"}, []string{"ATTACKER_UNSHARED=1"})
	}
	if err := unix.Mount("fake", "/tmp", "tmpfs", 0, ""); err != nil {
		return err
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
	return nil
}

// attackPose becomes a program from a memfd that is called as rt's stage is.
func attackPose([]string) error {
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("rt-stage", 0)
	if err != nil {
		return err
	}
	if _, err := unix.Write(fd, data); err != nil {
		return err
	}
	return unix.Exec("/proc/self/fd/"+strconv.Itoa(fd), []string{"sleep", "1000"}, nil)
}

// attackCover mounts over a directory and takes the mount away again, for ever; with
// files in the mount.
func attackCover(args []string) error {
	target := args[0]
	fmt.Println("ready")
	for {
		if err := unix.Mount("cover", target, "tmpfs", 0, ""); err != nil {
			return err
		}
		for _, f := range args[1:] {
			os.MkdirAll(filepath.Join(target, filepath.Dir(f)), 0o755)
			os.WriteFile(filepath.Join(target, f), []byte("fake"), 0o666)
		}
		time.Sleep(200 * time.Microsecond)
		for _, f := range args[1:] {
			if data, err := os.ReadFile(filepath.Join(target, f)); err == nil && string(data) != "fake" {
				fmt.Printf("caught %s %q\n", f, data)
			}
		}
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return err
		}
		time.Sleep(200 * time.Microsecond)
	}
}
