package fault

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The second process runs no hook before the first has done all that is left to it.
func TestHookAfterFirstProcess(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.write(spec{
		args: sleeper.args, hooks: map[string]string{"createContainer": "busybox ip link show lo >" + filepath.Join(b.dir, "lo")},
		edit: func(config object) { config["process"].(object)["env"] = []string{"HOME=/"} }, // so that there is nothing to ask before
	})
	slow := fmt.Sprintf("stage.%d:sleep=1", operation(b, "loopback"))
	if r := b.fault(slow, "create", b.id); r.code != 0 {
		t.Fatal(r)
	}
	if out, err := os.ReadFile(filepath.Join(b.dir, "lo")); err != nil || !strings.Contains(string(out), "LOOPBACK,UP") {
		t.Errorf("the hook saw %q, %v", out, err)
	}
}

var hookKinds = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// Whatever a hook does the command ends in time, tells of it in one line, and undoes what it has
// done: before start all of it, after that the container is killed; poststop only warns.
func TestF38Hooks(t *testing.T) {
	for _, c := range []struct {
		name    string
		script  string
		path    string // instead of a script
		timeout int
		words   string // of the error; "" for none
	}{
		{name: "hangs", script: "echo $$ >hook; exec sleep 1000", timeout: 1, words: "hook ran past specified timeout of 1"},
		{name: "ignores SIGTERM", script: "trap '' TERM INT HUP; echo $$ >hook; sleep 1000; sleep 1000", timeout: 1, words: "hook ran past specified timeout of 1"},
		{name: "leaves a daemon with its pipes", script: "sleep 1000 & echo $! >hook", words: ""},
		{name: "times out with a daemon", script: "sleep 1000 & echo $! >hook; sleep 1000", timeout: 1, words: "hook ran past specified timeout of 1"},
		{name: "prints without end", script: "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", timeout: 1, words: "hook ran past specified timeout of 1"},
		{name: "prints much", script: "dd if=/dev/zero bs=65536 count=1024 2>/dev/null; exit 3", words: "exit status 3"},
		{name: "prints escapes", script: `printf 'a\033[31mb\n\rc\000d'; exit 3`, words: "exit status 3"},
		{name: "closes its input unread", script: "exec 0<&-; sleep 0.05", words: ""},
		{name: "dies by a signal", script: "kill -9 $$", words: "signal: killed"},
		{name: "is missing", path: "/no/such/hook", words: "no such file or directory"},
		{name: "is not executable", path: "/etc/passwd", words: "permission denied"},
		{name: "is a directory", path: "/", words: "permission denied"},
	} {
		for _, kind := range hookKinds {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				t.Parallel()
				s := hooked(kind, c.script, c.timeout)
				if c.path != "" {
					s.edit = func(config object) { config["hooks"] = object{kind: []object{{"path": c.path}}} }
				}
				inside := kind == "startContainer"
				if inside {
					// It runs in the container, whose root file system is shared and read-only.
					scratch := s.edit
					s.edit = func(config object) {
						scratch(config)
						config["mounts"] = append(config["mounts"].([]object), object{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
						config["process"].(object)["cwd"] = "/tmp"
						config["process"].(object)["env"] = []string{"PATH=/bin"}
					}
				}
				words := c.words
				if inside && c.path == "/etc/passwd" {
					words = "no such file or directory" // of the container's
				}
				b := newBox(t, s)
				r := b.cycle(kind)
				switch {
				case words == "" || kind == "poststop":
					if r.code != 0 {
						t.Error(r)
					}
				default:
					r.failed(t, kind+" hook #0", words)
				}
				if kind == "poststop" && words != "" {
					if log, _ := os.ReadFile(b.path("log")); !strings.Contains(string(log), "poststop hook #0") || !strings.Contains(string(log), words) {
						t.Errorf("log %.1000q; expected a warning with %q", log, words)
					}
				}
				if r.took > 10*time.Second {
					t.Error(r)
				}
				if len(r.out) > 8192 || strings.ContainsAny(r.out, "\x1b\r\x00") {
					t.Errorf("%d bytes of output: %.500q", len(r.out), r.out)
				}
				if words == "" {
					// What a good hook leaves is left alone; that of one in the container goes with it.
					if kind != "poststop" {
						b.ok("delete", "--force", b.id)
					}
				} else if kind != "poststop" {
					b.undone(kind)
				}
				b.clean()
				b.hookEnds(kind, c.timeout > 0 && c.name != "leaves a daemon with its pipes")
			})
		}
	}
}

// hookEnds checks that the process that a hook of the host has named in the file "hook" is dead,
// or ends it if it is a daemon that rt has to leave alone.
func (b *box) hookEnds(kind string, dead bool) {
	b.t.Helper()
	pid := b.hookPid()
	if pid == 0 || strings.HasSuffix(kind, "Container") {
		return // those go with the container, as clean has seen
	}
	if !dead {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			b.t.Errorf("the daemon of a good hook: %v", err)
		}
		return
	}
	b.must(eventually(2*time.Second, func() error {
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if len(stat) > 0 && !strings.Contains(string(stat), ") Z ") {
			return fmt.Errorf("the hook's process is alive: %.60q", stat)
		}
		return nil
	}))
}

// Where no stage can be executed, create finds out before anything else exists: no hook runs.
func TestNoStage(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	hook := filepath.Join(b.dir, "ran")
	b.write(spec{args: sleeper.args, hooks: map[string]string{"poststop": "echo >" + hook, "createRuntime": "echo >" + hook}})
	for _, command := range []string{"create", "run"} {
		// The sysctl is one of the pid namespace.
		const forbid = `echo 2 >/proc/sys/vm/memfd_noexec && exec "$@"`
		c := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", forbid, "sh", plainBin, "--root", b.root, command, b.id)
		c.Dir = b.dir
		out, err := c.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "vm.memfd_noexec") {
			t.Errorf("%s: %v: %s", command, err, out)
		}
		if _, err := os.Stat(hook); err == nil {
			t.Errorf("%s: a hook has run", command)
		}
		b.clean()
	}
}
