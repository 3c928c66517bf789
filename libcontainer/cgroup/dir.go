package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// dir is the container's directory in one hierarchy. All work on it is
// relative to a descriptor.
type dir struct {
	Dir
	id   string
	fd   int  // the directory, O_RDONLY; -1 while it is not open
	made int  // how many of the last components of Path create made
	used bool // create found it, and marked it as used
	fake bool // in tests: Mount is not a cgroup file system
}

// Extended attributes mark a directory with the id of the container that uses it: one that
// rt made, and one that it found, which it does not make anew. Only a privileged
// process can set those in the first row, so a container cannot forge them.
var (
	xattrMade = [...]string{"trusted.rt.id", "user.rt.id"}
	xattrUsed = [...]string{"trusted.rt.guest", "user.rt.guest"}
)

const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// gone reports whether err says that a cgroup, or a file of it, is not there: ENODEV
// comes from files that were open when it was removed.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// retry repeats f while a signal interrupts it. Go's own preemption signal
// interrupts writes to memory limits on v1.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func openat(at int, name string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(at, name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// readFile reads a whole file of a pseudo file system. Most are short, and each page
// of a large buffer would be a page fault.
func readFile(at int, name string) ([]byte, error) {
	fd, err := openat(at, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, make([]byte, 0, 512))
}

func readAll(fd int, b []byte) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return b, err
		case n <= 0:
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

// read returns the content of a short file without the final newline.
func (d *dir) read(name string) (string, error) {
	if err := d.open(); err != nil {
		return "", err
	}
	b, err := readFile(d.fd, name)
	return strings.TrimSuffix(string(b), "\n"), err
}

// writeFile writes value with one write(2).
func writeFile(at int, name, value string) error {
	fd, err := openat(at, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return retry(func() error {
		_, err := unix.Write(fd, []byte(value))
		return err
	})
}

func (d *dir) write(name, value string) error {
	if err := d.open(); err != nil {
		return err
	}
	return writeFile(d.fd, name, value)
}

// openMount opens the mount point and checks that it is what it must be.
func (d *dir) openMount() (int, error) {
	fd, err := openat(unix.AT_FDCWD, d.Mount, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open %q: %w", d.Mount, err)
	}
	if d.fake {
		return fd, nil
	}
	want := int64(unix.CGROUP_SUPER_MAGIC)
	if d.Key == "" {
		want = unix.CGROUP2_SUPER_MAGIC
	}
	var fs unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &fs) }); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("statfs %q: %w", d.Mount, err)
	}
	if int64(fs.Type) != want {
		unix.Close(fd)
		// As good as gone: nothing of ours can be there.
		return -1, fmt.Errorf("open %q: not a cgroup file system (its type is %#x, expected %#x): %w", d.Mount, fs.Type, want, unix.ENODEV)
	}
	return fd, nil
}

// below opens a directory below root, which may be root itself ("").
func below(root int, rel string, flags uint64) (fd int, err error) {
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: flags | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath}
	err = retry(func() (err error) {
		// EAGAIN: a rename somewhere on the host raced with the walk.
		for range 64 {
			if fd, err = unix.Openat2(root, rel, &how); err != unix.EAGAIN {
				return err
			}
		}
		return err
	})
	return fd, err
}

// open opens the directory, once. Its error wraps ENOENT when it is gone.
func (d *dir) open() error {
	if d.fd >= 0 {
		return nil
	}
	root, err := d.openMount()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return d.openAt(root)
}

func (d *dir) openAt(root int) error {
	fd, err := below(root, d.Path, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open cgroup %q: %w", d.Host(), err)
	}
	d.fd = fd
	return nil
}

func (d *dir) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
		d.fd = -1
	}
}

// create makes the directory and missing parents, or adopts what is there. On
// an error it has removed what it made.
func (d *dir) create() error {
	root, err := d.openMount()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	return d.createAt(root)
}

func (d *dir) createAt(root int) error {
	err := d.mkdir(root)
	if err == nil {
		err = d.openAt(root)
	}
	if err == nil && d.made == 0 && d.readMark(xattrMade) != (Mark{}) {
		err = d.renew(root)
	}
	if err != nil {
		d.unmake(root)
		return err
	}
	if d.made > 0 {
		d.mark()
	}
	return nil
}

