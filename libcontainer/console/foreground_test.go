package console

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// pty returns both ends of a new pseudo terminal.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("open /dev/ptmx:", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	master, slave = os.NewFile(uintptr(fd), "master"), os.NewFile(n, "slave")
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

// dup returns a descriptor of f for Start to own.
func dup(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	v, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *v
}

// rig is a Foreground between a terminal of the caller's, on callerTTY, with
// pipes in the place of standard input and output, and a container's terminal.
type rig struct {
	f          *Foreground
	caller     *os.File // the user's side of the caller's terminal
	callerTTY  *os.File
	stdin      *os.File // what the user types
	stdout     *os.File // what the user sees
	stdoutEnd  *os.File
	slave      *os.File // the container's side
	wasTermios unix.Termios
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := new(rig)
	r.caller, r.callerTTY = pty(t)
	if err := unix.IoctlSetWinsize(int(r.caller.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
		t.Fatal(err)
	}
	r.wasTermios = termios(t, r.callerTTY)
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stdin, r.stdout, r.stdoutEnd = inW, outR, outW
	t.Cleanup(func() { inR.Close(); inW.Close(); outR.Close(); outW.Close() })
	c, err := console.ConsoleFromFile(r.callerTTY)
	if err != nil {
		t.Fatal(err)
	}
	r.f = &Foreground{tty: c, in: int(inR.Fd()), out: int(outW.Fd()), ptmx: -1, stop: -1}
	master, slave := pty(t)
	r.slave = slave
	if err := r.f.Start(dup(t, master)); err != nil {
		t.Fatal(err)
	}
	master.Close()
	t.Cleanup(func() { r.f.Close() })
	return r
}

func (r *rig) size(t *testing.T) [2]uint16 {
	t.Helper()
	ws, err := unix.IoctlGetWinsize(int(r.slave.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		t.Fatal(err)
	}
	return [2]uint16{ws.Row, ws.Col}
}

func TestForegroundCopies(t *testing.T) {
	r := newRig(t)
	if raw := termios(t, r.callerTTY); raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
		t.Error("the caller's terminal is not raw")
	}
	if got := r.size(t); got != [2]uint16{33, 77} {
		t.Error("first size", got)
	}
	r.stdin.WriteString("typed\n")
	buf := make([]byte, 100)
	n, err := r.slave.Read(buf)
	if string(buf[:n]) != "typed\n" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	r.slave.WriteString("seen\n")
	// The echo comes first; ONLCR is off.
	want := "typed\nseen\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r.stdout, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v", got, err)
	}
	unix.IoctlSetWinsize(int(r.caller.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 6})
	unix.Kill(unix.Getpid(), unix.SIGWINCH)
	for i := 0; r.size(t) != [2]uint16{5, 6}; i++ {
		if i == 200 {
			t.Fatal("size after SIGWINCH", r.size(t))
		}
		time.Sleep(10 * time.Millisecond)
	}
	for range 2 {
		if err := r.f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if termios(t, r.callerTTY) != r.wasTermios {
		t.Error("the caller's terminal is not restored")
	}
}

