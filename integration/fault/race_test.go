package fault

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func long() bool { return os.Getenv("RT_SOAK") == "long" }

// rounds is the number of rounds of a race.
func rounds(short, whole int) int {
	if long() {
		return whole
	}
	return short
}

func TestF30ParallelCreates(t *testing.T) {
	t.Parallel()
	for range rounds(1, 10) {
		b := newBox(t, sleeper)
		var all []*process
		for range 50 {
			all = append(all, b.begin("", "create", b.id))
		}
		won := 0
		for _, p := range all {
			if r := p.end(t); r.code == 0 {
				won++
			} else {
				r.failed(t, "container with given ID already exists")
			}
		}
		if won != 1 {
			t.Errorf("%d creates succeeded, expected 1", won)
		}
		b.is("created")
		b.ok("start", b.id)
		b.is("running")
	}
}

func TestF31CreateAgainstDelete(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	for i := range rounds(30, 500) {
		create := b.begin("", "create", b.id)
		time.Sleep(time.Duration(i%20) * time.Millisecond)
		del := b.begin("", "delete", "--force", b.id)
		if r := del.end(t); r.code != 0 || r.took > 10*time.Second {
			t.Fatal(r)
		}
		if r := create.end(t); r.code > 0 {
			r.failed(t)
		}
		b.remove()
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
}

// delete --force does not wait for a create that takes its time, unless that has
// only to say that it is done.
func TestF31DeleteOfSlowCreate(t *testing.T) {
	for _, point := range pointsOf(t, "create.", "parent.") {
		if point == beforeClaim {
			continue // there is nothing of the container yet
		}
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			seconds := 20
			if done := []string{"create.pidfile", "parent.commit", "parent.committed", "create.done"}; slices.Contains(done, point) {
				seconds = 1
			}
			p := b.begin(fmt.Sprintf("%s:sleep=%d", point, seconds), "create", b.id)
			time.Sleep(300 * time.Millisecond)
			r := b.rt("delete", "--force", b.id)
			if r.code != 0 || r.took > 5*time.Second {
				t.Errorf("%v", r)
			}
			b.clean()
			p.end(t)
		})
	}
}

// Readers meet containers at every moment of their lives.
func TestF34ReadersAgainstCycles(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	var stop atomic.Bool
	var group sync.WaitGroup
	for _, args := range [][]string{{"list"}, {"list", "--format", "json"}, {"state", b.id}, {"ps", b.id}} {
		group.Go(func() {
			for !stop.Load() {
				r, err := b.begin("", args...).wait(limit)
				switch {
				case err != nil:
					t.Error(r, err)
				case strings.Contains(r.out, "panic"), r.code < 0:
					t.Error(r)
				case args[0] == "list" && (r.code != 0 || strings.Contains(r.out, "load container")):
					t.Errorf("%v; expected what vanishes to be left out", r)
				case r.code != 0 && !strings.Contains(r.out, "does not exist") && !strings.Contains(r.out, "not completely created"):
					t.Errorf("%v; expected it not to exist", r)
				default:
					continue
				}
				return
			}
		})
	}
	for range rounds(60, 200) {
		b.ok("create", b.id)
		b.ok("start", b.id)
		b.ok("delete", "--force", b.id)
	}
	stop.Store(true)
	group.Wait()
}

// seed is that of this run's random choices.
func seed(t *testing.T) uint64 {
	s := uint64(time.Now().UnixNano())
	if e := os.Getenv("RT_SEED"); e != "" {
		var err error
		if s, err = strconv.ParseUint(e, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("RT_SEED=%d", s)
	return s
}

// soon is a random time up to 150 ms; short ones are more likely, for most
// commands are done long before.
func soon(r *rand.Rand) time.Duration {
	f := r.Float64()
	return time.Duration(f * f * f * float64(150*time.Millisecond))
}

// Random kills of every command, eight at a time.
func TestF12Soak(t *testing.T) {
	const workers = 8
	s := seed(t)
	n := rounds(152, 1000)
	var killed atomic.Int32
	for w := range workers {
		t.Run(strconv.Itoa(w), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(s, uint64(w)))
			full := newBox(t, everything)
			plain := newBox(t, sleeper)
			short := newBox(t, spec{args: []string{"true"}})
			for i := range n / workers {
				b := []*box{full, plain, short}[r.IntN(3)]
				command := []string{"create", "run", "start", "exec", "delete", "delete --force"}[r.IntN(6)]
				if b.killed(command, soon(r)) {
					killed.Add(1)
				}
				b.remove()
				if t.Failed() {
					t.Fatalf("round %d, %s", i, command)
				}
			}
		})
	}
	t.Cleanup(func() {
		t.Logf("%d of %d rounds were interrupted", killed.Load(), n)
		if int(killed.Load()) < n/5 {
			t.Errorf("only %d of %d rounds were interrupted: this proves little", killed.Load(), n)
		}
	})
}

// killed runs a command on the container, kills it after a while, and tells
// whether it was still at work.
func (b *box) killed(command string, after time.Duration) bool {
	b.t.Helper()
	args := append(strings.Fields(command), b.id)
	switch command {
	case "start", "delete":
		b.ok("create", b.id)
	case "exec":
		b.ok("create", b.id)
		args = append(args, "true")
	case "delete --force":
		b.ok("create", b.id)
		b.ok("start", b.id)
	}
	p := b.begin("", args...)
	time.Sleep(after)
	p.signal(syscall.SIGKILL)
	r := p.end(b.t)
	if r.code > 0 {
		b.t.Errorf("%v", r)
	}
	// What any of them leaves can be looked at.
	if out := b.ok("list"); strings.Contains(out, "damaged") {
		b.t.Errorf("list: %q", out)
	}
	return r.code < 0
}

// The soak must be strong enough to find what is wrong with a runtime that is
// known to leave things behind.
func TestS00SoakFindsFaultOfOldRuntime(t *testing.T) {
	if !long() {
		t.Skip("only with RT_SOAK=long")
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("Debian's package runc is not installed")
	}
	r := rand.New(rand.NewPCG(seed(t), 0))
	found, interrupted := 0, 0
	for range 120 {
		b := &box{t: t, id: "c" + strconv.Itoa(int(boxes.Add(1)))}
		b.dir = filepath.Join(work, b.id)
		b.root = filepath.Join(b.dir, "state")
		b.must(os.MkdirAll(b.root, 0o700))
		b.write(sleeper)
		p := command(runc, b.dir, nil, 0, "--root", b.root, "create", b.id)
		time.Sleep(soon(r))
		p.signal(syscall.SIGKILL)
		if p.end(t).code < 0 {
			interrupted++
		}
		command(runc, b.dir, nil, 0, "--root", b.root, "delete", "--force", b.id).end(t)
		if eventually(2*time.Second, b.leak) != nil {
			found++
		}
		b.sweep()
	}
	t.Logf("%d of %d interrupted rounds left something behind", found, interrupted)
	if found == 0 {
		t.Error("the soak has found nothing")
	}
}

// sweep takes away what another runtime has left.
func (b *box) sweep() {
	b.t.Helper()
	b.must(eventually(limit, func() error {
		for _, p := range b.processes() {
			pid, _, _ := strings.Cut(p, " ")
			if n, err := strconv.Atoi(pid); err == nil {
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
		for _, d := range b.directories() {
			if err := os.Remove(d); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("sweep: %w", err)
			}
		}
		return nil
	}))
}
