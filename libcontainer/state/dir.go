package state

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Names of the files in a container's directory.
const (
	intentName = "intent"
	recordName = "state.json"
	configName = "config.json"
	filterName = "filter"
	// GateName is the fifo whose one byte lets the container's process go on.
	GateName = "gate"
	// ResultName is the fifo on which it reports afterwards.
	ResultName = "result"
	// NotifyName is the sub-directory for the socket of sd_notify(3), made by who
	// needs it.
	NotifyName = "notify"
)

// claimWait bounds what Reserve spends on others that take its new directory
// for a left one.
const claimWait = 10 * time.Second

// Dir is the open directory of one container.
type Dir struct {
	root   *Root
	fd     int
	id     string
	locked bool
}

// Reserve claims id by making its directory (mode 0700 whatever the umask),
// takes its lock and writes the intent, whose ID is set here. It gives
// ErrExist when the id is taken; of several at once exactly one succeeds. The
// Dir is locked.
func (r *Root) Reserve(id string, in Intent) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	in.ID = id
	data, err := encode(in.members())
	if err != nil {
		return nil, fmt.Errorf("reserve container %q: %w", id, err)
	}
	deadline := time.Now().Add(claimWait)
	for {
		d, err := r.claim(id, data, deadline)
		// A delete --force may find the directory before it is locked here, and
		// remove it: then the id is free again.
		if errors.Is(err, ErrNotExist) && time.Now().Before(deadline) {
			continue
		}
		return d, err
	}
}

func (r *Root) claim(id string, intent []byte, deadline time.Time) (*Dir, error) {
	if err := retry(func() error { return unix.Mkdirat(r.fd, id, 0o700) }); err == unix.EEXIST {
		return nil, fmt.Errorf("reserve container %q: %w", id, ErrExist)
	} else if err != nil {
		return nil, fmt.Errorf("reserve container %q: make its directory in %q: %w", id, r.path, err)
	}
	if err := unix.Fchmodat(r.fd, id, 0o700, 0); err == unix.ENOENT {
		return nil, fmt.Errorf("reserve container %q: %w: another command removed its directory", id, ErrNotExist)
	} else if err != nil {
		return nil, fmt.Errorf("reserve container %q: set the mode of its directory: %w", id, err)
	}
	return r.complete(id, intent, deadline)
}

// complete turns the directory id, just made, into a claim.
func (r *Root) complete(id string, intent []byte, deadline time.Time) (*Dir, error) {
	d, err := r.Open(id)
	if err != nil {
		if !errors.Is(err, ErrNotExist) {
			_ = unix.Unlinkat(r.fd, id, unix.AT_REMOVEDIR) // for want of descriptors: leave no empty one
		}
		return nil, err
	}
	if err := d.Lock(deadline); err != nil {
		d.Close()
		return nil, err
	}
	// If the directory has been removed and made again by another create since,
	// both come here with the same one. So the claim is only complete with the
	// intent, which is never replaced.
	if err := d.writeFile(intentName, intent, unix.RENAME_NOREPLACE); errors.Is(err, unix.EEXIST) {
		d.Close()
		return nil, fmt.Errorf("reserve container %q: %w", id, ErrExist)
	} else if err != nil {
		err = fmt.Errorf("reserve container %q: %w", id, errors.Join(err, d.Remove()))
		d.Close()
		return nil, err
	}
	return d, nil
}

// Open opens the directory of container id, without lock. It gives ErrNotExist
// when there is none.
func (r *Root) Open(id string) (*Dir, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	fd, err := retryFD(func() (int, error) {
		return unix.Openat2(r.fd, id, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
	})
	if err == unix.ENOENT {
		return nil, fmt.Errorf("open container %q: %w", id, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("open container %q in %q: %w", id, r.path, err)
	}
	return &Dir{root: r, fd: fd, id: id}, nil
}

// ID is the container's id.
func (d *Dir) ID() string { return d.id }

// FD is the directory's descriptor; it stays the Dir's.
func (d *Dir) FD() int { return d.fd }

// Path is the directory's path, for messages and for what cannot take a
// descriptor.
func (d *Dir) Path() string { return filepath.Join(d.root.path, d.id) }

// Lock takes the container's exclusive lock (flock(2) on the directory), trying
// until deadline and at least once; then it gives ErrLocked. It gives
// ErrNotExist when the container was deleted meanwhile. Locking twice is
// harmless.
func (d *Dir) Lock(deadline time.Time) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := retry(func() error { return unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			break
		}
		if err != unix.EWOULDBLOCK {
			return fmt.Errorf("lock container %q: %w", d.id, err)
		}
		left := time.Until(deadline)
		if left <= 0 {
			return fmt.Errorf("lock container %q: %w", d.id, ErrLocked)
		}
		time.Sleep(min(pause, left))
	}
	linked, err := d.linked()
	if err == nil && !linked {
		err = ErrNotExist
	}
	if err != nil {
		d.Unlock()
		return fmt.Errorf("lock container %q: %w", d.id, err)
	}
	d.locked = true
	return nil
}

// Unlock gives the lock back.
func (d *Dir) Unlock() error {
	d.locked = false
	return retry(func() error { return unix.Flock(d.fd, unix.LOCK_UN) })
}

// Close closes the directory, and so gives the lock back.
func (d *Dir) Close() error {
	d.locked = false
	return unix.Close(d.fd)
}

// linked says whether the directory is still the one that the id names. Its
// inode number cannot be reused while it is open.
func (d *Dir) linked() (bool, error) {
	var open, named unix.Stat_t
	if err := unix.Fstat(d.fd, &open); err != nil {
		return false, err
	}
	err := unix.Fstatat(d.root.fd, d.id, &named, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return false, nil
	}
	return open.Dev == named.Dev && open.Ino == named.Ino, err
}

// Remove removes all files of the directory, and those of its sub-directories
// (notify), then the directory itself. It follows no link and enters no mount.
// It needs the lock, and may be repeated. The record goes last, so that what a
// killed delete leaves is still known.
func (d *Dir) Remove() error {
	if !d.locked {
		return fmt.Errorf("remove container %q: it is not locked", d.id)
	}
	if linked, err := d.linked(); err != nil {
		return fmt.Errorf("remove container %q: %w", d.id, err)
	} else if !linked {
		return nil
	}
	list, err := names(d.fd)
	if err == unix.ENOENT {
		return nil // a create that could not open its new directory took it for its own
	}
	if err != nil {
		return fmt.Errorf("remove container %q: %w", d.id, err)
	}
	for _, name := range list {
		if name == intentName || name == recordName {
			continue
		}
		if err := remove(d.fd, name); err != nil {
			return fmt.Errorf("remove container %q: remove %q: %w", d.id, name, err)
		}
	}
	for _, name := range []string{intentName, recordName} {
		if err := remove(d.fd, name); err != nil {
			return fmt.Errorf("remove container %q: remove %q: %w", d.id, name, err)
		}
	}
	if err := unix.Unlinkat(d.root.fd, d.id, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove container %q: %w", d.id, err)
	}
	return nil
}

// remove removes name in dir: a file, or a directory that holds only files.
func remove(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR {
		return err
	}
	fd, err := retryFD(func() (int, error) {
		return unix.Openat2(dir, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	below, err := names(fd)
	if err != nil {
		return err
	}
	for _, b := range below {
		if err := unix.Unlinkat(fd, b, 0); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// names returns the names in the directory fd.
func names(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, err
	}
	var list []string
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return list, err
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list)
	}
}
