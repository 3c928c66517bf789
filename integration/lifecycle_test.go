package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// In these tests a program that handles TERM must have had time to say so.
const service = "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.05; done"

// reach brings a fresh container into a status.
func (b *box) reach(status string) {
	b.t.Helper()
	if status == "absent" {
		return
	}
	b.ok("create", b.id)
	if status == "created" {
		return
	}
	b.ok("start", b.id)
	switch status {
	case "running", "paused":
		eventually(b.t, func() error { _, err := os.Stat(filepath.Join(b.rootfs, "ready")); return err })
		if status == "paused" {
			b.ok("pause", b.id)
		}
	case "stopped":
		b.ok("kill", b.id, "KILL")
	}
	b.is(status)
}

// What each command does in each status: exit code, words of its error, and the
// status after it ("" is gone).
func TestStatusMatrix(t *testing.T) {
	t.Parallel()
	const (
		absent, running, paused = "absent", "running", "paused"
		created, stopped        = "created", "stopped"
		unknown                 = "container does not exist"
		notRunning              = "container not running"
		notPaused               = "container not paused"
	)
	cells := []struct {
		command []string
		status  string
		code    int
		words   string
		after   string
	}{
		{[]string{"state"}, absent, 1, unknown, ""},
		{[]string{"state"}, created, 0, "", created},
		{[]string{"state"}, running, 0, "", running},
		{[]string{"state"}, paused, 0, "", paused},
		{[]string{"state"}, stopped, 0, "", stopped},

		{[]string{"start"}, absent, 1, unknown, ""},
		{[]string{"start"}, created, 0, "", running},
		{[]string{"start"}, running, 1, "cannot start an already running container", running},
		{[]string{"start"}, paused, 1, "cannot start a container in the paused state", paused},
		{[]string{"start"}, stopped, 1, "cannot start a container that has stopped", stopped},

		{[]string{"update"}, absent, 1, unknown, ""},
		{[]string{"update"}, created, 0, "", created},
		{[]string{"update"}, running, 0, "", running},
		{[]string{"update"}, paused, 0, "", paused},
		{[]string{"update"}, stopped, 1, notRunning, stopped},

		{[]string{"events", "--stats"}, absent, 1, unknown, ""},
		{[]string{"events", "--stats"}, created, 0, "", created},
		{[]string{"events", "--stats"}, running, 0, "", running},
		{[]string{"events", "--stats"}, paused, 0, "", paused},
		{[]string{"events", "--stats"}, stopped, 1, "container with id ID is not running", stopped},

		{[]string{"kill", "ID", "TERM"}, absent, 1, unknown, ""},
		{[]string{"kill", "ID", "TERM"}, created, 0, "", stopped},
		{[]string{"kill", "ID", "TERM"}, running, 0, "", stopped},
		{[]string{"kill", "ID", "TERM"}, stopped, 1, notRunning, stopped},
		{[]string{"kill", "ID", "KILL"}, absent, 1, unknown, ""},
		{[]string{"kill", "ID", "KILL"}, created, 0, "", stopped},
		{[]string{"kill", "ID", "KILL"}, running, 0, "", stopped},
		{[]string{"kill", "ID", "KILL"}, paused, 0, "", stopped},
		{[]string{"kill", "ID", "KILL"}, stopped, 1, notRunning, stopped},
		{[]string{"kill", "--all", "ID", "KILL"}, absent, 1, unknown, ""},
		{[]string{"kill", "--all", "ID", "KILL"}, created, 0, "", stopped},
		{[]string{"kill", "--all", "ID", "KILL"}, running, 0, "", stopped},
		{[]string{"kill", "--all", "ID", "KILL"}, paused, 0, "", stopped},
		{[]string{"kill", "--all", "ID", "KILL"}, stopped, 0, "", stopped},
		{[]string{"kill", "ID", "0"}, created, 0, "", created},
		{[]string{"kill", "ID", "0"}, running, 0, "", running},

		{[]string{"delete"}, absent, 1, unknown, ""},
		{[]string{"delete"}, created, 0, "", ""},
		{[]string{"delete"}, running, 1, "cannot delete container ID that is not stopped: running", running},
		{[]string{"delete"}, paused, 1, "cannot delete container ID that is not stopped: paused", paused},
		{[]string{"delete"}, stopped, 0, "", ""},
		{[]string{"delete", "--force"}, absent, 0, "", ""},
		{[]string{"delete", "--force"}, created, 0, "", ""},
		{[]string{"delete", "--force"}, running, 0, "", ""},
		{[]string{"delete", "--force"}, paused, 0, "", ""},
		{[]string{"delete", "--force"}, stopped, 0, "", ""},

		{[]string{"exec", "ID", "true"}, absent, 255, unknown, ""},
		{[]string{"exec", "ID", "true"}, created, 0, "", created},
		{[]string{"exec", "ID", "true"}, running, 0, "", running},
		{[]string{"exec", "ID", "true"}, paused, 255, "exec failed: cannot exec in a paused container (use --ignore-paused to override)", paused},
		{[]string{"exec", "ID", "true"}, stopped, 255, "exec failed: cannot exec in a stopped container", stopped},

		{[]string{"pause"}, absent, 1, unknown, ""},
		{[]string{"pause"}, created, 0, "", paused},
		{[]string{"pause"}, running, 0, "", paused},
		{[]string{"pause"}, paused, 1, notRunning, paused},
		{[]string{"pause"}, stopped, 1, notRunning, stopped},
		{[]string{"resume"}, absent, 1, unknown, ""},
		{[]string{"resume"}, created, 1, notPaused, created},
		{[]string{"resume"}, running, 1, notPaused, running},
		{[]string{"resume"}, paused, 0, "", running},
		{[]string{"resume"}, stopped, 1, notPaused, stopped},

		{[]string{"ps", "--format", "json"}, absent, 1, unknown, ""},
		{[]string{"ps", "--format", "json"}, created, 0, "", created},
		{[]string{"ps", "--format", "json"}, running, 0, "", running},
		{[]string{"ps", "--format", "json"}, paused, 0, "", paused},
		{[]string{"ps", "--format", "json"}, stopped, 0, "", stopped},
	}
	for _, c := range cells {
		t.Run(strings.Join(c.command, " ")+" "+c.status, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, script(service))
			b.reach(c.status)
			command := slices.Clone(c.command)
			if i := slices.Index(command, "ID"); i >= 0 {
				command[i] = b.id
			} else {
				command = append(command, b.id)
			}
			r := b.rt(command...)
			if c.code != 0 {
				r.refused(c.code, strings.ReplaceAll(c.words, "ID", b.id))
			} else if r.code != 0 || r.err != "" {
				t.Error(r)
			}
			if c.after != "" {
				b.is(c.after)
				return
			}
			b.rt("state", b.id).refused(1, unknown)
			b.clean()
		})
	}
}

