package integration

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rt/integration/ground"

	"golang.org/x/sys/unix"
)

// needCRIU makes b's commands find CRIU.
func (b *box) needCRIU() {
	b.t.Helper()
	b.env = append(b.env, "PATH="+ground.NeedCRIU(b.t, "lanes")+":"+os.Getenv("PATH"))
}

// counter is a program that counts in its memory alone, and prints the numbers.
const counter = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"

// numbers reads what a counter prints.
type numbers struct {
	t    *testing.T
	r    *os.File
	scan *bufio.Scanner
	text string // the last line that is none
}

// piped starts rt with a pipe for output, as engines do: a file of the test's would be none that the container knows.
func (b *box) piped(args ...string) (*process, *numbers) {
	b.t.Helper()
	r, w, err := os.Pipe()
	b.must(err)
	b.t.Cleanup(func() { r.Close() })
	p := b.command(append([]string{b.bin, "--root", b.root}, args...)...)
	p.cmd.Stdout = w
	p.start()
	w.Close()
	return p, &numbers{t: b.t, r: r, scan: bufio.NewScanner(r)}
}

// counts starts the container, a counter, and waits until it counts.
func (b *box) counts() *numbers {
	b.t.Helper()
	p, n := b.piped("run", "-d", b.id)
	if r := p.end(); r.code != 0 {
		b.t.Fatal(r)
	}
	n.next()
	return n
}

// next is the next number.
func (n *numbers) next() int {
	n.t.Helper()
	n.r.SetReadDeadline(time.Now().Add(limit / 2))
	for n.scan.Scan() {
		if i, err := strconv.Atoi(n.scan.Text()); err == nil {
			return i
		}
	}
	n.t.Fatalf("no number: %v, then %q", n.scan.Err(), n.scan.Text())
	return 0
}

// last reads all there is, until the container has ended.
func (n *numbers) last() (last int) {
	n.t.Helper()
	n.r.SetReadDeadline(time.Now().Add(limit / 2))
	for n.scan.Scan() {
		if i, err := strconv.Atoi(n.scan.Text()); err == nil {
			last = i
		} else {
			n.text = n.scan.Text()
		}
	}
	if err := n.scan.Err(); err != nil {
		n.t.Fatal(err)
	}
	return last
}

// checkpoint writes the box's container to images and expects it to be gone.
func (b *box) checkpoint(args ...string) {
	b.t.Helper()
	b.ok(slices.Concat([]string{"checkpoint", "--image-path", b.path("images")}, args, []string{b.id})...)
}

// errorsIn are the errors in a log of CRIU's, for messages.
func (b *box) errorsIn(log string) string {
	data, _ := os.ReadFile(b.path(log))
	var list []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, "Error") {
			list = append(list, line)
		}
	}
	return strings.Join(list, "")
}

// The names of its files are the container's to choose, and no reason to lose it.
func TestCheckpointOfOddNames(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("exec 0<>\"$(printf '/tmp/\\377')\"; "+counter))
	b.needCRIU()
	b.counts()
	b.checkpoint()
	n := b.restores()
	n.next()
}

// With --leave-running the container goes on, paused if it was, and what was written can be restored nonetheless.
func TestCheckpointLeavesRunning(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(counter))
	b.needCRIU()
	n := b.counts()
	b.checkpoint("--leave-running", "--work-path", b.path("work"))
	if _, err := os.Stat(b.path("work/dump.log")); err != nil {
		t.Error(err)
	}
	for range 30 {
		n.next()
	}
	b.is("running")
	b.ok("pause", b.id)
	b.checkpoint("--leave-running")
	b.is("paused")
	b.ok("resume", b.id)
	last := 0
	for range 40 { // more than a pipe's worth of what came before
		last = n.next()
	}
	b.ok("delete", "--force", b.id)
	n = b.restores()
	if i := n.next(); i > last {
		t.Errorf("it goes on with %d, after the %d at which it was left running", i, last)
	}
	b.ok("delete", "--force", b.id)
}

// What cannot be done is said in a line, and changes nothing.
func TestCheckpointRefusals(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "1000"))
	b.needCRIU()
	images := b.path("images")
	b.ok("create", b.id)
	b.refused([]string{"Container cannot be checkpointed in created state"}, "checkpoint", "--image-path", images, b.id)
	b.ok("start", b.id)
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--empty-ns", "user"}, []string{"--empty-ns", `"user"`, "network"}},
		{[]string{"--manage-cgroups-mode", "none"}, []string{"Invalid manage-cgroups-mode value", `"none"`, "soft, full, strict and ignore"}},
		{[]string{"--parent-path", "/x"}, []string{"--parent-path", "relative"}},
		{[]string{"--parent-path", "../none"}, []string{"--parent-path", "no such file"}},
		{[]string{"--page-server", "nowhere"}, []string{"Use --page-server ADDRESS:PORT", `"nowhere"`}},
		{[]string{"--status-fd", "77"}, []string{"--status-fd", "77", "bad file descriptor"}},
		{[]string{"--pre-dump", "--lazy-pages"}, []string{"exclude each other"}},
		{[]string{"--image-path", "/dev/null"}, []string{"--image-path", "not a directory"}},
	} {
		b.refused(c.words, append(append([]string{"checkpoint", "--image-path", images}, c.args...), b.id)...)
	}
	none := b.command("env", "PATH="+b.path("nothing"), b.bin, "--root", b.root, "checkpoint", "--image-path", images, b.id)
	none.start().end().refused(1, "find CRIU, which checkpoint and restore need", "not found in $PATH")
	b.is("running")
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	b.refused([]string{"Container cannot be checkpointed in stopped state"}, "checkpoint", "--image-path", images, b.id)
	b.ok("delete", b.id)

	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"--image-path", b.path("nowhere")}, []string{"--image-path", "no such file"}},
		{[]string{"--image-path", images}, []string{"descriptors.json", "not a complete checkpoint"}},
		{[]string{"--image-path", images, "--lsm-profile", "smack:x"}, []string{"--lsm-profile", `"smack:x"`, "apparmor:PROFILE"}},
		{[]string{"--image-path", images, "--rootless", "maybe"}, nil},
	} {
		if c.words != nil {
			b.refused(c.words, append(append([]string{"restore"}, c.args...), b.id)...)
		}
	}
	b.clean()
}

// A signal ends a checkpoint; the container goes on.
func TestCheckpointInterrupted(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(counter))
	b.needCRIU()
	n := b.counts()
	// A criu that does nothing, for as long as it is let.
	b.must(os.Mkdir(b.path("bin"), 0o755))
	b.must(os.WriteFile(b.path("bin/criu"), []byte("#!/bin/sh\necho >"+b.path("began")+" began; exec sleep 1000\n"), 0o755))
	p := b.command("env", "PATH="+b.path("bin")+":/usr/bin:/bin", b.bin, "--root", b.root, "checkpoint", "--image-path", b.path("images"), b.id).start()
	b.appears("began")
	p.signal(unix.SIGTERM)
	p.end().refused(143, "interrupted by signal")
	b.is("running")
	n.next()
}
