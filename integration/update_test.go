package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Limits that cannot be had end a create before it has done anything, with their
// place in config.json.
func TestRefusedLimits(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	type row struct {
		resources string
		words     []string
	}
	rows := []row{
		{`{"memory":{"limit":-2}}`, []string{"/linux/resources/memory/limit: -2: out of range"}},
		{`{"memory":{"limit":1073741824,"swap":5}}`, []string{"/linux/resources/memory/swap: 5: below the memory limit"}},
		{`{"memory":{"swappiness":101}}`, []string{"/linux/resources/memory/swappiness: 101"}},
		{`{"cpu":{"quota":5}}`, []string{"/linux/resources/cpu/quota: 5"}},
		{`{"cpu":{"cpus":"x"}}`, []string{`/linux/resources/cpu/cpus: "x": malformed list`}},
		{`{"blockIO":{"weight":5}}`, []string{"/linux/resources/blockIO/weight: 5"}},
		{`{"blockIO":{"leafWeight":50}}`, []string{"/linux/resources/blockIO/leafWeight: 50"}},
		{`{"hugepageLimits":[{"pageSize":"2","limit":1}]}`, []string{`/linux/resources/hugepageLimits/0/pageSize: "2"`}},
		{`{"rdma":{"x":{}}}`, []string{"/linux/resources/rdma/x: must be specified"}},
		{`{"devices":[{"allow":true,"type":"x","access":"r"}]}`, []string{`/linux/resources/devices/0/type: "x"`}},
		{`{"unified":{"../cgroup.procs":"1"}}`, []string{`/linux/resources/unified/..~1cgroup.procs: "../cgroup.procs": malformed file name`}},
		{`{"unified":{"cgroup.procs":"1"}}`, []string{`"cgroup.procs": cannot be set`}},
		// Of the lanes only vm has the controller, see TestRdma.
		{`{"rdma":{"mlx5_1":{"hcaHandles":3}}}`, []string{"(config.json /linux/resources/rdma/mlx5_1)", "controller rdma is"}},
	}
	if v2 {
		rows = append(rows, row{`{"cpu":{"realtimeRuntime":5}}`, []string{"(config.json /linux/resources/cpu/realtimeRuntime): cgroup v2 has no"}},
			row{`{"network":{"classID":5}}`, []string{"/linux/resources/network/classID): cgroup v2 has no"}},
			row{`{"unified":{"nosuch.max":"5"}}`, []string{"/linux/resources/unified/nosuch.max): controller nosuch is not in"}})
	} else {
		rows = append(rows, row{`{"unified":{"memory.high":"5"}}`, []string{"(config.json /linux/resources/unified): the files that it names are those of cgroup v2"}},
			row{`{"network":{"classID":5},"rdma":{"x":{"hcaObjects":1}}}`, []string{"/linux/resources/network/classID): no cgroup hierarchy with the controller net_cls is mounted; ", "/linux/resources/rdma/x)"}})
	}
	if !v2 {
		// What cgroup v1 cannot express would leave a device open. It shows when the cgroup is there.
		rows = append(rows, row{`{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","access":"rw"},{"allow":false,"type":"c","major":1,"minor":1,"access":"r"}]}`,
			[]string{`(config.json /linux/resources/devices/2): cgroup v1 cannot make "c 1:1 r" an exception to "c *:* rw"`}})
	}
	if _, ok := controllerDir("pids"); !ok {
		rows = append(rows, row{`{"pids":{"limit":5}}`, []string{"(config.json /linux/resources/pids/limit): controller pids is not in"}})
	}
	for _, r := range rows {
		b.patch("/linux/resources", json.RawMessage(r.resources))
		b.refused(append(r.words, "rt create failed: "), "create", b.id)
		b.refused(append(r.words, "rt run failed: "), "run", b.id)
		if err := b.leak(); err != nil {
			t.Errorf("%s: %v", r.resources, err)
		}
	}
	// What the kernel refuses leaves nothing either.
	if v2 {
		b.patch("/linux/resources", json.RawMessage(`{"unified":{"cgroup.max.depth":"x"}}`))
		b.refused([]string{`set cgroup.max.depth to "x" (config.json /linux/resources/unified/cgroup.max.depth): invalid argument`}, "create", b.id)
	} else {
		b.patch("/linux/resources", json.RawMessage(`{"cpu":{"cpus":"4000"}}`))
		b.refused([]string{`set cpuset.cpus to "4000" (config.json /linux/resources/cpu/cpus)`}, "create", b.id)
	}
	if err := b.leak(); err != nil {
		t.Error(err)
	}
}

