package nsenter

import (
	"fmt"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// UserNamespace returns a descriptor of a new user namespace with these maps, in which
// no process lives: something to map the ids of a mount by. The caller closes it. It
// needs CAP_SETUID and CAP_SETGID, unless the maps are such that user_namespaces(7) lets anybody write them.
//
// The process that a namespace has to be made with is the stage without a plan, which ends
// at once. Until it is reaped its namespace can be opened.
func UserNamespace(uids, gids []syscall.SysProcIDMap) (int, error) {
	program, err := sealed("rt-stage", image, mfdExec, sealExec)
	if err != nil {
		return -1, err
	}
	defer unix.Close(program)
	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(program), []string{"rt-stage"}, &syscall.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER, UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: true,
		},
	})
	if err != nil {
		return -1, fmt.Errorf("create user namespace: %w", err)
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	for {
		if _, werr := unix.Wait4(pid, nil, 0, nil); werr != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, fmt.Errorf("open new user namespace: %w", err)
	}
	return fd, nil
}
