package fault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rt/integration/ground"
)

// quiet is a container that CRIU can take along: it has no file of the tests' open.
var quiet = spec{args: []string{"sh", "-c", "exec sleep 1000 </dev/null >/dev/null 2>&1"}}

// criu is the directory of a program criu, which a test may put in the place of the real one.
func (b *box) criu() string {
	b.t.Helper()
	return ground.NeedCRIU(b.t, "../lanes")
}

// wrapped makes a criu that is a script in front of the real one, and returns its directory.
func (b *box) wrapped(script string) string {
	b.t.Helper()
	real := b.criu()
	dir := b.path("bin")
	b.must(os.MkdirAll(dir, 0o755))
	b.must(ground.WriteProgram(filepath.Join(dir, "criu"), "#!/bin/sh\n"+script+"\nexec "+real+"/criu \"$@\"\n"))
	return dir
}

// images runs checkpoint or restore with the criu of a directory, a fault and one second of patience with it.
func (b *box) images(dir, fault string, args ...string) *process {
	b.t.Helper()
	env := []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "RT_FAULT=" + fault, "RT_FAULT_WAIT=1"}
	at := []string{"--root", b.root, args[0], "--image-path", b.path("images")}
	return command(faultBin, b.dir, env, 0, slices.Concat(at, args[1:])...)
}

// checkpointed makes images of a container, which is gone then.
func (b *box) checkpointed() {
	b.t.Helper()
	b.start()
	if r := b.images(b.criu(), "", "checkpoint", b.id).end(b.t); r.code != 0 {
		b.t.Fatal(r)
	}
	b.clean()
}

// restored checks that the container can be restored, and removes it.
func (b *box) restored() {
	b.t.Helper()
	if r := b.images(b.criu(), "", "restore", "-d", b.id).end(b.t); r.code != 0 {
		b.t.Fatal(r)
	}
	b.is("running")
	b.ok("delete", "--force", b.id)
	b.clean()
}

// A checkpoint that is killed leaves a container that goes on, or one that has stopped, and no images that
// look complete before they are.
func TestF08CheckpointKilled(t *testing.T) {
	for _, point := range pointsOf(t, "checkpoint.") {
		for _, leave := range []bool{false, true} {
			t.Run(fmt.Sprint(point, " leave running ", leave), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, quiet)
				dir := b.criu()
				pid := b.start()
				args := []string{"checkpoint", b.id}
				if leave {
					args = append(args, "--leave-running")
				}
				r := b.images(dir, point+":kill", args...).end(t)
				if leave && point == "checkpoint.done" {
					if r.code != 0 {
						t.Fatal(r) // there is nothing more to do
					}
				} else {
					r.killed(t)
				}
				if leave || point != "checkpoint.done" {
					b.alone(pid)
					b.ok("exec", b.id, "true")
				} else {
					b.is("stopped")
				}
				b.ok("delete", "--force", b.id)
				b.clean()
				b.must(eventually(limit, b.noCRIU))
				if point == "checkpoint.done" {
					b.restored()
				} else {
					b.images(dir, "", "restore", b.id).end(t).failed(t, "not a complete checkpoint")
				}
			})
		}
	}
}

// noCRIU is an error that names a process which is at work in the directory of the images. Nobody would know of it.
func (b *box) noCRIU() error {
	list, err := filepath.Glob("/proc/[0-9]*/cwd")
	b.must(err)
	for _, cwd := range list {
		if dir, err := os.Readlink(cwd); err == nil && strings.HasPrefix(dir, b.path("images")) {
			return fmt.Errorf("left: %s in %s", cwd, dir)
		}
	}
	return nil
}

// broken says whether the container has ended with a CRIU that was killed: for moments that has put instructions of its own
// in the place of a process's, and nobody puts these back.
func (b *box) broken() bool {
	b.t.Helper()
	if b.state().Status != "stopped" {
		return false
	}
	b.t.Log("CRIU was killed while the process had its code")
	return true
}

// When CRIU is killed at work the container goes on, and is not left frozen.
func TestF08CRIUKilled(t *testing.T) {
	failed, broken := 0, 0
	for n := range 9 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			b := newBox(t, quiet)
			dir := b.wrapped(fmt.Sprintf("(sleep 0.0%d; kill -KILL $$) &", n))
			pid := b.start()
			r := b.images(dir, "", "checkpoint", b.id).end(t)
			if r.code == 0 { // it was faster, or came as far as to end the processes
				b.clean()
				b.restored()
				return
			}
			failed++
			r.failed(t, "CRIU ended without an answer")
			b.must(eventually(limit, b.noCRIU))
			if b.broken() {
				broken++
				return
			}
			b.is("running")
			b.alone(pid)
			b.ok("exec", b.id, "true")
			b.ok("kill", b.id, "KILL")
			b.is("stopped")
		})
	}
	if failed == 0 && !t.Skipped() {
		t.Error("CRIU was always faster")
	}
	if broken > failed/2 {
		t.Errorf("%d of %d containers have ended", broken, failed)
	}
}