// What asks for nothing is refused nowhere, whatever controllers there are.
func TestZeroLimits(t *testing.T) {
	t.Parallel()
	const zeros = `{"memory":{"limit":0,"swap":0,"reservation":0,"kernel":0,"kernelTCP":0,"swappiness":0,"disableOOMKiller":false,"useHierarchy":false,"checkBeforeUpdate":false},
		"cpu":{"shares":0,"quota":0,"period":0,"burst":0,"realtimeRuntime":0,"realtimePeriod":0,"idle":0,"cpus":"","mems":""},"pids":{"limit":0},
		"blockIO":{"weight":0,"leafWeight":0,"weightDevice":[{"major":8,"minor":0,"weight":0}],"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]},
		"hugepageLimits":[{"pageSize":"2MB","limit":0}],"network":{"classID":0,"priorities":[{"name":"lo","priority":0}]},"rdma":{"x":{"hcaHandles":0}},"unified":{}}`
	b := newBox(t, script(service))
	b.patch("/linux/resources", json.RawMessage(zeros))
	b.reach("running")
	if r := b.feed(zeros, "update", "-r", "-", b.id); r.code != 0 || r.err != "" {
		t.Error(r)
	}
	b.ok("update", "--memory", "0", "--pids-limit", "0", "--cpu-share", "0", "--cpu-idle", "0", "--cpuset-cpus", "", b.id)
}

// An update that fails halfway leaves what was in force before, and names what
// failed; one that succeeds is written down.
func TestUpdateAllOrNothing(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(service))
	b.reach("running")
	dir := filepath.Join(cgroup2(), top, b.id)
	file, good, bad, words := "cgroup.max.depth", `{"unified":{"cgroup.max.depth":"7"}}`, `{"unified":{"cgroup.max.depth":"8","cgroup.pressure":"x"}}`,
		[]string{`set cgroup.pressure to "x" (resources /unified/cgroup.pressure)`}
	record := `"unified":{"cgroup.max.depth":"7"}`
	if !v2 {
		pids, _ := controllerDir("pids")
		dir, file = filepath.Join(pids, top, b.id), "pids.max"
		good, bad = `{"pids":{"limit":7}}`, `{"pids":{"limit":8},"cpu":{"shares":700,"cpus":"0"},"blockIO":{"weight":200,"throttleReadBpsDevice":[{"major":4000,"minor":0,"rate":5}]}}`
		words = []string{`set blkio.throttle.read_bps_device to "4000:0 5" (resources /blockIO/throttleReadBpsDevice/0)`}
		record = `"pids":{"limit":7}`
	}
	b.must(os.WriteFile(b.path("good"), []byte(good), 0o644))
	b.ok("update", "--resources", "good", b.id)
	// All files of all hierarchies, but for those that count.
	snapshot := func() string {
		var all bytes.Buffer
		for _, m := range cgroup {
			for _, f := range []string{"pids.max", "cpu.shares", "cpuset.cpus", "blkio.bfq.weight", "blkio.throttle.read_bps_device", "cgroup.max.depth", "cgroup.pressure"} {
				if text, err := os.ReadFile(filepath.Join(m, top, b.id, f)); err == nil {
					fmt.Fprintf(&all, "%s/%s: %s", m, f, text)
				}
			}
		}
		return all.String()
	}
	before := snapshot()
	if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(text) != "7\n" {
		t.Errorf("%s: %q, %v", file, text, err)
	}
	r := b.feed(bad, "update", "-r", "-", b.id)
	r.refused(1, append(words, "no limit was changed")...)
	if after := snapshot(); after != before {
		t.Errorf("a failed update changed\n%sto\n%s", before, after)
	}
	if text := b.read("state/" + b.id + "/state.json"); !strings.Contains(text, record) || strings.Contains(text, `:{"limit":8`) {
		t.Errorf("recorded is %s, expected %s", text, record)
	}
	// In the container, seen by a process that the limit stops.
	if !v2 {
		if r := b.program("sh", "-c", `for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done 2>/dev/null; echo never`); r.code == 0 || r.out != "" {
			t.Errorf("%v: nine processes under a limit of 7", r)
		}
	}
}

