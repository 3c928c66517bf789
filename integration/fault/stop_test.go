package fault

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// impatient runs rt with a fault and one second of patience with a stage.
func (b *box) impatient(fault string, args ...string) result {
	b.t.Helper()
	env := []string{"RT_FAULT=" + fault, "RT_FAULT_WAIT=1"}
	return command(faultBin, b.dir, env, 0, append([]string{"--root", b.root}, args...)...).end(b.t)
}

// silent checks that the command has given up a stage, in time.
func (r result) silent(t *testing.T) {
	t.Helper()
	r.failed(t, "the stage did not answer in time: no progress for 1s")
	if r.took > 15*time.Second {
		t.Error(r)
	}
}

// A stage that stops in any operation is killed after a deadline, and all is undone.
func TestF10StageStops(t *testing.T) {
	// Without a startContainer hook, which may take its time.
	config := everything
	config.edit = func(config object) { delete(config["hooks"].(object), "startContainer") }
	last, gate := operations(newBox(t, config))
	for n := 1; n <= last; n++ {
		if !long() && n%2 == 0 && n != gate {
			continue
		}
		t.Run(fmt.Sprint("create ", n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, config)
			fault := fmt.Sprintf("stage.%d:stop", n)
			if n < gate {
				b.impatient(fault, "create", "--pid-file", "pid", b.id).silent(t)
				b.clean()
				return
			}
			// The gate and what is behind it are start's. A stage that stops at the gate looks
			// like one that waits there.
			b.createWith(fault)
			b.impatient("", "start", b.id).silent(t)
			b.gone(2 * time.Second)
			b.is("stopped")
			b.ok("delete", b.id)
			b.clean()
		})
		if n < last && (long() || n%5 == 0) { // run has no gate
			t.Run(fmt.Sprint("run ", n), func(t *testing.T) {
				t.Parallel()
				b := newBox(t, config)
				args := []string{"run", "--pid-file", "pid", b.id}
				if n%2 == 0 { // of these, too, every other one
					args = append(args, "--detach")
				}
				b.impatient(fmt.Sprintf("stage.%d:stop", n), args...).silent(t)
				b.clean()
			})
		}
	}
}

// The first process of a stage, which has more to do without a user namespace, and does some of
// it when there is the second.
func TestF10FirstProcessStops(t *testing.T) {
	loopback := operation(newBox(t, sleeper), "loopback")
	for n := 1; n <= loopback; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			for _, command := range []string{"create", "run"} {
				b.impatient(fmt.Sprintf("stage.%d:stop", n), command, b.id).silent(t)
				b.clean()
			}
		})
	}
}

// The same on its way into a container, where nothing but the new process is killed.
func TestF10StageOfExecStops(t *testing.T) {
	last, _ := execOperations(t)
	for n := 1; n <= last; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			pid := b.start()
			args := []string{"exec", b.id, "true"}
			if n%2 == 0 {
				args = []string{"exec", "--detach", b.id, "true"}
			}
			b.impatient(fmt.Sprintf("stage.%d:stop", n), args...).silent(t)
			b.alone(pid)
			b.ok("exec", b.id, "true")
		})
	}
}

// A parent that is stopped does not let its container go: it carries on.
func TestF10ParentStops(t *testing.T) {
	for _, point := range pointsOf(t, "create.", "parent.") {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, everything)
			p := b.begin(point+":stop", "create", b.id)
			stopped(t, p)
			time.Sleep(100 * time.Millisecond) // it could time out of this
			p.signal(syscall.SIGCONT)
			if r := p.end(t); r.code != 0 {
				t.Fatal(r)
			}
			b.ok("start", b.id)
			b.is("running")
		})
	}
}

// A hook that stops is killed when its time is up, wherever it runs.
func TestF10HookStops(t *testing.T) {
	b := newBox(t, sleeper)
	b.t.Parallel()
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
		b.write(hooked(kind, "echo $$ >hook; kill -STOP $$", 1))
		r := b.cycle(kind)
		if kind == "poststop" {
			if r.code != 0 {
				t.Error(r)
			}
		} else {
			r.failed(t, kind+" hook #0", "hook ran past specified timeout of 1")
		}
		if r.took < time.Second || r.took > 10*time.Second {
			t.Error(r)
		}
		b.undone(kind)
	}
}

// hooked has one hook of a kind, which is a script. With a timeout of 0 it has none.
func hooked(kind, script string, timeout int) spec {
	return spec{args: []string{"sleep", "1000"}, edit: func(config object) {
		h := object{"path": "/bin/sh", "args": []string{"sh", "-c", script}}
		if timeout > 0 {
			h["timeout"] = timeout
		}
		config["hooks"] = object{kind: []object{h}}
	}}
}

// cycle takes the container to the command that runs the hooks of a kind, and returns how
// that one ended.
func (b *box) cycle(kind string) result {
	b.t.Helper()
	for _, step := range []struct {
		kinds string
		args  []string
	}{
		{"prestart createRuntime createContainer", []string{"--log", b.path("log"), "create", b.id}},
		{"startContainer poststart", []string{"--log", b.path("log"), "start", b.id}},
		{"poststop", []string{"--log", b.path("log"), "delete", "--force", b.id}},
	} {
		r := b.rt(step.args...)
		if strings.Contains(step.kinds, kind) {
			// Words that are logged as well.
			return r
		}
		if r.code != 0 {
			b.t.Fatal(r)
		}
	}
	panic(kind)
}

// undone checks what a failed hook of the kind leaves: nothing before start, a container that has
// stopped after that. In the end it is deleted.
func (b *box) undone(kind string) {
	b.t.Helper()
	switch kind {
	case "startContainer", "poststart":
		b.gone(2 * time.Second)
		b.is("stopped")
		b.ok("delete", b.id)
	}
	b.clean()
}

// A receiver that has stopped, so that its queue of connections is full.
func TestF10ConsoleReceiverStops(t *testing.T) {
	t.Parallel()
	b := newBox(t, spec{args: []string{"sh"}, terminal: true})
	path := b.path("socket")
	b.fullQueue(path)
	for _, flag := range []string{"--console-socket", "--pidfd-socket"} {
		b.write(spec{args: []string{"sh"}, terminal: flag == "--console-socket"})
		r := b.rt("create", flag, path, b.id)
		r.failed(t, "socket", "timed out")
		if r.took > 20*time.Second {
			t.Error(r)
		}
		b.clean()
	}
}

// hookPid is what a hook has left in the file "hook" of the bundle, 0 if there is none.
func (b *box) hookPid() (pid int) {
	data, _ := os.ReadFile(b.path("hook"))
	fmt.Sscan(string(data), &pid)
	return pid
}
