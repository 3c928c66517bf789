package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// walk visits a directory and all below it, a parent before its children. It
// holds one descriptor at a time whatever the depth, and joins no
// paths: going up by ".." is safe, for cgroup directories never move to another parent. enter,
// if not nil, is asked before a child is opened; leave, if not nil, is told
// after all below a child was visited.
func walk(top int, enter func(at int, name string) bool, visit func(fd int) error, leave func(at int, name string)) error {
	cur, err := openat(top, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { unix.Close(cur) }()
	type level struct {
		name string
		subs []string
	}
	var stack []level
	arrive := func(name string) error {
		if visit != nil {
			if err := visit(cur); err != nil && !gone(err) {
				return err
			}
		}
		subs, err := subdirs(cur)
		if err != nil && !gone(err) {
			return err
		}
		stack = append(stack, level{name, subs})
		return nil
	}
	if err := arrive(""); err != nil {
		return err
	}
	for {
		l := &stack[len(stack)-1]
		if len(l.subs) == 0 {
			if len(stack) == 1 {
				return nil
			}
			up, err := openat(cur, "..", unix.O_RDONLY|unix.O_DIRECTORY)
			if err != nil {
				return err
			}
			unix.Close(cur)
			cur = up
			name := l.name
			stack = stack[:len(stack)-1]
			if leave != nil {
				leave(cur, name)
			}
			continue
		}
		name := l.subs[len(l.subs)-1]
		l.subs = l.subs[:len(l.subs)-1]
		if enter != nil && !enter(cur, name) {
			continue
		}
		next, err := openat(cur, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		unix.Close(cur)
		cur = next
		if err := arrive(name); err != nil {
			return err
		}
	}
}

// subdirs lists the directories in fd, whose offset it moves.
func subdirs(fd int) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	// Every cgroup holds dozens of files; the link count tells without
	// reading them that there is no directory among them.
	if st.Nlink == 2 {
		return nil, nil
	}
	var names []string
	buf := make([]byte, 32<<10)
	for {
		var n int
		err := retry(func() (err error) { n, err = unix.Getdents(fd, buf); return err })
		if err != nil || n <= 0 {
			return names, err
		}
		// struct linux_dirent64: u64 ino, s64 off, u16 reclen, u8 type, name.
		for b := buf[:n]; len(b) > 19; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size < 20 || size > len(b) {
				break
			}
			name, _, _ := strings.Cut(string(b[19:size]), "\x00")
			if b[18] == unix.DT_DIR && name != "." && name != ".." {
				names = append(names, name)
			}
			b = b[size:]
		}
	}
}

// appendPids appends the numbers in the cgroup.procs (or tasks, cgroup.threads) file of fd.
func appendPids(pids []int, fd int, file string) ([]int, error) {
	b, err := readFile(fd, file)
	if err != nil {
		return pids, err
	}
	n, in := 0, false
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n, in = n*10+int(c-'0'), true
		case in:
			pids = append(pids, n)
			n, in = 0, false
		}
	}
	return pids, nil
}

// pids returns the processes of this directory and all below, as the kernel
// gives them: 0 is one that rt's pid namespace does not show.
func (d *dir) pids() ([]int, error) {
	if err := d.open(); err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, err
	}
	var pids []int
	top := true
	err := walk(d.fd, nil, func(fd int) (err error) {
		pids, err = appendPids(pids, fd, "cgroup.procs")
		if err == unix.EOPNOTSUPP {
			// A threaded cgroup. Its processes are listed at the domain
			// that it belongs to, which lies above only for the topmost.
			err = nil
			if top {
				pids, err = appendPids(pids, fd, "cgroup.threads")
			}
		}
		top = false
		return err
	}, nil)
	if err != nil && !gone(err) {
		return nil, fmt.Errorf("list processes of cgroup %q: %w", d.Host(), err)
	}
	return pids, nil
}

// populated reports whether there is a process here or below.
func (d *dir) populated() (bool, error) {
	if d.Key == "" && !d.fake {
		s, err := d.read("cgroup.events")
		if gone(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read cgroup.events of cgroup %q: %w", d.Host(), err)
		}
		return field(s, "populated") == "1", nil
	}
	pids, err := d.pids()
	return len(pids) > 0, err
}

// field returns the value of key in lines of "KEY VALUE".
func field(s, key string) string {
	for line := range strings.SplitSeq(s, "\n") {
		if k, v, ok := strings.Cut(line, " "); ok && k == key {
			return v
		}
	}
	return ""
}

// sorted sorts pids and drops duplicates and zeros.
func sorted(pids []int) []int {
	slices.Sort(pids)
	pids = slices.Compact(pids)
	if len(pids) > 0 && pids[0] == 0 {
		pids = pids[1:]
	}
	return pids
}

