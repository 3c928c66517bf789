package bundle

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/accepted.txt; then read it")

// full has every member that is built, and one of each that is not. The
// problems of the latter are its only ones.
const full = `{
	"ociVersion": "1.0.2",
	"root": {"path": "rootfs", "readonly": true},
	"hostname": "h", "domainname": "d",
	"annotations": {"a": "b"},
	"process": {
		"terminal": true, "consoleSize": {"height": 25, "width": 80},
		"user": {"uid": 5, "gid": 5, "umask": 18, "additionalGids": [6]},
		"args": ["sh"], "env": ["A=b"], "cwd": "/",
		"capabilities": {
			"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"],
			"permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]
		},
		"rlimits": [{"type": "RLIMIT_CORE", "hard": 5, "soft": 5}],
		"noNewPrivileges": true, "oomScoreAdj": 5,
		"apparmorProfile": "x", "selinuxLabel": "x",
		"scheduler": {"policy": "SCHED_DEADLINE", "nice": 0, "priority": 0, "flags": ["SCHED_FLAG_RECLAIM"], "runtime": 5000, "deadline": 5000, "period": 5000},
		"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5},
		"execCPUAffinity": {"initial": "5", "final": "5"}
	},
	"mounts": [
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/b", "type": "bind", "source": "/x", "options": ["rbind", "ro"]},
		{"destination": "/t", "type": "tmpfs", "source": "t", "options": ["size=5"]},
		{"destination": "/i", "source": "/i", "options": ["bind"],
			"uidMappings": [{"containerID": 5, "hostID": 5, "size": 5}], "gidMappings": [{"containerID": 5, "hostID": 5, "size": 5}]}
	],
	"hooks": {
		"prestart": [], "createRuntime": [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 5}],
		"createContainer": [], "startContainer": [], "poststart": [], "poststop": []
	},
	"linux": {
		"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 50}],
		"gidMappings": [{"containerID": 0, "hostID": 1000, "size": 50}],
		"sysctl": {"net.a": "5"},
		"cgroupsPath": "/a",
		"namespaces": [
			{"type": "mount"}, {"type": "network", "path": "/n"}, {"type": "uts"}, {"type": "user"}, {"type": "time"}
		],
		"devices": [{"path": "/d", "type": "c", "major": 5, "minor": 5, "fileMode": 5, "uid": 5, "gid": 5}],
		"rootfsPropagation": "slave",
		"maskedPaths": ["/m"], "readonlyPaths": ["/r"],
		"timeOffsets": {"boottime": {"secs": 5, "nanosecs": 5}},
		"seccomp": {
			"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5, "architectures": ["x"], "flags": ["x"],
			"listenerPath": "x", "listenerMetadata": "x",
			"syscalls": [{"names": ["x"], "action": "x", "errnoRet": 5, "args": [{"index": 5, "value": 5, "valueTwo": 5, "op": "x"}]}]
		},
		"mountLabel": "x",
		"intelRdt": {"closID": "x", "schemata": ["x"], "l3CacheSchema": "x", "memBwSchema": "MB:x", "enableMonitoring": true},
		"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "5", "flags": ["MPOL_F_STATIC_NODES"]},
		"personality": {"domain": "LINUX", "flags": ["x"]},
		"netDevices": {"e": {"name": "x"}},
		"resources": {
			"devices": [{"allow": true, "type": "c", "major": 5, "minor": 5, "access": "r"}],
			"memory": {"limit": 5, "reservation": 5, "swap": 5, "kernel": 5, "kernelTCP": 5, "swappiness": 5,
				"disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
			"cpu": {"shares": 5, "quota": 5000, "burst": 5, "period": 5000, "realtimeRuntime": 5, "realtimePeriod": 5,
				"cpus": "5", "mems": "5", "idle": 1},
			"pids": {"limit": 5},
			"blockIO": {"weight": 50, "leafWeight": 0,
				"weightDevice": [{"major": 5, "minor": 5, "weight": 50, "leafWeight": 0}],
				"throttleReadBpsDevice": [{"major": 5, "minor": 5, "rate": 5}],
				"throttleWriteBpsDevice": [], "throttleReadIOPSDevice": [], "throttleWriteIOPSDevice": []},
			"hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
			"network": {"classID": 5, "priorities": [{"name": "x", "priority": 5}]},
			"rdma": {"x": {"hcaHandles": 5, "hcaObjects": 5}},
			"unified": {"a.b": "x"}
		}
	}
}`

// TestSubstitute puts a value of each kind at each node of full. Either that
// gives a problem at the node, above or below it, or testdata/accepted.txt, which a person
// has read, says what happens: nothing, or problems elsewhere.
func TestSubstitute(t *testing.T) {
	base := problemsOf(t, []byte(full))
	for p := range base {
		t.Errorf("full: %v", p)
	}
	var got strings.Builder
	for _, pointer := range nodes(parseTree(t, []byte(full)), "") {
		if pointer == "" {
			continue
		}
		for _, value := range []string{"null", "true", "0", "-1", "1.5", `"x"`, "[]", "{}"} {
			var elsewhere []string
			near := false
			for p := range problemsOf(t, patch(t, []byte(full), pointer+" "+value)) {
				if base[p] {
					continue
				}
				if covered(p.Pointer, Problems{{Pointer: pointer}}) || covered(pointer, Problems{p}) {
					near = true
				} else {
					elsewhere = append(elsewhere, p.Pointer)
				}
			}
			slices.Sort(elsewhere)
			switch {
			case near:
			case len(elsewhere) > 0:
				fmt.Fprintf(&got, "%s %s: refused at %s\n", pointer, value, strings.Join(elsewhere, ", "))
			default:
				fmt.Fprintf(&got, "%s %s\n", pointer, value)
			}
		}
	}
	const file = "testdata/accepted.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, w := lines(got.String()), lines(string(want))
	for l := range g {
		if !w[l] {
			t.Errorf("accepted, and not in %s: %s", file, l)
		}
	}
	for l := range w {
		if !g[l] {
			t.Errorf("not accepted, but in %s: %s", file, l)
		}
	}
}

func lines(s string) map[string]bool {
	set := map[string]bool{}
	for l := range strings.Lines(s) {
		set[strings.TrimSpace(l)] = true
	}
	return set
}

func problemsOf(t *testing.T, data []byte) map[Problem]bool {
	t.Helper()
	set := map[Problem]bool{}
	_, _, err := Parse("config.json", data)
	if err == nil {
		return set
	}
	problems, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatal(err)
	}
	for _, p := range problems {
		set[p] = true
	}
	return set
}

// nodes is the pointers of all values of a tree, in order.
func nodes(tree any, pointer string) []string {
	list := []string{pointer}
	switch n := tree.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(n)) {
			list = append(list, nodes(n[name], at(pointer, name))...)
		}
	case []any:
		for i := range n {
			list = append(list, nodes(n[i], at(pointer, i))...)
		}
	}
	return list
}
