package console

import (
	"bufio"
	"os"
	"os/exec"
	"os/signal"
	"strings"
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
	s := Catch()
	defer signal.Reset()
	s.Ready()
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

// The signals that are caught last are passed on too.
func TestForwardRest(t *testing.T) {
	s := Catch()
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
	s := Catch()
	s.Ready()
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
	s := Catch()
	s.Ready()
	s.catch(requests[:])
	s.catch(rest())
	for _, n := range []unix.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH} {
		unix.Kill(unix.Getpid(), n)
	}
	time.Sleep(100 * time.Millisecond)
	select {
	case sig := <-s.c:
		t.Error("caught", sig)
	default:
	}
	s.Stop()
	if after := caught(); after != before {
		t.Errorf("ignored signals %s before, %s after", before, after)
	}
}
