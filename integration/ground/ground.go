// Package ground is what a package of tests stands on: a directory for what it makes, and a cgroup
// of its own in every hierarchy.
package ground

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"rt/integration/leak"

	"golang.org/x/sys/unix"
)

// Ground is made by Make.
type Ground struct {
	Dir     string   // holds everything; its path has no symbolic links
	Top     string   // the cgroup above those of all containers, one name
	Cgroups []string // mount points of all cgroup hierarchies
	V2      bool     // there is no hierarchy but cgroup v2

	yards []string // directories of CRIU's that were there before
}

// Make makes the ground of tests that run as root. prefix is that of the directory's name. Settings of the
// machine that tests would see are undone.
func Make(prefix string) (*Ground, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("run these tests: they need root")
	}
	for _, v := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	unix.Umask(0o022)
	g := &Ground{yards: yards()}
	err := g.make(prefix)
	if err != nil {
		return nil, errors.Join(err, g.Remove())
	}
	return g, nil
}

// yards are the directories in which CRIU makes mount namespaces. One that is killed together with rt leaves its own, empty.
func yards() []string {
	list, _ := filepath.Glob("/tmp/.criu.mntns.*")
	return list
}

func (g *Ground) make(prefix string) error {
	var err error
	if g.Dir, err = os.MkdirTemp("", prefix); err != nil {
		return err
	}
	if g.Dir, err = filepath.EvalSymlinks(g.Dir); err != nil {
		return err
	}
	// A mapped root must get through.
	if err := os.Chmod(g.Dir, 0o755); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return err
	}
	g.V2 = fs.Type == unix.CGROUP2_SUPER_MAGIC
	g.Top = filepath.Base(g.Dir)
	if g.Cgroups, err = leak.Cgroups(); err != nil {
		return err
	}
	for _, m := range g.Cgroups {
		if err := os.Mkdir(filepath.Join(m, g.Top), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes it all, and fails if a container has left a cgroup or a mount there. It does nothing if g is nil.
func (g *Ground) Remove() error {
	if g == nil || g.Dir == "" {
		return nil
	}
	for _, d := range yards() {
		if !slices.Contains(g.yards, d) {
			os.Remove(d)
		}
	}
	for _, m := range g.Cgroups {
		if err := os.Remove(filepath.Join(m, g.Top)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("something is left: %w", err)
		}
	}
	for _, m := range leak.Mounts("/proc/self/mountinfo") {
		if leak.Within(m.Path, g.Dir) {
			return fmt.Errorf("something is left: a mount on %s", m.Path)
		}
	}
	return os.RemoveAll(g.Dir)
}

// Program finds a program under test: the one that the environment names, else the one that
// `make` has built, whose path is relative to the package of tests.
func Program(env, built string) (string, error) {
	p := os.Getenv(env)
	if p == "" {
		p = built
	}
	p, err := filepath.Abs(p)
	if err == nil {
		_, err = os.Stat(p)
	}
	if err != nil {
		return "", fmt.Errorf("find program (%s): %w; `make rt rt-fault` builds both", env, err)
	}
	return p, nil
}

// Busybox is where Debian's busybox-static has it.
const Busybox = "/bin/busybox"

// Install makes dir, and copies programs there, by name, for root file systems to link to. It is for before the
// tests begin; afterwards there is WriteProgram.
func Install(dir string, programs map[string]string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, from := range programs {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("make root file system: %w (busybox is Debian's busybox-static)", err)
		}
		if bytes.Contains(data[:min(4096, len(data))], []byte("/lib64/ld-")) {
			return fmt.Errorf("make root file system: %s is not statically linked (CGO_ENABLED=0 does it for the tests)", from)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// WriteProgram writes a program while other tests run. It has another process do it: a child that another
// test has just forked would hold open for writing what this process writes, and
// execve(2) would refuse that.
func WriteProgram(path, content string) error {
	c := exec.Command(Busybox, "sh", "-c", `cat >"$0" && chmod 755 "$0"`, path)
	c.Stdin = strings.NewReader(content)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("write program %s: %w: %s", path, err, out)
	}
	return nil
}
