package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// commands are what a round measures, in the order of a container's life.
var commands = []string{"run", "create", "state", "start", "exec", "events", "update", "kill", "delete"}

func sections() string { return strings.Join(commands, ", ") + ", limits, growth, memory, init" }

const warmUp = 2 // rounds that are not counted, and say why a command fails

var errInterrupted = errors.New("interrupted")

// exec runs a command of a runtime and returns its wall time, from before the
// fork until its end is known. No shell is between, and nothing but this happens.
func (b *bench) exec(r *runtime, stderr *os.File, args ...string) (time.Duration, error) {
	argv := append(append([]string{r.path}, r.global...), args...)
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []uintptr{b.null.Fd(), b.null.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Chroot: r.root},
	}
	var status syscall.WaitStatus
	start := time.Now()
	pid, err := syscall.ForkExec(r.path, argv, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", r.path, err)
	}
	for {
		if _, err = syscall.Wait4(pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("wait for %s: %w", r.path, err)
	}
	if status != 0 {
		said, _ := os.ReadFile(b.log.Name())
		return 0, fmt.Errorf("%s %s: status %#x\n%s", r.name, strings.Join(args, " "), int(status), said)
	}
	return took, nil
}

// turn is the runtime that is the i-th of a round. Each comes equally often at each place, and within rounds equally
// often after each of the others: the kernel takes down what one has left while the next is at work, and
// after runc that is more.
func (b *bench) turn(round, i int) *runtime {
	n := len(b.runtimes)
	if round/n%2 == 1 { // backwards
		i = n - 1 - i
	}
	return b.runtimes[(i+round)%n]
}

// rounds measures commands: each round all of them with each runtime, in turns.
func (b *bench) rounds(rep *report) error {
	for round := -warmUp; round < b.options.rounds; round++ {
		for i := range b.runtimes {
			r := b.turn(round+warmUp, i)
			times, err := b.life(r, round < 0)
			if err != nil {
				return err
			}
			if round >= 0 {
				rep.add(r.name, times)
			}
		}
		progress("round", round+1, b.options.rounds)
	}
	return nil
}

// life takes one container through all commands and returns their times.
func (b *bench) life(r *runtime, warm bool) (map[string]time.Duration, error) {
	times := map[string]time.Duration{}
	stderr := b.null
	if warm {
		stderr = b.log
	}
	do := func(name string, args ...string) error {
		if b.interrupted.Load() {
			return errInterrupted
		}
		took, err := b.exec(r, stderr, append([]string{name}, args...)...)
		if b.only.MatchString(name) {
			times[name] = took
		}
		return err
	}
	if b.wants("run") {
		if err := do("run", "--bundle", b.runBundle, "bench-run"); err != nil {
			return nil, err
		}
	}
	if !b.wants(commands[1:]...) {
		return times, nil
	}
	const id = "bench"
	pidFile := filepath.Join(r.state, "..", "pid-"+r.name)
	r.alive = []string{id}
	if err := do("create", "--bundle", b.sleepBundle, "--pid-file", pidFile, id); err != nil {
		return nil, err
	}
	pid, err := readInt(pidFile)
	if err != nil {
		return nil, err
	}
	if err := do("start", id); err != nil {
		return nil, err
	}
	if err := do("state", id); err != nil {
		return nil, err
	}
	if b.wants("exec") {
		if err := do("exec", id, "/bin/true"); err != nil {
			return nil, err
		}
	}
	if b.wants("events") && r.name != "crun" { // it has none
		if err := do("events", "--stats", id); err != nil {
			return nil, err
		}
	}
	if b.wants("update") {
		if err := do("update", "--resources", b.limitsFile, id); err != nil {
			return nil, err
		}
	}
	if err := do("kill", id, "KILL"); err != nil {
		return nil, err
	}
	if err := reap(pid); err != nil {
		return nil, err
	}
	if err := do("delete", id); err != nil {
		return nil, err
	}
	r.alive = nil
	return times, nil
}

// reap waits for a container's init, whose parent the bench became.
func reap(pid int) error {
	for {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for init %d: %w", pid, err)
		}
		return nil
	}
}

// limits measures create without resources and with all of those that the lane has.
func (b *bench) limits(rep *report) error {
	const id = "bench-limits"
	all := map[string]map[bool][]time.Duration{}
	for _, r := range b.runtimes {
		all[r.name] = map[bool][]time.Duration{}
	}
	for round := -warmUp; round < b.options.rounds; round++ {
		for _, r := range b.runtimes {
			for i := range 2 {
				if b.interrupted.Load() {
					return errInterrupted
				}
				limited := (i+round)%2 == 0
				bundle := b.sleepBundle
				if limited {
					bundle = b.limitBundle
				}
				r.alive = []string{id}
				took, err := b.exec(r, b.log, "create", "--bundle", bundle, id)
				if err != nil {
					return err
				}
				if _, err := b.exec(r, b.log, "delete", "--force", id); err != nil {
					return err
				}
				r.alive = nil
				if round >= 0 {
					all[r.name][limited] = append(all[r.name][limited], took)
				}
			}
		}
		progress("round", round+1, b.options.rounds)
	}
	for name, times := range all {
		rep.setLimits(name, growth{Alone: summarise(times[false]), With: summarise(times[true])})
	}
	return nil
}

