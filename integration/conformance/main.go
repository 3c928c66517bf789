// Command conformance runs the validation programs of the OCI runtime-tools
// against a runtime, in one lane of cgroups after the other, and compares what
// passes with a checked-in list. It exits 1 when anything differs from the
// list, either way, and 2 when it cannot run.
//
// Each program runs in mount, pid and cgroup namespaces of its own, so that
// whatever it leaves behind ends with them and programs can run side by side
// although they use the same fixed cgroup paths.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	runtime  string        // absolute path of the runtime's binary
	peerRoot string        // root that the runtime was built for; empty: this machine's
	programs string        // directory with the programs, runtimetest and the rootfs archive
	expected string        // path of the list
	measure  bool          // do not compare
	verbose  bool          // print all output of all programs that do not pass
	jobs     int           // programs run at once
	timeout  time.Duration // for one program
	lanes    []lane
	only     []string // names of programs; empty: all
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == sandboxCommand {
		os.Exit(sandboxMain(os.Args[2]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	opts, err := parseOptions(os.Args[1:])
	var differs bool
	if err == nil {
		differs, err = run(ctx, opts)
	}
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	case differs:
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	var o options
	var lanes string
	fs := flag.NewFlagSet("conformance [PROGRAM...]", flag.ContinueOnError)
	fs.StringVar(&o.runtime, "runtime", "rt", "`path` of the runtime")
	fs.StringVar(&o.peerRoot, "peer-root", "", "`directory` of the root file system that the runtime comes from: its libraries are used")
	fs.StringVar(&o.programs, "programs", ".", "`directory` with the programs, runtimetest and the rootfs archive")
	fs.StringVar(&o.expected, "expected", "expected", "`file` that lists what passes in which lane")
	fs.BoolVar(&o.measure, "measure", false, "count what passes, compare with nothing (for other runtimes)")
	fs.BoolVar(&o.verbose, "v", false, "print all output of every program that does not pass, not only what matters of those that differ from the list")
	fs.IntVar(&o.jobs, "jobs", 4, "`number` of programs that run at once")
	fs.DurationVar(&o.timeout, "timeout", time.Minute, "longest `time` for one program")
	fs.StringVar(&lanes, "lane", "host,host-v2", "`lanes` to run, separated by commas")
	if err := fs.Parse(args); err != nil {
		return options{}, err
	}
	o.only = fs.Args()
	for name := range strings.SplitSeq(lanes, ",") {
		l, err := parseLane(name)
		if err != nil {
			return options{}, err
		}
		o.lanes = append(o.lanes, l)
	}
	for _, p := range []*string{&o.runtime, &o.programs, &o.peerRoot} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return options{}, err
		}
		*p = abs
	}
	if _, err := exec.LookPath(o.runtime); err != nil {
		return options{}, fmt.Errorf("find runtime: %w", err)
	}
	if o.jobs < 1 {
		return options{}, fmt.Errorf("read -jobs %d: want 1 or more", o.jobs)
	}
	return o, nil
}

// run reports whether any program's result differs from the list.
func run(ctx context.Context, o options) (bool, error) {
	f, err := os.Open(o.expected)
	if err != nil {
		return false, err
	}
	list, err := parseExpected(f)
	f.Close()
	if err != nil {
		return false, fmt.Errorf("read %s: %w", o.expected, err)
	}
	if len(o.only) > 0 {
		for _, name := range o.only {
			if !slices.ContainsFunc(list, func(e expectation) bool { return e.program == name }) {
				return false, fmt.Errorf("find program %q: not in %s", name, o.expected)
			}
		}
		list = slices.DeleteFunc(list, func(e expectation) bool { return !slices.Contains(o.only, e.program) })
	}
	var sum totals
	for _, l := range o.lanes {
		results, err := runLane(ctx, o, l, list)
		if err != nil {
			return false, fmt.Errorf("lane %s: %w", l, err)
		}
		sum.add(report(os.Stdout, o, l, list, results))
	}
	fmt.Println(sum.line(o.measure))
	return sum.failed > 0 && !o.measure, nil
}

// runLane runs the programs of the list and returns a result for each, in the list's order.
func runLane(ctx context.Context, o options, l lane, list []expectation) ([]result, error) {
	trees, err := findHierarchies(l)
	if err != nil {
		return nil, err
	}
	results := make([]result, len(list))
	errs := make([]error, len(list))
	slots := make(chan struct{}, o.jobs)
	var wg sync.WaitGroup
	for i, e := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			results[i], errs[i] = runProgram(ctx, o, l, trees, e.program)
		})
	}
	wg.Wait()
	return results, errors.Join(append(errs, context.Cause(ctx))...)
}

// runProgram runs one program in a sandbox and removes the cgroups it was given.
// A program that fails, hangs or crashes is a result; the error is for what
// keeps it from being run.
func runProgram(ctx context.Context, o options, l lane, trees []hierarchy, program string) (res result, err error) {
	// Some wait for something that does not come; the rest of the list need not.
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if ctx.Err() != nil {
		return result{}, nil
	}
	job := sandboxJob{Lane: l, Program: filepath.Join(o.programs, program), Runtime: o.runtime, PeerRoot: o.peerRoot}
	name := fmt.Sprintf("conformance-%d-%s", os.Getpid(), program)
	defer func() { err = errors.Join(err, removeCgroups(job.Cgroups)) }()
	for _, h := range trees {
		if err := h.makeCgroup(name); err != nil {
			return result{}, err
		}
		h.Dir = filepath.Join(h.Dir, name)
		job.Cgroups = append(job.Cgroups, h)
	}
	start := time.Now()
	out, err := job.run(ctx, o.programs)
	if err != nil {
		return result{}, fmt.Errorf("run %s: %w", program, err)
	}
	res = judge(out)
	res.took = time.Since(start)
	return res, nil
}
