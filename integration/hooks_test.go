package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rt/integration/leak"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hook is a hook that runs a shell's script; busybox is there on the host and in
// the container.
func hook(text string) specs.Hook {
	return specs.Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", text}, Env: []string{"PATH=/bin:/usr/bin"}}
}

// hooksOf returns the list of a kind.
func hooksOf(h *specs.Hooks, kind string) *[]specs.Hook {
	switch kind {
	case "prestart":
		return &h.Prestart //nolint:staticcheck // deprecated, not gone
	case "createRuntime":
		return &h.CreateRuntime
	case "createContainer":
		return &h.CreateContainer
	case "startContainer":
		return &h.StartContainer
	case "poststart":
		return &h.Poststart
	}
	return &h.Poststop
}

var hookKinds = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// allHooks is an edit that gives every kind two hooks whose script may use $KIND, $N
// and $D, the bundle as it is seen from where the hook runs.
func allHooks(dir, text string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{}
		for _, kind := range hookKinds {
			for n := range 2 {
				d := dir
				if kind == "startContainer" {
					d = "/bundle"
				}
				h := hook(text)
				h.Env = append(h.Env, "KIND="+kind, "N="+strconv.Itoa(n), "D="+d)
				l := hooksOf(s.Hooks, kind)
				*l = append(*l, h)
			}
		}
	}
}

// All kinds run once, in the order of the specification, each list in its order;
// the program runs between startContainer and poststop.
func TestHookOrder(t *testing.T) {
	t.Parallel()
	b := newBox(t, script("echo program >>/bundle/order; sleep 60"))
	allHooks(b.dir, "echo $KIND $N >>$D/order")(b.spec)
	mnt("none", b.dir, "/bundle", "bind")(b.spec)
	b.write()
	lines := func(kinds ...string) string {
		var text string
		for _, k := range kinds {
			if k == "program" {
				text += "program\n"
				continue
			}
			text += k + " 0\n" + k + " 1\n"
		}
		return text
	}
	b.ok("create", b.id)
	if got, want := b.read("order"), lines("prestart", "createRuntime", "createContainer"); got != want {
		t.Errorf("create ran %q, expected %q", got, want)
	}
	b.must(os.Truncate(b.path("order"), 0))
	b.ok("start", b.id)
	eventually(t, func() error {
		// The program and the poststart hooks run at the same time.
		got := strings.ReplaceAll(b.read("order"), "program\n", "")
		if !strings.HasPrefix(b.read("order"), lines("startContainer")) || got != lines("startContainer", "poststart") || got == b.read("order") {
			return fmt.Errorf("start ran %q", b.read("order"))
		}
		return nil
	})
	b.must(os.Truncate(b.path("order"), 0))
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	if got := b.read("order"); got != "" {
		t.Errorf("the end of the container ran %q", got)
	}
	b.ok("delete", b.id)
	if got, want := b.read("order"), lines("poststop"); got != want {
		t.Errorf("delete ran %q, expected %q", got, want)
	}
	b.must(os.Truncate(b.path("order"), 0))
	b.spec.Process.Args = []string{"true"}
	b.write()
	b.run()
	if got, want := b.read("order"), lines(hookKinds...); got != want {
		t.Errorf("run ran %q, expected %q", got, want)
	}
}

