package integration

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func testUnitRefused(t *testing.T) {
	for path, says := range map[string]string{
		"/a/b":                  "slice:prefix:name",
		"a.slice:b":             "slice:prefix:name",
		"a.slice:b:c:d":         "slice:prefix:name",
		"a:b:c":                 `invalid slice name "a"`,
		"a--b.slice:b:c":        "empty part between dashes",
		"../a.slice:b:c":        "invalid slice name",
		"system.slice:p:":       "the name is empty",
		"system.slice::x.slice": "a slice lies where its own name says",
		"system.slice:p:" + strings.Repeat("x", 260): "longer than 255 bytes",
	} {
		u := newUnitBox(t)
		u.place(path, u.unit, u.path)
		u.refused([]string{says, "/linux/cgroupsPath"}, "--systemd-cgroup", "create", u.id)
	}
}

// What fails after the unit was started takes it down again.
func testUnitUndone(t *testing.T) {
	u := newUnitBox(t, args("/no/such/program"))
	u.refused([]string{"/no/such/program"}, "--systemd-cgroup", "create", u.id)
	if err := u.gone(); err != nil {
		t.Error(err)
	}
	u.spec.Process.Args = []string{"true"}
	u.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
	u.write()
	u.refused([]string{"createRuntime"}, "--systemd-cgroup", "create", u.id)
	if err := u.gone(); err != nil {
		t.Error(err)
	}
	bad := "77" // there is no such CPU
	u.spec.Hooks = nil
	u.spec.Linux.Resources.CPU = &specs.LinuxCPU{Cpus: bad}
	u.write()
	r := u.rt("--systemd-cgroup", "create", u.id)
	r.refused(1, "cpuset.cpus", "/linux/resources/cpu/cpus")
}

// A unit that failed, as one does after a crash, makes way.
func testUnitLeftover(t *testing.T) {
	u := newUnitBox(t)
	exec.Command("systemd-run", "--scope", "--quiet", "--unit="+u.unit, "-p", "RuntimeMaxSec=1s", "sleep", "100").Run()
	if s := systemctl(t, "show", "-P", "ActiveState", u.unit); s != "failed" {
		t.Fatalf("the unit to reset is %s", s)
	}
	u.create()
	u.shows(map[string]string{"ActiveState": "active"})
}

// One that lives belongs to somebody.
func testUnitTaken(t *testing.T) {
	u := newUnitBox(t)
	other := exec.Command("systemd-run", "--scope", "--quiet", "--unit="+u.unit, "sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer other.Process.Kill()
	eventually(t, func() error {
		if s := systemctl(t, "show", "-P", "ActiveState", u.unit); s != "active" {
			return fmt.Errorf("it is %s", s)
		}
		return nil
	})
	u.refused([]string{"start systemd unit", u.unit, "already"}, "--systemd-cgroup", "create", u.id)
	u.shows(map[string]string{"ActiveState": "active"})
	u.ok("delete", "--force", u.id)
	u.shows(map[string]string{"ActiveState": "active"})
}

// kill -9 of rt at any point leaves what delete --force, without the flag, removes.
func testUnitKilled(t *testing.T) {
	faulty := filepath.Join(filepath.Dir(bin), "rt-fault")
	for _, point := range []string{
		"create.launch", "create.claim", "create.cgroup", "create.limits", "create.files", "parent.child", "create.config", "create.state",
		"parent.commit", "parent.committed", "create.done",
	} {
		t.Run(point, func(t *testing.T) {
			u := newUnitBox(t)
			p := u.command(faulty, "--root", u.root, "--systemd-cgroup", "create", u.id)
			p.cmd.Env = append(p.cmd.Env, "RT_FAULT="+point+":kill")
			if r := p.start().end(); r.code != -int(unix.SIGKILL) {
				t.Fatalf("%v; expected it to die", r)
			}
			u.ok("delete", "--force", u.id)
			if err := u.gone(); err != nil {
				t.Error(err)
			}
			if point == "create.cgroup" || point == "create.done" { // the name is free again
				u.ok("--systemd-cgroup", "run", u.id)
			}
		})
	}
}

// kill -9 of an update leaves a container that the next update and delete handle, whether
// systemd has been told or not.
func testUnitUpdateKilled(t *testing.T) {
	faulty := filepath.Join(filepath.Dir(bin), "rt-fault")
	// The files are written before systemd is told, and again after that.
	for _, point := range []string{"limit.1", "limit.2", "update.limits"} {
		t.Run(point, func(t *testing.T) {
			u := newUnitBox(t, args("sleep", "1000"))
			u.create()
			u.ok("start", u.id)
			p := u.command(faulty, "--root", u.root, "update", "--pids-limit", "44", u.id)
			p.cmd.Env = append(p.cmd.Env, "RT_FAULT="+point+":kill")
			if r := p.start().end(); r.code != -int(unix.SIGKILL) {
				t.Fatalf("%v; expected it to die", r)
			}
			u.is("running")
			u.ok("update", "--pids-limit", "45", u.id)
			u.shows(map[string]string{"TasksMax": "45"})
			if got := u.inside("pids", "pids.max"); got != "45" {
				t.Errorf("pids.max is %q", got)
			}
		})
	}
}