// signal sends sig to all that list returns. A pid may be given to a stranger
// at any moment; so it is signalled only through a pidfd, and only
// if it is still listed after that was opened. It returns those that it
// signalled or that were gone by then.
func signal(list func() ([]int, error), sig unix.Signal) (done []int, err error) {
	pids, err := list()
	if err != nil {
		return nil, err
	}
	const batch = 256 // descriptors at a time
	for group := range slices.Chunk(sorted(pids), batch) {
		fds := make([]int, 0, len(group))
		held := make([]int, 0, len(group))
		for _, pid := range group {
			switch fd, e := unix.PidfdOpen(pid, 0); e {
			case nil:
				fds, held = append(fds, fd), append(held, pid)
			case unix.ESRCH, unix.EINVAL, unix.ENOENT: // gone, or a thread that is no process
				done = append(done, pid)
			default:
				err = fmt.Errorf("open process %d: %w", pid, e)
			}
		}
		still, e := list()
		if err == nil {
			err = e
		}
		still = sorted(still)
		for i, fd := range fds {
			if _, ok := slices.BinarySearch(still, held[i]); ok && e == nil {
				if e := unix.PidfdSendSignal(fd, sig, nil, 0); e != nil && e != unix.ESRCH {
					err = fmt.Errorf("send %s to process %d: %w", unix.SignalName(sig), held[i], e)
				}
			}
			done = append(done, held[i])
			unix.Close(fd)
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// rmdir removes one directory; one that is gone is removed.
func rmdir(at int, name string) error {
	err := retry(func() error { return unix.Unlinkat(at, name, unix.AT_REMOVEDIR) })
	if gone(err) {
		return nil
	}
	return err
}

// removeTree removes name and all below it, deepest first, passing over what
// is busy; if anything was, the result is EBUSY.
func removeTree(at int, name string) error {
	err := rmdir(at, name)
	if err != unix.EBUSY {
		return err
	}
	top, err := openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	err = walk(top,
		func(at int, name string) bool { return rmdir(at, name) != nil },
		nil,
		func(at int, name string) { _ = rmdir(at, name) }) // the last rmdir tells
	if err != nil && !gone(err) {
		return err
	}
	return rmdir(at, name)
}

// remove removes the directory and all below it, waiting for processes to
// exit.
func (d *dir) remove(deadline time.Time) error {
	root, err := d.openMount()
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(root)
	parent, name, err := d.openParent(root)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		if d.replaced(parent, name) {
			d.close()
			return nil
		}
		err := removeTree(parent, name)
		if err == nil || gone(err) {
			d.close()
			return nil
		}
		left := time.Until(deadline)
		if err != unix.EBUSY || left <= 0 {
			if pids, _ := d.pids(); len(pids) > 0 && err == unix.EBUSY {
				return fmt.Errorf("remove cgroup %q with processes %v: %w", d.Host(), sorted(pids), err)
			}
			return fmt.Errorf("remove cgroup %q: %w", d.Host(), err)
		}
		d.pause(min(left, pause))
	}
}

// replaced says whether the directory that is open has been removed, and another one is
// there by its name: that is somebody else's.
func (d *dir) replaced(parent int, name string) bool {
	if d.fd < 0 {
		return false
	}
	var ours, there unix.Stat_t
	return unix.Fstat(d.fd, &ours) == nil && unix.Fstatat(parent, name, &there, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		(ours.Ino != there.Ino || ours.Dev != there.Dev)
}

// How long to sleep between two looks at something that tells no events.
const (
	minPause = 100 * time.Microsecond
	maxPause = 20 * time.Millisecond
)

// pause waits for a change of the cgroup2 directory's events, or for t.
func (d *dir) pause(t time.Duration) {
	if d.Key == "" && d.open() == nil {
		if fd, err := openat(d.fd, "cgroup.events", unix.O_RDONLY); err == nil {
			defer unix.Close(fd)
			// Only changes after a read wake a poll.
			var b [256]byte
			if n, err := unix.Read(fd, b[:]); err == nil && field(string(b[:n]), "populated") == "1" {
				ts := unix.NsecToTimespec(int64(t))
				_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, &ts, nil)
				return
			}
		}
	}
	sleep(t)
}

// sleep is time.Sleep, which however needs two descriptors for the runtime's poller, and
// throws when there are none: a rollback for want of descriptors must get through.
func sleep(t time.Duration) {
	ts := unix.NsecToTimespec(int64(t))
	_, _ = unix.Ppoll(nil, &ts, nil)
}

// waitEvent waits until key of the cgroup2 directory's cgroup.events is
// value. A cgroup that is gone is not populated and not frozen.
func (d *dir) waitEvent(key, value string, deadline time.Time) error {
	if err := d.open(); err != nil {
		if gone(err) && value == "0" {
			return nil
		}
		return err
	}
	fd, err := openat(d.fd, "cgroup.events", unix.O_RDONLY)
	if err != nil {
		if gone(err) && value == "0" {
			return nil
		}
		return err
	}
	defer unix.Close(fd)
	var b [256]byte
	for {
		n, err := unix.Pread(fd, b[:], 0)
		if err != nil && err != unix.EINTR {
			if gone(err) && value == "0" {
				return nil
			}
			return err
		}
		if err == nil && field(string(b[:n]), key) == value {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		ts := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, &ts, nil); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// refuseBusy returns the error for a cgroup that Create must not use.
func refuseBusy(dirs ...*dir) error {
	var pids []int
	hidden := 0
	for _, d := range dirs {
		if d.made > 0 {
			continue
		}
		p, err := d.pids()
		if err != nil {
			return err
		}
		n := 0
		for _, pid := range p {
			if pid == 0 {
				n++
			}
		}
		hidden = max(hidden, n)
		pids = append(pids, p...)
	}
	if n := len(sorted(pids)) + hidden; n > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) found", n)
	}
	return nil
}

var errFrozen = errors.New("container's cgroup unexpectedly frozen")
