// Package security mounts the known attacks on container runtimes against the rt
// program. Each test bears the number of its item on the project's security list
// (S1 to S38), shows first, where that can be done, that the attack works on
// something careless, and then that it fails on rt.
//
// It runs as root; RT_BIN is the program (default ../../rt, which `make rt`
// builds), RT_FAULT_BIN the one with fault points (`make rt-fault`). RT_SOAK=long
// gives each race 30 s instead of a few. The test binary is also the
// program /attacker of the containers.
package security

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rt/integration/leak"

	"golang.org/x/sys/unix"
)

var (
	rt, rtFault string
	work        string   // holds every box
	attacker    string   // this program, under the name by which it attacks
	top         string   // the cgroup above those of all containers, one name
	hierarchies []string // mount points of all cgroup hierarchies
	v2          bool     // there is no hierarchy but cgroup v2
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "attacker" {
		attack(os.Args[1:])
	}
	if filepath.Base(os.Args[0]) == "rt-stage" {
		fakeStage(os.Args)
	}
	flag.Parse()
	// Most tests wait for other processes most of the time.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("4")
	}
	code := 1
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "security:", err)
	} else {
		before := leak.TakeHost()
		code = m.Run()
		if err := before.Compare(5 * time.Second); err != nil {
			fmt.Fprintln(os.Stderr, "security:", err)
			code = 1
		}
	}
	if err := tearDown(); err != nil {
		fmt.Fprintln(os.Stderr, "security:", err)
		code = 1
	}
	os.Exit(code)
}

// long says that races may take their time.
func long() bool { return os.Getenv("RT_SOAK") == "long" }

// raceTime is how long one race goes on.
func raceTime() time.Duration {
	if long() {
		return 30 * time.Second
	}
	return 3 * time.Second
}

func setUp() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("run security tests: they need root")
	}
	unix.Umask(0o022)
	for _, v := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(v)
	}
	var err error
	if rt, err = program("RT_BIN", "../../rt"); err != nil {
		return err
	}
	if rtFault, err = program("RT_FAULT_BIN", "../../rt-fault"); err != nil {
		return err
	}
	if work, err = os.MkdirTemp("", "rt-sec-"); err != nil {
		return err
	}
	if work, err = filepath.EvalSymlinks(work); err != nil {
		return err
	}
	// A mapped root must get through.
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	base := filepath.Join(work, "base")
	if err := makeBase(base); err != nil {
		return err
	}
	attacker = filepath.Join(base, "attacker")
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return err
	}
	v2 = fs.Type == unix.CGROUP2_SUPER_MAGIC
	top = filepath.Base(work)
	if hierarchies, err = leak.Cgroups(); err != nil {
		return err
	}
	for _, m := range hierarchies {
		if err := os.Mkdir(filepath.Join(m, top), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func program(env, standard string) (string, error) {
	p := os.Getenv(env)
	if p == "" {
		p = standard
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

// makeBase makes what all root file systems link to.
func makeBase(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name, from := range map[string]string{"busybox": "/bin/busybox", "attacker": self} {
		data, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("make root file system: %w (busybox is Debian's busybox-static)", err)
		}
		if bytes.Contains(data[:4096], []byte("/lib64/ld-")) {
			return fmt.Errorf("make root file system: %s is not statically linked (CGO_ENABLED=0 does it for the tests)", from)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func tearDown() error {
	for _, m := range hierarchies {
		if err := os.Remove(filepath.Join(m, top)); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("something is left: %w", err)
		}
	}
	if work == "" {
		return nil
	}
	return os.RemoveAll(work)
}
