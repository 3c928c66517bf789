// Package integration tests the rt program from outside: every test runs
// containers and looks at what is seen from inside of them, on the kernel and
// the cgroup layout of the machine as it is.
//
// It runs as root. RT_BIN is the program (default ../rt, which `make rt`
// builds). RT_LANE says where the tests run: host (default), host-v2, uml or vm;
// only what a test expects of the machine depends on it. The test binary is also
// the program /probe of the containers.
package integration

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"rt/integration/leak"

	"golang.org/x/sys/unix"
)

var (
	bin    string   // the runtime
	lane   string   // host, host-v2, uml or vm
	work   string   // holds every box
	top    string   // the cgroup above those of all containers, one name
	cgroup []string // mount points of all cgroup hierarchies
	v2     bool     // there is no hierarchy but cgroup v2
	shared []string // the controllers that the root of cgroup2 shared out before the tests
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "probe" {
		os.Exit(probe(os.Args[1:]))
	}
	if os.Getenv(reaped) == "" {
		os.Exit(reap())
	}
	flag.Parse()
	// Most tests wait for other processes most of the time.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("6")
	}
	code := 1
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
	} else {
		code = m.Run()
	}
	if err := tearDown(); err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

// reaped is set in the environment of the process that runs the tests.
const reaped = "RT_IT_REAPED"

// reap runs this program again, and reaps what its containers leave behind: a first
// process that is dead but not reaped keeps the pid namespace that it
// shares with another from ending. What else would reap it, process 1, may be in no hurry.
func reap() int {
	// The thread must outlive the child, which ends with it.
	runtime.LockOSThread()
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), reaped+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if err == nil {
		err = c.Start()
	}
	for err == nil {
		var ws unix.WaitStatus
		var pid int
		if pid, err = unix.Wait4(-1, &ws, 0, nil); err == unix.EINTR {
			err = nil
		} else if pid == c.Process.Pid {
			return ws.ExitStatus() // -1 by a signal
		}
	}
	fmt.Fprintln(os.Stderr, "integration: run tests below a reaper:", err)
	return 1
}

func setUp() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("run integration tests: they need root")
	}
	// What the machine's own settings would change in what tests see.
	for _, v := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	unix.Umask(0o022)
	if lane = os.Getenv("RT_LANE"); lane == "" {
		lane = "host"
	}
	bin = os.Getenv("RT_BIN")
	if bin == "" {
		bin = "../rt"
	}
	var err error
	if bin, err = filepath.Abs(bin); err == nil {
		_, err = os.Stat(bin)
	}
	if err != nil {
		return fmt.Errorf("find rt (RT_BIN): %w; `make rt` builds it", err)
	}
	if work, err = os.MkdirTemp("", "rt-it-"); err != nil {
		return err
	}
	// A mapped root must get through.
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	if work, err = filepath.EvalSymlinks(work); err != nil {
		return err
	}
	if err := makeBase(filepath.Join(work, "base")); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return err
	}
	v2 = fs.Type == unix.CGROUP2_SUPER_MAGIC
	top = filepath.Base(work)
	if cgroup, err = leak.Cgroups(); err != nil {
		return err
	}
	shared = sharedControllers()
	for _, m := range cgroup {
		if err := os.Mkdir(filepath.Join(m, top), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// applets are the names under which busybox is in every root file system.
var applets = []string{
	"awk", "cat", "chmod", "chown", "chroot", "cp", "cut", "date", "dd", "echo", "env", "false", "find", "grep", "head",
	"hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nproc", "od", "printf", "ps", "pwd",
	"readlink", "rm", "sed", "sh", "sleep", "sort", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty",
	"umount", "uname", "wc", "xargs", "yes",
}

// makeBase makes what all root file systems share: they link to it. Nothing may write
// programs later: a child that another test has just forked would hold them open for
// writing, and execve(2) refuse them.
func makeBase(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name, from := range map[string]string{"busybox": "/bin/busybox", "probe": self, "suid": self} {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("make root file system: %w (busybox is Debian's busybox-static)", err)
		}
		if bytes.Contains(data[:4096], []byte("/lib64/ld-")) {
			return fmt.Errorf("make root file system: %s is not statically linked", from)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(dir, "suid"), 0o755|os.ModeSetuid)
}

// makeRootfs makes a root file system with the mount points of the default
// configuration.
func makeRootfs(dir string) error {
	for _, d := range []string{"bin", "dev", "etc", "proc", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	base := filepath.Join(work, "base")
	for from, to := range map[string]string{"busybox": "bin/busybox", "probe": "probe"} {
		if err := os.Link(filepath.Join(base, from), filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	for _, a := range applets {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			return err
		}
	}
	return nil
}

// cgroup2 is where cgroup v2 is mounted, "" if it is not.
func cgroup2() string {
	for _, m := range cgroup {
		if _, err := os.Stat(filepath.Join(m, "cgroup.controllers")); err == nil {
			return m
		}
	}
	return ""
}

func sharedControllers() []string {
	text, err := os.ReadFile(filepath.Join(cgroup2(), "cgroup.subtree_control"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text))
}

func tearDown() error {
	for _, m := range cgroup {
		d := filepath.Join(m, top)
		if err := os.Remove(d); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("something is left: %w", err)
		}
	}
	// What rt has enabled on the way to a container's cgroup stays enabled for others.
	for _, c := range sharedControllers() {
		if !slices.Contains(shared, c) {
			if err := os.WriteFile(filepath.Join(cgroup2(), "cgroup.subtree_control"), []byte("-"+c), 0); err != nil && !errors.Is(err, unix.EBUSY) {
				return err // EBUSY: systemd uses it by now
			}
		}
	}
	if work == "" {
		return nil
	}
	if data, err := os.ReadFile("/proc/self/mountinfo"); err == nil && bytes.Contains(data, []byte(work)) {
		return fmt.Errorf("something is left: a mount below %s", work)
	}
	return os.RemoveAll(work)
}
