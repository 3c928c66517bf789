package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestSystemd needs a machine that systemd has booted, which is the vm lane's.
func TestSystemd(t *testing.T) {
	if !booted() {
		if lane == "vm" {
			t.Fatal("systemd does not run in the vm lane")
		}
		t.Skip("systemd does not run here; it does in the vm lane")
	}
	t.Run("Lifecycle", testUnitLifecycle)
	t.Run("Place", testUnitPlace)
	t.Run("Slice", testUnitIsSlice)
	t.Run("Limits", testUnitLimits)
	t.Run("Update", testUnitUpdate)
	t.Run("User", testUnitOfUser)
	t.Run("OnePid", testUnitOnePid)
	t.Run("OutOfMemory", testUnitOutOfMemory)
	t.Run("Annotations", testUnitAnnotations)
	t.Run("Reload", testUnitReload)
	t.Run("Refused", testUnitRefused)
	t.Run("Undone", testUnitUndone)
	t.Run("Leftover", testUnitLeftover)
	t.Run("Taken", testUnitTaken)
	t.Run("Killed", testUnitKilled)
	t.Run("UpdateKilled", testUnitUpdateKilled)
	t.Run("Containerd", testUnitContainerd)
	t.Run("DevicesV1", testUnitDevicesV1)
	t.Run("Restore", testUnitRestore)
}

// Where there is no systemd the driver refuses, and leaves nothing.
func TestWithoutSystemd(t *testing.T) {
	if booted() {
		t.Skip("systemd runs here")
	}
	b := newBox(t, args("sleep", "1000"))
	b.spec.Linux.CgroupsPath = "system.slice:rt:" + b.id
	b.write()
	for _, command := range []string{"create", "run"} {
		b.refused([]string{"systemd not running on this host, cannot use systemd cgroups manager"}, "--systemd-cgroup", command, b.id)
	}
	// Engines give the flag to all commands.
	if out := b.ok("--systemd-cgroup", "list", "-q"); out != "" {
		t.Errorf("list: %q", out)
	}
	b.spec.Linux.CgroupsPath = "/" + top + "/" + b.id
	b.write()
	b.launch()
	b.ok("--systemd-cgroup", "exec", b.id, "true")
	b.ok("--systemd-cgroup", "delete", "--force", b.id)
}

