package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestF03InitKilledBeforeStart(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.ok("create", b.id)
	b.kill(b.state().Pid)
	b.is("stopped")
	r := b.rt("start", b.id)
	r.failed(t, "cannot start a container that has stopped")
	if r.took > 5*time.Second {
		t.Errorf("%v; it has waited for the gate", r)
	}
	b.ok("delete", b.id)
	b.clean()
}

func TestF04StartKilled(t *testing.T) {
	for _, point := range pointsOf(t, "start.") {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			b.ok("create", b.id)
			b.fault(point+":kill", "start", b.id).killed(t)
			if point == "start.gate" {
				b.is("created")
				b.ok("start", b.id)
			}
			b.is("running")
			b.ok("exec", b.id, "true")
		})
	}
}

// start dies while the stage is between gate and execve.
func TestF04StartKilledDuringOperation(t *testing.T) {
	last, gate := operations(newBox(t, everything))
	for n := gate + 1; n <= last; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			b.createWith(fmt.Sprintf("stage.%d:sleep=1", n))
			p := b.begin("", "start", b.id)
			time.Sleep(300 * time.Millisecond)
			p.signal(syscall.SIGKILL)
			p.end(t)
			b.is("running")
		})
	}
}

// createWith creates the container with a fault that start will meet.
func (b *box) createWith(fault string) {
	b.t.Helper()
	if r := b.fault(fault, "create", b.id); r.code != 0 {
		b.t.Fatal(r)
	}
	b.is("created")
}

func TestF32StartTwice(t *testing.T) {
	for name, script := range map[string]string{"sleeps": "exec sleep 1000", "exits": "exit 3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, spec{args: []string{"sh", "-c", script}})
			b.ok("create", b.id)
			const n = 6
			var started []*process
			for range n {
				started = append(started, b.begin("", "start", b.id))
			}
			won := 0
			for _, p := range started {
				if r := p.end(t); r.code == 0 {
					won++
				} else {
					r.failed(t, "cannot start a")
				}
			}
			if won != 1 {
				t.Errorf("%d of %d starts succeeded, expected 1", won, n)
			}
			b.refused([]string{"cannot start a"}, "start", b.id)
		})
	}
}

// start against kill and delete, in all orders that chance brings.
func TestF32StartAgainstKillAndDelete(t *testing.T) {
	for i := range 12 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			b.ok("create", b.id)
			var all []*process
			for _, args := range [][]string{{"start", b.id}, {"kill", b.id, "KILL"}, {"delete", "--force", b.id}} {
				all = append(all, b.begin("", args...))
				time.Sleep(time.Duration(i%4) * 2 * time.Millisecond)
			}
			for j, p := range all {
				r := p.end(t)
				if r.code != 0 {
					r.failed(t)
				}
				if j == 2 && r.code != 0 {
					t.Error(r)
				}
			}
			b.clean()
		})
	}
}

// A start that waits for a hook holds the container's lock.
func TestF32DeleteWhileStartHangs(t *testing.T) {
	for _, kind := range []string{"startContainer", "poststart"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, spec{args: []string{"sleep", "1000"}, hooks: map[string]string{kind: "exec sleep 4"}})
			b.ok("create", b.id)
			p := b.begin("", "start", b.id)
			time.Sleep(300 * time.Millisecond)
			if r := b.rt("delete", "--force", b.id); r.code != 0 || r.took > 3*time.Second {
				t.Errorf("%v; it waits for the hook", r)
			}
			b.clean()
			p.end(t)
		})
	}
}