// Every hook reads the container's state, and runs where the specification says.
func TestHookContext(t *testing.T) {
	t.Parallel()
	// In a cgroup namespace of its own the path would be "/".
	b := newBox(t, args("sleep", "600"), noNS("cgroup"), func(s *specs.Spec) {
		s.Process.Cwd = "/tmp"
		s.Annotations = map[string]string{"a=b": "ü\n", "pid": "x"}
		s.Version = "1.0.0"
		umask := uint32(0)
		s.Process.User.Umask = &umask
	})
	allHooks(b.dir, "cat >$D/$KIND$N.json; { pwd; readlink /proc/self/ns/mnt; readlink /proc/self/ns/net; cat /proc/self/cgroup; } >$D/$KIND$N.where")(b.spec)
	mnt("none", b.dir, "/bundle", "bind")(b.spec)
	b.write()
	b.ok("create", b.id)
	pid := b.state().Pid
	ns := func(of any, name string) string {
		link, err := os.Readlink(fmt.Sprintf("/proc/%v/ns/%s", of, name))
		b.must(err)
		return link
	}
	hostMnt, hostNet, theirMnt, theirNet := ns("self", "mnt"), ns("self", "net"), ns(pid, "mnt"), ns(pid, "net")
	b.ok("start", b.id)
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	b.ok("delete", b.id)
	for _, c := range []struct {
		kind, status string
		inside       bool
		pid          any // nil: no such member
		cwd          string
	}{
		{"prestart", "creating", false, float64(pid), b.dir},
		{"createRuntime", "creating", false, float64(pid), b.dir},
		{"createContainer", "creating", true, 1.0, b.rootfs},
		{"startContainer", "created", true, 1.0, "/tmp"},
		{"poststart", "running", false, float64(pid), b.dir},
		{"poststop", "stopped", false, nil, b.dir},
	} {
		for n := range 2 {
			name := c.kind + strconv.Itoa(n)
			var s map[string]any
			text := b.read(name + ".json")
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				t.Errorf("%s read %q: %v", name, text, err)
				continue
			}
			want := map[string]any{
				"ociVersion": "1.3.0", "id": b.id, "status": c.status, "bundle": b.dir,
				"annotations": map[string]any{"a=b": "ü\n", "pid": "x"},
			}
			if c.pid != nil {
				want["pid"] = c.pid
			}
			if fmt.Sprint(s) != fmt.Sprint(want) {
				t.Errorf("%s read %s, expected %v", name, text, want)
			}
			where := strings.SplitN(b.read(name+".where"), "\n", 4)
			mntns, netns := hostMnt, hostNet
			if c.inside {
				mntns, netns = theirMnt, theirNet
			}
			if want := []string{c.cwd, mntns, netns}; !slices.Equal(where[:3], want) {
				t.Errorf("%s ran in %q, expected %q", name, where[:3], want)
			}
			if inside := strings.Contains(where[3], top); inside != c.inside {
				t.Errorf("%s ran in the container's cgroup: %v, expected %v", name, inside, c.inside)
			}
		}
	}
}

func TestHookEnvAndArgs(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "600"), func(s *specs.Spec) {
		s.Process.Env = []string{"PATH=/bin", "OF_PROCESS=1", "HOME=/h"}
		s.Hooks = &specs.Hooks{}
	})
	b.env = []string{"OF_RT=1"}
	mnt("none", b.dir, "/bundle", "bind")(b.spec)
	b.must(os.Mkdir(b.path("out"), 0o755))
	// The absent environment, a given one, an empty one. A createContainer hook is in the
	// container's pid namespace and still sees the host's /proc: there its pid is another's, while
	// self is right. It is the shell's own as long as that does not turn into its last command.
	environ := func(to string) string { return "exec 3</proc/self/environ; /bin/busybox cat <&3 >" + to + "; :" }
	for _, kind := range hookKinds {
		l := hooksOf(b.spec.Hooks, kind)
		d := b.path("out")
		if kind == "startContainer" {
			d = "/bundle/out"
		}
		*l = append(*l,
			specs.Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", environ(d + "/" + kind + ".absent")}},
			specs.Hook{Path: "/bin/busybox", Args: []string{"sh", "-c", environ(d+"/"+kind+".given") + "; printf '%s|' \"$0\" \"$@\" >" + d + "/" + kind + ".args", "zero", "", "a b", "ü\n"}, Env: []string{"X=1", "Y=", "PATH=/bin:/usr/bin"}},
			// Without args its name is the path.
			specs.Hook{Path: "/bin/true"},
		)
	}
	data, err := json.Marshal(b.spec)
	b.must(err)
	var doc map[string]any
	b.must(json.Unmarshal(data, &doc))
	for _, kind := range hookKinds {
		l := doc["hooks"].(map[string]any)[kind].([]any)
		d := b.path("out")
		if kind == "startContainer" {
			d = "/bundle/out"
		}
		doc["hooks"].(map[string]any)[kind] = append(l, map[string]any{
			"path": "/bin/busybox", "args": []string{"sh", "-c", environ(d + "/" + kind + ".empty")}, "env": []string{},
		})
	}
	data, err = json.Marshal(doc)
	b.must(err)
	b.must(os.WriteFile(b.path("config.json"), data, 0o644))
	b.launch()
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	b.ok("delete", b.id)
	for _, kind := range hookKinds {
		absent := strings.Split(strings.TrimSuffix(b.read("out/"+kind+".absent"), "\x00"), "\x00")
		switch kind {
		case "createContainer":
			check(t, kind, absent, "!OF_RT=1", "!OF_PROCESS=1")
		case "startContainer":
			check(t, kind, absent, "!OF_RT=1", "OF_PROCESS=1", "HOME=/h")
		default:
			check(t, kind, absent, "OF_RT=1", "!OF_PROCESS=1")
		}
		if got := b.read("out/" + kind + ".given"); got != "X=1\x00Y=\x00PATH=/bin:/usr/bin\x00" {
			t.Errorf("%s with an environment has %q", kind, got)
		}
		if got := b.read("out/" + kind + ".empty"); got != "" {
			t.Errorf("%s with an empty environment has %q", kind, got)
		}
		if got := b.read("out/" + kind + ".args"); got != "zero||a b|ü\n|" {
			t.Errorf("%s has arguments %q", kind, got)
		}
	}
}

