package state

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one file, in bytes.
const maxFile = 64 << 20

// writeFile writes data to a temporary file of mode 0600 and renames it to
// name with the flags of renameat2(2). The Dir must be locked: there is one
// temporary name per file.
func (d *Dir) writeFile(name string, data []byte, flags uint) error {
	if !d.locked {
		return fmt.Errorf("write %q: the container is not locked", name)
	}
	tmp := "." + name + ".tmp"
	fd, err := d.create(tmp)
	if err == unix.EEXIST {
		// Left by a command that was killed, for the lock is ours.
		if err = unix.Unlinkat(d.fd, tmp, 0); err == nil {
			fd, err = d.create(tmp)
		}
	}
	if err != nil {
		return fmt.Errorf("create %q: %w", tmp, err)
	}
	err = writeAll(fd, data)
	if err == nil {
		err = unix.Fchmod(fd, 0o600) // the umask may have taken bits
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat2(d.fd, tmp, d.fd, name, flags)
	}
	if err != nil {
		unix.Unlinkat(d.fd, tmp, 0)
		return fmt.Errorf("write %q: %w", name, err)
	}
	return nil
}

func (d *Dir) create(name string) (int, error) {
	return retryFD(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// readFile reads the regular file name. It gives ErrIncomplete when there is
// none, and ErrDamaged for anything that no writer here has made.
func (d *Dir) readFile(name string) ([]byte, error) {
	// O_NONBLOCK: a fifo under that name must not hang.
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	switch err {
	case nil:
	case unix.ENOENT:
		return nil, fmt.Errorf("read %q: %w", name, ErrIncomplete)
	case unix.ELOOP, unix.ENXIO: // a link; a socket
		return nil, fmt.Errorf("read %q: %w: it is not a regular file", name, ErrDamaged)
	default:
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("read %q: %w: it is not a regular file", name, ErrDamaged)
	}
	if st.Size > maxFile {
		return nil, fmt.Errorf("read %q: %w: it has %d bytes, accepted are up to %d", name, ErrDamaged, st.Size, maxFile)
	}
	// Files are replaced, never changed: the size is final.
	data := make([]byte, st.Size)
	for done := 0; done < len(data); {
		n, err := unix.Read(fd, data[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", name, err)
		}
		if n == 0 {
			return nil, fmt.Errorf("read %q: %w: it ends after %d of %d bytes", name, ErrDamaged, done, len(data))
		}
		done += n
	}
	return data, nil
}

// SaveConfig stores the container's configuration, byte by byte. It needs the
// lock.
func (d *Dir) SaveConfig(config []byte) error {
	if err := d.writeFile(configName, config, 0); err != nil {
		return fmt.Errorf("save configuration of container %q: %w", d.id, err)
	}
	return nil
}

// LoadConfig returns what SaveConfig stored, or ErrIncomplete.
func (d *Dir) LoadConfig() ([]byte, error) {
	config, err := d.readFile(configName)
	if err != nil {
		return nil, fmt.Errorf("load configuration of container %q: %w", d.id, err)
	}
	return config, nil
}

// SaveFilter stores the container's compiled seccomp filter. It needs the lock.
func (d *Dir) SaveFilter(filter []byte) error {
	if err := d.writeFile(filterName, filter, 0); err != nil {
		return fmt.Errorf("save seccomp filter of container %q: %w", d.id, err)
	}
	return nil
}

// LoadFilter returns what SaveFilter stored, or ErrIncomplete.
func (d *Dir) LoadFilter() ([]byte, error) {
	filter, err := d.readFile(filterName)
	if err != nil {
		return nil, fmt.Errorf("load seccomp filter of container %q: %w", d.id, err)
	}
	return filter, nil
}

// MakeFifos makes the fifos gate and result, of mode 0600 whatever the umask.
func (d *Dir) MakeFifos() error {
	for _, name := range []string{GateName, ResultName} {
		err := retry(func() error { return unix.Mkfifoat(d.fd, name, 0o600) })
		if err == nil {
			err = unix.Fchmodat(d.fd, name, 0o600, 0)
		}
		if err != nil {
			return fmt.Errorf("make fifo %q of container %q: %w", name, d.id, err)
		}
	}
	return nil
}

// OpenGate opens the gate with flags, an access mode of open(2) (O_RDWR keeps
// both ends open and never waits) and O_NONBLOCK if reads and writes shall not
// wait. The open itself never does: O_WRONLY gives ENXIO when there is no
// reader. What is not a fifo is refused. The descriptor is the caller's and
// closed on exec.
func (d *Dir) OpenGate(flags int) (int, error) { return d.openFifo(GateName, flags) }

// OpenResult is OpenGate for the fifo result.
func (d *Dir) OpenResult(flags int) (int, error) { return d.openFifo(ResultName, flags) }

func (d *Dir) openFifo(name string, flags int) (int, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(d.fd, name, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, fmt.Errorf("open fifo %q of container %q: %w", name, d.id, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		err = fmt.Errorf("%w: it is not a fifo", ErrDamaged)
	}
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open fifo %q of container %q: %w", name, d.id, err)
	}
	return fd, nil
}

// GateHasReader says whether a process waits at the gate. Asking does not
// disturb it.
func (d *Dir) GateHasReader() bool {
	fd, err := d.openFifo(GateName, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return false // ENXIO: nobody reads
	}
	unix.Close(fd)
	return true
}
