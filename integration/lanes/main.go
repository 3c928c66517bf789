// Command lanes runs the project's tests on the kernels and cgroup layouts that
// it is told, and ends with the line "N passed, N failed, N skipped".
//
//	go run ./integration/lanes unit host host-v2 uml vm vm-v1
//
// unit and host run here. host-v2, uml and vm are scripts beside this program, each of
// which runs a command in a world of its own; their heads tell how to use them
// by hand. vm-v1 is vm booted with cgroup v1.
//
// It is started in the top directory of the repository, as root, and expects
// the runtime to be built. A lane that cannot run on this machine is a failure.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const module = "rt"

// pure lists the packages whose tests any user can run.
var pure = []string{
	module + "/libcontainer/bundle", module + "/libcontainer/plan",
	module + "/libcontainer/seccomp", module + "/libcontainer/state",
	module + "/libcontainer/cgroup/systemd/unit",
	module + "/integration/bench", module + "/integration/lanes",
}

// oracle compares package seccomp with libseccomp.
const oracle = "libcontainer/seccomp/oracle"

// inVM are the tests of package integration that the vm lanes run: what only they can, or
// elsewhere not on both versions of cgroups. A machine that is emulated would take ten minutes for all of them.
const inVM = "^(TestSystemd|TestAppArmor.*|TestCPUSet|TestHugepageLimit|TestRdma|TestBlockIO.*|TestCoMounted|TestInContainer)$"

// bootV1 makes systemd boot with cgroup v1, and a cgroup2 for itself.
const bootV1 = "systemd.unified_cgroup_hierarchy=0"

// inLane lists the packages whose test binaries run in a lane other than the
// host. The engines need more of a system than the uml and vm lanes have, and faults and attacks do not differ there.
func inLane(lane string) []string {
	list := []string{module + "/integration", module + "/libcontainer/cgroup"}
	switch lane {
	case "host-v2":
		list = append(list, module+"/integration/fault", module+"/integration/security", module+"/integration/engines")
	case "vm", "vm-v1":
		list = append(list, module+"/libcontainer/cgroup/systemd")
	}
	return list
}

func main() {
	t := newTally(os.Stdout)
	for _, lane := range os.Args[1:] {
		fmt.Printf("== %s\n", lane)
		began := time.Now()
		if err := run(t, lane); err != nil {
			t.fail(fmt.Sprintf("lane %s: %v", lane, err))
		}
		fmt.Printf("== %s took %v\n", lane, time.Since(began).Round(time.Second))
	}
	t.summary()
	if t.failed > 0 {
		os.Exit(1)
	}
}

func run(t *tally, lane string) error {
	switch lane {
	case "unit":
		list, err := packages(func(p string) bool { return within(p, pure) })
		if err != nil {
			return err
		}
		if err := stream(t, "", lane, append([]string{"go", "test", "-json"}, list...)); err != nil {
			return err
		}
		// A module of its own, for it needs cgo.
		return stream(t, oracle, lane, []string{"env", "CGO_ENABLED=1", "go", "test", "-json", "./..."})
	case "host":
		list, err := packages(func(p string) bool { return !within(p, pure) })
		if err != nil {
			return err
		}
		// What is tested is a program beside the test, of which go's cache knows nothing.
		return stream(t, "", lane, append([]string{"go", "test", "-json", "-count=1", "-p=1", "-timeout=10m"}, list...))
	case "host-v2", "uml", "vm", "vm-v1":
		return compiled(t, lane)
	default:
		return fmt.Errorf("find lane %q: expected unit, host, host-v2, uml, vm or vm-v1", lane)
	}
}

// compiled runs test binaries by the script of lane: there may be no go, and no
// need for one, where they run.
func compiled(t *tally, lane string) error {
	name := lane
	if lane == "vm-v1" {
		name = "vm"
		os.Setenv("RT_VM_APPEND", bootV1)
		defer os.Unsetenv("RT_VM_APPEND")
	}
	script, err := filepath.Abs("integration/lanes/" + name)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rt-lanes-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, pkg := range inLane(lane) {
		bin := filepath.Join(dir, filepath.Base(pkg)+".test")
		build := exec.Command("go", "test", "-c", "-o", bin, pkg)
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
		}
		if _, err := os.Stat(bin); err != nil {
			return fmt.Errorf("compile %s: it has no tests", pkg)
		}
		timeout := "15m"
		if name == "vm" {
			timeout = "20m"
		}
		args := []string{
			"go", "tool", "test2json", "-t", "-p", pkg + " (" + lane + ")",
			script, bin, "-test.v=test2json", "-test.timeout=" + timeout,
		}
		if name == "vm" && pkg == module+"/integration" {
			args = append(args, "-test.run="+inVM)
		}
		if err := stream(t, "."+strings.TrimPrefix(pkg, module), lane, args); err != nil {
			return err
		}
	}
	return nil
}

