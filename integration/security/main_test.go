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
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rt/integration/ground"
	"rt/integration/leak"
)

var (
	rt, rtFault string
	site        *ground.Ground
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
	if err := site.Remove(); err != nil {
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
	var err error
	if rt, err = ground.Program("RT_BIN", "../../rt"); err != nil {
		return err
	}
	if rtFault, err = ground.Program("RT_FAULT_BIN", "../../rt-fault"); err != nil {
		return err
	}
	if site, err = ground.Make("rt-sec-"); err != nil {
		return err
	}
	work, top, hierarchies, v2 = site.Dir, site.Top, site.Cgroups, site.V2
	self, err := os.Executable()
	if err != nil {
		return err
	}
	base := filepath.Join(work, "base")
	attacker = filepath.Join(base, "attacker")
	return ground.Install(base, map[string]string{"busybox": ground.Busybox, "attacker": self})
}
