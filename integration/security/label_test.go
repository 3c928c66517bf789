package security

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// lsm tells whether the kernel confines by a security module.
func lsm(name string) bool {
	data, _ := os.ReadFile("/sys/kernel/security/lsm")
	enabled, _ := os.ReadFile("/sys/module/" + name + "/parameters/enabled")
	_, err := os.Stat("/sys/fs/" + name)
	return strings.Contains(","+string(data)+",", ","+name+",") || strings.HasPrefix(string(enabled), "Y") || err == nil
}

// A label that cannot be had is an error, at its place in the config, and nothing is made: a
// container that was to be confined never runs without. So it is on a host
// without the module, for a profile that is not loaded, in a user namespace, and
// for exec. (That labels are in force, and that an unknown profile is refused where there is
// AppArmor, package integration tests in the vm lanes.)
func TestS14LabelNotApplied(t *testing.T) {
	t.Parallel()
	const profile, label = "rt-no-such-profile", "system_u:system_r:rt_no_such_t:s0"
	for name, c := range map[string]struct {
		edit    edit
		pointer string
		value   string
	}{
		"AppArmor profile":   {func(s *specs.Spec) { s.Process.ApparmorProfile = profile }, "/process/apparmorProfile", profile},
		"unconfined":         {func(s *specs.Spec) { s.Process.ApparmorProfile = "unconfined" }, "/process/apparmorProfile", "unconfined"},
		"SELinux label":      {func(s *specs.Spec) { s.Process.SelinuxLabel = label }, "/process/selinuxLabel", label},
		"SELinux mountLabel": {func(s *specs.Spec) { s.Linux.MountLabel = label }, "/linux/mountLabel", label},
	} {
		for _, userns := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " in a user namespace"}[userns], func(t *testing.T) {
				module := "selinux"
				if strings.Contains(c.pointer, "apparmor") {
					module = "apparmor"
				}
				if lsm(module) && c.value == "unconfined" {
					t.Skip("this kernel has AppArmor, which always has this one")
				}
				b := newBox(t, script("echo started; touch /tmp/started"), c.edit)
				if userns {
					b.edit(mapped)
				}
				for _, command := range [][]string{{"create", b.id}, {"run", b.id}, {"run", "--detach", b.id}} {
					b.refused([]string{c.pointer, c.value}, command...)
					b.refused([]string{"does not exist"}, "state", b.id)
				}
				if _, err := os.Lstat(b.rootfs + "/tmp/started"); err == nil {
					t.Error("the program has run")
				}
			})
		}
	}
	t.Run("exec", func(t *testing.T) {
		b := newBox(t, args("sleep", "1000"))
		b.launch()
		for flag, pointer := range map[string]string{"--apparmor": "/apparmorProfile", "--process-label": "/selinuxLabel"} {
			r := b.rt("exec", flag, "rt-no-such-label", b.id, "touch", "/tmp/started")
			if r.code != 255 || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, pointer) || !strings.Contains(r.err, "rt-no-such-label") {
				t.Errorf("%v; expected 255 and one line with %q", r, pointer)
			}
		}
		if _, err := os.Lstat(b.rootfs + "/tmp/started"); err == nil {
			t.Error("the program has run")
		}
		b.ok("exec", b.id, "touch", "/tmp/started")
	})
}
