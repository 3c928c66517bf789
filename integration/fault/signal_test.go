package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asked are the signals that ask a command to end.
var asked = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}

// interrupted checks that the command has ended for the signal.
func (r result) interrupted(t *testing.T, sig syscall.Signal) {
	t.Helper()
	r.failed(t, fmt.Sprintf("interrupted by signal %d (%s)", int(sig), sig))
	if r.code != 128+int(sig) {
		t.Errorf("%v; expected %d", r, 128+int(sig))
	}
	if r.took > 15*time.Second {
		t.Error(r)
	}
}

// A create or run that is asked to end undoes what it has done, wherever it is.
func TestF11Interrupted(t *testing.T) {
	for _, command := range []string{"create", "run", "run --detach"} {
		for i, point := range pointsOf(t, "create.", "parent.", "start.poststart") {
			if command == "create" && point == "start.poststart" || command != "create" && slices.Contains([]string{"create.done", "create.fifos"}, point) {
				continue
			}
			// Each signal at a third of the points, another one for each command.
			sig := asked[(i+len(command))%len(asked)]
			t.Run(fmt.Sprint(command, " ", point, " ", sig), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, spec{args: []string{"sleep", "1000"}, full: true, hooks: map[string]string{"poststop": "echo x >>poststop"}})
				p := b.begin(point+":stop", append(strings.Fields(command), "--pid-file", "pid", b.id)...)
				stopped(t, p)
				p.signal(sig)
				p.signal(syscall.SIGCONT)
				p.end(t).interrupted(t, sig)
				b.clean()
				if _, err := os.Lstat(b.path("pid")); err == nil && point != "start.poststart" {
					t.Error("the pid file is there") // of a program that has never run
				}
				if n := b.poststops(); (n == 1) != (point != beforeClaim) {
					t.Errorf("poststop has run %d times", n)
				}
			})
		}
	}
}

// What takes for ever does not keep a create or run from ending: not a hook, wherever it runs, nor a
// stage that has stopped, nor a service that is never ready.
func TestF11InterruptedWhileWaiting(t *testing.T) {
	mark := "echo $$ >begun; exec sleep 1000"
	for name, c := range map[string]struct {
		spec     spec
		fault    string
		commands string
	}{
		"prestart":        {spec: spec{hooks: map[string]string{"prestart": mark}}, commands: "create,run,run --detach"},
		"createRuntime":   {spec: spec{hooks: map[string]string{"createRuntime": "trap '' TERM INT HUP; " + mark}}, commands: "create,run,run --detach"},
		"createContainer": {spec: spec{hooks: map[string]string{"createContainer": "exec sleep 1000"}}, commands: "create,run,run --detach"},
		"startContainer":  {spec: spec{hooks: map[string]string{"startContainer": "exec sleep 1000"}}, commands: "run,run --detach"},
		"poststart":       {spec: spec{hooks: map[string]string{"poststart": mark}}, commands: "run,run --detach"},
		"stage":           {fault: "stage.%d:stop", commands: "create,run,run --detach"},
	} {
		for i, command := range strings.Split(c.commands, ",") {
			sig := asked[i%len(asked)]
			t.Run(fmt.Sprint(name, " ", command, " ", sig), func(t *testing.T) {
				t.Parallel()
				s := c.spec
				s.args = []string{"sleep", "1000"}
				b := newBox(t, s)
				fault := c.fault
				if fault != "" {
					_, gate := operations(b)
					fault = fmt.Sprintf(fault, gate/2)
				}
				p := b.begin(fault, append(strings.Fields(command), b.id)...)
				b.must(eventually(limit, func() error {
					for _, line := range b.hanging() {
						if strings.Contains(line, name) {
							return nil
						}
					}
					return fmt.Errorf("nothing hangs in %s: %v", name, b.processes())
				}))
				p.signal(sig)
				p.end(t).interrupted(t, sig)
				b.clean()
				if pid, err := os.ReadFile(b.path("begun")); err == nil {
					if _, err := os.Stat(filepath.Join("/proc", strings.TrimSpace(string(pid)))); err == nil {
						t.Errorf("the hook, process %s, is alive", pid)
					}
				}
			})
		}
	}
}