// A paused container takes signals only once it runs again.
func TestSignalPaused(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(service))
	b.reach("paused")
	b.ok("kill", b.id, "TERM")
	time.Sleep(50 * time.Millisecond)
	if !v2 {
		// A task frozen on v1 does not even die.
		b.is("paused")
	}
	b.rt("resume", b.id)
	b.is("stopped")
}

func TestPausedProcessesStandStill(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("i=0; while :; do i=$((i+1)); echo $i >/count; touch /ready; sleep 0.01; done"))
	b.reach("paused")
	before := b.read("rootfs/count")
	time.Sleep(100 * time.Millisecond)
	if after := b.read("rootfs/count"); after != before {
		t.Errorf("a paused container counted from %q to %q", before, after)
	}
	b.ok("resume", b.id)
	eventually(t, func() error {
		if b.read("rootfs/count") == before {
			return errors.New("a resumed container does not count on")
		}
		return nil
	})
}

// A paused created container goes back to created.
func TestResumeCreated(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(service))
	b.reach("created")
	b.ok("pause", b.id)
	b.ok("resume", b.id)
	b.is("created")
	b.ok("start", b.id)
	b.is("running")
}

func TestState(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(service), func(s *specs.Spec) {
		s.Annotations = map[string]string{"a=b": "c", "bundle": "/elsewhere", "empty": "", "org.example/ü": "\n\"\\"}
		s.Version = "1.0.2"
	})
	began := time.Now()
	b.reach("created")
	text := b.ok("state", b.id)
	if strings.HasSuffix(text, "\n") || !strings.HasPrefix(text, "{\n  \"ociVersion\": \"1.3.0\",\n  \"id\": ") {
		t.Errorf("state printed %q; expected JSON, indented by two, without a newline at its end", text)
	}
	s := b.state()
	if s.ID != b.id || s.Bundle != b.dir || s.Rootfs != b.rootfs || s.OCIVersion != "1.3.0" || s.Owner == nil {
		t.Errorf("state: %+v", s)
	}
	if fmt.Sprint(s.Annotations) != fmt.Sprint(b.spec.Annotations) {
		t.Errorf("annotations are %q, config.json has %q", s.Annotations, b.spec.Annotations)
	}
	at, err := time.Parse(time.RFC3339Nano, s.Created)
	if err != nil || at.Before(began.Add(-time.Second)) || at.After(time.Now().Add(time.Second)) || !strings.HasSuffix(s.Created, "Z") {
		t.Errorf("created at %q (%v), now is %v", s.Created, err, began)
	}
	// The pid is that of a process in the container's namespaces.
	ours, _ := os.Readlink("/proc/self/ns/pid")
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", s.Pid))
	if err != nil || ours == theirs {
		t.Errorf("the pid namespace of pid %d is %q (%v), rt's is %q", s.Pid, theirs, err, ours)
	}
	b.ok("start", b.id)
	if r := b.state(); r.Pid != s.Pid || r.Created != s.Created {
		t.Errorf("after start the state is %+v, before it was %+v", r, s)
	}
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	text = b.ok("state", b.id)
	if !strings.Contains(text, "\"pid\": 0,") {
		t.Errorf("a stopped container's state is %s; expected pid 0", text)
	}
}

