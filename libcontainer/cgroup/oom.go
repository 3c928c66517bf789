package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// OOMWatch tells of processes that get no more memory. Close it.
type OOMWatch struct {
	// FD is to be polled (poll(2)) for Events, which then call for Next. Both
	// stay the watch's.
	FD     int
	Events int16

	dir     *dir
	eventfd bool   // FD is one (v1)
	kills   uint64 // v2: those known
}

// Next returns how often it happened since the last call, without waiting. A
// cgroup that is gone has no more events.
func (w *OOMWatch) Next() (uint64, error) {
	if w.eventfd {
		return w.nextV1()
	}
	var b [512]byte
	n := 0
	err := retry(func() (err error) { n, err = unix.Pread(w.FD, b[:], 0); return err })
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read memory.events of cgroup %q: %w", w.dir.Host(), err)
	}
	kills, err := strconv.ParseUint(field(string(b[:n]), "oom_kill"), 10, 64)
	if err != nil || kills < w.kills {
		return 0, nil
	}
	more := kills - w.kills
	w.kills = kills
	return more, nil
}

// nextV1 reads the eventfd, which the kernel also raises when the cgroup is
// removed.
func (w *OOMWatch) nextV1() (uint64, error) {
	var b [8]byte
	err := retry(func() error { _, err := unix.Read(w.FD, b[:]); return err })
	if err == unix.EAGAIN {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read events of cgroup %q: %w", w.dir.Host(), err)
	}
	if _, err := w.dir.read("memory.oom_control"); gone(err) {
		return 0, nil
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

// Close ends the watch.
func (w *OOMWatch) Close() {
	if w.FD >= 0 {
		unix.Close(w.FD)
		w.FD = -1
	}
	w.dir.close()
}

func (m *v2) WatchOOM() (*OOMWatch, error) { return watchOOM(m.dir, false) }

func (m *v1) WatchOOM() (*OOMWatch, error) {
	d := m.with("memory")
	if d == nil {
		return nil, nil
	}
	return watchOOM(d, true)
}

func watchOOM(d *dir, v1 bool) (*OOMWatch, error) {
	// A directory of its own: the Manager may be closed before the watch.
	w := &OOMWatch{dir: &dir{Dir: d.Dir, id: d.id, fd: -1, fake: d.fake}, FD: -1}
	err := w.dir.open()
	if err == nil && v1 {
		err = w.openV1()
	} else if err == nil {
		err = w.openV2()
	}
	if err != nil {
		w.Close()
		if errors.Is(err, unix.ENOENT) && !v1 {
			return nil, nil // no memory controller
		}
		return nil, fmt.Errorf("watch memory of cgroup %q: %w", d.Host(), err)
	}
	return w, nil
}

func (w *OOMWatch) openV2() error {
	fd, err := openat(w.dir.fd, "memory.events", unix.O_RDONLY)
	if err != nil {
		return err
	}
	w.FD, w.Events = fd, unix.POLLPRI
	_, err = w.Next() // what was is no event; and only a change after a read wakes a poll
	return err
}

// openV1 registers an eventfd
// (Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control").
func (w *OOMWatch) openV1() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	w.FD, w.eventfd, w.Events = fd, true, unix.POLLIN
	control, err := openat(w.dir.fd, "memory.oom_control", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(control)
	return writeFile(w.dir.fd, "cgroup.event_control", strconv.Itoa(fd)+" "+strconv.Itoa(control))
}
