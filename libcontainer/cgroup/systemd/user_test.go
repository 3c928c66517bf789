package systemd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rt/libcontainer/cgroup"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const rootless = 1000 // the user "rt" of the vm lane

// TestMain makes the binary the first process too, which in rt is the stage's.
func TestMain(m *testing.M) {
	if os.Getenv("RT_FIRST") == "" {
		os.Exit(m.Run())
	}
	var dir string
	fmt.Scanln(&dir)
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	second := exec.Command("sleep", "1000")
	second.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err == nil {
		err = second.Start()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(second.Process.Pid)
}

// TestUser runs a unit of a user's systemd, as that user.
func TestUser(t *testing.T) {
	if os.Getenv("RT_LANE") != "vm" {
		t.Skip("needs systemd for the user rt, as in the vm lane")
	}
	if os.Geteuid() == 0 {
		// A user's systemd runs from the first login to the last, or as here.
		unitOf := fmt.Sprintf("user@%d.service", rootless)
		if out, err := exec.Command("systemctl", "start", unitOf).CombinedOutput(); err != nil {
			t.Fatalf("start %s: %v: %s", unitOf, err, out)
		}
		self, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(t.TempDir(), "test")
		if err := os.WriteFile(program, self, 0o755); err != nil {
			t.Fatal(err)
		}
		for d := filepath.Dir(program); d != "/tmp"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, env := range []string{fmt.Sprintf("XDG_RUNTIME_DIR=/run/user/%d", rootless), "XDG_RUNTIME_DIR="} {
			cmd := exec.Command(program, "-test.v", "-test.run=^TestUser$")
			cmd.Dir, cmd.Env = "/", []string{"RT_LANE=vm", "PATH=" + os.Getenv("PATH"), env}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: rootless, Gid: rootless}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestUser") {
				t.Errorf("as user %d with %s: %v\n%s", rootless, env, err, out)
			}
		}
		return
	}
	l, err := cgroup.Detect()
	if err != nil {
		t.Fatal(err)
	}
	pids, more := int64(20), int64(30)
	o := Options{ID: "u1", User: true, Resources: &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}}
	m, err := New(l, o)
	if l.Mode != cgroup.V2 {
		if err == nil || !strings.Contains(err.Error(), "cgroup v2 only") {
			t.Errorf("on cgroup v1: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	dir := m.Paths()[""]
	if want := fmt.Sprintf("/sys/fs/cgroup/user.slice/user-%d.slice/user@%d.service/user.slice/rt-u1.scope", rootless, rootless); dir != want {
		t.Errorf("the cgroup is %s, expected %s", dir, want)
	}
	first := exec.Command("/proc/self/exe")
	first.Env = append(os.Environ(), "RT_FIRST=1")
	var said strings.Builder
	first.Stdout = &said
	in, err := first.StdinPipe()
	if err == nil {
		err = first.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer first.Process.Kill()
	m.Begin(first.Process.Pid)
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(o.Resources); err != nil {
		t.Fatal(err)
	}
	limit := func() string {
		b, _ := os.ReadFile(filepath.Join(dir, "pids.max"))
		return strings.TrimSpace(string(b))
	}
	if got := limit(); got != "21" {
		t.Errorf("with the first process pids.max is %s, expected 21", got)
	}
	// The test may not clone into a cgroup that has no delegated one in common with
	// its own; the first process, which systemd has moved there, may.
	fmt.Fprintln(in, dir)
	if err := first.Wait(); err != nil {
		t.Fatalf("first process: %v: %s", err, said.String())
	}
	if err := m.Entered(); err != nil {
		t.Fatal(err)
	}
	if got := limit(); got != "20" {
		t.Errorf("after the first process pids.max is %s, expected 20", got)
	}
	if got, err := m.Pids(); err != nil || fmt.Sprintln(got) != "["+strings.TrimSpace(said.String())+"]\n" {
		t.Errorf("processes %v, %v; expected %s", got, err, said.String())
	}
	// As another command would do it.
	again := Load(m.Record())
	defer again.Close()
	if err := again.Update(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &more}}, nil); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemctl", "--user", "show", "-P", "TasksMax", "rt-u1.scope").CombinedOutput()
	if err != nil && os.Getenv("XDG_RUNTIME_DIR") != "" || err == nil && strings.TrimSpace(string(out)) != "30" {
		t.Errorf("TasksMax is %q, %v", out, err)
	}
	if got := limit(); got != "30" {
		t.Errorf("after an update pids.max is %s, expected 30", got)
	}
	if err := again.Kill(); err != nil {
		t.Error(err)
	}
	if err := again.Remove(time.Now().Add(5 * time.Second)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup is still there: %v", err)
	}
}
