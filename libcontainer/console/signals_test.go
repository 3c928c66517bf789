package console

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// receiver is a process that prints the name of each signal it gets.
func receiver(t *testing.T, names ...string) (pidfd int, lines *bufio.Scanner) {
	t.Helper()
	script := "trap : URG CHLD WINCH\n"
	for _, n := range names {
		script += "trap 'echo " + n + "' " + n + "\n"
	}
	script += "echo ready\nwhile :; do sleep 0.02; done\n"
	cmd := exec.Command("/bin/sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); unix.Close(fd) })
	lines = bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatal(lines.Text(), lines.Err())
	}
	time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	return fd, lines
}

func TestForward(t *testing.T) {
	s, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	defer signal.Reset()
	// Before there is a process: held back, not lost.
	self := unix.Getpid()
	unix.Kill(self, unix.SIGTERM)
	fd, lines := receiver(t, "TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "CONT", "TSTP")
	s.Forward(fd)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("got %q, want %q (%v)", lines.Text(), want, lines.Err())
		}
	}
	expect("TERM")
	time.Sleep(restDelay / 2) // until the requests are caught
	for _, sig := range []struct {
		n    unix.Signal
		name string
	}{{unix.SIGINT, "INT"}, {unix.SIGQUIT, "QUIT"}, {unix.SIGUSR1, "USR1"}, {unix.SIGCONT, "CONT"}, {unix.SIGTSTP, "TSTP"}} {
		// These are not passed on: none may show up in between.
		for _, other := range []unix.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH} {
			unix.Kill(self, other)
		}
		unix.Kill(self, sig.n)
		expect(sig.name)
	}
	s.Stop()
}

// The first signal is known, and FD readable, before anything is passed on; and the
// process that Go forks does not inherit how it is handled.
func TestF11Caught(t *testing.T) {
	s, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if sig := s.Caught(); sig != 0 {
		t.Fatalf("caught %v before there was any", sig)
	}
	// Or the second would be the last.
	s.catch(endings[:], false)
	var senders sync.WaitGroup
	for i := range 1000 {
		// From other threads, while memory is allocated and goroutines are preempted.
		senders.Go(func() {
			unix.Kill(unix.Getpid(), endings[i%len(endings)])
			_ = make([]byte, i*16)
		})
	}
	senders.Wait()
	p := []unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}
	for n := 0; n != 1; {
		if n, err = unix.Poll(p, 20000); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
	if sig := s.Caught(); !slices.Contains(endings[:], sig) || s.Caught() != sig {
		t.Errorf("caught %v", sig)
	}
	out, err := exec.Command("/bin/sh", "-c", "grep SigCgt /proc/$$/status; kill -TERM $$").Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Errorf("the child has not died of SIGTERM: %q, %v", out, err)
	}
}

// The signals that are caught last are passed on too.
func TestForwardRest(t *testing.T) {
	s, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	defer signal.Reset()
	fd, lines := receiver(t, "RTMIN+3")
	s.Forward(fd)
	defer s.Stop()
	time.Sleep(5 * restDelay)
	unix.Kill(unix.Getpid(), 37)
	if !lines.Scan() || lines.Text() != "RTMIN+3" {
		t.Fatalf("got %q (%v)", lines.Text(), lines.Err())
	}
}

func TestForwardToDeadProcess(t *testing.T) {
	cmd := exec.Command("/bin/true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	cmd.Wait()
	s, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	s.Forward(fd)
	unix.Kill(unix.Getpid(), unix.SIGTERM)
	time.Sleep(50 * time.Millisecond)
	s.Stop()
}

// What must not be caught: job control of the terminal, SIGPIPE, SIGCHLD ...
func TestCatchSet(t *testing.T) {
	caught := func() string {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "SigIgn:\t")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	before := caught()
	s, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	s.catch(requests[:], false)
	for _, n := range rest() {
		s.notify(n)
	}
	for _, n := range []unix.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH} {
		unix.Kill(unix.Getpid(), n)
	}
	time.Sleep(100 * time.Millisecond)
	if sig := s.Caught(); sig != 0 {
		t.Error("caught", sig)
	}
	s.Stop()
	if after := caught(); after != before {
		t.Errorf("ignored signals %s before, %s after", before, after)
	}
}
