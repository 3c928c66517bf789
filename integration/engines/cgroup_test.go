package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unified says whether /sys/fs/cgroup is a cgroup2 mount.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// haveController says whether the tree at /sys/fs/cgroup has the controller.
func haveController(name string) bool {
	if !unified() {
		_, err := os.Stat(filepath.Join("/sys/fs/cgroup", name))
		return err == nil
	}
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return err == nil && slices.Contains(strings.Fields(string(b)), name)
}

// readCgroup returns the content of a file of the cgroup that process pid is in.
func readCgroup(t *testing.T, pid int, controller, file string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		// ID:CONTROLLERS:PATH, see cgroups(7); the unified one has no controllers.
		f := strings.SplitN(line, ":", 3)
		if len(f) != 3 {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", controller, f[2])
		if unified() {
			if f[1] != "" {
				continue
			}
			dir = filepath.Join("/sys/fs/cgroup", f[2])
		} else if !slices.Contains(strings.Split(f[1], ","), controller) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	t.Fatalf("process %d is in no cgroup with %s: %q", pid, controller, b)
	return ""
}
