package criu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Images is an open directory of image files. What is in one may come from anywhere, so nothing in it
// is opened through a link, and nothing but regular files is accepted.
type Images struct {
	fd   int
	path string
}

const (
	// descriptorsName is runc's name, and format, for what the first three descriptors were.
	descriptorsName = "descriptors.json"
	// parentName is CRIU's link to the images of an earlier pre-dump.
	parentName = "parent"
	// maxDescriptors is the longest such file that is read, maxLog how much is read of the end of a log, in bytes.
	maxDescriptors = 1 << 16
	maxLog         = 1 << 16
	// maxParents bounds a chain of pre-dumps.
	maxParents = 64
)

// Open opens the directory at path, and makes it if it is missing and create says so, such that the mapped root of a
// container that is restored can look for files in it. The path is the caller's, so it may have links. flag names it in errors.
func Open(flag, path string, create bool) (*Images, error) {
	if _, err := os.Stat(path); create && errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(path, 0o711); err == nil {
			err = os.Chmod(path, 0o711) // the umask may have taken bits
		}
		if err != nil {
			return nil, fmt.Errorf("make --%s: %w", flag, err)
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open --%s %q: %w", flag, path, err)
	}
	return &Images{fd, path}, nil
}

// As opens the directory again as a process sees it that is in another mount namespace: only there can that
// process mount something in it.
func (d *Images) As(pid int) (*Images, error) {
	// Without links: an absolute one would lead back to where this process is.
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(d.fd))
	if err != nil {
		return nil, fmt.Errorf("resolve %q: %w", d.path, err)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root"+path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %q as CRIU: %w", d.path, err)
	}
	var here, there unix.Stat_t
	if err = errors.Join(unix.Fstat(d.fd, &here), unix.Fstat(fd, &there)); err == nil && (here.Dev != there.Dev || here.Ino != there.Ino) {
		err = errors.New("it is another directory by now")
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %q as CRIU: %w", d.path, err)
	}
	return &Images{fd, d.path}, nil
}

// FD is the directory's descriptor; it stays the Images'.
func (d *Images) FD() int { return d.fd }

// Close closes the directory.
func (d *Images) Close() { unix.Close(d.fd) }

// Check refuses a directory with a link or a special file in it, but for the link of CRIU to a parent
// whose files are as good. CRIU itself would follow a link in the place of an image, and write its
// log through one.
func (d *Images) Check() error { return d.check(maxParents) }

