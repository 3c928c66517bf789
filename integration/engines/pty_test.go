package engines

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a program that runs on a pseudo terminal of its own.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	ptmx *os.File
	done chan struct{} // closed once all output is read

	mu  sync.Mutex
	out bytes.Buffer
}

// startTerminal starts cmd with a new pseudo terminal of that size as its
// controlling terminal and standard streams.
func startTerminal(t *testing.T, cmd *exec.Cmd, rows, cols uint16) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ptmx.Close() })
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(ptmx.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}
	if err != nil {
		t.Fatalf("set up pseudo terminal: %v", err)
	}
	peer, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = peer, peer, peer
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, ptmx: ptmx, done: make(chan struct{})}
	go func() {
		defer close(term.done)
		b := make([]byte, 4096)
		for {
			n, err := ptmx.Read(b)
			term.mu.Lock()
			term.out.Write(b[:n])
			term.mu.Unlock()
			if err != nil { // EIO: the last descriptor of the peer is closed
				return
			}
		}
	}()
	return term
}

// output returns what the terminal has shown until now, without carriage
// returns: ctr leaves output processing on, so that there are two for a line.
func (term *terminal) output() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return strings.ReplaceAll(term.out.String(), "\r", "")
}

// send types s.
func (term *terminal) send(s string) {
	term.t.Helper()
	if _, err := term.ptmx.WriteString(s); err != nil {
		term.t.Errorf("type %q: %v", s, err)
	}
}

// expect waits until the output holds want.
func (term *terminal) expect(want string) {
	term.t.Helper()
	if !eventually(10*time.Second, func() bool { return strings.Contains(term.output(), want) }) {
		term.t.Errorf("terminal shows %q, want %q in it", term.output(), want)
	}
}

// wait returns the program's exit code.
func (term *terminal) wait() int {
	term.t.Helper()
	late := time.AfterFunc(time.Minute, func() { term.cmd.Process.Kill() })
	err := term.cmd.Wait()
	if !late.Stop() {
		term.t.Errorf("not done after a minute; terminal shows %q", term.output())
	}
	select {
	case <-term.done:
	case <-time.After(10 * time.Second):
		term.t.Errorf("terminal is still open after its program has ended")
	}
	if term.cmd.ProcessState == nil {
		term.t.Fatal(err)
	}
	return term.cmd.ProcessState.ExitCode()
}

// eventually polls until cond holds, and says whether it did within limit.
func eventually(limit time.Duration, cond func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}
