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

	"rt/integration/ground"

	"golang.org/x/sys/unix"
)

var (
	bin    string // the runtime
	lane   string // host, host-v2, uml or vm
	site   *ground.Ground
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
	if lane = os.Getenv("RT_LANE"); lane == "" {
		lane = "host"
	}
	var err error
	if bin, err = ground.Program("RT_BIN", "../rt"); err != nil {
		return err
	}
	if site, err = ground.Make("rt-it-"); err != nil {
		return err
	}
	work, top, cgroup, v2 = site.Dir, site.Top, site.Cgroups, site.V2
	shared = sharedControllers()
	return makeBase(filepath.Join(work, "base"))
}

// applets are the names under which busybox is in every root file system.
var applets = []string{
	"awk", "cat", "chmod", "chown", "chroot", "cp", "cut", "date", "dd", "echo", "env", "false", "find", "grep", "head",
	"hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mknod", "mount", "mv", "nproc", "od", "printf", "ps", "pwd",
	"readlink", "rm", "sed", "sh", "sleep", "sort", "stat", "stty", "tail", "test", "touch", "tr", "true", "tty",
	"umount", "uname", "wc", "xargs", "yes",
}

// makeBase makes what all root file systems share.
func makeBase(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := ground.Install(dir, map[string]string{"busybox": ground.Busybox, "probe": self, "suid": self}); err != nil {
		return err
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
	if err := site.Remove(); err != nil {
		return err
	}
	// What rt has enabled on the way to a container's cgroup stays enabled for others.
	for _, c := range sharedControllers() {
		if !slices.Contains(shared, c) {
			if err := os.WriteFile(filepath.Join(cgroup2(), "cgroup.subtree_control"), []byte("-"+c), 0); err != nil && !errors.Is(err, unix.EBUSY) {
				return err // EBUSY: systemd uses it by now
			}
		}
	}
	return nil
}
