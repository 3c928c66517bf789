package leak

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Host is what a run of tests must leave as it was, each thing as a line.
type Host map[string]bool

// TakeHost looks at the mounts of this mount namespace, stages, own zombies and
// descriptors, abstract socket names and loaded cgroup device programs.
func TakeHost() Host {
	h := Host{}
	for _, m := range Mounts("/proc/self/mountinfo") {
		h[fmt.Sprintf("mount of %s %s on %s (%s)", m.Type, m.Root, m.Path, m.ID)] = true
	}
	entries, _ := os.ReadDir("/proc")
	self := fmt.Sprint(os.Getpid())
	for _, e := range entries {
		p := filepath.Join("/proc", e.Name())
		if exe, err := os.Readlink(p + "/exe"); err == nil && strings.HasPrefix(exe, "/memfd:rt-stage") {
			h["stage "+e.Name()] = true
		}
		// PID (COMMAND) STATE PARENT
		stat, _ := os.ReadFile(p + "/stat")
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "Z" && f[1] == self {
			h["zombie "+e.Name()] = true
		}
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, e := range fds {
		// Those of the Go runtime and of this look itself come and go.
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(target, "/proc/") && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "pipe:") {
			h["descriptor "+e.Name()+" of "+target] = true
		}
	}
	sockets, _ := os.ReadFile("/proc/net/unix")
	for line := range strings.Lines(string(sockets)) {
		if f := strings.Fields(line); len(f) == 8 && strings.HasPrefix(f[7], "@") {
			h["abstract socket "+f[7]] = true
		}
	}
	for _, id := range devicePrograms() {
		h[fmt.Sprint("cgroup device program ", id)] = true
	}
	return h
}

// devicePrograms lists the ids of the loaded BPF programs of type
// BPF_PROG_TYPE_CGROUP_DEVICE, bpf(2).
func devicePrograms() []uint32 {
	const (
		progGetNextID, progGetFDByID, objGetInfoByFD = 11, 13, 15
		typeCgroupDevice                             = 15
	)
	bpf := func(cmd uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
		r, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
		if e != 0 {
			return -1, e
		}
		return int(r), nil
	}
	var list []uint32
	for id := uint32(0); ; {
		next := struct{ start, next, flags uint32 }{start: id}
		if _, err := bpf(progGetNextID, unsafe.Pointer(&next), unsafe.Sizeof(next)); err != nil {
			return list
		}
		id = next.next
		byID := struct{ id, next, flags uint32 }{id: id}
		fd, err := bpf(progGetFDByID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
		if err != nil {
			continue
		}
		var info [64]uint32 // struct bpf_prog_info begins with the type
		of := struct {
			fd, len uint32
			info    uint64
		}{uint32(fd), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info)))}
		_, err = bpf(objGetInfoByFD, unsafe.Pointer(&of), unsafe.Sizeof(of))
		unix.Close(fd)
		if err == nil && info[0] == typeCgroupDevice {
			list = append(list, id)
		}
	}
}

// Compare returns an error that names what is there now and was not, or is gone,
// after it has waited for some time for that to pass.
func (h Host) Compare(wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		now := TakeHost()
		var diff []string
		for line := range now {
			if !h[line] {
				diff = append(diff, "left: "+line)
			}
		}
		for line := range h {
			if !now[line] && strings.HasPrefix(line, "mount ") {
				diff = append(diff, "gone: "+line)
			}
		}
		if len(diff) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			slices.Sort(diff)
			return fmt.Errorf("%s", strings.Join(diff, "; "))
		}
		time.Sleep(50 * time.Millisecond)
	}
}
