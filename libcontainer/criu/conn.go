// Package criu speaks with CRIU (criu(8)), the program that writes processes to image files and makes
// them again, through its RPC (criu.org/RPC), and guards the directories in which the images are.
package criu

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"
)

// Environment is all that CRIU gets: where it finds ip(8), iptables(8), nft(8) and tar(1).
var Environment = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// hostConfig is where the owner of the host configures CRIU for runc, and so for rt.
const hostConfig = "/etc/criu/runc.conf"

// HostConfig is that file, nil if there is none.
func HostConfig() *string {
	file := hostConfig
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	return &file
}

// Program looks criu up in rt's own PATH.
func Program() (string, error) {
	path, err := exec.LookPath("criu")
	if err != nil {
		return "", fmt.Errorf("find CRIU, which checkpoint and restore need: %w", err)
	}
	return path, nil
}

// Args is the argv with which criu serves one request on descriptor fd.
func Args(fd int) []string { return []string{"criu", "swrk", fmt.Sprint(fd)} }

var (
	// ErrTimeout: CRIU has not got on for as long as it may take.
	ErrTimeout = errors.New("CRIU does not get on")
	// ErrInterrupted: the interrupt descriptor became readable.
	ErrInterrupted = errors.New("interrupted")
	// ErrEnded: CRIU has ended without an answer.
	ErrEnded = errors.New("CRIU ended without an answer")
)

// Failed is what CRIU itself says of a request that it could not fulfil.
type Failed struct {
	Type  string // DUMP, PRE_DUMP, RESTORE
	Errno int32
	Log   []string // the errors in its log, oldest first
}

// Error begins with runc's words.
func (e *Failed) Error() string {
	s := fmt.Sprintf("criu failed: type %s errno %d", e.Type, e.Errno)
	for _, l := range e.Log {
		s += ": " + l
	}
	return s
}

// Conn is the caller's end of a connection with one CRIU.
type Conn struct {
	fd int
	// Pidfd is CRIU's, the caller's: processes that it makes hold its end of the connection too.
	Pidfd int
	// Interrupt is a descriptor that ends Do when it becomes readable; 0 for none.
	Interrupt int
	// Wait is how long CRIU may go without progress; 0 for ever.
	Wait time.Duration
	// Progress is any number that changes while CRIU gets on.
	Progress func() int64
}

// Pair makes a connection. Whoever closes peer, CRIU's end of it, is the caller.
func Pair() (c *Conn, peer int, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("create socket to CRIU: %w", err)
	}
	return &Conn{fd: ends[0], Pidfd: -1}, ends[1], nil
}

// Close lets CRIU end.
func (c *Conn) Close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// Event is a step of CRIU's, which waits until the handler has returned.
type Event struct {
	Name string // as criu.org/Action_scripts has it: setup-namespaces, post-restore ...
	Pid  int    // of the container's first process, at the events that are about it; else 0
	FD   int    // the ptmx with orphan-pts-master, else -1; CRIU's end is closed after the event
}

// Do sends a request and answers CRIU's events until it has the result. An error of handle makes CRIU
// give up where it still can, and is what Do returns.
func (c *Conn) Do(req *rpc.CriuReq, handle func(Event) error) (*rpc.CriuResp, error) {
	var failed error
	if err := c.send(req); err != nil {
		return nil, err
	}
	for {
		resp, fd, err := c.recv()
		if failed != nil && err != nil {
			err = failed // from which the other follows
		}
		if err != nil {
			return nil, err
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			if fd >= 0 {
				unix.Close(fd)
			}
			switch {
			case failed != nil:
				return nil, failed
			case !resp.GetSuccess():
				return nil, &Failed{Type: req.GetType().String(), Errno: resp.GetCrErrno()}
			case resp.GetType() != req.GetType():
				return nil, fmt.Errorf("read CRIU: an answer to %s, expected one to %s", resp.GetType(), req.GetType())
			}
			return resp, nil
		}
		n := resp.GetNotify()
		err = handle(Event{Name: n.GetScript(), Pid: int(n.GetPid()), FD: fd})
		if fd >= 0 {
			unix.Close(fd)
		}
		if failed == nil {
			failed = err
		}
		ok := err == nil
		typ := rpc.CriuReqType_NOTIFY
		err = c.send(&rpc.CriuReq{Type: &typ, NotifySuccess: &ok})
		if failed != nil && err != nil {
			err = failed
		}
		if err != nil {
			return nil, err
		}
	}
}

func (c *Conn) send(req *rpc.CriuReq) error {
	b, err := req.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode request to CRIU: %w", err)
	}
	for {
		_, err := unix.SendmsgN(c.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EPIPE, unix.ECONNRESET:
			return ErrEnded
		default:
			return fmt.Errorf("write to CRIU: %w", err)
		}
	}
}

// maxAnswer bounds an answer of CRIU's, in bytes.
const maxAnswer = 1 << 16

func (c *Conn) recv() (*rpc.CriuResp, int, error) {
	if err := c.await(); err != nil {
		return nil, -1, err
	}
	buf, oob := make([]byte, maxAnswer), make([]byte, unix.CmsgSpace(4*4))
	n, on, flags, _, err := unix.Recvmsg(c.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.ECONNRESET:
		return nil, -1, ErrEnded
	case err != nil:
		return nil, -1, fmt.Errorf("read CRIU: %w", err)
	}
	fd := descriptor(oob[:on])
	resp := new(rpc.CriuResp)
	switch {
	case n == 0:
		err = ErrEnded
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	case flags&unix.MSG_CTRUNC != 0:
		err = errors.New("an answer with more descriptors than there is room for")
	default:
		err = resp.UnmarshalVT(buf[:n])
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		if err != ErrEnded {
			err = fmt.Errorf("read CRIU: %w", err)
		}
		return nil, -1, err
	}
	return resp, fd, nil
}

// descriptor is the first of those that came with a message, -1 if none did. It closes all others.
func descriptor(oob []byte) int {
	first := -1
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return first
	}
	for i := range list {
		fds, err := unix.ParseUnixRights(&list[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if first < 0 {
				first = fd
			} else {
				unix.Close(fd)
			}
		}
	}
	return first
}

// glance is how often Progress is asked.
const glance = time.Second

// await waits for a message.
func (c *Conn) await() error {
	var last int64
	since := time.Now()
	for {
		p := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}, {Fd: int32(c.Pidfd), Events: unix.POLLIN}}
		if c.Interrupt > 0 {
			p[1].Fd = int32(c.Interrupt)
		}
		_, err := unix.Poll(p, int(glance/time.Millisecond))
		switch {
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("wait for CRIU: %w", err)
		case p[0].Revents != 0:
			return nil
		case p[1].Revents != 0:
			return ErrInterrupted
		case p[2].Revents != 0:
			// It may have spoken since.
			if n, err := unix.Poll(p[:1], 0); err == nil && n > 0 {
				return nil
			}
			return ErrEnded
		}
		if c.Progress != nil {
			if now := c.Progress(); now != last {
				last, since = now, time.Now()
			}
		}
		if c.Wait > 0 && time.Since(since) > c.Wait {
			return fmt.Errorf("%w: no progress for %v", ErrTimeout, c.Wait)
		}
	}
}
