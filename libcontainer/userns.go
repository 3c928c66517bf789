package libcontainer

import (
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// openProc opens /proc/PID of a process of ours that cannot end unnoticed: it is
// our child and not reaped.
func openProc(pid int) (int, error) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /proc/%d: %w", pid, err)
	}
	return fd, nil
}

// writeProc writes one of the files of a process, in one write as the kernel
// wants it.
func writeProc(dir int, name, value, origin string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("set %s to %q (config.json %s): %w", name, value, origin, err)
	}
	return nil
}

// writeMaps writes the id maps of a new user namespace (user_namespaces(7)).
func writeMaps(dir int, l *specs.Linux) error {
	if err := writeProc(dir, "gid_map", idMap(l.GIDMappings), "/linux/gidMappings"); err != nil {
		return err
	}
	return writeProc(dir, "uid_map", idMap(l.UIDMappings), "/linux/uidMappings")
}

func idMap(m []specs.LinuxIDMapping) string {
	var b []byte
	for _, e := range m {
		b = strconv.AppendUint(b, uint64(e.ContainerID), 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(e.HostID), 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(e.Size), 10)
		b = append(b, '\n')
	}
	return string(b)
}

// writeTimeOffsets writes the clocks of a new time namespace
// (time_namespaces(7)), and returns a descriptor of it.
func writeTimeOffsets(dir int, offsets map[string]specs.LinuxTimeOffset) (int, error) {
	var b []byte
	for _, clock := range [...]string{"monotonic", "boottime"} {
		o, ok := offsets[clock]
		if !ok {
			continue
		}
		b = append(b, clock...)
		b = append(b, ' ')
		b = strconv.AppendInt(b, o.Secs, 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(o.Nanosecs), 10)
		b = append(b, '\n')
	}
	if len(b) > 0 {
		if err := writeProc(dir, "timens_offsets", string(b), "/linux/timeOffsets"); err != nil {
			return -1, err
		}
	}
	fd, err := unix.Openat(dir, "ns/time_for_children", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open time namespace (config.json /linux/namespaces): %w", err)
	}
	return fd, nil
}
