// Package console hands terminals on: over a socket to whoever asked for the
// container's (--console-socket), or to the caller's own terminal while rt
// stays in the foreground.
package console

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// SendTimeout is how long a caller should let Dial, or Send, take.
const SendTimeout = 10 * time.Second

// maxPath is the longest path that fits sockaddr_un with its final NUL, unix(7).
const maxPath = 107

// Socket is a connection to a listening AF_UNIX stream socket, for one
// descriptor.
type Socket struct {
	fd   int
	path string
}

// SendFD is Dial, Send and Close, all before one deadline.
func SendFD(path, name string, fd int, deadline time.Time) error {
	s, err := Dial(path, deadline)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Send(name, fd, deadline)
}

// Dial connects to the listening socket at path, of any length. While its queue
// of connections is full it tries until deadline.
func Dial(path string, deadline time.Time) (*Socket, error) {
	fd, err := dial(path, deadline)
	if err != nil {
		return nil, fmt.Errorf("connect to socket %q: %w", path, err)
	}
	return &Socket{fd, path}, nil
}

func dial(path string, deadline time.Time) (int, error) {
	if path == "" {
		return -1, errors.New("the path is empty")
	}
	name := path
	if strings.HasPrefix(path, "@") {
		// Else it would be taken for a name of the abstract name space.
		name = "./" + path
	}
	if len(name) > maxPath {
		file, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(file)
		name = "/proc/self/fd/" + strconv.Itoa(file)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		if err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
		// EAGAIN: the queue is full, and poll(2) cannot wait for room in it.
		left := time.Until(deadline)
		if left <= 0 {
			err = unix.ETIMEDOUT
			break
		}
		time.Sleep(min(left, 10*time.Millisecond))
	}
	unix.Close(fd)
	return -1, err
}

// Send sends one message with the payload name, which must not be empty, and
// exactly the descriptor fd, which stays the caller's. That it succeeds does not
// say that anybody has read it.
func (s *Socket) Send(name string, fd int, deadline time.Time) error {
	if name == "" {
		// A stream socket carries descriptors only along with data.
		return fmt.Errorf("send descriptor to socket %q: the name is empty", s.path)
	}
	rights := unix.UnixRights(fd)
	for {
		n, err := unix.SendmsgN(s.fd, []byte(name), rights, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			if n != len(name) {
				return fmt.Errorf("send descriptor to socket %q: %d of %d bytes sent", s.path, n, len(name))
			}
			return nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			err = waitFD(s.fd, unix.POLLOUT, deadline)
		}
		if err != nil {
			return fmt.Errorf("send descriptor to socket %q: %w", s.path, err)
		}
	}
}

// Handover gives the descriptor to the caller, for another process to send with:
// it blocks, at most SendTimeout. The Socket is of no more use then.
func (s *Socket) Handover() (int, error) {
	timeout := unix.NsecToTimeval(int64(SendTimeout))
	err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	if err == nil {
		err = unix.SetNonblock(s.fd, false)
	}
	if err != nil {
		return -1, fmt.Errorf("hand over socket %q: %w", s.path, err)
	}
	fd := s.fd
	s.fd = -1
	return fd, nil
}

// Close closes the connection.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// waitFD waits until fd has one of events, or gives ETIMEDOUT at deadline.
func waitFD(fd int, events int16, deadline time.Time) error {
	for {
		left := max(time.Until(deadline), 0)
		ms := int(min((left+time.Millisecond-1)/time.Millisecond, math.MaxInt32))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, ms)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n > 0:
			return nil
		case left == 0:
			return unix.ETIMEDOUT
		}
	}
}