// booted is sd_booted(3).
func booted() bool {
	st, err := os.Stat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// unitBox is a box whose container is a unit of systemd's.
type unitBox struct {
	*box
	unit string
	path string // of its cgroup
}

// newUnitBox makes one in the scope system.slice/rttest-ID.scope. Its test ends
// with nothing of the unit left.
func newUnitBox(t *testing.T, edits ...func(*specs.Spec)) *unitBox {
	t.Helper()
	u := &unitBox{}
	t.Cleanup(func() {
		if err := u.gone(); err != nil {
			t.Error(err)
		}
	})
	u.box = newBox(t, edits...)
	u.place("system.slice:rttest:"+u.id, "rttest-"+u.id+".scope", "/system.slice/rttest-"+u.id+".scope")
	return u
}

func (u *unitBox) place(cgroupsPath, unit, path string) {
	u.t.Helper()
	u.spec.Linux.CgroupsPath, u.unit, u.path = cgroupsPath, unit, path
	u.write()
}

// create makes the container by the driver.
func (u *unitBox) create() {
	u.t.Helper()
	u.ok("--systemd-cgroup", "create", u.id)
}

func systemctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// shows checks properties of the unit.
func (u *unitBox) shows(want map[string]string) {
	u.t.Helper()
	list := []string{"show", u.unit}
	for name := range want {
		list = append(list, "--property="+name)
	}
	got := map[string]string{}
	for line := range strings.Lines(systemctl(u.t, list...)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if before, again := got[name]; again {
			value = before + "\n" + value
		}
		got[name] = value
	}
	for name, value := range want {
		if got[name] != value {
			u.t.Errorf("unit %s: %s is %q, expected %q", u.unit, name, got[name], value)
		}
	}
}

// dirs are the directories of the cgroup in all hierarchies.
func (u *unitBox) dirs() []string {
	var list []string
	for _, m := range cgroup {
		list = append(list, filepath.Join(m, u.path))
	}
	return list
}

// gone is an error while anything of the unit is left. systemd is told of an empty
// cgroup by an event, so it takes a moment.
func (u *unitBox) gone() (err error) {
	deadline := time.Now().Add(limit / 3)
	for {
		err = nil
		out, _ := exec.Command("systemctl", "list-units", "--all", "--no-legend", "--plain", u.unit).Output()
		if len(out) > 0 {
			err = fmt.Errorf("left: unit %s", out)
		}
		for _, d := range u.dirs() {
			if _, e := os.Lstat(d); e == nil {
				procs, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
				err = fmt.Errorf("left: cgroup %s, processes %q", d, procs)
			}
		}
		for _, pid := range stages() {
			err = fmt.Errorf("left: stage or agent %s", pid)
		}
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stages lists the processes that are programs of rt's own. These tests run one by one.
func stages() []string {
	var list []string
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		exe, err := os.Readlink("/proc/" + e.Name() + "/exe")
		if err == nil && (strings.HasPrefix(exe, "/memfd:rt-") || filepath.Base(exe) == "rt-fault" || exe == bin) {
			list = append(list, e.Name()+" "+exe)
		}
	}
	return list
}

// inside reads a file of the container's cgroup as the container sees it.
func (u *unitBox) inside(controller, file string) string {
	u.t.Helper()
	dir := "/sys/fs/cgroup/"
	if !v2 {
		dir += controller + "/"
	}
	return strings.TrimSpace(u.exec("cat " + dir + file))
}

func testUnitLifecycle(t *testing.T) {
	u := newUnitBox(t, script("while :; do echo x >>/count; sleep 0.1; done"))
	u.create()
	u.shows(map[string]string{
		"ActiveState": "active", "SubState": "running", "Slice": "system.slice", "ControlGroup": u.path,
		"Delegate": "yes", "Description": "container " + u.id, "Transient": "yes", "DefaultDependencies": "no",
		"MemoryAccounting": "yes", "CPUAccounting": "yes", "TasksAccounting": "yes",
	})
	// The one process is the container's: the holder has gone.
	pid := strconv.Itoa(u.state().Pid)
	for _, d := range u.dirs() {
		procs, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(procs)) != pid {
			t.Errorf("%s: processes %q, %v; expected %s", d, procs, err, pid)
		}
	}
	u.ok("start", u.id)
	u.is("running")
	u.appears("rootfs/count")
	// With the flag and without, as engines call it.
	u.ok("--systemd-cgroup", "pause", u.id)
	u.is("paused")
	before := u.read("rootfs/count")
	time.Sleep(time.Second)
	if after := u.read("rootfs/count"); after != before {
		t.Error("it ran while it was paused")
	}
	u.ok("resume", u.id)
	u.is("running")
	eventually(t, func() error {
		if u.read("rootfs/count") == before {
			return fmt.Errorf("it does not run again")
		}
		return nil
	})
	if got := u.ok("exec", u.id, "cat", "/proc/self/cgroup"); v2 && got != "0::/\n" {
		t.Errorf("exec runs in %q", got)
	}
	u.shows(map[string]string{"ActiveState": "active"})
	u.ok("kill", u.id, "KILL")
	u.is("stopped")
	u.ok("delete", u.id)
	if err := u.gone(); err != nil {
		t.Error(err)
	}
	// The id and the unit can be used again.
	u.spec.Process.Args = []string{"true"}
	u.write()
	u.ok("--systemd-cgroup", "run", u.id)
}

func testUnitPlace(t *testing.T) {
	for _, tt := range []struct{ cgroupsPath, unit, path string }{
		{"", "rt-%s.scope", "/system.slice/rt-%s.scope"},
		{":p:%s", "p-%s.scope", "/system.slice/p-%s.scope"},
		{"rttest.slice::%s", "%s.scope", "/rttest.slice/%s.scope"},
		{"rttest-sub-sub.slice:p:%s", "p-%s.scope", "/rttest.slice/rttest-sub.slice/rttest-sub-sub.slice/p-%s.scope"},
		{"-.slice:p:%s", "p-%s.scope", "/p-%s.scope"},
		{"system.slice:p+:%s", `p\x2b-%s.scope`, `/system.slice/p\x2b-%s.scope`},
	} {
		t.Run(tt.cgroupsPath, func(t *testing.T) {
			u := newUnitBox(t, args("sleep", "1000"))
			for _, s := range []*string{&tt.cgroupsPath, &tt.unit, &tt.path} {
				*s = strings.ReplaceAll(*s, "%s", u.id)
			}
			u.place(tt.cgroupsPath, tt.unit, tt.path)
			u.create()
			u.shows(map[string]string{"ControlGroup": tt.path})
			in, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", u.state().Pid))
			if err != nil || !strings.Contains(string(in), ":"+tt.path+"\n") {
				t.Errorf("the container is in %q, %v; expected %s", in, err, tt.path)
			}
		})
	}
}

// A unit may be a slice, which needs no process to begin with.
func testUnitIsSlice(t *testing.T) {
	u := newUnitBox(t, args("sleep", "1000"))
	u.place("rttest.slice::rttest-"+u.id+".slice", "rttest-"+u.id+".slice", "/rttest.slice/rttest-"+u.id+".slice")
	u.create()
	u.shows(map[string]string{"ControlGroup": u.path, "ActiveState": "active"})
	u.ok("start", u.id)
	u.is("running")
}

func testUnitLimits(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	shares, period := uint64(512), uint64(50000)
	u := newUnitBox(t, args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: n(77)}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: n(64 << 20), Reservation: n(32 << 20)}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: n(12345), Period: &period, Cpus: "1", Mems: "0"}
	})
	u.create()
	u.ok("start", u.id)
	want := map[string]string{"TasksMax": "77", "CPUQuotaPerSecUSec": "250ms", "CPUQuotaPeriodUSec": "50ms"}
	files := map[string]string{"pids pids.max": "77", "memory memory.limit_in_bytes": "67108864", "cpu cpu.shares": "512",
		"cpu cpu.cfs_quota_us": "12345", "cpu cpu.cfs_period_us": "50000", "cpuset cpuset.cpus": "1", "cpuset cpuset.mems": "0"}
	if v2 {
		want["MemoryMax"], want["MemoryLow"], want["CPUWeight"], want["AllowedCPUs"], want["AllowedMemoryNodes"] = "67108864", "33554432", "59", "1", "0"
		files = map[string]string{"pids pids.max": "77", "memory memory.max": "67108864", "memory memory.low": "33554432",
			"cpu cpu.max": "12345 50000", "cpu cpu.weight": "59", "cpuset cpuset.cpus": "1", "cpuset cpuset.mems": "0"}
	} else {
		want["MemoryLimit"], want["CPUShares"] = "67108864", "512"
	}
	u.shows(want)
	for file, value := range files {
		controller, name, _ := strings.Cut(file, " ")
		if got := u.inside(controller, name); got != value {
			t.Errorf("inside %s is %q, expected %q", name, got, value)
		}
	}
	if got := strings.TrimSpace(u.exec("nproc")); got != "1" {
		t.Errorf("nproc in a cpuset of one CPU: %q", got)
	}
}

