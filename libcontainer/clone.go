package libcontainer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"rt/libcontainer/plan"
	"rt/nsenter"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idMaps are the user namespaces by which mounts are mapped, one for each map that
// occurs.
type idMaps struct {
	maps []*plan.IDMap
	fds  []int
}

func (m *idMaps) close() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
	*m = idMaps{}
}

// namespace returns a user namespace with the map ids; close closes it.
func (m *idMaps) namespace(ids *plan.IDMap) (int, error) {
	for i, o := range m.maps {
		if o.Path == ids.Path && slices.Equal(o.UID, ids.UID) && slices.Equal(o.GID, ids.GID) {
			return m.fds[i], nil
		}
	}
	fd, err := -1, error(nil)
	if ids.Path != "" {
		fd, err = openNamespace(&plan.File{Path: ids.Path, Type: unix.CLONE_NEWUSER})
	} else {
		fd, err = nsenter.UserNamespace(sysMap(ids.UID), sysMap(ids.GID))
	}
	if err != nil {
		return -1, err
	}
	m.maps, m.fds = append(m.maps, ids), append(m.fds, fd)
	return fd, nil
}

func sysMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	l := make([]syscall.SysProcIDMap, len(m))
	for i, e := range m {
		l[i] = syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)}
	}
	return l
}

// clone makes a detached copy of the mounts at a host path, with their ids
// mapped if that is asked for. It is made a slave, or it would remain a peer: what the
// container mounts in it would appear on the host.
func (m *idMaps) clone(f *plan.File) (int, error) {
	fail := func(verb string, err error) error {
		return fmt.Errorf("%s mount source %q (config.json %s): %w", verb, f.Path, f.Origin, err)
	}
	fd, err := openTree(f.Path, f.Type == 1)
	if err != nil {
		return -1, fail("clone", err)
	}
	attr := unix.MountAttr{Propagation: unix.MS_SLAVE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(fd)
		return -1, fail("make a slave of the clone of", err)
	}
	if f.IDMap != nil {
		if err := m.apply(fd, f); err != nil {
			unix.Close(fd)
			return -1, fail("map ids of", err)
		}
	}
	return fd, nil
}

func openTree(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(unix.AT_FDCWD, path, flags)
}

func (m *idMaps) apply(fd int, f *plan.File) error {
	ns, err := m.namespace(f.IDMap)
	if err != nil {
		return err
	}
	err = setIDMap(fd, ns, f.IDMap.Recursive)
	switch err {
	case unix.EINVAL:
		if refused := unmappable(f, ns); refused != "" {
			return fmt.Errorf("%w: %s cannot have mapped ids", err, refused)
		}
	case unix.EPERM:
		return fmt.Errorf("%w: it is mapped already, or belongs to another user namespace", err)
	}
	return err
}

func setIDMap(fd, ns int, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
}

// unmappable names the first of the mounts of f whose file system refuses to have its
// ids mapped: the kernel only says that there is one.
func unmappable(f *plan.File, ns int) string {
	id, err := mountID(f.Path)
	if err != nil {
		return ""
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		front, back, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(front)
		fstype, _, _ := strings.Cut(back, " ")
		if !ok || len(fields) < 5 {
			continue
		}
		point := f.Path
		if fields[0] != strconv.FormatUint(id, 10) {
			if point = fields[4]; !f.IDMap.Recursive || !strings.HasPrefix(point, strings.TrimSuffix(f.Path, "/")+"/") {
				continue
			}
		}
		fd, err := openTree(point, false)
		if err != nil {
			continue
		}
		err = setIDMap(fd, ns, false)
		unix.Close(fd)
		if errors.Is(err, unix.EINVAL) {
			return fmt.Sprintf("file system %s at %s", fstype, point)
		}
	}
	return ""
}