// packages lists the module's packages that have tests and that keep wants.
func packages(keep func(string) bool) ([]string, error) {
	cmd := exec.Command("go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	list := slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return !keep(p) })
	if len(list) == 0 {
		return nil, fmt.Errorf("list packages: none has tests")
	}
	return list, nil
}

func within(pkg string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return pkg == r || strings.HasPrefix(pkg, r+"/") })
}

// stream runs args in dir and counts the events that it prints.
func stream(t *tally, dir, lane string, args []string) error {
	rt := os.Getenv("RT_BIN")
	if rt == "" {
		rt = "rt"
	}
	rt, err := filepath.Abs(rt)
	if err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "RT_LANE="+lane, "RT_BIN="+rt)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	before := t.failed
	t.read(out)
	// A test that fails has been counted; what else goes wrong has not.
	if err := cmd.Wait(); err != nil && t.failed == before {
		return fmt.Errorf("run tests: %w", err)
	}
	return nil
}

// event is what go help test2json describes.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// tally counts tests, subtests included, and prints what a reader wants of
// them: a line a package, all of a failure, the reason of a skip.
type tally struct {
	w                       io.Writer
	passed, failed, skipped int
	output                  map[string]string // of tests under way
	failures                map[string]int    // failed tests by package
	names                   []string          // what failed, for the end
	slowest                 []slow            // tests without their subtests, slowest first
}

type slow struct {
	test    string
	seconds float64
}

// slowestShown is how many tests the summary names for taking long, if they took a second.
const slowestShown = 15

// time keeps the slowest tests.
func (t *tally) time(e event, key string) {
	if e.Test == "" || strings.Contains(e.Test, "/") || e.Elapsed < 1 {
		return
	}
	t.slowest = append(t.slowest, slow{key, e.Elapsed})
	slices.SortStableFunc(t.slowest, func(a, b slow) int { return cmp.Compare(b.seconds, a.seconds) })
	t.slowest = t.slowest[:min(len(t.slowest), slowestShown)]
}

func newTally(w io.Writer) *tally {
	return &tally{w: w, output: map[string]string{}, failures: map[string]int{}}
}

func (t *tally) read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(t.w, "%s", line)
			} else {
				t.event(e)
			}
		}
		if err != nil {
			return
		}
	}
}

func (t *tally) event(e event) {
	key := e.Package + " " + e.Test
	if e.Action == "pass" || e.Action == "fail" {
		t.time(e, key)
	}
	switch e.Action {
	case "build-output":
		fmt.Fprint(t.w, e.Output)
	case "output":
		if e.Test != "" {
			t.output[key] += e.Output
		} else if e.Output != "PASS\n" && e.Output != "FAIL\n" {
			fmt.Fprint(t.w, e.Output)
		}
	case "pass":
		if e.Test != "" {
			t.passed++
		} else if strings.HasSuffix(e.Package, ")") { // test2json prints no such line
			fmt.Fprintf(t.w, "ok  \t%s\n", e.Package)
		}
		delete(t.output, key)
	case "skip":
		if e.Test != "" {
			t.skipped++
			fmt.Fprintf(t.w, "skip\t%s: %s\n", key, reason(t.output[key]))
		}
		delete(t.output, key)
	case "fail":
		switch {
		case e.Test != "":
			t.failures[e.Package]++
			fmt.Fprint(t.w, t.output[key])
			t.fail(key)
		case t.failures[e.Package] == 0: // it did not build, or died
			t.fail(e.Package)
		}
		delete(t.output, key)
	}
}

// reason is the message that a skipped test logged.
func reason(output string) string {
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			return line
		}
	}
	return "no reason given"
}

func (t *tally) fail(what string) {
	t.failed++
	t.names = append(t.names, what)
	fmt.Fprintf(t.w, "FAIL\t%s\n", what)
}

func (t *tally) summary() {
	for key, out := range t.output { // what a killed or panicking test left
		fmt.Fprintf(t.w, "unfinished: %s\n%s", key, out)
	}
	if len(t.slowest) > 0 {
		fmt.Fprintln(t.w, "\nslowest:")
	}
	for _, s := range t.slowest {
		fmt.Fprintf(t.w, "%7.1f s  %s\n", s.seconds, s.test)
	}
	if len(t.names) > 0 {
		fmt.Fprintf(t.w, "\nfailed:\n  %s\n", strings.Join(t.names, "\n  "))
	}
	fmt.Fprintf(t.w, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
