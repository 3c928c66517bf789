package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rt/libcontainer/plan"
)

// What costs a wait for an RCU grace period on the way to a container is not done: a write
// to cgroup.procs (the process is born in its cgroup on v2, and enters those of v1 itself
// by their tasks), and more than the one umount that pivot_root(2) needs. And the stage is told to begin
// with the network namespace before it has its plan.
func TestCreateCalls(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		if lane == "host" || lane == "host-v2" {
			t.Fatal(err)
		}
		t.Skip("this lane has no strace; host and host-v2 have it")
	}
	v1 := 0
	for _, mount := range cgroup {
		if _, err := os.Stat(filepath.Join(mount, "tasks")); err == nil {
			v1++
		}
	}
	for _, command := range []string{"create", "run"} {
		b := newBox(t, args("true"))
		log := filepath.Join(b.dir, "calls")
		traced := b.command(strace, "-f", "-qq", "-o", log, "-e", "trace=open,openat,openat2,umount2,sendmsg",
			b.bin, "--root", b.root, command, b.id).start()
		if command == "create" {
			// The tracer stays with the process that waits for start.
			eventually(t, func() error {
				if r := b.rt("state", b.id); r.code != 0 || !strings.Contains(r.out, `"status": "created"`) {
					return fmt.Errorf("not created: %v", r)
				}
				return nil
			})
			b.ok("kill", b.id, "KILL")
		}
		if r := traced.end(); r.code != 0 && command == "run" {
			t.Fatal(r)
		}
		data, err := os.ReadFile(log)
		b.must(err)
		umounts, tasks, begun, planned := 0, 0, 0, false
		begin := fmt.Sprintf(`iov_base="\%o\0\0\0`, plan.MsgBegin)
		for line := range strings.Lines(string(data)) {
			_, call, _ := strings.Cut(strings.TrimSpace(line), " ")
			call = strings.TrimSpace(call)
			switch {
			case strings.HasPrefix(call, "sendmsg(") && strings.Contains(call, begin) && !planned:
				begun++
			case strings.HasPrefix(call, "sendmsg("):
				planned = planned || strings.Contains(call, "SCM_RIGHTS")
			case strings.HasPrefix(call, "umount2("):
				umounts++
			case strings.HasPrefix(call, "open") && strings.Contains(call, "cgroup.procs") && !strings.Contains(call, "O_RDONLY"):
				t.Errorf("%s: %s", command, call)
			case strings.HasPrefix(call, "open") && strings.Contains(call, `tasks", O_WRONLY`):
				tasks++
			}
		}
		if umounts != 1 {
			t.Errorf("%s: %d calls of umount2, expected 1:\n%s", command, umounts, data)
		}
		if begun != 1 {
			t.Errorf("%s: the stage was told to begin %d times before the first descriptor was sent, expected once:\n%s", command, begun, data)
		}
		if tasks != v1 {
			t.Errorf("%s: %d tasks files opened, expected one for each of the %d hierarchies of v1", command, tasks, v1)
		}
		b.ok("delete", "--force", b.id)
	}
}