// What a hook that fails does to the container, by kind.
func TestHookFailure(t *testing.T) {
	t.Parallel()
	seconds := 1
	for _, c := range []struct {
		name  string
		hook  func(d string) specs.Hook
		words []string
	}{
		{"status", func(d string) specs.Hook { return hook("echo said; echo and this >&2; exit 3") }, []string{"exit status 3", "said", "and this"}},
		{"signal", func(d string) specs.Hook { return hook("kill -9 $$") }, []string{"signal: killed"}},
		{"missing", func(d string) specs.Hook { return specs.Hook{Path: "/nonexistent"} }, []string{"/nonexistent: no such file or directory"}},
		{"timeout", func(d string) specs.Hook {
			h := hook("echo before; sleep 300")
			h.Timeout = &seconds
			return h
		}, []string{"hook ran past specified timeout of 1"}},
	} {
		for _, kind := range hookKinds {
			t.Run(kind+" "+c.name, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, script("touch /ran; sleep 60"), mnt("tmpfs", "tmpfs", "/m"))
				d := b.dir
				if kind == "startContainer" {
					d = "/bundle"
				}
				mnt("none", b.dir, "/bundle", "bind")(b.spec)
				b.spec.Hooks = &specs.Hooks{}
				l := hooksOf(b.spec.Hooks, kind)
				*l = append(*l, hook("echo 0 >>"+d+"/ran"), c.hook(d), hook("echo 2 >>"+d+"/ran"))
				b.spec.Hooks.Poststop = append(b.spec.Hooks.Poststop, hook("echo poststop >>"+b.dir+"/ran; cat >"+b.dir+"/poststop"))
				b.write()
				words := append([]string{"error running " + kind + " hook #1"}, c.words...)
				switch kind {
				case "prestart", "createRuntime", "createContainer":
					b.refused(append(words, "rt create failed: "), "create", b.id)
					b.rt("state", b.id).refused(1, "container does not exist")
					b.clean()
				case "startContainer":
					b.ok("create", b.id)
					b.refused(words, "start", b.id)
					b.is("stopped")
					if _, err := os.Stat(b.path("rootfs/ran")); err == nil {
						t.Error("the program ran although a hook before it failed")
					}
					b.ok("delete", b.id)
				case "poststart":
					b.ok("create", b.id)
					b.refused(words, "start", b.id)
					b.is("stopped")
					b.ok("delete", b.id)
				case "poststop":
					b.launch()
					b.ok("kill", b.id, "KILL")
					b.is("stopped")
					// A warning goes to the log alone.
					r := b.rt("--log", "log", "delete", b.id)
					if r.code != 0 || r.out != "" || r.err != "" {
						t.Error(r)
					}
					log := b.read("log")
					for _, w := range words {
						if !strings.Contains(log, w) {
							t.Errorf("the log is %q, expected %q", log, w)
						}
					}
					b.clean()
				}
				want := "0\npoststop\n"
				if kind == "poststop" {
					want = "0\n2\npoststop\n"
				}
				if got := b.read("ran"); got != want {
					t.Errorf("ran %q, expected %q", got, want)
				}
				if text := b.read("poststop"); !strings.Contains(text, `"status":"stopped"`) || strings.Contains(text, `"pid"`) {
					t.Errorf("poststop read %s", text)
				}
			})
		}
	}
}

