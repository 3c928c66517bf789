package fault

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alone checks that the container runs as before and holds nothing but its
// init, which is pid.
func (b *box) alone(pid int) {
	b.t.Helper()
	if s := b.state(); s.Pid != pid || s.Status != "running" {
		b.t.Fatalf("state %+v, expected %d to be running", s, pid)
	}
	b.must(eventually(3*time.Second, func() error {
		list := b.processes()
		if len(list) != 1 || !strings.HasPrefix(list[0], strconv.Itoa(pid)+" ") {
			return fmt.Errorf("processes %v, expected %d alone", list, pid)
		}
		return nil
	}))
}

func (b *box) start() (pid int) {
	b.t.Helper()
	b.ok("create", b.id)
	b.ok("start", b.id)
	return b.state().Pid
}

// execOperations returns the number of operations in the plan of an exec, and
// that of the one after which the process outlives its parent.
func execOperations(t *testing.T) (last, commit int) {
	b := newBox(t, everything)
	b.start()
	for n := 1; n < 200; n++ {
		r := b.fault(fmt.Sprintf("stage.%d:kill", n), "exec", b.id, "true")
		if r.code == 0 {
			return n - 1, commit
		}
		if commit == 0 && strings.Contains(r.out, "(await") {
			commit = n - 1
		}
	}
	t.Fatal("exec always fails")
	return 0, 0
}

func TestF06ExecFails(t *testing.T) {
	last, commit := execOperations(t)
	t.Logf("%d operations, commit is %d", last, commit)
	for action, words := range map[string]string{"kill": "killed by signal 9", "errno=28": "no space left on device"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			pid := b.start()
			for n := 1; n <= last; n++ {
				r := b.fault(fmt.Sprintf("stage.%d:%s", n, action), "exec", b.id, "true")
				r.failed(t, words, "exec failed")
				if r.code != 255 {
					t.Errorf("%v; expected 255", r)
				}
				named(t, r, n, action == "kill")
				b.alone(pid)
			}
			b.ok("exec", b.id, "true")
		})
	}
}

func TestF06ExecKilledAtPoint(t *testing.T) {
	for _, point := range pointsOf(t, "exec.", "parent.child") {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			pid := b.start()
			rounds := 10
			for range rounds {
				b.fault(point+":kill", "exec", "--pid-file", "pid", b.id, "true").killed(t)
				b.alone(pid)
			}
			b.ok("exec", "--pid-file", "pid", b.id, "true")
		})
	}
}

func TestF06ExecKilledDuringOperation(t *testing.T) {
	last, commit := execOperations(t)
	for n := 1; n <= last; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			pid := b.start()
			p := b.begin(fmt.Sprintf("stage.%d:sleep=1", n), "exec", b.id, "sleep", "1000")
			time.Sleep(300 * time.Millisecond)
			p.signal(syscall.SIGKILL)
			if r := p.end(t); r.code != -int(syscall.SIGKILL) {
				t.Fatal(r)
			}
			if commit != 0 && n > commit {
				// As after any killed exec the program runs on.
				b.must(eventually(3*time.Second, func() error {
					list := b.processes()
					if len(list) != 2 || strings.Contains(strings.Join(list, " "), "rt-stage") {
						return fmt.Errorf("processes %v, expected init and the program", list)
					}
					return nil
				}))
				return
			}
			b.alone(pid)
		})
	}
}

// A run that is at work has written its record, but its process may still see
// the host's files: nobody must get into it.
func TestF06ExecDuringSetUpOfRun(t *testing.T) {
	pivot := 0
	for line := range strings.Lines(newBox(t, sleeper).plan()) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "pivot" {
			pivot, _ = strconv.Atoi(f[0])
		}
	}
	for end, kill := range map[string]bool{"running": false, "stopped": true} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			p := b.begin(fmt.Sprintf("stage.%d:sleep=1", pivot), "run", "--detach", b.id)
			time.Sleep(300 * time.Millisecond)
			if kill {
				p.signal(syscall.SIGKILL)
			}
			b.refused([]string{"cannot exec in a container that is"}, "exec", b.id, "true")
			b.is("creating")
			if kill {
				b.refused([]string{"cannot start a container that is being created"}, "start", b.id)
				b.refused([]string{"is not stopped: creating"}, "delete", b.id)
			}
			if r := p.end(t); !kill && r.code != 0 {
				t.Fatal(r)
			}
			b.is(end)
			if !kill {
				b.ok("exec", b.id, "true")
			}
		})
	}
}
