package fault

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// wish is an update of several limits that the lane has: as a document, as config.json has
// them, and the files in which they are to be found.
type wish struct {
	document  string
	resources object
	files     map[string]string // by the path below the mount point of all hierarchies
}

func (b *box) wish() wish {
	if len(mounts) > 1 {
		return wish{
			document: `{"pids":{"limit":200},"cpu":{"shares":700,"quota":50000,"period":90000},"memory":{"limit":536870912}}`,
			resources: object{"pids": object{"limit": 200}, "memory": object{"limit": 536870912},
				"cpu": object{"shares": 700, "quota": 50000, "period": 90000}},
			files: map[string]string{"pids.max": "200", "cpu.shares": "700", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "90000", "memory.limit_in_bytes": "536870912"},
		}
	}
	return wish{
		document:  `{"unified":{"cgroup.max.depth":"7","cgroup.max.descendants":"9"}}`,
		resources: object{"unified": object{"cgroup.max.depth": "7", "cgroup.max.descendants": "9"}},
		files:     map[string]string{"cgroup.max.depth": "7", "cgroup.max.descendants": "9"},
	}
}

// inForce checks that the files of the container's cgroup are as wished, and that state.json
// holds that.
func (b *box) inForce(w wish) {
	b.t.Helper()
	for file, want := range w.files {
		found := false
		for _, d := range b.directories() {
			data, err := os.ReadFile(filepath.Join(d, file))
			if err == nil {
				found = strings.TrimSpace(string(data)) == want
				break
			}
		}
		if !found {
			b.t.Errorf("%s is not %s", file, want)
		}
	}
	if !b.recorded() {
		b.t.Error("state.json has nothing of the update")
	}
}

// recorded tells whether state.json has the limits of an update.
func (b *box) recorded() bool {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.root, b.id, "state.json"))
	b.must(err)
	return strings.Contains(string(data), `"resources":`)
}

func TestUpdateKilled(t *testing.T) {
	try := func(t *testing.T, fault string) (killed bool) {
		b := newBox(t, sleeper)
		pid := b.start()
		w := b.wish()
		b.must(os.WriteFile(b.path("limits"), []byte(w.document), 0o644))
		r := b.fault(fault, "update", "--resources", "limits", b.id)
		if r.code == 0 {
			return false
		}
		r.killed(t)
		b.alone(pid)
		b.ok("exec", b.id, "true")
		if done := fault == "update.record:kill"; b.recorded() != done {
			t.Errorf("state.json has the limits: %v, expected %v", !done, done)
		}
		// The next one finishes what this one has begun; what follows in the test's end is a delete.
		b.ok("update", "--resources", "limits", b.id)
		b.inForce(w)
		b.alone(pid)
		return true
	}
	for _, point := range pointsOf(t, "update.") {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			if !try(t, point+":kill") {
				t.Error("its fault point was not reached")
			}
		})
	}
	// After each of the limits.
	limits := 0
	t.Run("limit", func(t *testing.T) {
		for n, more := 1, true; more; n++ {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				if more = try(t, "limit."+strconv.Itoa(n)+":kill"); more {
					limits = n
				}
			})
		}
	})
	if want := len((&box{}).wish().files); limits != want {
		t.Errorf("killed after each of %d limits, expected %d", limits, want)
	}
}

// Killed by its update alone the container goes as ever.
func TestUpdateKilledThenDelete(t *testing.T) {
	for _, fault := range []string{"limit.1", "update.limits"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			b.start()
			b.must(os.WriteFile(b.path("limits"), []byte(b.wish().document), 0o644))
			b.fault(fault+":kill", "update", "--resources", "limits", b.id).killed(t)
			b.ok("kill", b.id, "KILL")
			b.is("stopped")
			b.ok("delete", b.id)
			b.clean()
		})
	}
}

func TestF01CreateKilledAmongLimits(t *testing.T) {
	for n := range len((&box{}).wish().files) {
		t.Run(strconv.Itoa(n+1), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			limited := sleeper
			limited.edit = func(config object) {
				resources := config["linux"].(object)["resources"].(object)
				for name, value := range b.wish().resources {
					resources[name] = value
				}
			}
			b.write(limited)
			b.fault("limit."+strconv.Itoa(n+1)+":kill", "create", b.id).killed(t)
			b.refused([]string{"is not completely created"}, "start", b.id)
			b.ok("delete", b.id)
			b.clean()
			b.start()
		})
	}
}