func TestStateWithoutAnnotations(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.reach("created")
	if text := b.ok("state", b.id); strings.Contains(text, "annotations") {
		t.Errorf("state has empty annotations: %s", text)
	}
}

// A config.json that changes after create has no effect (L12).
func TestConfigIsReadOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("echo first >/out; sleep 60"), func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "WHICH=first")
	})
	b.ok("create", b.id)
	b.must(os.WriteFile(b.path("config.json"), []byte("no JSON"), 0o644))
	b.ok("start", b.id)
	if out := b.appears("rootfs/out"); out != "first\n" {
		t.Errorf("the program printed %q", out)
	}
	if out := b.exec("echo $WHICH"); out != "first\n" {
		t.Errorf("exec has the environment %q", out)
	}
	b.must(os.Remove(b.path("config.json")))
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	b.ok("delete", b.id)
}

// create applies everything but runs nothing of the container's (L11).
func TestCreateDoesNotRun(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("echo ran >/ran; sleep 60"))
	b.reach("created")
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(b.path("rootfs/ran")); err == nil {
		t.Error("the program ran before start")
	}
	if out := b.exec("hostname"); out != "rt\n" {
		t.Errorf("the hostname before start is %q", out)
	}
	b.ok("start", b.id)
	b.appears("rootfs/ran")
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"bad/id", "..", ".", "a b", "ü", "a\x01"} {
		b := newBox(t)
		b.refused([]string{"rt create failed: ", "invalid container ID format"}, "create", id)
		b.refused([]string{"invalid container ID format"}, "state", id)
	}
	b := newBox(t)
	b.refused([]string{"container id cannot be empty"}, "create", "")
	b.refused([]string{"chdir /nonexistent: no such file or directory"}, "create", "--bundle", "/nonexistent", b.id)
	b.refused([]string{"JSON specification file config.json not found"}, "create", "--bundle", b.rootfs, b.id)
	for text, want := range map[string]string{
		"null":                   "config cannot be null",
		"no":                     "config.json",
		`{"ociVersion":"2.0.0"}`: "ociVersion",
		`{}`:                     "ociVersion",
	} {
		b.must(os.WriteFile(b.path("config.json"), []byte(text), 0o644))
		b.refused([]string{want}, "create", b.id)
	}
	b.write()
	b.reach("created")
	before := b.ok("state", b.id)
	b.refused([]string{"rt create failed: ", "container with given ID already exists"}, "create", b.id)
	b.refused([]string{"rt run failed: ", "container with given ID already exists"}, "run", b.id)
	if after := b.ok("state", b.id); after != before {
		t.Errorf("create with a used id changed the container from %s to %s", before, after)
	}
}