// A checkpoint that is interrupted while the container's network is shut leaves it open.
func TestF11CheckpointInterrupted(t *testing.T) {
	for _, sig := range asked {
		t.Run(sig.String(), func(t *testing.T) {
			// A file that CRIU packs for a while, with the network shut.
			b := newBox(t, spec{args: []string{"sh", "-c", "exec </dev/null >/dev/null 2>&1; dd if=/dev/zero of=/dev/big bs=1M count=200; exec sleep 1000"}})
			dir := b.criu()
			pid := b.start()
			b.must(eventually(limit, func() error {
				if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(name) != "sleep\n" {
					return fmt.Errorf("the file is not written: %s", name)
				}
				return nil
			}))
			before := rules(t, pid)
			p := b.images(dir, "", "checkpoint", b.id)
			b.must(eventually(limit, func() error {
				if rules(t, pid) == before {
					return fmt.Errorf("the network is not shut")
				}
				return nil
			}))
			p.signal(sig)
			p.end(t).interrupted(t, sig)
			b.must(eventually(limit, b.noCRIU))
			b.alone(pid)
			if after := rules(t, pid); after != before {
				t.Errorf("rules of the packet filter:\n%sbefore:\n%s", after, before)
			}
			b.ok("exec", b.id, "true")
		})
	}
}

// rules are those of the packet filters in a network namespace.
func rules(t *testing.T, pid int) string {
	t.Helper()
	var all string
	for _, tool := range []string{"iptables-save", "ip6tables-save"} {
		out, err := exec.Command("nsenter", "-t", fmt.Sprint(pid), "-n", tool).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", tool, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.HasPrefix(line, "-") {
				all += line
			}
		}
	}
	return all
}

// A restore that is killed leaves what delete --force removes, and the images as they were.
func TestF09RestoreKilled(t *testing.T) {
	points := slices.DeleteFunc(pointsOf(t, "create.", "parent.", "restore."), func(p string) bool {
		// Those are create's, or of user namespaces.
		return slices.Contains([]string{"create.fifos", "create.state", "create.pidfile", "create.done", "parent.maps"}, p)
	})
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, spec{args: quiet.args, hooks: map[string]string{"createRuntime": ":"}})
			b.checkpointed()
			b.images(b.criu(), point+":kill", "restore", "-d", b.id).end(t).killed(t)
			if point != "restore.done" {
				// Nobody has told CRIU to let them go, or it was too early.
				b.gone(3 * time.Second)
			}
			b.ok("delete", "--force", b.id)
			b.clean()
			b.restored()
		})
	}
}

// A CRIU that is killed at work leaves nothing.
func TestF09CRIUKilled(t *testing.T) {
	failed := 0
	for n := range 8 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			b := newBox(t, quiet)
			b.checkpointed()
			dir := b.wrapped(fmt.Sprintf("(sleep 0.0%d; kill -KILL $$) &", n))
			r := b.images(dir, "", "restore", "-d", b.id).end(t)
			if r.code == 0 {
				return // it was faster
			}
			failed++
			r.failed(t, "CRIU ended without an answer")
			b.clean()
			b.restored()
		})
	}
	if failed == 0 && !t.Skipped() {
		t.Error("CRIU was always faster")
	}
}

// A CRIU that stops, at once or at work, is killed after a deadline: a checkpoint lets the container go on, a restore
// leaves nothing.
func TestF10CRIUStops(t *testing.T) {
	for _, when := range []string{"", "sleep 0.02;", "sleep 0.05;", "sleep 0.1;"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, quiet)
			stop := b.wrapped("kill -STOP $$")
			if when != "" {
				stop = b.wrapped("(" + when + " kill -STOP $$) &")
			}
			silent := func(r result) bool {
				t.Helper()
				if r.code == 0 && when != "" {
					return false // it was faster
				}
				r.failed(t, "CRIU does not get on: no progress for 1s")
				if r.took > 15*time.Second {
					t.Error(r)
				}
				return true
			}
			pid := b.start()
			if silent(b.images(stop, "", "checkpoint", b.id).end(t)) {
				b.must(eventually(limit, b.noCRIU))
				if when == "" || !b.broken() {
					b.is("running")
					b.alone(pid)
					b.ok("exec", b.id, "true")
				}
				b.ok("delete", "--force", b.id)
				b.clean()
				b.checkpointed()
			}
			if silent(b.images(stop, "", "restore", "-d", b.id).end(t)) {
				b.clean()
			} else {
				b.ok("delete", "--force", b.id)
			}
			b.restored()
		})
	}
}

// Signals that ask a restore to end have it undo what it has done.
func TestF11RestoreInterrupted(t *testing.T) {
	for i, point := range pointsOf(t, "restore.criu", "restore.verified", "create.hooks") {
		sig := asked[i%len(asked)]
		t.Run(fmt.Sprint(point, " ", sig), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, spec{args: quiet.args, hooks: map[string]string{"createRuntime": ":"}})
			b.checkpointed()
			p := b.images(b.criu(), point+":stop", "restore", "-d", "--pid-file", "pid", b.id)
			stopped(t, p)
			p.signal(sig)
			p.signal(syscall.SIGCONT)
			p.end(t).interrupted(t, sig)
			b.clean()
			if _, err := os.Lstat(b.path("pid")); err == nil {
				t.Error("the pid file is there")
			}
			b.restored()
		})
	}
}