func TestUpdateInput(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(service))
	b.reach("running")
	for text, want := range map[string]string{
		`null`:                         "resources: null: wrong type or range",
		``:                             "resources: line 1, column 1: the document is empty",
		`{"memory":{"limit":"100m"}}`:  `resources: /memory/limit: "100m": wrong type or range`,
		`{"unified":{"a/b":"1"}}`:      `resources: /unified/a~1b: "a/b": malformed file name`,
		`{"pids":{"limit":1}} x`:       "data after the end",
		`{"cpu":{"idle":1,"idle":1}}`:  "duplicate",
		`{"memory":{"limit":1}`:        "the document ends too early",
		`{"cpu":{"cpus":"9-1"}}`:       "resources: /cpu/cpus",
		`{"blockIO":{"weight":99999}}`: "resources: /blockIO/weight: 99999",
	} {
		b.feed(text, "update", "-r", "-", b.id).refused(1, want)
	}
	b.refused([]string{"read --resources", "no such file"}, "update", "-r", "nosuch", b.id)
	// What the machine's cgroups do not have, by its place in the document and by its flag.
	for text, want := range map[string][2]string{
		`{"unified":{"nosuch.max":"5"}}`:       {"(resources /unified/nosuch.max): controller nosuch is not in", "(resources /unified): the files that it names are those of cgroup v2"},
		`{"rdma":{"mlx5_1":{"hcaHandles":3}}}`: {"(resources /rdma/mlx5_1): controller rdma is not in", "(resources /rdma/mlx5_1): no cgroup hierarchy with the controller rdma is mounted"},
		`{"network":{"classID":5}}`:            {"(resources /network/classID): cgroup v2 has no network controllers", "(resources /network/classID): no cgroup hierarchy with the controller net_cls is mounted"},
	} {
		if v2 {
			b.feed(text, "update", "-r", "-", b.id).refused(1, want[0])
		} else {
			b.feed(text, "update", "-r", "-", b.id).refused(1, want[1])
		}
	}
	if v2 {
		b.refused([]string{"set limit (--cpu-rt-runtime): cgroup v2 has no limits of realtime scheduling"}, "update", "--cpu-rt-runtime", "5000", b.id)
	}
	if _, ok := controllerDir("pids"); !ok {
		b.refused([]string{"set limit (--pids-limit): controller pids is not in"}, "update", "--pids-limit", "5", b.id)
	}
	b.refused([]string{"invalid value for memory: invalid suffix: 'x'"}, "update", "--memory", "5x", b.id)
	b.refused([]string{"update: --cpu-period: 5: out of range"}, "update", "--cpu-period", "5", b.id)
	// A container without linux.intelRdt is in no group, whatever the machine has.
	none := "the container has no resctrl group: it was created without linux.intelRdt"
	b.refused([]string{"set schema (--l3-cache-schema): " + none}, "update", "--l3-cache-schema", "L3:0=f", b.id)
	b.refused([]string{"set schema (--mem-bw-schema): " + none}, "update", "--mem-bw-schema", "MB:0=20", b.id)
	b.refused([]string{`update: --mem-bw-schema: "L3:0=f": not a schema of memory bandwidth; accepted: one that begins with "MB:"`}, "update", "--mem-bw-schema", "L3:0=f", b.id)
	b.refused([]string{`update: --l3-cache-schema: "L3:0=f\nMB:0=1": must not contain a newline`}, "update", "--l3-cache-schema", "L3:0=f\nMB:0=1", b.id)
	// They apply beside a document too, and then all of it is refused.
	doc := `{"pids":{"limit":123}}`
	if v2 {
		doc = `{"unified":{"cgroup.max.depth":"123"}}`
	}
	b.feed(doc, "update", "-r", "-", "--mem-bw-schema", "MB:0=20", b.id).refused(1, "set schema (--mem-bw-schema): "+none)
	for _, m := range cgroup {
		for _, f := range []string{"pids.max", "cgroup.max.depth"} {
			if text, err := os.ReadFile(filepath.Join(m, top, b.id, f)); err == nil && string(text) == "123\n" {
				t.Errorf("a refused update changed %s", f)
			}
		}
	}
	for _, text := range []string{`{}`, `{"devices":[{"allow":true,"access":"rwm"}]}`} {
		if r := b.feed(text, "update", "-r", "-", b.id); r.code != 0 || r.err != "" {
			t.Error(r)
		}
	}
	b.is("running")
}

