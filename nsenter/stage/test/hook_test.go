package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

func hook(script string, timeout, pidAt uint64, input string) plan.Op {
	o := op(plan.KindHook, s("/bin/busybox"), l("sh", "-c", script), l("PATH=/bin", "H=hook"), s(input))
	return num(o, timeout, pidAt)
}

func TestHook(t *testing.T) {
	dir := rootfs(t)
	mark := filepath.Join(t.TempDir(), "mark")
	extra, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	input := `{"pid":,"id":"` + strings.Repeat("x", 200_000) + `"}`
	b := inRoot(dir).add(
		mount("proc", "/proc"),
		// Before the pivot: the host's files, any cwd.
		hook("cat >"+mark+"; echo noise", 5000, 7, input),
		flag(hook("pwd >"+mark+".cwd", 5000, 0, ""), plan.FlagInRoot),
		hook("true", 0, 0, input), // does not read its input
		num(op(plan.KindUmask), 0o077),
		op(plan.KindPivot),
		op(plan.KindHome),
		// After: the container's.
		flag(hook("echo $PPID $H $HOME $(ulimit -n) >/tmp/hook; umask >>/tmp/hook; ls /proc/self/fd | wc -l >>/tmp/hook", 5000, 0, ""), plan.FlagHome),
		// Not by a shell, which ignores some signals itself.
		op(plan.KindHook, s("/bin/busybox"), l("grep", "-q", "SigIgn:.0000000000000000", "/proc/self/status"), l(), s("")),
		op(plan.KindHook, s("/bin/busybox"), l("grep", "-q", "SigBlk:.0000000000000000", "/proc/self/status"), l(), s("")),
	).add(program("cat", "/tmp/hook")...)
	r := must(t, launch{plan: b.plan(0), extra: []*os.File{extra}, dir: "/tmp", reply: func(f *frame) (string, int, bool) {
		if f.Type != plan.MsgHome {
			return "", -1, true
		}
		// What came is the root.
		if _, err := os.Stat(fmt.Sprintf("/proc/self/fd/%d/bin/busybox", f.Files[0].Fd())); err != nil {
			t.Error(err)
		}
		return "/home/of", -1, true
	}}.run(t))
	contains(t, r.output, fmt.Sprintf("1 hook /home/of %d", currentLimit(t)), "0077", "4")
	got, err := os.ReadFile(mark)
	if err != nil || string(got) != strings.Replace(input, `"pid":`, `"pid":1`, 1) {
		t.Errorf("hook read %.20q (%d bytes), %v", got, len(got), err)
	}
	if cwd, err := os.ReadFile(mark + ".cwd"); err != nil || strings.TrimSpace(string(cwd)) == "/tmp" {
		t.Errorf("cwd of the hook %q, %v", cwd, err)
	}
}

func TestHookErrors(t *testing.T) {
	dir := rootfs(t)
	for _, c := range []struct {
		name  string
		hook  plan.Op
		errno unix.Errno
		step  plan.Step
		value uint64
		text  string
	}{
		{"status", hook("echo out; echo err >&2; exit 3", 5000, 0, ""), unix.ECHILD, plan.StepStatus, 3 << 8, "out\nerr\n"},
		{"signal", hook("kill -9 $$", 5000, 0, ""), unix.ECHILD, plan.StepStatus, 9, ""},
		{"missing", op(plan.KindHook, s("/bin/none"), l("x"), l(), s("")), unix.ENOENT, plan.StepSpawn, 0, ""},
		{"directory", op(plan.KindHook, s("/bin"), l("x"), l(), s("")), unix.EACCES, plan.StepSpawn, 0, ""},
		{"timeout", hook("echo slow; sleep 100", 200, 0, ""), unix.ETIMEDOUT, plan.StepTimeout, 0, "slow\n"},
		{"timeout of a grandchild", hook("echo slow; sleep 100 & sleep 100", 200, 0, ""), unix.ETIMEDOUT, plan.StepTimeout, 0, "slow\n"},
		{"long output", hook("head -c 1000000 /dev/zero; exit 1", 9000, 0, ""), unix.ECHILD, plan.StepStatus, 1 << 8, string(make([]byte, plan.MaxText))},
		{"pipe held", hook("sleep 3 & exit 4", 9000, 0, ""), unix.ECHILD, plan.StepStatus, 4 << 8, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			r := launch{plan: inRoot(dir).add(c.hook).plan(0)}.run(t)
			f := r.failure()
			if f == nil || f.Errno != c.errno || f.Step != c.step || f.Value != c.value || f.Text != c.text {
				t.Fatalf("got %+v, want %v, step %d, value %d, text %.50q", f, c.errno, c.step, c.value, c.text)
			}
			if d := time.Since(begin); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}
