package hooks

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// keep is how much of each of a hook's outputs is kept, in bytes.
	keep = 64 << 10
	// drainMax bounds what is read after the hook has ended, for what it left
	// running may write for ever. It covers the largest pipe of an ordinary user.
	drainMax = 2 << 20
)

// process is a running hook. The pipe ends are non-blocking; -1 is closed.
type process struct {
	pid   int
	pidfd int
	in    int
	state []byte // what is still to write to in
	out   [2]stream
}

// stream is one output of a hook: its first bytes are kept, the rest is read
// so that the hook does not block, and dropped.
type stream struct {
	fd   int
	text []byte
}

// converse writes the state and reads the outputs until the hook ends (true)
// or the deadline passes (false); zero is no deadline. It gives ErrInterrupted when interrupt
// is readable, if that is not 0.
func (p *process) converse(deadline time.Time, interrupt int) (bool, error) {
	if interrupt == 0 {
		interrupt = -1
	}
	buf := make([]byte, 64<<10)
	for {
		// poll(2) ignores negative descriptors.
		fds := [5]unix.PollFd{
			{Fd: int32(p.pidfd), Events: unix.POLLIN},
			{Fd: int32(p.in), Events: unix.POLLOUT},
			{Fd: int32(p.out[0].fd), Events: unix.POLLIN},
			{Fd: int32(p.out[1].fd), Events: unix.POLLIN},
			{Fd: int32(interrupt), Events: unix.POLLIN},
		}
		n, err := unix.Poll(fds[:], millis(deadline))
		if err != nil && err != unix.EINTR {
			return false, fmt.Errorf("wait for the hook: %w", err)
		}
		if n > 0 {
			if fds[4].Revents != 0 {
				return false, ErrInterrupted
			}
			if fds[0].Revents != 0 {
				return true, nil
			}
			if fds[1].Revents != 0 {
				p.feed()
			}
			for i := range p.out {
				if fds[2+i].Revents != 0 {
					p.out[i].read(buf)
				}
			}
		}
		// Also when there was something to do: output must not put it off.
		if !deadline.IsZero() && time.Until(deadline) <= 0 {
			return false, nil
		}
	}
}

// millis is the time until deadline for poll(2), rounded up; -1 for none.
func millis(deadline time.Time) int {
	if deadline.IsZero() {
		return -1
	}
	left := max(time.Until(deadline), 0)
	return int(min((left+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
}

// feed writes what the pipe takes of the state. A hook need not read it: EPIPE
// is as good as the end.
func (p *process) feed() {
	n, err := unix.Write(p.in, p.state)
	if err == unix.EINTR || err == unix.EAGAIN {
		return
	}
	if err == nil {
		p.state = p.state[n:]
	}
	if err != nil || len(p.state) == 0 {
		closeFD(&p.in)
	}
}

// read reads once, and returns how much; 0 when there is nothing (now).
func (s *stream) read(buf []byte) int {
	n, err := unix.Read(s.fd, buf)
	if err == unix.EINTR || err == unix.EAGAIN {
		return 0
	}
	if n <= 0 || err != nil {
		closeFD(&s.fd)
		return 0
	}
	s.text = append(s.text, buf[:min(n, keep-len(s.text))]...)
	return n
}

// drain reads what the ended hook has left in the pipes, without waiting for
// others that hold them.
func (p *process) drain() {
	buf := make([]byte, 64<<10)
	for i := range p.out {
		for total := 0; p.out[i].fd >= 0 && total < drainMax; {
			n := p.out[i].read(buf)
			if n == 0 {
				break
			}
			total += n
		}
	}
}

// wait waits until deadline for the hook's end.
func (p *process) wait(deadline time.Time) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, millis(deadline))
		if n > 0 {
			return true
		}
		if (err != nil && err != unix.EINTR) || time.Until(deadline) <= 0 {
			return false
		}
	}
}

// reap takes the ended hook's status: nil for 0, else an error that says how it
// ended and what it wrote.
func (p *process) reap() error {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &ws, 0, nil)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return fmt.Errorf("wait for the hook: %w", err)
		}
	}
	if ws.Exited() && ws.ExitStatus() == 0 {
		return nil
	}
	how := fmt.Sprintf("exit status %d", ws.ExitStatus())
	if ws.Signaled() {
		how = "signal: " + ws.Signal().String()
		if ws.CoreDump() {
			how += " (core dumped)"
		}
	}
	return errors.New(how + p.output())
}

func (p *process) output() string {
	return fmt.Sprintf(", stdout: %s, stderr: %s",
		strings.TrimSpace(string(p.out[0].text)), strings.TrimSpace(string(p.out[1].text)))
}

func (p *process) close() {
	closeFD(&p.pidfd)
	closeFD(&p.in)
	closeFD(&p.out[0].fd)
	closeFD(&p.out[1].fd)
}

// closeFD closes *fd, unless it is closed already.
func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
		*fd = -1
	}
}
