package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// clock moves the wall clock of this kernel by a time from what it would be without it.
type clock struct {
	t     *testing.T
	start time.Time // with its reading of the monotonic clock
}

func (c clock) move(by time.Duration) {
	c.t.Helper()
	ts := unix.NsecToTimespec(c.start.UnixNano() + int64(time.Since(c.start)+by))
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		c.t.Fatalf("set the clock: %v", err)
	}
}

// The wall clock jumps by a year, in either direction, while rt is at work: no deadline fires, and
// none fails to. It is no parallel test, for the sake of the others.
func TestF37WallClockJumps(t *testing.T) {
	if lane != "uml" {
		t.Skip("this kernel's clock is not the test's own; that of the lane uml is")
	}
	c := clock{t, time.Now()}
	defer c.move(0)
	const year = 365 * 24 * time.Hour
	second := 1
	for _, by := range []time.Duration{year, -year} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			c := clock{t, c.start}
			b := newBox(t, args("sleep", "1000"))
			// Now and then, all the time.
			stop := make(chan struct{})
			var group sync.WaitGroup
			jumps := 0
			group.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(3 * time.Millisecond):
						jumps++
						ts := unix.NsecToTimespec(c.start.UnixNano() + int64(time.Since(c.start)) + int64(by)*int64(jumps%2))
						unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
					}
				}
			})
			for range 4 {
				for _, command := range [][]string{
					{"create", b.id}, {"start", b.id}, {"exec", b.id, "true"}, {"pause", b.id}, {"resume", b.id}, {"kill", b.id, "KILL"}, {"delete", "--force", b.id},
				} {
					if r := b.rt(command...); r.code != 0 || r.took > 10*time.Second {
						t.Errorf("%v", r)
					}
				}
			}
			close(stop)
			group.Wait()
			if jumps < 20 {
				t.Errorf("the clock has jumped %d times: this proves little", jumps)
			}
			c.move(0)
			// A timeout is as long as it says, of a hook of the host and of one that the stage runs.
			for kind, hooks := range map[string]*specs.Hooks{
				"createRuntime":   {CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exec sleep 1000"}, Timeout: &second}}},
				"createContainer": {CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exec sleep 1000"}, Env: []string{"PATH=/bin:/usr/bin"}, Timeout: &second}}},
			} {
				b.spec.Hooks = hooks
				b.write()
				p := b.begin("create", b.id)
				time.Sleep(300 * time.Millisecond)
				c.move(by)
				r := p.end()
				c.move(0)
				if r.code != 1 || !strings.Contains(r.err, "hook ran past specified timeout of 1") || r.took < time.Second || r.took > 10*time.Second {
					t.Errorf("%s: %v", kind, r)
				}
				b.clean()
			}
			b.spec.Hooks = nil
			b.write()
		})
	}
}
