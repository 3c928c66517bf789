// Package engines tests that container engines drive rt as they drive runc. It
// is black-box: the runtime under test is the program RT_BIN names, by default
// rt of this repository, and any runtime with runc's command line passes.
//
// The tests run as root, in a mount and a pid namespace of their own with an
// empty /run: what an engine mounts or leaves running never reaches the host,
// even when the tests are killed. The cgroup tree is the host's.
package engines

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stageVar tells the test binary which of its three lives it is in: unset is
// what `go test` started, "init" is pid 1 of the namespaces, "test" runs tests.
const stageVar = "RT_ENGINES_STAGE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	var code int
	var err error
	switch os.Getenv(stageVar) {
	case "":
		code, err = enterNamespaces()
	case "init":
		code, err = runInit()
	default:
		code = m.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

// enterNamespaces runs the test binary again in new namespaces and returns its
// exit code.
func enterNamespaces() (int, error) {
	// PDEATHSIG is sent when the thread that forked ends, so it may not end early.
	runtime.LockOSThread()
	cmd := again("init")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start tests in new namespaces: %w", err)
	}
	err := cmd.Wait()
	if cmd.ProcessState == nil {
		return 0, fmt.Errorf("wait for the tests: %w", err)
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// runInit prepares the mounts, starts the tests and reaps what is orphaned,
// such as the shims that containerd starts.
func runInit() (int, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return 0, fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return 0, fmt.Errorf("mount proc on /proc: %w", err)
	}
	// The shim's sockets and the runtime's state have fixed places in /run.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return 0, fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	cmd := again("test")
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the tests: %w", err)
	}
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, fmt.Errorf("wait for the tests: %w", err)
		case pid == cmd.Process.Pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case pid == cmd.Process.Pid && ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}

func again(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageVar+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

// runtimeBinary returns the absolute path of the runtime under test.
func runtimeBinary(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("RT_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "rt")
		if _, err := os.Stat(bin); err != nil {
			t.Fatalf("find the runtime: %v: run `make rt`, or set RT_BIN", err)
		}
	}
	bin, err := exec.LookPath(bin)
	if err != nil {
		t.Fatalf("find the runtime: %v", err)
	}
	if bin, err = filepath.Abs(bin); err != nil {
		t.Fatal(err)
	}
	return bin
}

// needPrograms skips the test for a user who is not root, and fails it when one
// of the programs is missing; the map gives the Debian package of each.
func needPrograms(t *testing.T, programs map[string]string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for program, pkg := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Errorf("find %s: %v: install the Debian package %s", program, err, pkg)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}
