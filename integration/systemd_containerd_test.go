package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// containerd's shim drives the driver: with --systemd-cgroup for most commands, without it
// for some.
func testUnitContainerd(t *testing.T) {
	dir := filepath.Join(work, "containerd")
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{dir, rootfs} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := makeRootfs(rootfs); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\n[grpc]\naddress = %q\n", dir+"/root", dir+"/state", socket)
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	daemon := newProcess(t, "containerd", "--config", dir+"/config.toml").start()
	t.Cleanup(func() {
		daemon.signal(syscall.SIGTERM)
		if r := daemon.end(); t.Failed() {
			t.Log(r.err[max(0, len(r.err)-4096):])
		}
	})
	ctr := func(args ...string) result {
		t.Helper()
		return newProcess(t, append([]string{"ctr", "--address", socket, "--namespace", "rttest"}, args...)...).start().end()
	}
	ok := func(args ...string) string {
		t.Helper()
		r := ctr(args...)
		if r.code != 0 {
			t.Fatal(r)
		}
		return r.out
	}
	eventually(t, func() error {
		if r := ctr("version"); r.code != 0 {
			return fmt.Errorf("containerd does not answer: %v", r)
		}
		return nil
	})
	const unit, path = "rttest-ctr1.scope", "/rttest.slice/rttest-ctr1.scope"
	run := []string{"run", "--detach", "--rootfs", "--runtime", "io.containerd.runc.v2", "--runc-binary", bin,
		"--runc-systemd-cgroup", "--cgroup", "rttest.slice:rttest:ctr1", "--memory-limit", "67108864", "--cpus", "0.5"}
	for again := range 2 { // the unit's name is free again
		ok(append(slices.Clone(run), rootfs, "ctr1", "sleep", "1000")...)
		want := map[string]string{"ActiveState": "active", "ControlGroup": path, "CPUQuotaPerSecUSec": "500ms", "Slice": "rttest.slice"}
		if want["MemoryMax"] = "67108864"; !v2 {
			delete(want, "MemoryMax")
			want["MemoryLimit"] = "67108864"
		}
		for name, value := range want {
			if got := systemctl(t, "show", "-P", name, unit); got != value {
				t.Errorf("%s is %q, expected %q", name, got, value)
			}
		}
		if again == 1 {
			ok("tasks", "delete", "--force", "ctr1")
			ok("containers", "delete", "ctr1")
			break
		}
		if out := ok("tasks", "exec", "--exec-id", "e1", "ctr1", "sh", "-c", "cat /proc/self/cgroup"); !v2 && !strings.Contains(out, path) {
			t.Errorf("exec runs in %q", out)
		}
		if out := ok("tasks", "ps", "ctr1"); strings.Count(out, "\n") != 2 {
			t.Errorf("ps: %q", out)
		}
		ok("tasks", "pause", "ctr1")
		if out := ok("tasks", "list"); !strings.Contains(out, "PAUSED") {
			t.Errorf("list: %q", out)
		}
		ok("tasks", "resume", "ctr1")
		if out := ok("tasks", "metrics", "ctr1"); !strings.Contains(out, "memory") {
			t.Errorf("metrics: %q", out)
		}
		ok("tasks", "kill", "--signal", "SIGKILL", "ctr1")
		eventually(t, func() error {
			if out := ok("tasks", "list"); !strings.Contains(out, "STOPPED") {
				return fmt.Errorf("list: %q", out)
			}
			return nil
		})
		ok("tasks", "delete", "ctr1")
		ok("containers", "delete", "ctr1")
	}
	eventually(t, func() error {
		if out, _ := exec.Command("systemctl", "list-units", "--all", "--no-legend", "--plain", unit).Output(); len(out) > 0 {
			return fmt.Errorf("left: unit %s", out)
		}
		for _, m := range cgroup {
			if _, err := os.Stat(filepath.Join(m, path)); err == nil {
				return fmt.Errorf("left: cgroup %s", filepath.Join(m, path))
			}
		}
		return nil
	})
	// What systemd refuses, the engine's user reads.
	r := ctr(append(slices.Clone(run), "--annotation", "org.systemd.property.CollectMode='never'", rootfs, "ctr2", "true")...)
	if r.code == 0 || !strings.Contains(r.err, "start systemd unit") || !strings.Contains(r.err, "CollectMode") {
		t.Errorf("a property that systemd refuses: %v", r)
	}
	ctr("containers", "delete", "ctr2")
}
