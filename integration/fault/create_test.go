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
)

var everything = spec{args: []string{"sleep", "1000"}, full: true}

// gone checks that all of the container's processes end by themselves.
func (b *box) gone(limit time.Duration) {
	b.t.Helper()
	b.must(eventually(limit, func() error {
		if p := b.processes(); len(p) > 0 {
			return fmt.Errorf("the stage outlives its parent: %v", p)
		}
		return nil
	}))
}

// beforeClaim is the one point at which nothing is there yet that would last.
const beforeClaim = "create.launch"

func TestF01CreateKilled(t *testing.T) {
	for _, point := range pointsOf(t, "create.", "parent.") {
		for _, del := range [][]string{{"delete"}, {"delete", "--force"}} {
			t.Run(point+" "+strings.Join(del, " "), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, everything)
				b.fault(point+":kill", "create", "--pid-file", "pid", b.id).killed(t)
				if point == beforeClaim {
					b.gone(time.Second)
					b.clean()
					b.ok("create", "--pid-file", "pid", b.id)
					return
				}
				if point == "create.done" || point == "parent.committed" {
					b.is("created")
				} else {
					b.gone(time.Second)
					why := "is not completely created"
					if point == "create.pidfile" || point == "parent.commit" {
						why = "cannot start a container that has stopped"
						b.is("stopped")
					}
					b.refused([]string{why}, "start", b.id)
				}
				b.refused([]string{"already exists"}, "create", b.id)
				b.ok(append(del, b.id)...)
				b.clean()
				b.ok("create", "--pid-file", "pid", b.id)
			})
		}
	}
}

// The parent dies while the stage is busy with an operation.
func TestF01CreateKilledDuringOperation(t *testing.T) {
	_, gate := operations(newBox(t, everything))
	for n := 1; n <= gate; n++ {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			p := b.begin(fmt.Sprintf("stage.%d:sleep=1", n), "create", b.id)
			b.inside()
			time.Sleep(300 * time.Millisecond)
			p.signal(syscall.SIGKILL)
			p.end(t)
			if n == gate {
				// It has been committed before.
				b.is("created")
				return
			}
			b.gone(3 * time.Second)
			b.ok("delete", b.id)
			b.clean()
		})
	}
}

// A directory that was claimed and no more, as create leaves it when it is
// killed between its first two steps.
func TestF01ClaimWithoutIntent(t *testing.T) {
	for name, files := range map[string][]string{"empty": nil, "temporary": {".intent.tmp"}} {
		for _, del := range [][]string{{"delete"}, {"delete", "--force"}} {
			t.Run(name+" "+strings.Join(del, " "), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, sleeper)
				dir := filepath.Join(b.root, b.id)
				b.must(os.Mkdir(dir, 0o700))
				for _, f := range files {
					b.must(os.WriteFile(filepath.Join(dir, f), []byte("{"), 0o600))
				}
				b.refused([]string{"already exists"}, "create", b.id)
				b.refused(nil, "start", b.id)
				b.refused(nil, "state", b.id)
				b.ok(append(del, b.id)...)
				b.clean()
			})
		}
	}
}

// What is left of a pid file that was being written is in nobody's way.
func TestF01PidFileHalfWritten(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.must(os.WriteFile(filepath.Join(b.dir, ".pid"), nil, 0o600))
	b.ok("create", "--pid-file", "pid", b.id)
	data, err := os.ReadFile(filepath.Join(b.dir, "pid"))
	if err != nil || string(data) != strconv.Itoa(b.state().Pid) {
		t.Errorf("pid file: %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, ".pid")); err == nil {
		t.Error("the temporary file is still there")
	}
}

func TestF02StageFails(t *testing.T) {
	t.Run("everything", func(t *testing.T) { stageFails(t, everything) })
	// Without a user namespace the first process has more to do.
	t.Run("plain", func(t *testing.T) { stageFails(t, sleeper) })
}

func stageFails(t *testing.T, config spec) {
	last, gate := operations(newBox(t, config))
	for n := 1; n <= last; n++ {
		for action, words := range map[string]string{"kill": "killed by signal 9", "errno=28": "no space left on device"} {
			t.Run(strconv.Itoa(n)+" "+action, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, config)
				r := b.fault(fmt.Sprintf("stage.%d:%s", n, action), "create", "--pid-file", "pid", b.id)
				if n < gate {
					r.failed(t, words)
					named(t, r, n, action == "kill")
					// It has rolled back by itself.
					b.clean()
					return
				}
				// These operations are start's; the gate itself may be reached
				// before create has ended or after.
				if r.code != 0 && n != gate {
					t.Fatal(r)
				}
				if n == gate {
					b.gone(time.Second)
					if r.code == 0 {
						b.is("stopped")
					}
					b.refused([]string{"cannot start"}, "start", b.id)
					return
				}
				r = b.rt("start", b.id)
				if action == "kill" {
					r.failed(t, "first process has died")
				} else {
					r.failed(t, words)
					named(t, r, n, false)
				}
				b.gone(time.Second)
				b.is("stopped")
				b.refused([]string{"cannot start a container that has stopped"}, "start", b.id)
				b.ok("delete", b.id)
				b.clean()
			})
		}
	}
}

// named checks that a message names operation n. Of a killed stage nobody knows
// more than which operation it was heard from last.
func named(t *testing.T, r result, n int, died bool) {
	t.Helper()
	if !died {
		if !strings.Contains(r.out, fmt.Sprintf("operation %d,", n)) {
			t.Errorf("%v; expected it to name operation %d", r, n)
		}
		return
	}
	var last int
	if _, after, ok := strings.Cut(r.out, "(operations 1 to "); ok {
		if fmt.Sscan(strings.TrimRight(after[:3], "):"), &last); last < n {
			t.Errorf("%v; but it was killed in operation %d", r, n)
		}
		return
	}
	_, after, _ := strings.Cut(r.out, "after operation ")
	if _, err := fmt.Sscan(after, &last); err != nil || last > n {
		t.Errorf("%v; but it was killed in operation %d", r, n)
	}
}