// An update without the flag reaches systemd, and the files keep what systemd rounds.
func testUnitUpdate(t *testing.T) {
	u := newUnitBox(t, args("sleep", "1000"))
	u.create()
	u.ok("start", u.id)
	u.ok("update", "--pids-limit", "33", "--cpu-quota", "30500", "--cpu-period", "100000", u.id)
	u.shows(map[string]string{"TasksMax": "33", "CPUQuotaPerSecUSec": "310ms"})
	file, want := "cpu.max", "30500 100000"
	if !v2 {
		file, want = "cpu.cfs_quota_us", "30500"
	}
	if got := u.inside("cpu", file); got != want {
		t.Errorf("%s is %q, expected %q", file, got, want)
	}
	if got := u.inside("pids", "pids.max"); got != "33" {
		t.Errorf("pids.max is %q", got)
	}
}

// A user without privileges has a systemd of his own.
func testUnitOfUser(t *testing.T) {
	if !v2 {
		t.Skip("the user's systemd delegates cgroups on cgroup v2 only")
	}
	const uid, service = 1000, "user@1000.service" // the vm lane's user rt
	systemctl(t, "start", service)
	dir := filepath.Join(work, "user")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o755))
	must(os.Mkdir(filepath.Join(dir, "rootfs"), 0o755))
	must(makeRootfs(filepath.Join(dir, "rootfs")))
	must(filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(p, uid, uid)
		}
		return err
	}))
	as := func(name string, args ...string) string {
		t.Helper()
		p := newProcess(t, append([]string{name}, args...)...)
		p.cmd.Dir = dir
		p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=/run/user/1000", "HOME=/"}
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		r := p.start().end()
		if r.code != 0 {
			t.Fatalf("as the user: %v", r)
		}
		return strings.TrimSpace(r.out)
	}
	as(bin, "spec", "--rootless")
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(err)
	text := strings.Replace(string(config), `"terminal": true`, `"terminal": false`, 1)
	text = strings.Replace(text, `"linux": {`, `"linux": {"resources": {"pids": {"limit": 44}},`, 1)
	text = strings.Replace(text, `"sh"`, `"sleep", "1000"`, 1)
	must(os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o644))
	state := filepath.Join(dir, "state")
	as(bin, "--root", state, "--systemd-cgroup", "create", "u1")
	as(bin, "--root", state, "start", "u1")
	if got := as("systemctl", "--user", "show", "-P", "TasksMax", "rt-u1.scope"); got != "44" {
		t.Errorf("TasksMax is %q", got)
	}
	group := "/user.slice/user-1000.slice/" + service + "/user.slice/rt-u1.scope"
	if got, err := os.ReadFile("/sys/fs/cgroup" + group + "/pids.max"); err != nil || string(got) != "44\n" {
		t.Errorf("pids.max is %q, %v", got, err)
	}
	// The test, and so exec, is outside of what is delegated to the user.
	if out := as(bin, "--root", state, "exec", "u1", "sh", "-c", "cat /proc/self/cgroup; id -u"); !strings.HasPrefix(out, "0::"+group+"\n") && out != "0::/\n0" {
		t.Errorf("exec from outside of the delegated cgroups: %q", out)
	}
	as(bin, "--root", state, "exec", "--detach", "u1", "sleep", "1000")
	if pids := as(bin, "--root", state, "ps", "-f", "json", "u1"); strings.Count(pids, ",") != 1 {
		t.Errorf("the container's two processes are %s", pids)
	}
	as(bin, "--root", state, "update", "--pids-limit", "33", "u1")
	if got := as("systemctl", "--user", "show", "-P", "TasksMax", "rt-u1.scope"); got != "33" {
		t.Errorf("after an update TasksMax is %q", got)
	}
	as(bin, "--root", state, "pause", "u1")
	as(bin, "--root", state, "resume", "u1")
	as(bin, "--root", state, "delete", "--force", "u1")
	if got := as("systemctl", "--user", "list-units", "--all", "--no-legend", "rt-u1.scope"); got != "" {
		t.Errorf("left: %s", got)
	}
	if _, err := os.Stat("/sys/fs/cgroup" + group); err == nil {
		t.Errorf("left: cgroup %s", group)
	}
}

