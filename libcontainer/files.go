package libcontainer

import (
	"errors"
	"fmt"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// openFiles opens the descriptors that the plan names: those that it has as late,
// or the others. Those that are not opened are -1.
func (l *launch) openFiles(late bool) error {
	var tasks []cgroup.Task
	l.files = make([]int, len(l.plan.Files))
	for i := range l.files {
		l.files[i] = -1
	}
	for i := range l.plan.Files {
		f := &l.plan.Files[i]
		if f.Late != late {
			continue
		}
		fd, err := -1, error(nil)
		switch f.Role {
		case plan.FileNamespace:
			fd, err = openNamespace(f)
		case plan.FileCgroup:
			fd, err = l.cg.OpenDir()
			if err == nil && l.exposed {
				fd, err = confine(fd)
			}
		case plan.FileTasks:
			if tasks == nil {
				if tasks, err = l.cg.OpenTasks(); err != nil {
					return err
				}
			}
			if len(tasks) == 0 || tasks[0].Dir != f.Path {
				closeTasks(tasks)
				return fmt.Errorf("open tasks file in %s: not in its place among the hierarchies", f.Path)
			}
			fd, tasks = tasks[0].FD, tasks[1:]
		case plan.FileRdt:
			if fd, err = unix.Open(f.Path, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
				err = fmt.Errorf("open tasks file %q (config.json /linux/intelRdt): %w", f.Path, err)
			}
		case plan.FileClone:
			fd, err = l.idMaps.clone(f)
		case plan.FileGate:
			fd, err = l.dir.OpenGate(unix.O_RDWR)
		case plan.FileResult:
			fd, err = l.dir.OpenResult(unix.O_RDWR)
		case plan.FileListener:
			fd, err = l.listener.Handover()
		}
		if err != nil {
			closeTasks(tasks)
			return err
		}
		l.files[i] = fd
	}
	l.idMaps.close()
	return nil
}

func closeTasks(tasks []cgroup.Task) {
	for _, t := range tasks {
		unix.Close(t.FD)
	}
}

// confine replaces the descriptor of a directory by one of the same directory in a
// read-only mount of its own, from which ".." leads nowhere.
func confine(dir int) (int, error) {
	defer unix.Close(dir)
	fd, err := unix.OpenTree(dir, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, fmt.Errorf("clone the mount of the cgroup: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make the clone of the cgroup's mount read-only: %w", err)
	}
	return fd, nil
}

// openNamespace opens a namespace and checks that it is one, of the right type.
func openNamespace(f *plan.File) (int, error) {
	fd, err := unix.Open(f.Path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, fmt.Errorf("open namespace %q (config.json /linux/namespaces): %w", f.Path, err)
	}
	var fs unix.Statfs_t
	if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type != unix.NSFS_MAGIC {
		err = errors.New("not a namespace")
	}
	if err == nil {
		var t int
		if t, err = unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err == nil && uint64(t) != f.Type {
			err = errors.New("a namespace of another type")
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("open namespace %q (config.json /linux/namespaces): %w", f.Path, err)
	}
	return fd, nil
}

// maxPreserved bounds --preserve-fds and LISTEN_FDS.
const maxPreserved = 1024

// preserved returns the descriptors from 3 on that the container inherits, and
// fails if one is not open. One that is close-on-exec is not the caller's: no
// descriptor is when a program starts, but the Go runtime opens some of its own.
func preserved(n int) ([]int, error) {
	if n < 0 || n > maxPreserved {
		return nil, fmt.Errorf("preserve %d descriptors: accepted are 0 to %d", n, maxPreserved)
	}
	fds := make([]int, 0, n)
	for i := 3; i < 3+n; i++ {
		flags, err := unix.FcntlInt(uintptr(i), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC != 0 {
			err = unix.EBADF
		}
		if err != nil {
			return nil, fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i, n, err)
		}
		fds = append(fds, i)
	}
	return fds, nil
}

// sendFiles sends the files that are open, to each KindReceive its own.
func (l *launch) sendFiles(late bool) error {
	defer l.closeFiles()
	for i := range l.plan.Ops {
		op := &l.plan.Ops[i]
		if op.Kind != plan.KindReceive {
			continue
		}
		var fds []int
		for _, index := range op.Received() {
			if l.plan.Files[index].Late == late {
				fds = append(fds, l.files[index])
			}
		}
		if len(fds) == 0 {
			continue
		}
		if err := ignoreDead(l.stage.SendFiles(fds)); err != nil {
			return err
		}
	}
	return nil
}

func (l *launch) closeFiles() {
	for _, fd := range l.files {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	l.files = nil
}
