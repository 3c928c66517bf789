package libcontainer

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"rt/libcontainer/state"
	"rt/nsenter"

	"golang.org/x/sys/unix"
)

// barrierWait is how long the host's side of sd_notify(3) may take to take in a
// BARRIER.
const barrierWait = 30 * time.Second

// notifyProxy passes a container's readiness (sd_notify(3)) on to the host. The
// container sees only a directory of its own with the socket in it. The sockets
// are plain descriptors: package net would cost every command its start-up.
type notifyProxy struct {
	sock int // -1: nothing to wait for
	host string
}

// listenNotify makes the container's socket, if it was created with one and the
// caller has somewhere to send to.
func listenNotify(d *state.Dir, host string) (*notifyProxy, error) {
	p := &notifyProxy{sock: -1, host: host}
	if host == "" {
		return p, nil
	}
	dir, err := unix.Openat(d.FD(), state.NotifyName, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open directory for readiness messages: %w", err)
	}
	defer unix.Close(dir)
	if err := unix.Unlinkat(dir, "notify.sock", 0); err != nil && err != unix.ENOENT {
		return nil, fmt.Errorf("remove old socket for readiness messages: %w", err)
	}
	p.sock, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket for readiness messages: %w", err)
	}
	// Through the descriptor the path is short enough for a socket address.
	path := "/proc/self/fd/" + strconv.Itoa(dir) + "/notify.sock"
	if err = unix.Bind(p.sock, &unix.SockaddrUnix{Name: path}); err == nil {
		// Any user of the container may say that it is ready.
		err = unix.Chmod(path, 0o777)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("listen for readiness messages: %w", err)
	}
	return p, nil
}

func (p *notifyProxy) close() {
	if p.sock >= 0 {
		unix.Close(p.sock)
		p.sock = -1
	}
}

// wait waits for a READY= message of the container and passes it on with the pid of
// its first process. The end of that process ends the wait without an error. When interrupt
// (0 for none) becomes readable that is one.
func (p *notifyProxy) wait(pidfd, pid, interrupt int) error {
	if p.sock < 0 {
		return nil
	}
	if interrupt == 0 {
		interrupt = -1
	}
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(p.sock, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			fds := []unix.PollFd{{Fd: int32(p.sock), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: int32(interrupt), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
				return fmt.Errorf("wait for readiness message: %w", err)
			}
			if fds[2].Revents != 0 {
				return nsenter.ErrInterrupted
			}
			if fds[0].Revents == 0 && fds[1].Revents != 0 {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("read readiness message: %w", err)
		}
		for line := range bytes.Lines(buf[:n]) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return p.send(bytes.TrimSpace(line), pid)
			}
		}
	}
}

// send tells the host: the line, the pid, and a barrier, so that the message is
// taken in while rt still lives and can be identified.
func (p *notifyProxy) send(line []byte, pid int) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make socket for NOTIFY_SOCKET: %w", err)
	}
	defer unix.Close(sock)
	// A leading "@" is an abstract name to sd_notify(3), and to SockaddrUnix.
	if err := unix.Connect(sock, &unix.SockaddrUnix{Name: p.host}); err != nil {
		return fmt.Errorf("connect to NOTIFY_SOCKET %q: %w", p.host, err)
	}
	message := append(append(line, "\nMAINPID="...), strconv.Itoa(pid)...)
	if err := unix.Sendmsg(sock, message, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("write to NOTIFY_SOCKET %q: %w", p.host, err)
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make pipe for the barrier: %w", err)
	}
	defer unix.Close(fds[0])
	err = unix.Sendmsg(sock, []byte("BARRIER=1"), unix.UnixRights(fds[1]), nil, unix.MSG_NOSIGNAL)
	unix.Close(fds[1])
	if err != nil {
		return fmt.Errorf("write barrier to NOTIFY_SOCKET %q: %w", p.host, err)
	}
	for deadline := time.Now().Add(barrierWait); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return nil
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fds[0])}}, int(left/time.Millisecond)+1)
		if n > 0 || err != nil && err != unix.EINTR {
			return nil
		}
	}
}
