// Package state keeps what rt knows of a container between two commands: one
// directory per container below the state root, named by the container's id.
//
//	intent      written once, before any other side effect of create
//	config.json the bundle's configuration as create read it
//	filter      the compiled seccomp filter, if there is one
//	state.json  the record of a created container, replaced by rename
//	gate result fifos between the container's first process and start
//
// Whatever kill -9 leaves behind is such a directory, and delete can work from
// it. Nothing here is ever reached by a path below the root: ids are single
// names, resolved against the root's descriptor without following links.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

var (
	// ErrExist is returned by Reserve for an id that is taken.
	ErrExist = errors.New("container with given ID already exists")
	// ErrNotExist says that no container has the id, or no longer.
	ErrNotExist = errors.New("container does not exist")
	// ErrInvalidID is returned for an id that cannot name a container.
	ErrInvalidID = errors.New("invalid container ID format")
	// ErrEmptyID is returned for the empty id.
	ErrEmptyID = errors.New("container id cannot be empty")
	// ErrIncomplete says that the directory has no such file: the container is
	// just being created, or its creation was killed.
	ErrIncomplete = errors.New("container is not completely created")
	// ErrDamaged says that a file is not as it was written.
	ErrDamaged = errors.New("damaged state")
	// ErrLocked says that another command held the lock until the deadline.
	ErrLocked = errors.New("container is locked by another command")
)

// CheckID says whether id can name a container: 1 to 255 bytes of
// [A-Za-z0-9_+.-], and neither "." nor "..".
func CheckID(id string) error {
	if id == "" {
		return ErrEmptyID
	}
	ok := len(id) <= 255 && id != "." && id != ".."
	for i := 0; ok && i < len(id); i++ {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '_', c == '+', c == '.', c == '-':
		default:
			ok = false
		}
	}
	if !ok {
		if len(id) > 128 {
			id = id[:128] + "..."
		}
		return fmt.Errorf("%w: %q, accepted are 1 to 255 of the characters A-Z a-z 0-9 _ + . -, but not \".\" and \"..\"", ErrInvalidID, id)
	}
	return nil
}

// Root is an open state root. It must stay open as long as a Dir from it is in
// use.
type Root struct {
	fd   int
	path string
}

// OpenRoot opens the state root at path. With create a missing one is made,
// and missing parents with it, all of mode 0700 whatever the umask; without,
// a missing one is an error that is fs.ErrNotExist. A root that is a symbolic
// link, is "/", belongs to another user than the effective one, or is writable
// for group or others is refused.
func OpenRoot(path string, create bool) (*Root, error) {
	if path == "" {
		return nil, errors.New("open state root: the path is empty")
	}
	// Without this a trailing slash would make the kernel follow a link.
	path = filepath.Clean(path)
	fd, err := openRoot(path)
	if err == unix.ENOENT && create {
		if err = makeDirs(path); err == nil {
			fd, err = openRoot(path)
		}
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		return nil, fmt.Errorf("open state root %q: %w: it must be a directory and not a symbolic link", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open state root %q: %w", path, err)
	}
	if err := checkRoot(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open state root %q: %w", path, err)
	}
	return &Root{fd, path}, nil
}

func openRoot(path string) (int, error) {
	return retryFD(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
}

func checkRoot(fd int) error {
	var st, top unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := unix.Stat("/", &top); err != nil {
		return err
	}
	switch {
	case st.Dev == top.Dev && st.Ino == top.Ino:
		return errors.New("it is the root directory")
	case int(st.Uid) != unix.Geteuid():
		return fmt.Errorf("it belongs to uid %d, it must belong to uid %d", st.Uid, unix.Geteuid())
	case st.Mode&0o022 != 0:
		return fmt.Errorf("its mode is %04o, it must not be writable for group or others", st.Mode&0o7777)
	}
	return nil
}

// makeDirs makes path and its missing parents.
func makeDirs(path string) error {
	err := unix.Mkdir(path, 0o700)
	if err == unix.ENOENT {
		if err = makeDirs(filepath.Dir(path)); err != nil {
			return err
		}
		err = unix.Mkdir(path, 0o700)
	}
	if err == unix.EEXIST {
		return nil // another command was faster
	}
	if err != nil {
		return err
	}
	// The umask may have taken bits. O_PATH needs no permission on the directory
	// itself and O_NOFOLLOW keeps the chmod from what a link could point to.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o700)
}

// Path is the root's path as it was given to OpenRoot.
func (r *Root) Path() string { return r.path }

// Close closes the root's descriptor.
func (r *Root) Close() error { return unix.Close(r.fd) }

// List returns the ids of all containers in the root, sorted, complete or not.
func (r *Root) List() ([]string, error) {
	fd, err := retryFD(func() (int, error) {
		return unix.Openat(r.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("list state root %q: %w", r.path, err)
	}
	f := os.NewFile(uintptr(fd), r.path)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("list state root %q: %w", r.path, err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.IsDir() && CheckID(e.Name()) == nil {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// retryFD repeats a call that returns a descriptor while it gives EINTR.
func retryFD(call func() (int, error)) (int, error) {
	for {
		fd, err := call()
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// retry repeats a call while it gives EINTR.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