// growth measures run without and with other containers of the same runtime.
func (b *bench) growth(rep *report) error {
	for _, r := range b.runtimes {
		var g growth
		for _, others := range []int{0, b.others} {
			for i := range others {
				id := "bench-" + strconv.Itoa(i)
				r.alive = append(r.alive, id)
				if _, err := b.exec(r, b.log, "run", "--detach", "--bundle", b.sleepBundle, id); err != nil {
					return err
				}
			}
			var times []time.Duration
			for range b.options.rounds {
				if b.interrupted.Load() {
					return errInterrupted
				}
				took, err := b.exec(r, b.null, "run", "--bundle", b.runBundle, "bench-run")
				if err != nil {
					return err
				}
				times = append(times, took)
			}
			if others == 0 {
				g.Alone = summarise(times)
			} else {
				g.With = summarise(times)
			}
		}
		rep.setGrowth(r.name, g)
		for i, id := range r.alive {
			if _, err := b.exec(r, b.log, "delete", "--force", id); err != nil {
				r.alive = r.alive[i:]
				return err
			}
		}
		r.alive = nil
	}
	return nil
}

// memory measures the peak of `run` and what a container that waits for start holds.
func (b *bench) memory(rep *report) error {
	for _, r := range b.runtimes {
		var m memory
		var err error
		if m.RunPeak, err = b.peak(r); err != nil {
			return err
		}
		const id = "bench-memory"
		pidFile := filepath.Join(r.state, "..", "pid-"+r.name)
		r.alive = []string{id}
		if _, err := b.exec(r, b.log, "create", "--bundle", b.sleepBundle, "--pid-file", pidFile, id); err != nil {
			return err
		}
		pid, err := readInt(pidFile)
		if err != nil {
			return err
		}
		if m.CreatedPeak, err = procStatus(pid, "VmHWM:"); err != nil {
			return err
		}
		if m.CreatedNow, err = procStatus(pid, "VmRSS:"); err != nil {
			return err
		}
		if _, err := b.exec(r, b.log, "delete", "--force", id); err != nil {
			return err
		}
		r.alive = nil
		rep.setMemory(r.name, m)
	}
	return nil
}

// peak is the largest resident set of one `run` in KiB. time(1) is the parent,
// for the kernel counts in what the parent of a vfork has at the exec, and the
// bench is larger than what it measures.
func (b *bench) peak(r *runtime) (int, error) {
	out := filepath.Join(r.state, "..", "peak-"+r.name)
	args := []string{"-f", "%M", "-o", out}
	if r.root != "" {
		args = append(args, "chroot", r.root)
	}
	args = append(append(args, r.path), r.global...)
	args = append(args, "run", "--bundle", b.runBundle, "bench-run")
	if said, err := exec.Command("/usr/bin/time", args...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("measure memory of %s run: %w: %s", r.name, err, said)
	}
	return readInt(out)
}

// initialisers sums what the package initialisers of rt take; of the peers runc is
// a Go program too, but the number says nothing about how it compares.
func (b *bench) initialisers(rep *report) error {
	for range 11 {
		cmd := exec.Command(b.rt, "--version")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		var trace strings.Builder
		cmd.Stdout, cmd.Stderr = io.Discard, &trace
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("trace initialisers of rt: %w", err)
		}
		took, err := sumInits(trace.String())
		if err != nil {
			return err
		}
		rep.inits = append(rep.inits, took)
	}
	rep.Init = summarise(rep.inits)
	return nil
}

// sumInits adds up lines like "init time @0.02 ms, 0.01 ms clock, 3 bytes, 1 allocs".
func sumInits(trace string) (time.Duration, error) {
	var sum time.Duration
	for line := range strings.Lines(trace) {
		if !strings.HasPrefix(line, "init ") {
			continue
		}
		fields := strings.Split(line, ", ")
		if len(fields) < 2 {
			return 0, fmt.Errorf("read init trace: unexpected line %q", line)
		}
		ms, err := strconv.ParseFloat(strings.TrimSuffix(fields[1], " ms clock"), 64)
		if err != nil {
			return 0, fmt.Errorf("read init trace: unexpected line %q", line)
		}
		sum += time.Duration(ms * float64(time.Millisecond))
	}
	return sum, nil
}

func readInt(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// procStatus is a size in KiB from /proc/PID/status.
func procStatus(pid int, key string) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
		}
	}
	return 0, fmt.Errorf("read /proc/%d/status: no %s", pid, key)
}

func progress(what string, n, of int) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r%s %d of %d ", what, n, of)
		if n == of {
			fmt.Fprint(os.Stderr, "\r\033[K")
		}
	}
}