// mkdir makes the missing components of Path and counts them in made.
func (d *dir) mkdir(root int) error {
	// The parents are usually there. A path of cgroupfs without ".." leads
	// nowhere else: it has no symbolic links.
	err := unix.Mkdirat(root, d.Path, 0o755)
	if err == unix.ENOENT {
		for i := 0; i <= len(d.Path) && (err == nil || err == unix.EEXIST || err == unix.ENOENT); i++ {
			if i < len(d.Path) && d.Path[i] != '/' {
				continue
			}
			if err = unix.Mkdirat(root, d.Path[:i], 0o755); err == nil {
				d.made++
			}
		}
	} else if err == nil {
		d.made++
	}
	switch err {
	case nil:
	case unix.EEXIST:
		d.made = 0 // the directory is not ours, and so its parents are in use
	default:
		return fmt.Errorf("create cgroup %q: %w", d.Host(), err)
	}
	return nil
}

// renew replaces an empty directory that an earlier rt made and left behind,
// so that none of its limits and device programs stay. One that is in use is
// kept as it is, for the caller to refuse.
func (d *dir) renew(root int) error {
	if busy, err := d.populated(); busy || err != nil {
		return err
	}
	parent, name, err := d.openParent(root)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	d.close()
	if err := removeTree(parent, name); err == nil || gone(err) {
		if err := d.mkdir(root); err != nil {
			return err
		}
	}
	return d.openAt(root)
}

// unmake removes the components that create made and that nobody uses.
func (d *dir) unmake(root int) {
	d.close()
	for p := d.Path; d.made > 0; p = path.Dir(p) {
		if err := unix.Unlinkat(root, p, unix.AT_REMOVEDIR); err != nil && !gone(err) {
			break
		}
		d.made--
	}
	d.made = 0
}

// undo removes what the creates of dirs made, waiting until deadline for
// processes to exit. Parents that others use by now stay.
func undo(deadline time.Time, dirs ...*dir) error {
	var errs []error
	for _, d := range dirs {
		if d.made == 0 {
			d.unuse()
			continue
		}
		if err := d.remove(deadline); err != nil {
			errs = append(errs, err)
			continue
		}
		root, err := d.openMount()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		d.unmake(root)
		unix.Close(root)
	}
	return errors.Join(errs...)
}

// openParent opens the directory that holds this one.
func (d *dir) openParent(root int) (fd int, name string, err error) {
	parent, name := path.Split(d.Path)
	fd, err = below(root, strings.TrimSuffix(parent, "/"), unix.O_PATH)
	if err != nil {
		return -1, "", fmt.Errorf("open cgroup %q: %w", path.Dir(d.Host()), err)
	}
	return fd, name, nil
}

// mark says that the container uses the directory, which rt made. It only helps to recognise
// what a crash left behind and what is another container's by now, and not
// every kernel, mount or user may set it: so its result does not matter.
func (d *dir) mark() { d.setMark(xattrMade) }

// use is mark for a directory that was there before: one that is not rt's, or that an earlier rt
// made and renew could not remove.
func (d *dir) use() {
	if d.readMark(xattrMade) != (Mark{}) {
		d.mark()
		return
	}
	d.setMark(xattrUsed)
	d.used = true
}

func (d *dir) setMark(names [2]string) {
	for _, name := range names {
		if unix.Fsetxattr(d.fd, name, []byte(d.id), 0) == nil {
			return
		}
	}
}

// unuse is the reverse of use.
func (d *dir) unuse() {
	if !d.used || d.open() != nil {
		return
	}
	for _, name := range xattrUsed {
		_ = unix.Fremovexattr(d.fd, name) // it may never have been set
	}
	d.used = false
}

// Mark says whose a directory is.
type Mark struct {
	ID string // of the container; "" if there is no mark
	// Trusted says that a privileged process has set it, and no container can have.
	Trusted bool
}

// owner reads the mark of the directory as it is now.
func (d *dir) owner() Mark {
	d.close() // a descriptor of a directory that is gone would still tell
	if m := d.readMark(xattrMade); m != (Mark{}) {
		return m
	}
	return d.readMark(xattrUsed)
}

func (d *dir) readMark(names [2]string) Mark {
	if d.open() != nil {
		return Mark{}
	}
	for i, name := range names {
		var b [1024]byte
		if n, err := unix.Fgetxattr(d.fd, name, b[:]); err == nil && n > 0 {
			return Mark{string(b[:n]), i == 0}
		}
	}
	return Mark{}
}
