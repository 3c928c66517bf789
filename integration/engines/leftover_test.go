package engines

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leftovers finds what an engine and its runtime did not clean up.
type leftovers struct {
	mark   string          // is in the name of every container and cgroup of this run
	mounts map[string]bool // lines of mountinfo before
	procs  map[int]bool    // processes before
	dirs   []string        // must be empty or missing in the end
}

func newLeftovers(t *testing.T, mark string, dirs ...string) *leftovers {
	t.Helper()
	l := &leftovers{mark: mark, dirs: dirs, mounts: make(map[string]bool), procs: make(map[int]bool)}
	for _, m := range mountinfo(t) {
		l.mounts[m] = true
	}
	for pid := range processes(t) {
		l.procs[pid] = true
	}
	return l
}

// check reports as errors what there is now and was not before. What ends on its own has some
// seconds for it: a shim outlives the command that deleted its container.
func (l *leftovers) check(t *testing.T) {
	t.Helper()
	var left []string
	eventually(5*time.Second, func() bool {
		left = l.find(t)
		return len(left) == 0
	})
	for _, s := range left {
		t.Errorf("left behind: %s", s)
	}
}

// sweep removes what a failed test has left, so that at least the host's cgroup tree is clean.
// The processes are all of this pid namespace.
func (l *leftovers) sweep(t *testing.T) {
	t.Helper()
	for _, dir := range cgroups(t, l.mark) {
		// Whichever it is of v1 and v2: a frozen process cannot be killed on v1.
		os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
		os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
	for pid := range processes(t) {
		if !l.procs[pid] {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
	if !eventually(5*time.Second, func() bool {
		dirs := cgroups(t, l.mark)
		for _, dir := range dirs {
			os.Remove(dir)
		}
		return len(dirs) == 0
	}) {
		t.Errorf("cannot remove cgroups: %q", cgroups(t, l.mark))
	}
	for _, m := range mountinfo(t) {
		if f := strings.Fields(m); !l.mounts[m] && len(f) > 4 {
			unix.Unmount(f[4], unix.MNT_DETACH) // mount point, see proc_pid_mountinfo(5)
		}
	}
}

func (l *leftovers) find(t *testing.T) []string {
	t.Helper()
	var left []string
	for pid, args := range processes(t) {
		if !l.procs[pid] {
			left = append(left, fmt.Sprintf("process %d: %s", pid, args))
		}
	}
	for _, m := range mountinfo(t) {
		if !l.mounts[m] {
			left = append(left, "mount "+m)
		}
	}
	for _, dir := range cgroups(t, l.mark) {
		// The parent is the engine's choice, and runtimes leave it, as others may be
		// about to use it. rmdir fails if a container's cgroup is left in it.
		if filepath.Base(dir) == l.mark && os.Remove(dir) == nil {
			continue
		}
		left = append(left, "cgroup "+dir)
	}
	for _, dir := range l.dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, "file "+filepath.Join(dir, e.Name()))
		}
	}
	return left
}

// cgroups returns all cgroups with mark in their path, deepest first. Others
// come and go on a busy host.
func cgroups(t *testing.T, mark string) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) { // removed while we walk
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() && strings.Contains(path, mark) {
			dirs = append([]string{path}, dirs...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func mountinfo(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// processes returns the command line of every process of the pid namespace,
// zombies included.
func processes(t *testing.T) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	procs := make(map[int]string)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil { // it has ended
			continue
		}
		procs[pid] = strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
	}
	return procs
}