// The process with which a scope begins takes no place of the container's.
func testUnitOnePid(t *testing.T) {
	limit := int64(1)
	if !v2 {
		limit = 2 // there the stage's first process enters too
	}
	u := newUnitBox(t, func(s *specs.Spec) { s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit} },
		args("sleep", "1000"))
	u.create()
	u.shows(map[string]string{"TasksMax": strconv.FormatInt(limit, 10)})
	for _, d := range u.dirs() {
		if b, err := os.ReadFile(filepath.Join(d, "pids.max")); err == nil && strings.TrimSpace(string(b)) != strconv.FormatInt(limit, 10) {
			t.Errorf("%s/pids.max is %q", d, b)
		}
	}
	u.ok("start", u.id)
	u.is("running")
}

// A scope in which memory ran out fails; it does not stay behind.
func testUnitOutOfMemory(t *testing.T) {
	limit := int64(16 << 20)
	u := newUnitBox(t, func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	}, args("sh", "-c", "tail -c 64m /dev/zero; exit 0"))
	u.spec.Process.Args = []string{"dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"}
	u.write()
	r := u.rt("--systemd-cgroup", "run", u.id)
	if r.code != 137 {
		t.Errorf("%v; expected status 137", r)
	}
	if err := u.gone(); err != nil {
		t.Error(err)
	}
}