// hanging names what of the container's hangs: a hook that has left the file "begun" in the
// bundle, a program or hook in the container, a stage that has stopped.
func (b *box) hanging() []string {
	var list []string
	if _, err := os.Stat(b.path("begun")); err == nil {
		list = append(list, "prestart createRuntime poststart")
	}
	for _, p := range b.processes() {
		pid, _, _ := strings.Cut(p, " ")
		stat, _ := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		// As the first of a pid namespace it cannot stop itself, and pauses.
		call, _ := os.ReadFile(filepath.Join("/proc", pid, "syscall"))
		if strings.HasPrefix(rest, "T") || strings.HasPrefix(string(call), fmt.Sprint(syscall.SYS_PAUSE, " ")) {
			list = append(list, "stage")
		}
		if strings.Contains(p, " sleep ") {
			list = append(list, "createContainer startContainer")
		}
	}
	return list
}

// A service that never says that it is ready.
func TestF11InterruptedNotReady(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	host := b.path("notify")
	fd := datagrams(t, host)
	defer syscall.Close(fd)
	p := command(faultBin, b.dir, []string{"NOTIFY_SOCKET=" + host}, 0, "--root", b.root, "run", b.id)
	b.running()
	p.signal(syscall.SIGTERM)
	p.end(t).interrupted(t, syscall.SIGTERM)
	b.clean()
}

func datagrams(t *testing.T, path string) int {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// Who asks twice is obeyed at once, whatever rt is doing; then it is for delete to clean up.
func TestF11AskedTwice(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	p := b.begin("create.config:sleep=20", "create", b.id)
	b.must(eventually(limit, func() error {
		_, err := os.Stat(filepath.Join(b.root, b.id, "config.json"))
		return err
	}))
	p.signal(syscall.SIGTERM)
	time.Sleep(300 * time.Millisecond) // it has not ended yet
	if err := syscall.Kill(p.cmd.Process.Pid, 0); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if r := p.end(t); r.code != -int(syscall.SIGTERM) || r.took > 10*time.Second {
		t.Error(r)
	}
	b.gone(time.Second)
	b.ok("delete", b.id)
	b.clean()
}

// A caller that has told rt to ignore hang-ups (nohup) is obeyed, and one that has blocked
// a signal, which its children inherit, can still end rt.
func TestF11IgnoredAndBlocked(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	p := command("/bin/sh", b.dir, []string{"RT_FAULT=create.config:stop"}, 0, "-c", "trap '' HUP; exec "+faultBin+" --root "+b.root+" create "+b.id)
	stopped(t, p)
	p.signal(syscall.SIGHUP)
	p.signal(syscall.SIGCONT)
	if r := p.end(t); r.code != 0 {
		t.Error(r)
	}
	b.is("created")
	b.ok("delete", "--force", b.id)

	h := helper("block", faultBin, "--root", b.root, "create", b.id)
	p = command(h.Path, b.dir, []string{"RT_FAULT=create.config:stop"}, 0, h.Args[1:]...)
	stopped(t, p)
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	p.end(t).interrupted(t, syscall.SIGTERM)
	b.clean()
}

// waits checks that the command does nothing but wait for a child: then all is set up.
func waits(p *process) error {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", p.cmd.Process.Pid))
	for _, file := range threads {
		if data, _ := os.ReadFile(file); strings.HasPrefix(string(data), fmt.Sprint(syscall.SYS_WAIT4, " ")) {
			return nil
		}
	}
	return fmt.Errorf("%v does not wait for its child", p.cmd.Args[1:])
}

// Once the program runs it gets the signals, and what it makes of them is its own affair.
func TestF11SignalsOfRunningProgram(t *testing.T) {
	t.Parallel()
	b := newBox(t, spec{args: []string{"sh", "-c", "trap 'exit 7' TERM; trap 'exit 8' HUP; trap 'exit 9' INT; trap 'exit 10' USR1; echo ready; while :; do sleep 0.02; done"}})
	for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 7, syscall.SIGHUP: 8, syscall.SIGINT: 9, syscall.SIGUSR1: 10} {
		p := b.begin("", "run", b.id)
		b.must(eventually(limit, func() error {
			data := make([]byte, 64)
			if n, _ := p.out.ReadAt(data, 0); !strings.Contains(string(data[:n]), "ready") {
				return fmt.Errorf("the program has not begun: %q", data[:n])
			}
			return nil
		}))
		b.must(eventually(limit, func() error { return waits(p) }))
		p.signal(sig)
		if r := p.end(t); r.code != code {
			t.Errorf("%v: %v; expected %d", sig, r, code)
		}
		b.clean()
	}
}
