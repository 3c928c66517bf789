// Package fault tests that rt's state is crash-only: whatever a kill -9, a
// failing system call, a race or a damaged file leaves behind, `delete --force`
// removes it and the id can be used again.
//
// It runs as root. RT_FAULT_BIN is the runtime with fault points (`make
// rt-fault`), RT_BIN the one without, RT_SOAK=long makes the soak of random
// kills 1000 rounds long, RT_SEED repeats a soak.
package fault

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rt/integration/ground"
)

var (
	faultBin string // with fault points
	plainBin string
	site     *ground.Ground
	work     string   // holds every box, and the root file system that they share
	top      string   // the cgroup above those of all containers, one name
	mounts   []string // mount points of all cgroup hierarchies
	points   []string // the parent's fault points
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "helper" {
		if err := help(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	// Most tests sleep or wait most of the time.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("10")
	}
	heed(syscall.SIGHUP, syscall.SIGINT)
	code := 1
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
	} else {
		code = m.Run()
	}
	if err := site.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, "fault:", err)
		code = 1
	}
	os.Exit(code)
}

// heed undoes that the caller of the tests ignores these signals, as nohup(1) and shells without job
// control do: what runs under test would ignore them too.
func heed(list ...os.Signal) {
	ignored := make(chan os.Signal, 1)
	for _, sig := range list {
		if signal.Ignored(sig) {
			// A program that is executed does not inherit a handler.
			signal.Notify(ignored, sig)
		}
	}
}

func setUp() error {
	var err error
	if faultBin, err = ground.Program("RT_FAULT_BIN", "../../rt-fault"); err != nil {
		return err
	}
	if plainBin, err = ground.Program("RT_BIN", "../../rt"); err != nil {
		return err
	}
	if site, err = ground.Make("rt-fault-"); err != nil {
		return err
	}
	work, top, mounts = site.Dir, site.Top, site.Cgroups
	if err := makeRootfs(filepath.Join(work, "rootfs")); err != nil {
		return err
	}
	c := command(faultBin, work, []string{"RT_FAULT=list"}, 0)
	r, err := c.wait(10 * time.Second)
	if err != nil || r.code != 0 || r.out == "" {
		return fmt.Errorf("list fault points with %s: %v: %v", faultBin, r, err)
	}
	points = strings.Fields(r.out)
	return nil
}

// makeRootfs makes a root file system with all mount points, so that nobody
// writes to it any more.
func makeRootfs(dir string) error {
	for _, d := range []string{"proc", "sys", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	bin := filepath.Join(dir, "bin")
	if err := ground.Install(bin, map[string]string{"busybox": ground.Busybox}); err != nil {
		return err
	}
	for _, a := range []string{"sh", "sleep", "true", "cat", "dd"} {
		if err := os.Symlink("busybox", filepath.Join(bin, a)); err != nil {
			return err
		}
	}
	return nil
}
