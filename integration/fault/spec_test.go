package fault

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// spec is what differs between the configurations of these tests.
type spec struct {
	args []string
	// full asks for an operation of each kind, and for hooks.
	full     bool
	terminal bool
	hooks    map[string]string // kind to a script
	edit     func(config object)
}

var sleeper = spec{args: []string{"sleep", "1000"}}

type object = map[string]any

func (s spec) build(b *box) object {
	namespaces := []object{{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}, {"type": "uts"}, {"type": "network"}}
	linux := object{
		"cgroupsPath": "/" + top + "/" + b.id,
		"maskedPaths": []string{"/proc/keys"},
		"resources":   object{"devices": []object{{"allow": false, "access": "rwm"}}},
	}
	mounts := []object{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
		{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
	}
	process := object{
		"args": s.args, "cwd": "/", "env": []string{"PATH=/bin"}, "user": object{"uid": 0, "gid": 0},
		"terminal": s.terminal,
	}
	config := object{
		"ociVersion": "1.0.2",
		"root":       object{"path": filepath.Join(work, "rootfs"), "readonly": true},
		"process":    process,
		"mounts":     mounts,
		"linux":      linux,
	}
	hooks := object{}
	for kind, script := range s.hooks {
		hooks[kind] = []object{{"path": "/bin/sh", "args": []string{"sh", "-c", script}}}
	}
	if s.full {
		namespaces = append(namespaces, object{"type": "user"}, object{"type": "time"}, object{"type": "cgroup"})
		ids := []object{{"containerID": 0, "hostID": 0, "size": 65536}}
		linux["uidMappings"], linux["gidMappings"] = ids, ids
		linux["timeOffsets"] = object{"monotonic": object{"secs": 10}}
		linux["maskedPaths"] = []string{"/proc/keys", "/proc/acpi"}
		linux["readonlyPaths"] = []string{"/proc/sys"}
		linux["sysctl"] = object{"kernel.domainname": "fault"}
		config["hostname"] = "fault"
		config["mounts"] = append(mounts,
			object{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []string{"tmpcopyup"}},
			object{"destination": "/sys", "type": "bind", "source": filepath.Join(work, "rootfs/sys"), "options": []string{"rbind", "ro"}})
		process["rlimits"] = []object{{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512}}
		process["noNewPrivileges"] = true
		process["capabilities"] = object{"bounding": []string{"CAP_KILL"}, "permitted": []string{"CAP_KILL"}, "effective": []string{"CAP_KILL"}}
		for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
			if hooks[kind] == nil {
				hooks[kind] = []object{{"path": "/bin/true"}}
			}
		}
	}
	linux["namespaces"] = namespaces
	if len(hooks) > 0 {
		config["hooks"] = hooks
	}
	if s.edit != nil {
		s.edit(config)
	}
	return config
}

// plan is the plan of b's bundle, an operation a line.
func (b *box) plan() string {
	b.t.Helper()
	return b.ok("plan", b.dir)
}

// operation returns the number of the first operation of b's plan that has the verb.
func operation(b *box, verb string) int {
	b.t.Helper()
	for line := range strings.Lines(b.plan()) {
		if f := strings.Fields(line); f[1] == verb {
			n, _ := strconv.Atoi(f[0])
			return n
		}
	}
	b.t.Fatalf("the plan has no operation %s", verb)
	return 0
}

// operations returns the number of operations of b's plan, and that of the gate.
func operations(b *box) (last, gate int) {
	b.t.Helper()
	for line := range strings.Lines(b.plan()) {
		f := strings.Fields(line)
		n, err := strconv.Atoi(f[0])
		if err != nil || n != last+1 || len(f) < 2 {
			b.t.Fatalf("line %q of the plan", line)
		}
		last = n
		if f[1] == "gate" {
			gate = n
		}
	}
	if gate == 0 {
		b.t.Fatal("the plan has no gate")
	}
	return last, gate
}

// pointsOf returns the fault points that have one of the prefixes.
func pointsOf(t *testing.T, prefixes ...string) []string {
	t.Helper()
	var list []string
	for _, p := range points {
		for _, prefix := range prefixes {
			if strings.HasPrefix(p, prefix) {
				list = append(list, p)
			}
		}
	}
	if len(list) == 0 {
		t.Fatalf("no fault point is called %v", prefixes)
	}
	return list
}
