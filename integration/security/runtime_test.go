package security

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bin describes the runtime's file, which nothing may change.
func bin(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(rt)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(rt, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d %x", st.Dev, st.Ino, sha256.Sum256(data))
}

// An image whose program is the process's own executable gets the stage, which does
// nothing, and never the runtime.
func TestS01EntrypointIsOwnExecutable(t *testing.T) {
	t.Parallel()
	before := bin(t)
	for name, program := range map[string][]string{
		"link":        {"/proc/self/exe", "run", "x"},
		"image link":  {"/evil"},
		"interpreter": {"/script"},
		"number":      {"/proc/self/exe", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, args(program...))
			b.link("/proc/self/exe", "evil")
			b.file("script", "#!/proc/self/exe\n", 0o755)
			r := b.rt("run", b.id)
			if r.code == 0 || r.out != "" || r.took > 10*time.Second {
				t.Errorf("%v; expected the stage to do nothing", r)
			}
		})
	}
	if now := bin(t); now != before {
		t.Errorf("the runtime was %s, now is %s", before, now)
	}
}

// held runs execs against the attacker until enough of their executables were held or time is up, and
// returns what it says of them.
func (b *box) execsAgainst(command ...string) (out string, execs int) {
	b.t.Helper()
	b.edit(args(append([]string{"/attacker"}, command...)...))
	p := b.command("run", b.id).begin()
	eventually(b.t, func() error {
		if !strings.Contains(p.said(), "ready\n") {
			return fmt.Errorf("the attacker is not ready: %q %q", p.said(), contents(p.err))
		}
		return nil
	})
	for end := time.Now().Add(raceTime()); time.Now().Before(end); execs++ {
		b.ok("exec", b.id, "true")
	}
	b.must(os.WriteFile(filepath.Join(b.rootfs, "stop"), nil, 0o644))
	r := p.end()
	if r.code != 0 {
		b.t.Fatal(r)
	}
	return r.out, execs
}

func TestS01HeldExecutableCannotBeWritten(t *testing.T) {
	// It would work on a runtime that re-executes itself from an open memfd.
	fd, err := unix.MemfdCreate("careless", 0)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/proc/self/fd/"+strconv.Itoa(fd), []byte("#!/evil"), 0); err != nil {
		t.Fatalf("overwrite a memfd that is not sealed: %v", err)
	}
	unix.Close(fd)

	before := bin(t)
	// Without this capability nothing at all can be held, which S2 tests.
	b := newBox(t, caps("CAP_SYS_PTRACE"))
	out, execs := b.execsAgainst("overwrite")
	held := 0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "held ") && strings.Contains(line, "/memfd:rt-stage") {
			held++
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(rt, &st); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "WRITTEN") || strings.Contains(out, "TRUNCATED") || strings.Contains(out, fmt.Sprintf("held %d:%d ", st.Dev, st.Ino)) {
		t.Errorf("%s", out)
	}
	if now := bin(t); now != before {
		t.Errorf("the runtime was %s, now is %s", before, now)
	}
	t.Logf("%d executables held of %d execs", held, execs)
	if held < 20 {
		t.Skipf("inconclusive: the attacker has held %d executables of %d execs, expected 20", held, execs)
	}
}

func (b *box) grab() (c catch, execs int) {
	b.t.Helper()
	out, execs := b.execsAgainst("grab")
	_, text, _ := strings.Cut(out, "ready\n")
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		b.t.Fatalf("%v: %q", err, out)
	}
	b.t.Logf("%d stages of %d execs met: %v, foreign: %v, capabilities %v", c.Met, execs, c.Got, c.Foreign, c.Power)
	if c.Met < 20 {
		b.t.Skipf("inconclusive: the attacker has met %d of %d stages, expected 20", c.Met, execs)
	}
	return c, execs
}

func TestS02EnteringProcessIsOutOfReach(t *testing.T) {
	b := newBox(t)
	if c, _ := b.grab(); len(c.Got) > 0 {
		t.Errorf("a container without privileges got at the process that enters: %v", c.Got)
	}
}

// With this capability it may look, and finds nothing that is not its own.
func TestS02EnteringProcessHasNothingToSteal(t *testing.T) {
	b := newBox(t, caps("CAP_SYS_PTRACE"))
	c, _ := b.grab()
	if len(c.Foreign) > 0 {
		t.Errorf("the process that enters held: %v", c.Foreign)
	}
	if len(c.Got) == 0 {
		t.Error("the attacker has got nothing at all: this proves little")
	}
	// Nor is it worth taking over. For the cgroup namespace it takes CAP_SYS_ADMIN for a moment.
	const (
		own    = 1<<unix.CAP_AUDIT_WRITE | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_PTRACE
		needed = 1<<unix.CAP_SETPCAP | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE |
			1<<unix.CAP_SYS_CHROOT | 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_NICE
	)
	for _, sets := range c.Power {
		var permitted, bounding uint64
		if _, err := fmt.Sscanf(sets, "%x %x", &permitted, &bounding); err != nil {
			t.Fatal(err)
		}
		allowed := uint64(own | needed)
		if v2 {
			allowed |= 1 << unix.CAP_SYS_ADMIN
		}
		if permitted&^allowed != 0 || bounding&^uint64(own) != 0 {
			t.Errorf("a process on its way in has permitted %#x, bounding %#x", permitted, bounding)
		}
	}
}

