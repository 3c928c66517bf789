package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestF05RunKilledAtPoint(t *testing.T) {
	for _, point := range pointsOf(t, "create.", "parent.", "run.", "start.poststart") {
		if point == "create.done" || point == "create.fifos" {
			continue // run has no gate
		}
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, spec{args: []string{"true"}, full: true})
			b.fault(point+":kill", "run", "--pid-file", "pid", b.id).killed(t)
			b.gone(2 * time.Second)
			if r := b.rt("state", b.id); r.code == 0 {
				b.is("stopped")
			}
			if point == beforeClaim {
				b.refused([]string{"does not exist"}, "delete", b.id)
			} else {
				b.ok("delete", b.id)
			}
			b.clean()
		})
	}
}

// A run that is killed leaves its container running.
func TestF05RunKilled(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	p := b.begin("", "run", b.id)
	b.running()
	p.signal(syscall.SIGKILL)
	p.end(t)
	time.Sleep(50 * time.Millisecond)
	b.is("running")
	b.ok("exec", b.id, "true")
	b.refused([]string{"is not stopped"}, "delete", b.id)
}

// running waits for the program of a run that has been begun.
func (b *box) running() {
	b.t.Helper()
	b.must(eventually(limit, func() error {
		for _, p := range b.processes() {
			if !strings.Contains(p, "rt-stage") {
				return nil
			}
		}
		return fmt.Errorf("no program runs; processes: %v", b.processes())
	}))
}

// A run that is asked to end gives the terminal back as it was.
func TestF05RunTerminated(t *testing.T) {
	t.Parallel()
	b := newBox(t, spec{args: []string{"sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"}, terminal: true})
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	b.must(err)
	defer ptmx.Close()
	b.must(unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	b.must(err)
	tty, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	b.must(err)
	before, err := unix.IoctlGetTermios(tty, unix.TCGETS)
	b.must(err)
	// The command's standard input owns the descriptor.
	held, err := unix.Dup(tty)
	b.must(err)
	defer unix.Close(held)
	p := command(faultBin, b.dir, nil, uintptr(tty), "--root", b.root, "run", b.id)
	b.running()
	b.must(eventually(5*time.Second, func() error {
		if now, err := unix.IoctlGetTermios(held, unix.TCGETS); err != nil || *now == *before {
			return fmt.Errorf("run has not made the terminal raw: %v", err)
		}
		return nil
	}))
	time.Sleep(200 * time.Millisecond) // for the trap
	p.signal(syscall.SIGTERM)
	if r := p.end(t); r.code != 3 {
		t.Errorf("%v; expected 3, the program's status", r)
	}
	now, err := unix.IoctlGetTermios(held, unix.TCGETS)
	b.must(err)
	if *now != *before {
		t.Errorf("terminal is %+v, was %+v", now, before)
	}
	b.clean()
}

// run has given its answer before the stage needs it: when the stage fails before
// it has read that, it is still its own words that count.
func TestF02RunTellsCause(t *testing.T) {
	last, _ := operations(newBox(t, sleeper))
	for n := 1; n < last; n++ { // without the gate
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			for range rounds(3, 50) {
				r := b.fault(fmt.Sprintf("stage.%d:errno=28", n), "run", b.id)
				r.failed(t, "no space left on device")
				named(t, r, n, false)
			}
			b.clean()
		})
	}
}