// A cgroup that others use, or whose file system is read-only, is refused, and
// left as it is.
func TestRefusedCgroup(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("true"))
	b.spec.Linux.CgroupsPath = "/" + top + "/" + b.id + "/../../x"
	b.write()
	b.refused([]string{"/linux/cgroupsPath", `must not contain the component ".."`}, "create", b.id)
	b.spec.Linux.CgroupsPath = "/" + top + "/" + b.id
	b.write()

	dir := filepath.Join(cgroup[len(cgroup)-1], top, b.id)
	b.must(os.Mkdir(dir, 0o755))
	stranger := newProcess(t, "/bin/busybox", "sleep", "60").start()
	t.Cleanup(func() { stranger.cmd.Process.Kill() }) // if the test ends early
	b.must(os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(fmt.Sprint(stranger.cmd.Process.Pid)), 0))
	b.refused([]string{"container's cgroup is not empty: 1 process(es) found"}, "create", b.id)
	if err := stranger.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger: %v", err)
	}
	stranger.signal(9)
	stranger.end()
	eventually(t, func() error { return os.Remove(dir) })

	p := b.command("unshare", "--mount", "--propagation", "private", "sh", "-c", `mount -o remount,bind,ro "$0" && exec "$@"`,
		cgroup[len(cgroup)-1], bin, "--root", b.root, "create", b.id)
	p.start().end().refused(1, "rt create failed: create cgroup", "read-only file system")
	if err := b.leak(); err != nil {
		t.Error(err)
	}
}

