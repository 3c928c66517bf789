// Package mounts reads what is mounted (proc_pid_mountinfo(5)), on the host and in a container.
package mounts

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Tree is a mount namespace as seen at one moment.
type Tree []*mountinfo.Info

// Read reads the mounts of a process; pid 0 is rt itself.
func Read(pid int) (Tree, error) {
	proc := "self"
	if pid != 0 {
		proc = strconv.Itoa(pid)
	}
	return ReadAt(unix.AT_FDCWD, "/proc/"+proc+"/mountinfo")
}

// most is how long a file of mounts may be, in bytes.
const most = 64 << 20

// ReadAt reads the mounts in a file mountinfo, a path from the directory dir.
func ReadAt(dir int, name string) (Tree, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	list, err := mountinfo.GetMountsFromReader(bytes.NewReader(data), nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return list, nil
}

// ByID is the mount with that number, nil if there is none.
func (t Tree) ByID(id uint64) *mountinfo.Info {
	for _, m := range t {
		if uint64(m.ID) == id {
			return m
		}
	}
	return nil
}

// under lists the mounts on the mount top, and on those.
func (t Tree) under(top *mountinfo.Info) []*mountinfo.Info {
	in := map[int]bool{top.ID: true}
	var list []*mountinfo.Info
	for more := true; more; {
		more = false
		for _, m := range t {
			if in[m.Parent] && !in[m.ID] {
				in[m.ID], more = true, true
				list = append(list, m)
			}
		}
	}
	return list
}

// Origin is what a mount shows: the file system, and the directory or file of it.
type Origin struct {
	Major, Minor int
	Root         string
}

// OriginOf is what m shows.
func OriginOf(m *mountinfo.Info) Origin { return Origin{m.Major, m.Minor, m.Root} }

// Holds says whether b is a part of a.
func (a Origin) Holds(b Origin) bool {
	return a.Major == b.Major && a.Minor == b.Minor && (a.Root == b.Root || strings.HasPrefix(b.Root, strings.TrimSuffix(a.Root, "/")+"/"))
}

// Part is something of the host's that is mounted in a container.
type Part struct {
	Target string // in the container
	Source string // host path
	Origin
}

// Parts lists what a bind of the host path source on target mounts: the path, and with recursive the mounts below
// it. t are the mounts of the host.
func (t Tree) Parts(source, target string, recursive bool) ([]Part, error) {
	source, err := filepath.EvalSymlinks(source)
	if err != nil {
		return nil, err
	}
	id, err := id(source)
	if err != nil {
		return nil, fmt.Errorf("look at %q: %w", source, err)
	}
	top := t.ByID(id)
	if top == nil {
		return nil, fmt.Errorf("look at %q: its mount is not among those of rt", source)
	}
	o := OriginOf(top)
	o.Root = path.Join(o.Root, strings.TrimPrefix(source, strings.TrimSuffix(top.Mountpoint, "/")))
	list := []Part{{target, source, o}}
	if !recursive {
		return list, nil
	}
	for _, m := range t.under(top) {
		if rel, ok := strings.CutPrefix(m.Mountpoint, strings.TrimSuffix(source, "/")+"/"); ok {
			list = append(list, Part{path.Join(target, rel), m.Mountpoint, OriginOf(m)})
		}
	}
	return list, nil
}

// LookIn finds the mount that the path target shows in the container whose root is open as root, if it is
// the root of a mount; else nil. A path that does not exist is nil too.
func (t Tree) LookIn(root int, target string) (*mountinfo.Info, error) {
	fd, err := OpenInRoot(root, target)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at %q in the container: %w", target, err)
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return nil, fmt.Errorf("look at %q in the container: %w", target, err)
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return nil, nil
	}
	return t.ByID(st.Mnt_id), nil
}

// OpenInRoot opens a path of the container without following it out of its root.
func OpenInRoot(root int, target string) (int, error) {
	return unix.Openat2(root, target, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// OpenRoot opens the root of a process.
func OpenRoot(pid int) (int, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open root of process %d: %w", pid, err)
	}
	return fd, nil
}

// Has says whether the file system of o is mounted.
func (t Tree) Has(o Origin) bool {
	for _, m := range t {
		if m.Major == o.Major && m.Minor == o.Minor {
			return true
		}
	}
	return false
}

// id is the number of the mount in which a path is, its last component not followed.
func id(path string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	return st.Mnt_id, err
}