// All that was written before the end arrives, whether the container's side is
// closed then or still open somewhere.
func TestForegroundDrains(t *testing.T) {
	for _, open := range []bool{false, true} {
		for range 30 {
			r := newRig(t)
			want := strings.Repeat("0123456789abcdef\n", 8192)
			got := make(chan string)
			go func() {
				b, _ := io.ReadAll(r.stdout)
				got <- string(b)
			}()
			if _, err := r.slave.WriteString(want); err != nil {
				t.Fatal(err)
			}
			if !open {
				r.slave.Close()
			}
			begin := time.Now()
			if err := r.f.Close(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 2*time.Second {
				t.Error("close took", took)
			}
			r.stdoutEnd.Close()
			if s := <-got; s != want {
				t.Fatalf("open %v: %d of %d bytes", open, len(s), len(want))
			}
			r.slave.Close()
		}
	}
}

// What comes together with the end is not lost.
func TestForegroundLastWords(t *testing.T) {
	for i := range 300 {
		r := newRig(t)
		time.Sleep(time.Millisecond) // until the copying waits
		r.slave.WriteString("bye")
		if err := r.f.Close(); err != nil {
			t.Fatal(err)
		}
		r.stdoutEnd.Close()
		if b, err := io.ReadAll(r.stdout); string(b) != "bye" || err != nil {
			t.Fatalf("round %d: %q, %v", i, b, err)
		}
		r.slave.Close()
		r.caller.Close()
		r.callerTTY.Close()
	}
}

// An init that closes its terminal and opens it again (/dev/console) goes on.
func TestForegroundReopened(t *testing.T) {
	r := newRig(t)
	r.slave.Close()
	time.Sleep(3 * reopenPause * time.Millisecond)
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(r.f.ptmx), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	unix.Write(int(fd), []byte("again"))
	buf := make([]byte, 5)
	if _, err := io.ReadFull(r.stdout, buf); err != nil || string(buf) != "again" {
		t.Fatalf("%q, %v", buf, err)
	}
	unix.Close(int(fd))
	if err := r.f.Close(); err != nil {
		t.Fatal(err)
	}
}

// A standard output that nobody reads any more must not block the container.
func TestForegroundLosesOutput(t *testing.T) {
	r := newRig(t)
	r.stdout.Close()
	done := make(chan error)
	go func() {
		_, err := r.slave.Write(bytes.Repeat([]byte("x\n"), 1<<19))
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the container's write blocks")
	}
}

// F5: restored on errors as well, and nothing is left open.
func TestForegroundStartFails(t *testing.T) {
	before, _ := os.ReadDir("/proc/self/fd")
	_, tty := pty(t)
	was := termios(t, tty)
	c, err := console.ConsoleFromFile(tty)
	if err != nil {
		t.Fatal(err)
	}
	f := &Foreground{tty: c, ptmx: -1, stop: -1}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(null); err == nil {
		t.Fatal("started on /dev/null")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if termios(t, tty) != was {
		t.Error("the terminal is not restored")
	}
	after, _ := os.ReadDir("/proc/self/fd")
	if len(after) != len(before)+2 { // the pty
		t.Errorf("%d descriptors before, %d after", len(before), len(after))
	}
}

func TestOpenFindsTerminal(t *testing.T) {
	for _, c := range []struct{ name, redirect, want string }{
		{"all three", "", "found"},
		{"input only", ">OUT 2>&1", "found"},
		{"none but /dev/tty", "</dev/null >OUT 2>&1", "found"},
		{"no terminal at all", "</dev/null >OUT 2>&1 setsid", "find a terminal: descriptors 0 to 2 are none, and open /dev/tty: no such device or address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			master, slave := pty(t)
			out := filepath.Join(t.TempDir(), "out")
			res := out + ".result"
			redirect, setsid := strings.CutSuffix(strings.ReplaceAll(c.redirect, "OUT", out), " setsid")
			run := `"$EXE"`
			if setsid {
				run = "setsid -w " + run
			}
			exe, _ := os.Executable()
			cmd := exec.Command("/bin/sh", "-c", run+" "+redirect+"; true")
			cmd.Env = append(os.Environ(), "CONSOLE_TEST_OPEN="+res, "EXE="+exe)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, master)
			cmd.Wait()
			b, err := os.ReadFile(res)
			if string(b) != c.want {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

func TestMain(m *testing.M) {
	if res := os.Getenv("CONSOLE_TEST_OPEN"); res != "" {
		text := "found"
		f, err := Open()
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			text = err.Error()
		}
		os.WriteFile(res, []byte(text), 0o600)
		os.Exit(0)
	}
	os.Exit(m.Run())
}