// An id may be used again once its container is deleted, and the parent cgroup
// stays (L25).
func TestIDsAreReusable(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for range 3 {
		b.run()
		b.ok("create", b.id)
		b.ok("delete", b.id)
		b.clean()
	}
	for _, m := range cgroup {
		if _, err := os.Stat(filepath.Join(m, top)); err != nil {
			t.Error(err)
		}
	}
}

func TestIDCharacters(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "600"))
	id := b.id + "_Ab+c.-" + strings.Repeat("x", 60)
	b.ok("create", id)
	b.ok("start", id)
	if out := b.ok("list", "-q"); out != id+"\n" {
		t.Errorf("list printed %q", out)
	}
	b.ok("delete", "--force", id)
}

// Every status that exists is told apart from outside while hooks run, too: a
// container in the middle of create is "creating".
func TestCreating(t *testing.T) {
	t.Parallel()
	b := newBox(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", bin + " --root $R state $I >out"}}}}
		s.Hooks.CreateRuntime[0].Env = nil
	})
	b.env = []string{"R=" + b.root, "I=" + b.id}
	b.ok("create", b.id)
	var s state
	b.must(json.Unmarshal([]byte(b.read("out")), &s))
	if s.Status != "creating" || s.ID != b.id || s.Bundle != b.dir {
		t.Errorf("state within create is %+v", s)
	}
	b.is("created")
}

// A zombie init is stopped, even while nobody reaps it.
func TestZombieIsStopped(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("true"))
	// What the command leaves behind falls to a parent that does not reap.
	p := b.command(b.path("rootfs/probe"), "adopt", bin, "--root", b.root, "create", "--pid-file", "pid", b.id)
	in, err := p.cmd.StdinPipe()
	b.must(err)
	defer in.Close()
	p.start()
	b.appears("pid")
	b.is("created")
	pid := b.state().Pid
	b.ok("start", b.id)
	b.is("stopped")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "State:\tZ") {
		t.Errorf("process %d is no zombie: %v %s", pid, err, status)
	}
	b.ok("delete", b.id)
	in.Close()
	if r := p.end(); r.code != 0 || r.out != "" || r.err != "" {
		t.Error(r)
	}
}

func TestRunDeletes(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("echo out; echo err >&2; exit 7"))
	r := b.rt("run", b.id)
	if r.code != 7 || r.out != "out\n" || r.err != "err\n" {
		t.Error(r)
	}
	b.clean()
	r = b.rt("run", "--keep", b.id)
	if r.code != 7 {
		t.Error(r)
	}
	b.is("stopped")
	b.ok("delete", b.id)
	b.spec.Process.Args = []string{"sleep", "60"}
	b.write()
	b.ok("run", "--detach", "--pid-file", "pid", b.id)
	if s := b.state(); s.Status != "running" || strconv.Itoa(s.Pid) != b.read("pid") {
		t.Errorf("state is %+v, the pid file holds %q", s, b.read("pid"))
	}
}

// Without process a container can be created but not started (D12).
func TestNoProcess(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.patch("/process", nil)
	b.ok("create", b.id)
	b.is("created")
	b.refused([]string{"process"}, "start", b.id)
	b.ok("delete", b.id)
	b.refused([]string{"process"}, "run", b.id)
	b.clean()
}

// What is not in the specification is ignored (L16).
func TestUnknownProperties(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("echo ran"))
	b.patch("/linux/unheardOf", map[string]any{"a": []int{1}})
	if out := b.run(); out != "ran\n" {
		t.Errorf("the program printed %q", out)
	}
}

func TestBundleThroughLink(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must(os.Symlink(".", b.path("link")))
	b.must(os.Rename(b.rootfs, b.path("real")))
	b.must(os.Symlink("real", b.rootfs))
	b.ok("create", "--bundle", "link/link", b.id)
	if s := b.state(); s.Bundle != b.dir || s.Rootfs != b.path("real") {
		t.Errorf("bundle and rootfs are %q and %q; expected them without symbolic links", s.Bundle, s.Rootfs)
	}
}
