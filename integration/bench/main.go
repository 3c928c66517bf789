// Command bench compares rt with crun and runc: the wall time of each command as
// a caller sees it, from fork to exit, on the same bundle and in turns, so that
// whatever else the machine does hits all of them. It needs root; integration/peers
// makes the peers.
//
//	go run ./integration/bench -rounds 40
//
// RT_BIN is the runtime to compare, ./rt if not set.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"syscall"
)

// options are the flags, and what the environment adds to them.
type options struct {
	rounds  int
	bundle  string
	lane    string
	others  int
	only    *regexp.Regexp
	json    string
	rt      string // absolute path of the runtime
	workDir string // private to this run, removed by the outer process
}

// insideEnv names the work directory to the inner process, the one that measures.
const insideEnv = "RT_BENCH_DIR"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	var o options
	var only string
	flag.IntVar(&o.rounds, "rounds", 40, "how often each command of each runtime is measured")
	flag.StringVar(&o.bundle, "bundle", "", "bundle whose config.json and root are used, with other arguments (default: busybox and what rt spec writes)")
	flag.StringVar(&o.lane, "lane", "host-v2", "cgroup layout: host, as it is, or host-v2; uml, where rt is measured alone")
	flag.IntVar(&o.others, "with-containers", 200, "how many sleeping containers the growth of run is measured with")
	flag.StringVar(&only, "only", "", "regular expression of what to measure: "+sections())
	flag.StringVar(&o.json, "json", "", "also write the results as JSON to this file")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || !slices.Contains([]string{"host", "host-v2", "uml"}, o.lane) {
		flag.Usage()
		return errors.New("expected -rounds of at least 1, -lane host, host-v2 or uml, and no arguments")
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return err
	}
	o.rt = os.Getenv("RT_BIN")
	if o.rt == "" {
		o.rt = "rt"
	}
	if o.rt, err = filepath.Abs(o.rt); err != nil {
		return err
	}
	if o.workDir = os.Getenv(insideEnv); o.workDir == "" {
		return outer(o.lane)
	}
	return measure(o)
}

// outer starts this program again in its lane and in a mount namespace of its
// own: all mounts of the measurement, state directories included, end with it.
func outer(lane string) error {
	if err := command("integration/lanes/need", "busybox-static", "time").Run(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/run", "rt-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	args := append([]string{self}, os.Args[1:]...)
	if lane != "host" {
		args = append([]string{"integration/lanes/" + lane}, args...)
	}
	cmd := command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	// Go makes all mounts private with this flag.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	// An interrupt reaches the inner process as well, which deletes its containers.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
	return cmd.Run()
}

func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func measure(o options) error {
	// A collection in the middle of a measurement would be measured too.
	debug.SetGCPercent(-1)
	b, err := setup(o)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-stop
		b.interrupted.Store(true)
	}()
	defer b.cleanup()

	r := report{Lane: o.lane, Rounds: o.rounds, Others: o.others}
	for _, rt := range b.runtimes {
		r.Runtimes = append(r.Runtimes, rt.name)
		fmt.Printf("%-5s %s\n", rt.name, rt.version)
	}
	for _, s := range []struct {
		names []string
		do    func(*report) error
	}{
		{commands, b.rounds},
		{[]string{"limits"}, b.limits},
		{[]string{"growth"}, b.growth},
		{[]string{"memory"}, b.memory},
		{[]string{"init"}, b.initialisers},
	} {
		if !o.wants(s.names...) {
			continue
		}
		if err := s.do(&r); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	if o.json != "" {
		return r.write(o.json)
	}
	return nil
}

// wants tells whether one of names is to be measured.
func (o *options) wants(names ...string) bool {
	for _, n := range names {
		if o.only.MatchString(n) {
			return true
		}
	}
	return false
}
