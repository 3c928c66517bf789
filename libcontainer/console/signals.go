package console

import (
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Signals holds back the signals that a foreground command passes on to its
// container's process: all but those that tell something about the command
// itself (SIGCHLD, SIGURG, SIGWINCH, SIGPIPE), that job control must be able to
// stop it with when it touches the terminal from the background (SIGTTIN,
// SIGTTOU), and that cannot be caught.
type Signals struct {
	c     chan os.Signal
	ready sync.WaitGroup
	stop  chan struct{}
	once  sync.Once
	done  sync.WaitGroup
}

// The Go runtime needs two switches between threads to catch a signal, for all
// 57 of them more than a millisecond. So they are caught in three steps: before
// the process exists, once it has its program, and, of those that hardly anybody
// sends to a command, when that has been running for a moment.
var (
	// endings are the signals with which people and engines end a command.
	endings = [...]syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}
	// requests are those with which they ask a program for something.
	requests = [...]syscall.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGTSTP}
)

// restDelay is how long after Forward the rest is caught.
const restDelay = 20 * time.Millisecond

// Catch starts holding back the signals that end a command. It does so beside its
// caller, who calls Ready before there is anything to undo. Signals that were
// ignored when the command started (nohup) stay ignored.
func Catch() *Signals {
	s := &Signals{c: make(chan os.Signal, 256), stop: make(chan struct{})}
	s.ready.Go(func() { s.catch(endings[:]) })
	return s
}

// Ready returns when the signals of Catch are held back.
func (s *Signals) Ready() { s.ready.Wait() }

func (s *Signals) catch(list []syscall.Signal) {
	for _, n := range list {
		if !signal.Ignored(n) {
			signal.Notify(s.c, n)
		}
	}
}

// rest are all others that are passed on. 32 and 33 are the C library's own.
func rest() []syscall.Signal {
	var list []syscall.Signal
	for n := syscall.Signal(1); n <= 64; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGKILL, unix.SIGSTOP, 32, 33:
		default:
			if !slices.Contains(endings[:], n) && !slices.Contains(requests[:], n) {
				list = append(list, n)
			}
		}
	}
	return list
}

// Forward passes all signals, also those already held back, on to the process of
// pidfd until Stop. The descriptor stays the caller's, who closes it after Stop.
func (s *Signals) Forward(pidfd int) {
	s.done.Go(func() {
		s.catch(requests[:])
		late := time.NewTimer(restDelay)
		defer late.Stop()
		for {
			select {
			case <-late.C:
				s.catch(rest())
			case sig := <-s.c:
				// ESRCH: the process has ended, its caller will find out.
				unix.PidfdSendSignal(pidfd, sig.(syscall.Signal), nil, 0)
			case <-s.stop:
				return
			}
		}
	})
}

// Stop returns when no more signal is passed on. They stay caught, and are
// dropped: the command is about to end by itself, and giving each its usual
// effect again would take as long as catching it.
func (s *Signals) Stop() {
	s.once.Do(func() { close(s.stop) })
	s.done.Wait()
}
