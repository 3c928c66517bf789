package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// appArmor tells whether this kernel confines by AppArmor.
func appArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}

// profile loads an AppArmor profile for the time of the test. It allows everything but
// to read /etc/secret.
func loadProfile(t *testing.T, name string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "profile")
	text := fmt.Sprintf("profile %s flags=(attach_disconnected) {\n  file,\n  capability,\n  network,\n  mount,\n  signal,\n  unix,\n  ptrace,\n  deny /etc/secret r,\n}\n", name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	parse := func(args ...string) {
		if out, err := exec.Command("apparmor_parser", append(args, file)...).CombinedOutput(); err != nil {
			t.Fatalf("apparmor_parser: %v: %s", err, out)
		}
	}
	parse("--add", "--skip-cache")
	t.Cleanup(func() { parse("--remove") })
}

const secret = "cat /proc/self/attr/current; cat /etc/secret 2>&1; true"

func needAppArmor(t *testing.T) {
	t.Helper()
	if !appArmor() {
		t.Skip("this kernel does not confine by AppArmor; the lane vm does")
	}
}

func TestAppArmor(t *testing.T) {
	t.Parallel()
	needAppArmor(t)
	loadProfile(t, "rt-test")
	for _, c := range []struct {
		name  string
		edits []func(*specs.Spec)
	}{
		{"root", nil},
		{"another user", []func(*specs.Spec){func(s *specs.Spec) { s.Process.User = specs.User{UID: 5, GID: 5} }}},
		{"privileges may be gained", []func(*specs.Spec){func(s *specs.Spec) { s.Process.NoNewPrivileges = false }}},
		{"user namespace", []func(*specs.Spec){mapped(100000)}},
	} {
		b := newBox(t, append(c.edits, script(secret), func(s *specs.Spec) { s.Process.ApparmorProfile = "rt-test" })...)
		b.file("etc/secret", "told")
		if out := b.run(); !strings.HasPrefix(out, "rt-test (enforce)\n") || strings.Contains(out, "told") {
			t.Errorf("%s: %q", c.name, out)
		}
	}
}

// Hooks of the container are not the program: they keep what the stage has.
func TestAppArmorHooks(t *testing.T) {
	t.Parallel()
	needAppArmor(t)
	loadProfile(t, "rt-test-hooks")
	b := newBox(t, script("cat /proc/self/attr/current >/tmp/program; sleep 60"), func(s *specs.Spec) {
		s.Process.ApparmorProfile = "rt-test-hooks"
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/cat /proc/self/attr/current >/tmp/hook"}}}}
	})
	b.launch()
	if out := b.appears("rootfs/tmp/program"); out != "rt-test-hooks (enforce)\n" {
		t.Errorf("the program runs under %q", out)
	}
	if out := b.read("rootfs/tmp/hook"); out != "unconfined\n" {
		t.Errorf("the hook ran under %q", out)
	}
}

// exec takes the container's profile, or the one that it is told.
func TestAppArmorExec(t *testing.T) {
	t.Parallel()
	needAppArmor(t)
	loadProfile(t, "rt-test-exec")
	loadProfile(t, "rt-test-other")
	b := newBox(t, args("sleep", "600"), func(s *specs.Spec) { s.Process.ApparmorProfile = "rt-test-exec" })
	b.file("etc/secret", "told")
	b.launch()
	if out := b.exec(secret); !strings.HasPrefix(out, "rt-test-exec (enforce)\n") || strings.Contains(out, "told") {
		t.Errorf("exec: %q", out)
	}
	if out := b.ok("exec", "--apparmor", "rt-test-other", b.id, "cat", "/proc/self/attr/current"); out != "rt-test-other (enforce)\n" {
		t.Errorf("exec --apparmor: %q", out)
	}
	b.rt("exec", "--apparmor", "rt-test-unknown", b.id, "true").refused(255, "/process/apparmorProfile", "no profile of this name is loaded")
}

func TestAppArmorRefused(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(s *specs.Spec) { s.Process.ApparmorProfile = "rt-test-unknown" })
	if appArmor() {
		b.refused([]string{"/process/apparmorProfile", "rt-test-unknown", "no profile of this name is loaded"}, "create", b.id)
		return
	}
	b.refused([]string{`/process/apparmorProfile: "rt-test-unknown": config provided but AppArmor not supported`}, "create", b.id)
	b.clean()
	b.spec.Process = newBox(t, args("sleep", "600")).spec.Process
	b.write()
	b.launch()
	b.rt("exec", "--apparmor", "x", b.id, "true").refused(255, "AppArmor not supported")
}

// A label is refused where there is no SELinux to know it.
func TestSELinuxRefused(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("this kernel has SELinux")
	}
	const label = "system_u:system_r:container_t:s0:c1,c2"
	b := newBox(t, func(s *specs.Spec) { s.Process.SelinuxLabel = label })
	b.refused([]string{"/process/selinuxLabel", label, "SELinux is not enabled"}, "create", b.id)
	b.clean()
	b.spec.Process.SelinuxLabel, b.spec.Linux.MountLabel = "", label
	b.write()
	b.refused([]string{"/linux/mountLabel", label, "SELinux is not enabled"}, "create", b.id)
	b.clean()
	b.spec.Linux.MountLabel = ""
	b.spec.Process.Args = []string{"sleep", "60"}
	b.write()
	b.launch()
	b.rt("exec", "--process-label", label, b.id, "true").refused(255, "/selinuxLabel", "SELinux is not enabled")
}