// Controllers that share a hierarchy, in a place of its own.
func TestCoMounted(t *testing.T) {
	t.Parallel()
	if v2 {
		t.Skip("cgroup v2 has one hierarchy")
	}
	script := script("cat /proc/self/cgroup; cd /sys/fs/cgroup; cat net_cls/net_cls.classid; grep lo net_prio/net_prio.ifpriomap; readlink net_cls; readlink net_prio")
	network := limits(func(r *specs.LinuxResources) {
		r.Network = &specs.LinuxNetwork{ClassID: to(uint32(0x100001)), Priorities: []specs.LinuxInterfacePriority{{Name: "lo", Priority: 7}}}
	})
	if dir, ok := controllerDir("net_cls"); ok { // as systemd mounts it
		b := newBox(t, script, network)
		name := filepath.Base(dir)
		if out := b.run(); !strings.Contains(out, "\n1048577\nlo 7\n"+name+"\n"+name+"\n") || !strings.Contains(out, ":"+name+":/"+top+"/"+b.id+"\n") {
			t.Errorf("%q", out)
		}
		return
	}
	for _, c := range []string{"net_cls", "net_prio"} {
		if text, err := os.ReadFile("/proc/cgroups"); err != nil || !strings.Contains(string(text), c+"\t0\t") {
			t.Skipf("%s is in use, or the kernel does not have it", c)
		}
	}
	b := newBox(t, script, network)
	b.must(os.Mkdir(b.path("net"), 0o755))
	t.Cleanup(func() {
		// A hierarchy outlives its last mount while cgroups in it are on their way
		// out: it goes with the next.
		eventually(t, func() error {
			newProcess(t, "unshare", "--mount", "--propagation", "private", "sh", "-c", "mount -t cgroup -o net_cls,net_prio cgroup "+work+" && umount "+work).start().end()
			time.Sleep(20 * time.Millisecond)
			if text, _ := os.ReadFile("/proc/cgroups"); !strings.Contains(string(text), "net_cls\t0\t") {
				return errors.New("the hierarchy of net_cls and net_prio stays")
			}
			return nil
		})
	})
	p := b.command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t cgroup -o net_cls,net_prio cgroup net && "$@"; s=$?; rmdir net/`+top+`; exit $s`, "sh", bin, "--root", b.root, "run", b.id)
	r := p.start().end()
	if r.code != 0 || !strings.Contains(r.out, "\n1048577\nlo 7\nnet\nnet\n") || !strings.Contains(r.out, ":net_cls,net_prio:/"+top+"/"+b.id+"\n") {
		t.Error(r)
	}
}

// exec --cgroup enters a cgroup below the container's, `ps` lists what is there,
// and delete removes it.
func TestExecInSubCgroup(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "600"))
	b.launch()
	flag := "sub/deep"
	for _, m := range cgroup {
		b.must(os.MkdirAll(filepath.Join(m, top, b.id, flag), 0o755))
	}
	if dir, ok := controllerDir("cpuset"); ok && !v2 {
		for _, d := range []string{"sub", flag} { // new ones have no CPUs (cpuset(7))
			for file, value := range map[string]string{"cpuset.cpus": "0", "cpuset.mems": "0"} {
				b.must(os.WriteFile(filepath.Join(dir, top, b.id, d, file), []byte(value), 0))
			}
		}
	}
	b.ok("exec", "--detach", "--cgroup", flag, b.id, "sleep", "60")
	if n := len(b.pids()); n != 2 {
		t.Errorf("ps lists %d processes, expected 2", n)
	}
	count := func(r result) int {
		t.Helper()
		if r.code != 0 {
			t.Fatal(r)
		}
		return strings.Count(r.out, b.id+"/"+flag+"\n")
	}
	self := []string{b.id, "cat", "/proc/self/cgroup"}
	if n := count(b.rt(append([]string{"exec", "--cgroup", flag}, self...)...)); n != len(cgroup) && !v2 {
		t.Errorf("in %d hierarchies of %d", n, len(cgroup))
	}
	if !v2 {
		if n := count(b.rt(append([]string{"exec", "--cgroup", "pids,memory:" + flag}, self...)...)); n != 2 {
			t.Errorf("in %d hierarchies, expected 2", n)
		}
		b.rt(append([]string{"exec", "--cgroup", "nosuch:" + flag}, self...)...).refused(255, `no hierarchy of the container's has the controller "nosuch"`)
	} else {
		b.rt(append([]string{"exec", "--cgroup", "memory:" + flag}, self...)...).refused(255, "cgroup v2 has one hierarchy")
	}
	b.rt(append([]string{"exec", "--cgroup", "../x"}, self...)...).refused(255, `use --cgroup "../x": it must not contain the component ".."`)
	b.rt(append([]string{"exec", "--cgroup", "nosuch"}, self...)...).refused(255, b.id+"/nosuch", "no such file or directory")
	b.ok("delete", "--force", b.id)
}

// A container that shares controllers out below its cgroup can have no process
// in the cgroup itself (cgroup2): exec then joins init where that has gone.
func TestExecBesideControllers(t *testing.T) {
	t.Parallel()
	if !v2 {
		t.Skip("only cgroup v2 has the rule of no internal processes")
	}
	needs(t, "memory")
	b := newBox(t, args("sleep", "600"))
	b.launch()
	dir := filepath.Join(cgroup2(), top, b.id)
	b.must(os.Mkdir(filepath.Join(dir, "leaf"), 0o755))
	for _, pid := range b.pids() {
		b.must(os.WriteFile(filepath.Join(dir, "leaf", "cgroup.procs"), []byte(fmt.Sprint(pid)), 0))
	}
	b.must(os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0))
	if r := b.program("cat", "/proc/self/cgroup"); r.code != 0 || !strings.Contains(r.out, "/leaf\n") {
		t.Error(r)
	}
}