func testUnitAnnotations(t *testing.T) {
	u := newUnitBox(t, args("sleep", "1000"))
	u.spec.Annotations = map[string]string{
		"org.systemd.property.TimeoutStopSec": "1.5", "org.systemd.property.RuntimeMaxUSec": "uint64 600000000",
		"org.systemd.property.KillSignal": "2", "org.systemd.property.Description": "'of my own'",
		"org.systemd.property.After": "['network.target', 'dbus.service']", "org.systemd.property.SendSIGHUP": "true",
		"org.systemd.property.IOReadBandwidthMax": "[('/dev/vda', 1000000000), ('/dev/vdb', uint64 2000000)]",
		"org.example.other":                       "x",
	}
	u.write()
	u.create()
	u.shows(map[string]string{"TimeoutStopUSec": "1.500000s", "RuntimeMaxUSec": "10min", "KillSignal": "2", "Description": "of my own", "SendSIGHUP": "yes",
		"IOReadBandwidthMax": "/dev/vda 1000000000\n/dev/vdb 2000000"})
	if after := systemctl(t, "show", "-P", "After", u.unit); !strings.Contains(after, "network.target") || !strings.Contains(after, "dbus.service") {
		t.Errorf("After is %q", after)
	}
	u.ok("delete", "--force", u.id)
	for key, tt := range map[string]struct{ value, says string }{
		"PIDs":           {"[uint32 1]", "is not accepted"},
		"Slice":          {"'user.slice'", "is not accepted"},
		"ExecStart":      {"'/bin/true'", "is not accepted"},
		"KillMode":       {"5", "GVariant text of type s"},
		"TasksMax":       {"'many'", "GVariant text of type t"},
		"IODeviceWeight": {"[('/dev/vda', -5)]", "GVariant text of type a(st)"},
		"TimeoutStopSec": {"-1", "no number of seconds"},
		"CollectMode":    {"'never'", "start systemd unit"}, // systemd's own check
	} {
		u.spec.Annotations = map[string]string{"org.systemd.property." + key: tt.value}
		u.write()
		u.refused([]string{key, tt.says}, "--systemd-cgroup", "create", u.id)
		if err := u.gone(); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// What systemd writes when it reads its configuration again changes nothing.
func testUnitReload(t *testing.T) {
	pids, mem := int64(55), int64(64<<20)
	u := newUnitBox(t, args("sleep", "1000"), func(s *specs.Spec) {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &mem}
	})
	// One that the policy alone refuses: this kernel has it not at all.
	if err := unix.Mknod(u.box.path("rootfs/port"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 4))); err != nil {
		t.Fatal(err)
	}
	u.create()
	u.ok("start", u.id)
	look := func() string {
		file := "memory.limit_in_bytes"
		if v2 {
			file = "memory.max"
		}
		out := u.exec("echo >/dev/null && echo null; head -c 1 /port 2>&1; cat /proc/self/cgroup")
		return out + u.inside("pids", "pids.max") + " " + u.inside("memory", file)
	}
	before := look()
	if !strings.Contains(before, "null") || !strings.Contains(before, "not permitted") {
		t.Fatalf("devices before: %q", before)
	}
	systemctl(t, "daemon-reload")
	systemctl(t, "set-property", "--runtime", u.unit, "TasksMax=55")
	if after := look(); after != before {
		t.Errorf("before the reload %q, after it %q", before, after)
	}
	u.is("running")
}

// On cgroup v1 systemd writes the device policy that it knows whenever it likes. That
// must not be to allow all.
func testUnitDevicesV1(t *testing.T) {
	if v2 {
		t.Skip("on cgroup v2 systemd's programs are beside rt's, and both have to allow")
	}
	u := newUnitBox(t, args("sleep", "1000"))
	for name, number := range map[string]uint64{"loop": unix.Mkdev(10, 237), "port": unix.Mkdev(1, 4)} {
		if err := unix.Mknod(u.box.path("rootfs/"+name), unix.S_IFCHR|0o666, int(number)); err != nil {
			t.Fatal(err)
		}
	}
	u.spec.Linux.Resources.Devices = append(u.spec.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: to(int64(10)), Minor: to(int64(237)), Access: "r"})
	u.write()
	u.create()
	u.ok("start", u.id)
	look := func() string {
		return u.exec("(: </dev/null) && echo null; (: </loop) && echo loop; (: >/loop) 2>&1; (: </port) 2>&1; true")
	}
	before := look()
	if before != "null\nloop\nsh: can't create /loop: Operation not permitted\nsh: can't open /port: Operation not permitted\n" {
		t.Fatalf("devices: %q", before)
	}
	for _, again := range [][]string{{"daemon-reload"}, {"daemon-reexec"}, {"set-property", "--runtime", u.unit, "CPUShares=500"},
		{"set-property", "--runtime", u.unit, "DevicePolicy=" + systemctl(t, "show", "-P", "DevicePolicy", u.unit)}} {
		systemctl(t, again...)
		if after := look(); after != before {
			t.Errorf("before %q, after systemctl %v %q, the list being\n%s", before, again, after, u.inside("devices", "devices.list"))
		}
	}
}
