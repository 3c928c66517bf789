package mounts

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stdio are the files behind descriptors 0 to 2 of this process.
func Stdio() ([]os.FileInfo, error) {
	var list []os.FileInfo
	for fd := range 3 {
		st, err := os.Stat("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			list = append(list, st)
		}
	}
	return list, nil
}

// CheckFiles checks that all files that a process has open, stands in, runs or maps are in the mounts of t, or
// among those that are accepted elsewhere. The process must not run meanwhile.
func (t Tree) CheckFiles(pid int, accepted []os.FileInfo) error {
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	files := []string{"cwd", "root", "exe"}
	for _, dir := range []string{"fd", "map_files"} {
		entries, err := os.ReadDir(proc + dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			files = append(files, dir+"/"+e.Name())
		}
	}
	for _, f := range files {
		target, err := os.Readlink(proc + f)
		if err != nil {
			return err
		}
		// What has no path is in no directory: pipes, sockets, and memory.
		if !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "/memfd:") || strings.HasPrefix(target, "/SYSV") || target == "/dev/zero (deleted)" {
			continue
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, proc+f, unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
			return fmt.Errorf("look at %s of process %d: %w", f, pid, err)
		}
		if t.ByID(st.Mnt_id) != nil {
			continue
		}
		its, err := os.Stat(proc + f)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(accepted, func(a os.FileInfo) bool { return os.SameFile(a, its) }) {
			return fmt.Errorf("%s of process %d is %q, which is in none of them", f, pid, target)
		}
	}
	return nil
}
