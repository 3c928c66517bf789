package console

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// reopenPause is how often, in milliseconds, a terminal that the container has
// closed everywhere is looked at again.
const reopenPause = 50

// Foreground connects the caller's terminal with that of a container: Open it
// before anything is created, Start it when the container's ptmx is there,
// Close it when its process has ended and in every error path.
type Foreground struct {
	tty     console.Console
	owned   *os.File // /dev/tty, when it had to be opened
	in, out int
	ptmx    int
	stop    int // eventfd: end of copying
	resize  chan os.Signal
	copies  sync.WaitGroup
}

// Open finds the caller's terminal: the first one among standard error, output
// and input, else /dev/tty. It changes nothing of it.
func Open() (*Foreground, error) {
	f := &Foreground{in: 0, out: 1, ptmx: -1, stop: -1}
	for _, file := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		if c, err := console.ConsoleFromFile(file); err == nil {
			f.tty = c
			return f, nil
		}
	}
	file, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("find a terminal: descriptors 0 to 2 are none, and %w", err)
	}
	c, err := console.ConsoleFromFile(file)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("find a terminal: /dev/tty: %w", err)
	}
	f.tty, f.owned = c, file
	return f, nil
}

// Start takes over ptmx, a descriptor that is its own from here on, also when
// it fails: gives it the size of the caller's terminal, now and whenever that
// changes, makes the caller's terminal raw and copies standard input to ptmx
// and ptmx to standard output.
func (f *Foreground) Start(ptmx int) error {
	f.ptmx = ptmx
	err := f.Resize()
	if err == nil {
		err = unix.SetNonblock(ptmx, true)
	}
	if err == nil {
		// The caller's terminal turns a newline into both, once is enough.
		err = console.ClearONLCR(uintptr(ptmx))
	}
	if err == nil {
		f.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = f.tty.SetRaw()
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("set up the terminal: %w", err)
	}
	resize := make(chan os.Signal, 1)
	f.resize = resize
	signal.Notify(resize, unix.SIGWINCH)
	f.copies.Add(3)
	go f.copyIn()
	go f.copyOut()
	go func() {
		defer f.copies.Done()
		for range resize { // not f.resize, which Close may have cleared by now
			f.Resize() // a terminal that is gone keeps its size
		}
	}()
	return f.Resize() // it may have changed before the first signal could be seen
}

// Resize gives the container's terminal the size of the caller's.
func (f *Foreground) Resize() error {
	size, err := f.tty.Size()
	if err == nil {
		err = unix.IoctlSetWinsize(f.ptmx, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
	}
	if err != nil {
		return fmt.Errorf("resize the terminal: %w", err)
	}
	return nil
}

// Close copies what the container has written until now, restores the caller's
// terminal and closes all descriptors. It may be repeated.
func (f *Foreground) Close() error {
	if f == nil {
		return nil
	}
	if f.resize != nil {
		signal.Stop(f.resize)
		close(f.resize)
		f.resize = nil
		unix.Write(f.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot fail: the counter is 0
		f.copies.Wait()
	}
	var err error
	if f.tty != nil {
		if err = f.tty.Reset(); err != nil {
			err = fmt.Errorf("restore the terminal: %w", err)
		}
		f.tty = nil
	}
	if f.owned != nil {
		err = errors.Join(err, f.owned.Close())
		f.owned = nil
	}
	for _, fd := range []*int{&f.stop, &f.ptmx} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	return err
}

// copyIn copies standard input to the ptmx until either ends or Close.
func (f *Foreground) copyIn() {
	defer f.copies.Done()
	buf := make([]byte, 4096)
	for f.ready(f.in, unix.POLLIN) {
		n, err := unix.Read(f.in, buf)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if n <= 0 || err != nil {
			return
		}
		if f.write(f.ptmx, buf[:n]) != nil {
			return
		}
	}
}

// copyOut copies the ptmx to standard output until Close has been called and
// nothing is left to read.
func (f *Foreground) copyOut() {
	defer f.copies.Done()
	buf := make([]byte, 32<<10)
	closing, lost := false, false
	for {
		n, err := unix.Read(f.ptmx, buf)
		switch {
		case err == unix.EINTR:
		case (err == unix.EAGAIN || err == unix.EIO) && closing:
			// The kernel delivers all that was written on the other side before it
			// says so, n_tty_read(); so after Close this is the end.
			return
		case err == unix.EAGAIN:
			closing = !f.ready(f.ptmx, unix.POLLIN)
		case err == unix.EIO:
			// Nobody has the other side open now. An init may open /dev/console again
			// later, which poll(2) cannot wait for: it reports the hang-up all the time.
			closing = f.stopped(reopenPause)
		case n <= 0 || err != nil:
			return
		case !lost:
			// Without a reader the container must not block: read on, for nothing.
			lost = writeAll(f.out, buf[:n]) != nil
		}
	}
}

// ready waits until fd has one of events (true) or Close is called (false).
func (f *Foreground) ready(fd int, events int16) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(f.stop), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		if err == unix.EINTR {
			continue
		}
		return err == nil && fds[1].Revents == 0
	}
}

// stopped waits up to ms milliseconds for Close.
func (f *Foreground) stopped(ms int) bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(f.stop), Events: unix.POLLIN}}, ms)
	return n > 0
}

// write writes all of b to fd, which is non-blocking, unless Close is called.
func (f *Foreground) write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			if !f.ready(fd, unix.POLLOUT) {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// writeAll writes all of b to fd, blocking or not.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			if err != nil && err != unix.EINTR {
				return err
			}
		default:
			return err
		}
	}
	return nil
}
