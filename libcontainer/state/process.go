package state

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrDead says that a process has ended, or that its pid now is another's.
var ErrDead = errors.New("process is gone")

// Identity is a process for all time: a pid alone is reused.
type Identity struct {
	Pid    int
	Start  uint64 // clock ticks after boot, field 22 of /proc/PID/stat
	BootID string
}

// IdentityOf returns the identity that pid has now. It gives ErrDead when there
// is no such process or it has ended.
func IdentityOf(pid int) (Identity, error) {
	start, err := StartTime(pid)
	if err != nil {
		return Identity{}, err
	}
	boot, err := BootID()
	return Identity{pid, start, boot}, err
}

// StartTime returns the start time of a process in clock ticks after boot, or
// ErrDead when there is no such process, or only its zombie.
func StartTime(pid int) (uint64, error) {
	if pid <= 0 {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, ErrDead)
	}
	var buf [4096]byte
	n, err := readSmall("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err == unix.ENOENT || err == unix.ESRCH {
		err = ErrDead
	}
	var start uint64
	if err == nil {
		var dead bool
		start, dead, err = parseStat(buf[:n])
		if dead {
			err = ErrDead
		}
	}
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	return start, nil
}

// parseStat takes the state and the start time from a line of /proc/PID/stat,
// proc(5).
func parseStat(line []byte) (start uint64, dead bool, err error) {
	// The second field is the command in parentheses, which may hold both blanks
	// and parentheses; no later field does.
	i := bytes.LastIndexByte(line, ')')
	f := bytes.Fields(line[i+1:])
	if i < 0 || len(f) < 20 || len(f[0]) != 1 {
		return 0, false, fmt.Errorf("malformed line %q", line)
	}
	start, err = strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("malformed line %q", line)
	}
	switch f[0][0] {
	case 'X', 'x':
		dead = true
	case 'Z':
		// A zombie with more threads than itself is a process whose first thread
		// has ended before the others.
		dead = string(f[17]) == "1" || string(f[17]) == "0"
	}
	return start, dead, nil
}

// Alive says whether the process still runs; a zombie does not.
func (id Identity) Alive() (bool, error) {
	boot, err := BootID()
	if err != nil {
		return false, err
	}
	if id.BootID != boot {
		return false, nil
	}
	start, err := StartTime(id.Pid)
	if errors.Is(err, ErrDead) {
		return false, nil
	}
	return err == nil && start == id.Start, err
}

// OpenPidfd returns a pidfd of exactly this process, or ErrDead when it has
// ended. The descriptor is the caller's and closed on exec.
func OpenPidfd(id Identity) (int, error) {
	fd := -1
	var err error = unix.ESRCH
	if id.Pid > 0 {
		fd, err = unix.PidfdOpen(id.Pid, 0)
	}
	switch err {
	case nil:
	case unix.ESRCH, unix.EINVAL, unix.ENOENT:
		// The latter two (which depends on the kernel) are of a number that is no
		// process any more, but a thread, or a process group or session of others.
		return -1, fmt.Errorf("open process %d: %w", id.Pid, ErrDead)
	default:
		return -1, fmt.Errorf("open process %d: %w", id.Pid, err)
	}
	// Only now: while the pidfd is open its process is this one or dead.
	alive, err := id.Alive()
	if err == nil && !alive {
		err = fmt.Errorf("open process %d: %w", id.Pid, ErrDead)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

var (
	bootOnce sync.Once
	bootID   string
	bootErr  error
)

// BootID returns the kernel's random id of this boot, read once a process.
func BootID() (string, error) {
	bootOnce.Do(func() {
		const path = "/proc/sys/kernel/random/boot_id"
		var buf [64]byte
		n, err := readSmall(path, buf[:])
		if err != nil {
			bootErr = fmt.Errorf("read %q: %w", path, err)
			return
		}
		bootID = string(bytes.TrimSpace(buf[:n]))
	})
	return bootID, bootErr
}

// readSmall reads a file of procfs that fits buf and comes with one read.
func readSmall(path string, buf []byte) (int, error) {
	fd, err := retryFD(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return retryFD(func() (int, error) { return unix.Read(fd, buf) })
}