func TestF33Gate(t *testing.T) {
	cases := []struct {
		name   string
		change func(gate string) error
		words  string // of start's error; "" if start must succeed
	}{
		{"removed", os.Remove, "cannot start"},
		{"replaced by a file", func(gate string) error {
			os.Remove(gate)
			return os.WriteFile(gate, nil, 0o600)
		}, "cannot start"},
		{"replaced by a link", func(gate string) error {
			b := gate + ".moved"
			os.Rename(gate, b)
			return os.Symlink(b, gate)
		}, "cannot start"},
		{"replaced by a fifo", func(gate string) error {
			os.Remove(gate)
			return unix.Mkfifo(gate, 0o600)
		}, "cannot start"},
		{"result removed", func(gate string) error {
			return os.Remove(filepath.Join(filepath.Dir(gate), "result"))
		}, "result"},
		{"result replaced by a file", func(gate string) error {
			result := filepath.Join(filepath.Dir(gate), "result")
			os.Remove(result)
			return os.WriteFile(result, nil, 0o600)
		}, "result"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			b.ok("create", b.id)
			b.must(c.change(filepath.Join(b.root, b.id, "gate")))
			r := b.rt("start", b.id)
			r.failed(t, c.words)
			if r.took > 5*time.Second {
				t.Errorf("%v; it hangs", r)
			}
			b.refused(nil, "create", b.id)
		})
	}
}

// A reader that has nothing to do there changes neither start nor the status.
func TestF33StrayReader(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.ok("create", b.id)
	fd, err := unix.Open(filepath.Join(b.root, b.id, "gate"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	b.must(err)
	defer unix.Close(fd)
	b.is("created")
	b.ok("start", b.id)
	b.is("running")
	b.refused([]string{"cannot start an already running container"}, "start", b.id)
}

// start must see a program that has ended before it looks.
func TestF33ProgramExitsAtOnce(t *testing.T) {
	t.Parallel()
	rounds := 20
	b := newBox(t, spec{args: []string{"true"}})
	for range rounds {
		b.ok("create", b.id)
		if r := b.rt("start", b.id); r.code != 0 {
			t.Fatal(r)
		}
		b.is("stopped")
		b.ok("delete", b.id)
	}
}

func TestF33InitDiesAtGate(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.ok("create", b.id)
	pid := b.state().Pid
	p := b.begin("start.gate:sleep=1", "start", b.id)
	time.Sleep(400 * time.Millisecond)
	b.kill(pid)
	r := p.end(t)
	r.failed(t)
	if r.took > 5*time.Second || strings.Contains(r.out, "signal") {
		t.Errorf("%v", r)
	}
	b.is("stopped")
}

// Init is a zombie, for whoever started it never waits: the container has stopped.
func TestF36ZombieInit(t *testing.T) {
	for _, command := range []string{"create", "run"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			args := []string{"create", b.id}
			if command == "run" {
				args = []string{"run", "--detach", b.id}
			}
			h := helper(append([]string{"careless", faultBin, "--root", b.root}, args...)...)
			h.Dir = b.dir
			b.must(h.Start())
			defer func() {
				h.Process.Kill()
				h.Wait()
			}()
			want := map[string]string{"create": "created", "run": "running"}[command]
			b.must(eventually(limit, func() error {
				if r := b.rt("state", b.id); r.code != 0 || !strings.Contains(r.out, `"status": "`+want+`"`) {
					return fmt.Errorf("%v", r)
				}
				return nil
			}))
			pid := b.state().Pid
			b.kill(pid)
			b.must(eventually(limit, func() error {
				stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
				if !strings.Contains(string(stat), ") Z "+strconv.Itoa(h.Process.Pid)+" ") {
					return fmt.Errorf("init is no zombie of process %d: %.60q", h.Process.Pid, stat)
				}
				return nil
			}))
			if s := b.state(); s.Status != "stopped" || s.Pid != 0 {
				t.Errorf("state is %+v", s)
			}
			if out := b.ok("list"); !strings.Contains(out, "stopped") {
				t.Errorf("list: %q", out)
			}
			b.refused([]string{"stopped"}, "exec", b.id, "true")
			b.refused([]string{"stopped"}, "start", b.id)
			b.refused([]string{"not running"}, "kill", b.id, "KILL")
			r := b.rt("delete", b.id)
			if r.code != 0 || r.took > 5*time.Second {
				t.Error(r)
			}
			b.clean()
		})
	}
}