// What waits at the gate holds nothing of the host either: an exec into a created
// container may look at it.
func TestS02WaitingProcessHasNothingToSteal(t *testing.T) {
	t.Parallel()
	b := newBox(t, caps("CAP_SYS_PTRACE"))
	b.edit(mnt("bind", b.outside, "/outside", "bind", "ro"), mnt("tmpfs", "tmpfs", "/tmp", "ro"))
	b.ok("create", b.id)
	own := b.ok("exec", b.id, "cat", "/proc/self/mountinfo")
	pid := b.state().Pid
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	fds, err := os.ReadDir(dir)
	b.must(err)
	for _, e := range fds {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name()))
		if n, _ := strconv.Atoi(e.Name()); n < 3 || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, b.root) {
			continue
		}
		info, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		_, id, _ := strings.Cut(string(info), "mnt_id:")
		id = strings.TrimSpace(strings.SplitN(id, "\n", 2)[0])
		if !strings.HasPrefix(own, id+" ") && !strings.Contains(own, "\n"+id+" ") {
			t.Errorf("descriptor %s of the process at the gate is %s, on a mount that is not the container's", e.Name(), target)
		}
	}
}

// Descriptors that the caller left open lead nowhere.
func TestS03LeakedDescriptors(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.link("/proc/self/fd/10", "w")
	var leaked []*os.File
	for i := range 34 {
		f, err := os.Open([]string{"/", "/sys/fs/cgroup", b.outside}[i%3])
		b.must(err)
		defer f.Close()
		leaked = append(leaked, f)
	}
	// It works on a child that inherits them.
	careless := newCommand(t, "/bin/sh", "-c", "cd /proc/self/fd/5 && cat secret")
	careless.ExtraFiles = leaked
	if r := careless.run(); r.out != "the host's\n" {
		t.Fatalf("%v; expected the leaked directory to be reachable", r)
	}
	rt := func(args ...string) result {
		c := b.command(args...)
		c.ExtraFiles = leaked
		return c.run()
	}

	b.edit(args("/attacker", "fds"))
	if r := rt("run", b.id); r.code != 0 || strings.Count(r.out, "\n") != 3 {
		t.Errorf("%v; expected the descriptors 0, 1 and 2", r)
	}
	for n := 3; n <= 64; n += 1 + n/20 {
		b.edit(args("cat", "secret"))
		b.spec.Process.Cwd = fmt.Sprintf("/proc/self/fd/%d", n)
		b.edit()
		if r := rt("run", b.id); r.code == 0 || strings.Contains(r.out, "the host's") || !strings.Contains(r.err, "/process/cwd") {
			t.Errorf("cwd %d: %v", n, r)
		}
		b.spec.Process.Cwd = "/"
		b.edit(args(fmt.Sprintf("/proc/self/fd/%d/bin/sh", n), "-c", "echo out"))
		if r := rt("run", b.id); r.code == 0 || r.out != "" {
			t.Errorf("program %d: %v", n, r)
		}
	}
	b.edit(args("sleep", "1000"))
	b.launch()
	for n := 3; n <= 40; n += 1 + n/20 {
		b.link(fmt.Sprintf("/proc/self/fd/%d", n), "w")
		if r := rt("exec", "--cwd", "/w", b.id, "cat", "secret"); r.code == 0 || strings.Contains(r.out, "the host's") {
			t.Errorf("exec with cwd %d: %v", n, r)
		}
		if r := rt("exec", b.id, fmt.Sprintf("/proc/self/fd/%d/bin/sh", n), "-c", "echo out"); r.code == 0 || r.out != "" {
			t.Errorf("exec of program %d: %v", n, r)
		}
	}
	if r := rt("exec", b.id, "/attacker", "fds"); r.code != 0 || strings.Count(r.out, "\n") != 3 {
		t.Errorf("%v; expected the descriptors 0, 1 and 2", r)
	}
}

// A container does not type into its caller's terminal.
func TestS04CallersTerminal(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("/attacker", "tiocsti"))
	for _, c := range []struct {
		name string
		args []string
	}{{"careless", nil}, {"run", []string{"run", b.id}}, {"exec", []string{"exec", b.id, "/attacker", "tiocsti"}}} {
		t.Run(c.name, func(t *testing.T) {
			ptmx, tty := openPTY(t)
			defer ptmx.Close()
			defer tty.Close()
			var p *command
			if c.args == nil {
				p = newCommand(t, attacker, "tiocsti")
			} else {
				p = b.command(c.args...)
			}
			p.Stdin = tty
			p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if c.name == "exec" {
				b.edit(args("sleep", "1000"))
				b.launch()
			}
			before := describe(tty.Name())
			r := p.run()
			queued, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCINQ)
			if err != nil {
				t.Fatal(err)
			}
			if c.args == nil {
				// The machine may forbid TIOCSTI to all; its terminal can then still be opened.
				if queued == 0 && !strings.Contains(r.out, "tty true") {
					t.Fatalf("%v; expected the careless way to reach the terminal", r)
				}
				return
			}
			if r.code != 0 || strings.Contains(r.out, "tiocsti 0 true") || strings.Contains(r.out, "tty true") || queued != 0 {
				t.Errorf("%v; %d bytes of input queued", r, queued)
			}
			if !strings.Contains(r.out, "leader true") {
				t.Errorf("%v; expected a session of its own", r)
			}
			if now := strings.Split(describe(tty.Name()), " size"); !strings.HasPrefix(before, now[0]) {
				t.Errorf("the terminal was %s, now is %s", before, now)
			}
		})
	}
}

func openPTY(t *testing.T) (ptmx, tty *os.File) {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return ptmx, tty
}
