package console

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Signals holds back signals sent to a command: those that end one while it is at work, and, once
// a foreground command passes them on to its container's process, all but
// those that tell something about the command itself (SIGCHLD, SIGURG, SIGWINCH, SIGPIPE), that job
// control must be able to stop it with when it touches the terminal from the
// background (SIGTTIN, SIGTTOU), and that cannot be caught.
type Signals struct {
	r     int // the pipe's end from which the numbers of caught signals come, a byte each
	first syscall.Signal
	c     chan os.Signal
	pump  sync.Once
	stop  chan struct{}
	once  sync.Once
	done  sync.WaitGroup
}

var (
	// endings are the signals with which people and engines end a command.
	endings = [...]syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}
	// requests are those with which they ask a program for something.
	requests = [...]syscall.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGCONT, unix.SIGTSTP}
)

// restDelay is how long after Forward the rest is caught.
const restDelay = 20 * time.Millisecond

// pipe is what handlers write to. There is one, which stays open: a handler may be at work at
// any time.
var (
	pipeOnce sync.Once
	pipeErr  error
	pipeRead int
	// pipeWrite is read by the handlers.
	pipeWrite int32 = -1
)

// Catch starts holding back the signals that end a command, each once: who sends one again, because
// the command has not ended, kills it. Signals that were ignored when the command started
// (nohup) stay ignored.
func Catch() (*Signals, error) {
	pipeOnce.Do(func() {
		var ends [2]int
		if pipeErr = unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); pipeErr == nil {
			pipeRead, pipeWrite = ends[0], int32(ends[1])
		}
	})
	if pipeErr != nil {
		return nil, fmt.Errorf("make a pipe for signals: %w", pipeErr)
	}
	s := &Signals{r: pipeRead, c: make(chan os.Signal, 256), stop: make(chan struct{})}
	for s.read() != 0 { // of an earlier command in this process
	}
	s.catch(endings[:], true)
	return s, nil
}

// read takes the next signal, 0 if none has come.
func (s *Signals) read() syscall.Signal {
	var b [1]byte
	for {
		n, err := unix.Read(s.r, b[:])
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			return 0
		}
		return syscall.Signal(b[0])
	}
}

// FD is a descriptor that is readable once a signal has been caught; 0 if s is nil. It is
// only to be waited for.
func (s *Signals) FD() int {
	if s == nil {
		return 0
	}
	return s.r
}

// Caught is the first signal that was caught, 0 if there was none yet or s is nil. FD need not be
// readable any more then.
func (s *Signals) Caught() syscall.Signal {
	if s == nil {
		return 0
	}
	if s.first == 0 {
		s.first = s.read()
	}
	return s.first
}

// catch lets a handler of ours write the signals to the pipe, which costs a system call for each.
// The Go runtime needs two switches between threads for one, and time to start: more
// than a tenth of what a create takes. A signal that the caller of rt has blocked
// it delivers all the same.
func (s *Signals) catch(list []syscall.Signal, once bool) {
	blocked := blockedSignals()
	for _, n := range list {
		if signal.Ignored(n) {
			continue
		}
		if blocked&(1<<(n-1)) != 0 || !handle(n, once) {
			s.notify(n)
		}
	}
}

// blockedSignals is the signal mask of all threads that run Go code.
func blockedSignals() (mask uint64) {
	var set unix.Sigset_t
	if unix.PthreadSigmask(unix.SIG_BLOCK, nil, &set) != nil {
		return 0
	}
	return uint64(set.Val[0])
}

// notify catches a signal as Go does, and writes it to the pipe.
func (s *Signals) notify(n syscall.Signal) {
	signal.Notify(s.c, n)
	s.pump.Do(func() {
		s.done.Go(func() {
			for {
				select {
				case sig := <-s.c:
					unix.Write(int(pipeWrite), []byte{byte(sig.(syscall.Signal))})
				case <-s.stop:
					return
				}
			}
		})
	})
}

// rest are all others that are passed on. 32 and 33 are the C library's own. The Go
// runtime has its own handlers for some, for when they are not sent but come of a fault.
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
// pidfd until Stop. The descriptor stays the caller's, who closes it after Stop. What hardly
// anybody sends to a command is caught when that has been running for a moment.
func (s *Signals) Forward(pidfd int) {
	s.catch(endings[:], false)
	s.catch(requests[:], false)
	if s.first != 0 {
		s.send(pidfd, s.first)
	}
	s.done.Go(func() {
		wait := int(restDelay / time.Millisecond)
		for {
			select {
			case <-s.stop:
				return
			default:
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.r), Events: unix.POLLIN}}, wait)
			if n == 0 && err == nil {
				wait = -1
				for _, sig := range rest() {
					if !signal.Ignored(sig) {
						s.notify(sig)
					}
				}
			}
			for sig := s.read(); sig != 0; sig = s.read() {
				if sig != wake {
					s.send(pidfd, sig)
				}
			}
		}
	})
}

// send ignores its result: ESRCH says that the process has ended, its caller will find out.
func (s *Signals) send(pidfd int, sig syscall.Signal) {
	unix.PidfdSendSignal(pidfd, sig, nil, 0)
}

// wake is no signal's number: it ends the wait for one.
const wake = 255

// Finish ends Forward, unless s is nil. Signals stay caught, and are dropped: the command is about to end by itself.
func (s *Signals) Finish() {
	if s == nil {
		return
	}
	s.once.Do(func() {
		close(s.stop)
		unix.Write(int(pipeWrite), []byte{wake}) // if the pipe is full nobody waits
	})
}

// Stop is Finish that returns when no more signal is passed on.
func (s *Signals) Stop() {
	if s != nil {
		s.Finish()
		s.done.Wait()
	}
}