func (d *Images) check(parents int) error {
	names, err := d.names()
	if err != nil {
		return fmt.Errorf("read image directory %q: %w", d.path, err)
	}
	for _, name := range names {
		link, err := d.plain(name)
		switch {
		case err == nil && name == parentName: // a directory there would do for CRIU too
			err = d.checkParent(link, parents-1)
		case link:
			err = fmt.Errorf("use image %q in %q: it is a symbolic link", name, d.path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CheckLogs is Check for a directory in which CRIU only writes its logs, whatever else is in it.
func (d *Images) CheckLogs() error {
	for _, name := range [...]string{"dump.log", "restore.log", "stats-dump", "stats-restore"} {
		link, err := d.plain(name)
		if link {
			err = fmt.Errorf("write log %q in %q: it is a symbolic link", name, d.path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plain finds out whether a name is a link, and refuses what does something when it is opened: devices and FIFOs.
func (d *Images) plain(name string) (link bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return false, nil
		}
		return false, fmt.Errorf("look at %q in %q: %w", name, d.path, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return true, nil
	case unix.S_IFREG:
		if st.Nlink > 1 {
			return false, fmt.Errorf("use %q in %q: it has other names elsewhere (hard links)", name, d.path)
		}
		return false, nil
	case unix.S_IFDIR, unix.S_IFSOCK: // lazy-pages.socket
		return false, nil
	}
	return false, fmt.Errorf("use %q in %q: it is not a regular file", name, d.path)
}

// checkParent checks the directory of the pre-dump on which d builds.
func (d *Images) checkParent(link bool, parents int) error {
	buf := make([]byte, unix.PathMax)
	n, err := 0, errors.New("it is not a link")
	if link {
		n, err = unix.Readlinkat(d.fd, parentName, buf)
	}
	target := string(buf[:max(n, 0)])
	switch {
	case err != nil:
	case n == len(buf):
		err = unix.ENAMETOOLONG
	case strings.HasPrefix(target, "/") || strings.Contains(strings.TrimPrefix(path.Clean(target), "../"), ".."):
		err = fmt.Errorf("it leads to %q; accepted are directories in that of the images, or beside it", target)
	case parents < 0:
		err = fmt.Errorf("a chain of more than %d pre-dumps", maxParents)
	}
	if err != nil {
		return fmt.Errorf("use link %q in %q: %w", parentName, d.path, err)
	}
	fd, err := unix.Openat2(d.fd, target, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return fmt.Errorf("open parent images %q of %q: %w", target, d.path, err)
	}
	p := Images{fd, d.path + "/" + target}
	defer p.Close()
	return p.check(parents)
}

// names lists what is in the directory.
func (d *Images) names() ([]string, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	return f.Readdirnames(-1)
}

// open opens a regular file of the directory.
func (d *Images) open(name string) (*os.File, error) {
	fd, err := unix.Openat2(d.fd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Size is the number of bytes in all files: it changes while CRIU writes.
func (d *Images) Size() int64 {
	names, err := d.names()
	if err != nil {
		return 0
	}
	var sum int64
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			sum += st.Size
		}
	}
	return sum
}

// SaveDescriptors writes what descriptors 0 to 2 of the container's first process were. It is the last file of
// a checkpoint: one without it is not complete.
func (d *Images) SaveDescriptors(list []string) error {
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode %s: %w", descriptorsName, err)
	}
	const tmp = "." + descriptorsName
	unix.Unlinkat(d.fd, tmp, 0) // of a checkpoint that was killed
	fd, err := unix.Openat(d.fd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create %s in %q: %w", descriptorsName, d.path, err)
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat(d.fd, tmp, d.fd, descriptorsName)
	}
	if err != nil {
		unix.Unlinkat(d.fd, tmp, 0)
		return fmt.Errorf("write %s in %q: %w", descriptorsName, d.path, err)
	}
	return nil
}

// DropDescriptors removes that file, before a new checkpoint is written over an old one.
func (d *Images) DropDescriptors() error {
	if err := unix.Unlinkat(d.fd, descriptorsName, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove the old %s in %q: %w", descriptorsName, d.path, err)
	}
	return nil
}

// LoadDescriptors reads what SaveDescriptors wrote.
func (d *Images) LoadDescriptors() ([]string, error) {
	fail := func(err error) ([]string, error) {
		return nil, fmt.Errorf("read %s in %q: %w", descriptorsName, d.path, err)
	}
	f, err := d.open(descriptorsName)
	if errors.Is(err, unix.ENOENT) {
		return fail(errors.New("it is missing: this is not a complete checkpoint"))
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDescriptors+1))
	if err != nil {
		return fail(err)
	}
	if len(data) > maxDescriptors {
		return fail(fmt.Errorf("it has more than %d bytes", maxDescriptors))
	}
	var list []string
	if err := json.Unmarshal(data, &list); err != nil || len(list) != 3 {
		return fail(errors.New("expected is a list of three strings"))
	}
	return list, nil
}

// LogErrors are the lines about errors at the end of a log of CRIU's, without time and level, the first n of them: what
// comes later follows from those.
func (d *Images) LogErrors(name string, n int) []string {
	var list []string
	for line := range bytes.Lines(d.logEnd(name)) {
		_, text, ok := strings.Cut(string(line), "Error ")
		if !ok || strings.Contains(text, "RLIMIT_NOFILE") { // which CRIU goes on without
			continue
		}
		list = append(list, strings.TrimSpace(text))
	}
	return list[:min(n, len(list))]
}

// yard begins the path of the empty directory in which CRIU makes a mount namespace; six letters or digits follow.
const yard = "/tmp/.criu.mntns."

// Sweep removes the directory that a CRIU which was killed has left behind, by what its log says.
func (d *Images) Sweep(log string) {
	text := string(d.logEnd(log))
	i := strings.LastIndex(text, yard)
	if i < 0 || len(text) < i+len(yard)+6 {
		return
	}
	name := text[i+len(yard):][:6]
	if strings.ContainsFunc(name, func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9') }) {
		return
	}
	unix.Rmdir(yard + name) // if it is in use, or of another one who has it again, it is not empty
}

// logEnd is the end of a log.
func (d *Images) logEnd(name string) []byte {
	f, err := d.open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end > maxLog && seek(f, end-maxLog) != nil || end <= maxLog && seek(f, 0) != nil {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLog))
	if err != nil {
		return nil
	}
	return data
}

func seek(f *os.File, to int64) error {
	_, err := f.Seek(to, io.SeekStart)
	return err
}