// Of run a failure of startContainer or poststart leaves nothing, with --keep a
// stopped container.
func TestHookFailureOfRun(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"startContainer", "poststart"} {
		b := newBox(t, args("sleep", "600"))
		b.spec.Hooks = &specs.Hooks{Poststop: []specs.Hook{hook("echo poststop >" + b.dir + "/ran")}}
		l := hooksOf(b.spec.Hooks, kind)
		*l = append(*l, hook("exit 1"))
		b.write()
		b.rt("run", b.id).refused(1, "error running "+kind+" hook #0", "exit status 1")
		b.clean()
		b.appears("ran")
		b.rt("run", "--keep", b.id).refused(1, "error running "+kind+" hook #0")
		b.is("stopped")
		b.ok("delete", b.id)
	}
}

// A hook's timeout ends its children, and is not held up by one that has left
// its group but keeps its output open.
func TestHookTimeoutEndsGroup(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"createRuntime", "createContainer"} {
		b := newBox(t)
		seconds := 1
		h := hook("sleep 301 & echo $! >" + b.dir + "/child; sleep 302")
		h.Timeout = &seconds
		b.spec.Hooks = &specs.Hooks{}
		*hooksOf(b.spec.Hooks, kind) = []specs.Hook{h}
		b.write()
		r := b.rt("create", b.id)
		r.refused(1, "hook ran past specified timeout of 1")
		if r.took < time.Second || r.took > 10*time.Second {
			t.Errorf("%s: %v", kind, r)
		}
		// In the container's pid namespace the number means another process.
		if kind == "createRuntime" {
			child, err := strconv.Atoi(strings.TrimSpace(b.read("child")))
			b.must(err)
			eventually(t, func() error {
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
				if err == nil && strings.Contains(string(data), "301") {
					return fmt.Errorf("the hook's child lives: %q", data)
				}
				return nil
			})
		}
	}
}

// A hook that leaves a child with its output behind does not hold up create.
func TestHookDaemon(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"createRuntime", "createContainer", "poststart"} {
		b := newBox(t, args("sleep", "600"))
		b.spec.Hooks = &specs.Hooks{}
		// One in the container's pid namespace ends with that.
		daemon, end := "sleep 60", func() {}
		if kind != "createContainer" {
			over := b.path("over")
			daemon = "while ! [ -e " + over + " ]; do sleep 0.1; done"
			end = func() { os.WriteFile(over, nil, 0o644) }
		}
		*hooksOf(b.spec.Hooks, kind) = []specs.Hook{hook("(" + daemon + ") & exit 0")}
		b.write()
		late := time.AfterFunc(30*time.Second, end)
		began := time.Now()
		b.launch()
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: create and start took %v, waiting for the hook's child", kind, took)
		}
		late.Stop()
		end()
	}
}

func TestHookValidation(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, c := range []struct {
		hook map[string]any
		want string
	}{
		{map[string]any{"path": "relative"}, "/path"},
		{map[string]any{"path": ""}, "/path"},
		{map[string]any{}, "/path"},
		{map[string]any{"path": "/bin/true", "timeout": 0}, "/timeout"},
		{map[string]any{"path": "/bin/true", "timeout": -1}, "/timeout"},
		{map[string]any{"path": "/bin/true", "env": []string{"X"}}, "/env/0"},
	} {
		for _, kind := range hookKinds {
			b.patch("/hooks", map[string]any{kind: []any{c.hook}})
			b.refused([]string{"/hooks/" + kind + "/0" + c.want}, "create", b.id)
		}
	}
}

// Hooks before the root changes see and may change the finished mounts: those of
// the host through the path, GPU hooks do so.
func TestHookMounts(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(showMounts), mnt("tmpfs", "tmpfs", "/m"))
	b.spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{hook("/bin/busybox mkdir m/in && /bin/busybox mount -t tmpfs hooked m/in && /bin/busybox ls dev/null")}}
	b.write()
	if m := mounted(t, leak.ParseMounts(b.run()), "/m/in"); m.Source != "hooked" {
		t.Errorf("mounted is %v", m)
	}
	b = newBox(t, script(showMounts))
	// As the host: enter the container's mount namespace by the pid of the state.
	b.spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{hook(
		`pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); nsenter -t $pid -m mount -t tmpfs hooked ` + b.rootfs + `/tmp`)}}
	b.write()
	if m := mounted(t, leak.ParseMounts(b.run()), "/tmp"); m.Source != "hooked" {
		t.Errorf("mounted is %v", m)
	}
}
