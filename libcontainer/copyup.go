package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Bounds of one tmpcopyup. The tree is the container's and may be built to hurt.
const (
	copyUpEntries = 1 << 16
	copyUpBytes   = 1 << 30 // of file sizes, holes included
	copyUpDepth   = 128
)

// copyUp copies what is in directory from into directory to: regular files,
// directories and symbolic links with owner and mode; nothing else, and no link
// is followed. Both descriptors stay the caller's.
func copyUp(from, to int) error {
	c := copier{entries: copyUpEntries, bytes: copyUpBytes}
	src, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	return c.directory(src, to, 0)
}

type copier struct {
	entries, bytes int64
}

// directory copies the entries of src, which it closes, into dst.
func (c *copier) directory(src, dst, depth int) error {
	f := os.NewFile(uintptr(src), "directory")
	defer f.Close()
	if depth > copyUpDepth {
		return fmt.Errorf("the tree is more than %d levels deep", copyUpDepth)
	}
	for {
		names, err := f.Readdirnames(256)
		for _, name := range names {
			if c.entries--; c.entries < 0 {
				return fmt.Errorf("the tree has more than %d entries", copyUpEntries)
			}
			if err := c.entry(src, dst, name, depth); err != nil {
				return fmt.Errorf("%q: %w", name, err)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *copier) entry(src, dst int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), dst, name); err != nil {
			return err
		}
		return unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
		in, err := openSame(src, name, &st, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		out, err := unix.Openat(dst, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			unix.Close(in)
			return err
		}
		defer unix.Close(out)
		if err := c.directory(in, out, depth+1); err != nil {
			return err
		}
		return setOwner(out, &st)
	case unix.S_IFREG:
		if c.bytes -= st.Size; c.bytes < 0 {
			return fmt.Errorf("the tree is larger than %d bytes: %w", copyUpBytes, unix.EFBIG)
		}
		in, err := openSame(src, name, &st, 0)
		if err != nil {
			return err
		}
		defer unix.Close(in)
		out, err := unix.Openat(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(out)
		if err := copyBytes(out, in, st.Size); err != nil {
			return err
		}
		return setOwner(out, &st)
	}
	return nil
}

// openSame opens the file that st describes, or fails if it has been swapped.
func openSame(dir int, name string, st *unix.Stat_t, flags int) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil || now.Dev != st.Dev || now.Ino != st.Ino || now.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
		unix.Close(fd)
		return -1, errors.New("it changed while it was copied")
	}
	return fd, nil
}

// copyBytes copies at most size bytes, so that a file that grows meanwhile ends.
func copyBytes(out, in int, size int64) error {
	buf := make([]byte, 64<<10)
	for size > 0 {
		n, err := unix.Read(in, buf[:min(int64(len(buf)), size)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for b := buf[:n]; len(b) > 0; {
			w, err := unix.Write(out, b)
			if err != nil {
				return err
			}
			b = b[w:]
		}
		size -= int64(n)
	}
	return nil
}

func setOwner(fd int, st *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	// After chown(2), which takes setuid bits away.
	return unix.Fchmod(fd, st.Mode&0o7777)
}
