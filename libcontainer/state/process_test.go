package state

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// init of the child of TestFirstThreadEnds: main.main would be too late to be
// still on the first thread for sure.
func TestMain(m *testing.M) {
	if os.Getenv("STATE_TEST_FIRST_THREAD") != "" {
		go func() {
			buf := make([]byte, 1)
			os.Stdin.Read(buf)
			os.Exit(0)
		}()
		runtime.LockOSThread()
		fmt.Println("going")
		if unix.Gettid() == unix.Getpid() {
			syscall.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
		}
		fmt.Println("not the first thread")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestParseStat(t *testing.T) {
	tail := " 1 2 3 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 %s 0 %s 100 200 18446744073709551615 0"
	line := func(comm, state, threads, start string) string {
		return "42 (" + comm + ") " + state + fmt.Sprintf(tail, threads, start)
	}
	for _, c := range []struct {
		name, line string
		start      uint64
		dead, bad  bool
	}{
		{"plain", line("cat", "S", "1", "77"), 77, false, false},
		{"blank", line("a b", "R", "1", "78"), 78, false, false},
		{"parentheses", line(") Z 1 (x) R (", "S", "1", "79"), 79, false, false},
		{"newline", line("a\nb", "S", "1", "80"), 80, false, false},
		{"empty comm", line("", "D", "1", "81"), 81, false, false},
		{"zombie", line("cat", "Z", "1", "82"), 82, true, false},
		{"dead", line("cat", "X", "1", "83"), 83, true, false},
		{"first thread ended", line("cat", "Z", "3", "84"), 84, false, false},
		{"largest", line("cat", "S", "1", "18446744073709551615"), 1<<64 - 1, false, false},
		{"start no number", line("cat", "S", "1", "x"), 0, false, true},
		{"short", "42 (cat) S 1 2 3", 0, false, true},
		{"no parenthesis", "42 cat S 1 2 3", 0, false, true},
		{"empty", "", 0, false, true},
	} {
		start, dead, err := parseStat([]byte(c.line))
		if start != c.start || dead != c.dead || (err != nil) != c.bad {
			t.Errorf("%s: %d, %v, %v", c.name, start, dead, err)
		}
	}
}

// sleeper starts a process that lives until it is killed, and leaves reaping to
// the test.
func sleeper(t *testing.T) (*exec.Cmd, Identity) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	id, err := IdentityOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, id
}

func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		if _, err := StartTime(pid); errors.Is(err, ErrDead) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no zombie")
}

func TestS32Identity(t *testing.T) {
	cmd, id := sleeper(t)
	if id.Start == 0 || len(id.BootID) != 36 {
		t.Fatalf("%+v", id)
	}
	other := id
	other.Start++
	rebooted := id
	rebooted.BootID = "other"
	for _, c := range []struct {
		name  string
		id    Identity
		alive bool
	}{
		{"same", id, true},
		{"recycled pid", other, false},
		{"F35 another boot", rebooted, false},
		{"no pid", Identity{BootID: id.BootID}, false},
		{"negative pid", Identity{Pid: -1, BootID: id.BootID}, false},
		{"zero", Identity{}, false},
	} {
		if alive, err := c.id.Alive(); err != nil || alive != c.alive {
			t.Errorf("%s: %v, %v", c.name, alive, err)
		}
		fd, err := OpenPidfd(c.id)
		if (err == nil) != c.alive || (err != nil && !errors.Is(err, ErrDead)) {
			t.Errorf("%s: pidfd %d, %v", c.name, fd, err)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
	cmd.Process.Kill()
	awaitZombie(t, id.Pid) // F36
	if alive, err := id.Alive(); err != nil || alive {
		t.Error("a zombie is alive:", err)
	}
	if _, err := OpenPidfd(id); !errors.Is(err, ErrDead) {
		t.Error("a pidfd of a zombie:", err)
	}
	cmd.Wait()
	if alive, err := id.Alive(); err != nil || alive {
		t.Error("a reaped process is alive:", err)
	}
}

// A number outlives its process as that of a session or process group, and may be
// given to a thread: pidfd_open(2) then gives other errors than ESRCH.
func TestNumberOfNoProcess(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(child, syscall.SIGKILL)
	boot, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPidfd(Identity{cmd.Process.Pid, 1, boot}); !errors.Is(err, ErrDead) {
		t.Error("a pidfd of a session without its first process:", err)
	}
	// On a second thread; the first one's number is that of the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
	}()
	for _, n := range []int{unix.Gettid(), <-tid} {
		if n == unix.Getpid() {
			continue
		}
		if _, err := OpenPidfd(Identity{n, 1, boot}); !errors.Is(err, ErrDead) {
			t.Error("a pidfd of a thread:", err)
		}
	}
}

func TestFirstThreadEnds(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "STATE_TEST_FIRST_THREAD=1")
	in, _ := cmd.StdinPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	defer cmd.Process.Kill()
	stat := fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid)
	zombie := false
	for range 500 {
		b, _ := os.ReadFile(stat)
		if zombie = strings.Contains(string(b), ") Z "); zombie {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !zombie {
		t.Skip("the child's main was not on its first thread")
	}
	id, err := IdentityOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if alive, err := id.Alive(); err != nil || !alive {
		t.Fatal("dead though its other threads run:", err)
	}
	in.Write([]byte("x"))
	awaitZombie(t, id.Pid)
}

func TestStatus(t *testing.T) {
	d := reserve(t, testRoot(t), "c")
	if err := d.MakeFifos(); err != nil {
		t.Fatal(err)
	}
	cmd, id := sleeper(t)
	no := func() (bool, error) { return false, nil }
	yes := func() (bool, error) { return true, nil }
	bad := func() (bool, error) { return false, unix.EIO }
	check := func(name, want string, rec Record, frozen func() (bool, error)) {
		t.Helper()
		if got, err := Status(&rec, d, frozen); got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	live := Record{Init: id, Phase: PhaseCreated}
	check("gate without reader", StatusRunning, live, no)
	check("frozen", StatusPaused, live, yes)
	check("unreadable freezer", "", live, bad)
	check("being created", StatusCreating, Record{Init: id, Phase: PhaseCreating}, no)
	gate, err := d.OpenGate(unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(gate)
	check("gate with reader", StatusCreated, live, no)
	check("frozen at the gate", StatusPaused, live, yes)
	check("F35 another boot", StatusStopped, Record{Init: Identity{id.Pid, id.Start, "other"}}, bad)
	if s, err := IntentStatus(&Intent{Creator: id}); s != StatusCreating || err != nil {
		t.Error(s, err)
	}
	cmd.Process.Kill()
	awaitZombie(t, id.Pid)
	check("zombie", StatusStopped, live, yes)
	check("zombie of create", StatusStopped, Record{Init: id, Phase: PhaseCreating}, yes)
	if s, err := IntentStatus(&Intent{Creator: id}); s != StatusStopped || err != nil {
		t.Error(s, err)
	}
}

// Whatever a process calls itself, the line of its /proc/PID/stat is read or refused.
func FuzzParseStat(f *testing.F) {
	for _, s := range []string{"", "1 (a) R 0", ") S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", "5 (a) b) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 18 19 20\n", "5 (\n) X"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, dead, err := parseStat(line); err != nil && dead {
			t.Errorf("%q: dead, and %v", line, err)
		}
	})
}
