package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rt/integration/leak"
	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// outer is a cgroup in all hierarchies, in which the commands of a box run.
type outer struct {
	name string   // below the mount points
	dirs []string // on the host
}

// newOuter makes it. It has to be made before the box, so that it ends after it.
func newOuter(t *testing.T) *outer {
	t.Helper()
	o := &outer{name: fmt.Sprintf("%s/outer%d", top, boxes.Add(1))}
	t.Cleanup(func() {
		for _, d := range o.dirs {
			eventually(t, func() error {
				if err := os.Remove(d); !os.IsNotExist(err) {
					return err
				}
				return nil
			})
		}
	})
	for _, m := range cgroup {
		d := filepath.Join(m, o.name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		o.dirs = append(o.dirs, d)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} { // new ones have none (cpuset(7))
			for _, below := range []string{filepath.Join(m, top), d} {
				if text, err := os.ReadFile(filepath.Join(m, f)); err == nil && !v2 {
					if err := os.WriteFile(filepath.Join(below, f), text, 0); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	return o
}

// hierarchies are the mount points with the type and option that mount each anew.
func hierarchies(t *testing.T) map[string][2]string {
	t.Helper()
	list := map[string][2]string{}
	for _, m := range leak.Mounts("/proc/self/mountinfo") {
		for _, point := range cgroup {
			if m.Path != point {
				continue
			}
			list[point] = [2]string{m.Type, "rw"}
			if m.Type != "cgroup" {
				continue
			}
			var own []string // controllers, or a name
			for _, o := range m.SuperOptions {
				if o != "rw" && o != "xattr" && o != "noprefix" && !strings.HasPrefix(o, "release_agent=") && o != "clone_children" {
					own = append(own, o)
				}
			}
			list[point] = [2]string{m.Type, strings.Join(own, ",")}
		}
	}
	return list
}

// rt works inside the cgroup namespace of a container, and in a container without one, whatever
// /proc/self/mountinfo shows of the mounts there.
func TestInCgroupNamespace(t *testing.T) {
	t.Parallel()
	fresh, bound := "", ""
	for point, how := range hierarchies(t) {
		if point == "/sys/fs/cgroup" {
			fresh += "umount -l /sys/fs/cgroup\n"
		} else {
			fresh += "umount " + point + "\n"
		}
		fresh += fmt.Sprintf("mount -t %s -o %s cgroup %s\n", how[0], how[1], point)
		bound += fmt.Sprintf("mount --bind %s/OUTER %s\n", point, point)
	}
	unshare := "exec unshare --cgroup --mount --propagation private sh -ec "
	for _, c := range []struct {
		name   string
		script string // after the cgroup was entered; MOUNTS is replaced
		mounts string
		own    string // path in /proc/self/cgroup, OUTER being that of the cgroup
		root   string // field in /proc/self/mountinfo
		path   string // cgroupsPath of the config, ID being the container's
		place  string // where the container is then, below the mount point on the host
	}{
		{"mounts of its own", unshare, fresh, "/", "/", "/sub/ID", "OUTER/sub/ID"},
		{"mounts of its own, relative", unshare, fresh, "/", "/", "sub/ID", "OUTER/sub/ID"},
		{"mounts of its own, no path", unshare, fresh, "/", "/", "", "OUTER/ID"},
		{"mounts of the host", unshare, "", "/", "/../..", "/OUTER/sub/ID", "OUTER/sub/ID"},
		{"bound before", "exec unshare --mount --propagation private sh -ec ", bound, "/OUTER", "/OUTER", "/sub/ID", "OUTER/sub/ID"},
		{"bound before, relative", "exec unshare --mount --propagation private sh -ec ", bound, "/OUTER", "/OUTER", "sub/ID", "OUTER/sub/ID"},
		{"bound after", unshare, bound, "/", "/", "/sub/ID", "OUTER/sub/ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOuter(t)
			b := newBox(t, args("sleep", "600"))
			fill := func(s string) string {
				return strings.NewReplacer("OUTER", o.name, "ID", b.id).Replace(s)
			}
			b.spec.Linux.CgroupsPath = fill(c.path)
			if pids, ok := controllerDir("pids"); ok && !v2 && pids != "" {
				b.spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: to(int64(9))}
			} else {
				b.spec.Linux.Resources.Unified = map[string]string{"cgroup.max.depth": "9"}
			}
			b.write()
			enter := "set -e\n"
			for _, d := range o.dirs {
				enter += "echo 0 >" + d + "/cgroup.procs\n"
			}
			enter += c.script + quoted(fill(c.mounts)+`exec "$@"`) + ` sh "$@"` + "\n"
			b.must(os.WriteFile(b.path("enter"), []byte(enter), 0o644))
			b.as = []string{"sh", b.path("enter")}

			// The world is what the case says.
			look := b.command("cat", "/proc/self/cgroup", "/proc/self/mountinfo").start().end()
			if look.code != 0 {
				t.Fatal(look)
			}
			in, mountinfo, _ := strings.Cut(look.out, "\n0::")
			if v2 {
				in, mountinfo = look.out, look.out
			}
			for line := range strings.Lines(in) {
				if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && isMounted(f[1]) && f[2] != fill(strings.Replace(c.own, "/OUTER", "/"+o.name, 1)) {
					t.Fatalf("rt would be in %q", line)
				}
			}
			roots := map[string]string{} // of the mount on top
			for _, m := range leak.ParseMounts(mountinfo) {
				roots[m.Path] = m.Root
			}
			for _, m := range cgroup {
				if want := strings.Replace(c.root, "/OUTER", "/"+o.name, 1); roots[m] != want {
					t.Fatalf("the root of %s would be %q, expected %q", m, roots[m], want)
				}
			}

			b.launch()
			place := fill(strings.Replace(c.place, "OUTER", o.name, 1))
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", b.state().Pid))
			b.must(err)
			for line := range strings.Lines(string(data)) {
				if key := strings.Split(line, ":")[1]; !strings.HasSuffix(strings.TrimSpace(line), "/"+place) && isMounted(key) {
					t.Errorf("the container is in %q, expected %s", line, place)
				}
			}
			found := 0
			for _, m := range cgroup {
				for _, f := range []string{"pids.max", "cgroup.max.depth"} {
					if text, err := os.ReadFile(filepath.Join(m, place, f)); err == nil && string(text) == "9\n" {
						found++
					}
				}
			}
			if found != 1 {
				t.Errorf("the limit is in %d files, expected 1", found)
			}
			if pids := b.pids(); len(pids) != 1 {
				t.Errorf("ps lists %v", pids)
			}
			b.harmlessUpdate()
			b.ok("pause", b.id)
			b.is("paused")
			b.ok("resume", b.id)
			b.exec("true")
			b.stats()
			b.ok("delete", "--force", b.id)
			for _, m := range cgroup {
				if _, err := os.Stat(filepath.Join(m, place)); err == nil {
					t.Errorf("left: cgroup %s", filepath.Join(m, place))
				}
				os.Remove(filepath.Join(m, o.name, "sub")) // delete leaves it
			}
		})
	}
}

// A cgroup that is visible but lies outside of rt's cgroup namespace cannot be entered where
// cgroup2 is mounted with nsdelegate: the error says so, and nothing is left.
func TestOutsideCgroupNamespace(t *testing.T) {
	t.Parallel()
	if !v2 || !strings.Contains(grepMounts("/sys/fs/cgroup"), "nsdelegate") {
		t.Skip("cgroup2 is not mounted with nsdelegate")
	}
	o := newOuter(t)
	b := newBox(t, args("sleep", "600"))
	b.must(os.WriteFile(b.path("enter"), []byte("set -e\necho 0 >"+o.dirs[0]+`/cgroup.procs
exec unshare --cgroup --mount --propagation private "$@"`), 0o644))
	b.as = []string{"sh", b.path("enter")}
	for _, command := range []string{"create", "run"} {
		b.refused([]string{"no such file or directory (the cgroup is gone, or lies outside of the cgroup namespace that rt is in)"}, command, b.id)
		b.clean()
	}
}

// grepMounts is the super block's options of the mount at a point.
func grepMounts(point string) string {
	options := ""
	for _, m := range leak.Mounts("/proc/self/mountinfo") {
		if m.Path == point {
			options = strings.Join(m.SuperOptions, ",")
		}
	}
	return options
}

// isMounted tells whether the hierarchy that /proc/self/cgroup calls key is mounted.
func isMounted(key string) bool {
	if v2 {
		return key == ""
	}
	if name, ok := strings.CutPrefix(key, "name="); ok {
		key = name
	}
	for _, m := range cgroup {
		if filepath.Base(m) == key || key == "" && m == cgroup2() {
			return true
		}
	}
	return false
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// A container of rt's runs rt: it makes containers in what the outer one has been given of the
// cgroups, and limits hold there. On cgroup v2 the inner ones get controllers when
// no process is left in the outer cgroup itself.
func TestInContainer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		edit func(*specs.Spec)
		own  string // where the inner container sees itself from the outer one
	}{
		{"with a cgroup namespace", ns("cgroup", ""), "/inner"},
		{"without", noNS("cgroup"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, args("sleep", "600"), c.edit, func(s *specs.Spec) {
				all := heldCapabilities()
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
				s.Process.NoNewPrivileges = false
				s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
				for i := range s.Mounts {
					if m := &s.Mounts[i]; m.Type == "cgroup" {
						m.Options = deleteOption(m.Options, "ro")
					}
				}
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs"},
					specs.Mount{Destination: "/rt", Type: "bind", Source: bin, Options: []string{"bind", "ro"}})
				// The inner ones have a policy of their own.
				s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
			})
			b.file("rt", "")
			// The inner bundle.
			inner := bundle.Default(v2)
			inner.Process.Terminal = false
			inner.Process.Args = []string{"sleep", "1000"}
			inner.Root.Path, inner.Root.Readonly = "/inner/rootfs", false
			inner.Linux.CgroupsPath = ""
			major, minor := forbiddenDevice(t)
			inner.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/forbidden", Type: "c", Major: major, Minor: minor, FileMode: to(os.FileMode(0o666))}}
			limited := "pids.max"
			if _, ok := controllerDir("pids"); ok {
				inner.Linux.Resources.Pids = &specs.LinuxPids{Limit: to(int64(6))}
			} else {
				limited = "cgroup.max.depth"
				inner.Linux.Resources.Unified = map[string]string{limited: "6"}
			}
			b.must(makeRootfs(filepath.Join(b.rootfs, "inner/rootfs")))
			data, err := json.Marshal(inner)
			b.must(err)
			b.file("inner/config.json", string(data))
			b.launch()
			// No process is left in the outer cgroup itself, what rt execs included.
			enter := ""
			if v2 {
				dir := "/sys/fs/cgroup"
				if c.own == "" { // it sees all of the machine's
					dir += "/" + top + "/" + b.id
				}
				b.exec("mkdir " + dir + "/init && for p in $(cat " + dir + "/cgroup.procs); do echo $p >" + dir + "/init/cgroup.procs 2>/dev/null || :; done")
				enter = "echo 0 >" + dir + "/init/cgroup.procs && "
			}
			rt := func(args string) string {
				t.Helper()
				return b.exec(enter + "cd /inner && /rt --root /run/rt " + args)
			}
			rt("create inner")
			rt("start inner")
			// Seen from the host it is below the outer one.
			pids := b.pids()
			below := 0
			for _, pid := range pids {
				text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
				if strings.Contains(string(text), "/"+top+"/"+b.id+"/inner\n") {
					below++
				}
			}
			if len(pids) < 2 || below != 1 {
				t.Errorf("the host's ps lists %v, of which %d in the inner container", pids, below)
			}
			if n := strings.Count(rt("ps -f json inner"), ",") + 1; n != 1 {
				t.Errorf("the inner ps lists %d processes", n)
			}
			if limited == "pids.max" {
				// In force: with the first process and the shell there is room for four.
				out := rt(`exec inner sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 9 & done; echo never' 2>&1 || echo refused`)
				if !strings.Contains(out, "refused") || strings.Contains(out, "never") {
					t.Errorf("eight processes under a limit of 6: %q", out)
				}
				rt("update --pids-limit 40 inner")
				if out := rt(`exec inner sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 0 & done; wait; echo all'`); out != "all\n" {
					t.Errorf("eight processes under a limit of 40: %q", out)
				}
			} else if text, err := os.ReadFile(filepath.Join(cgroup2(), top, b.id, "inner", limited)); err != nil || string(text) != "6\n" {
				t.Errorf("%s is %q, %v", limited, text, err)
			}
			rt("pause inner")
			if s := rt("list -f json"); !strings.Contains(s, `"paused"`) {
				t.Errorf("list: %s", s)
			}
			rt("resume inner")
			if s := rt("events --stats inner"); !strings.Contains(s, `"type":"stats"`) {
				t.Errorf("events: %s", s)
			}
			// Devices are the inner one's own policy.
			if out := rt(`exec inner sh -c ': </dev/null && echo null; (: </dev/forbidden) 2>/dev/null || echo none'`); out != "null\nnone\n" {
				t.Errorf("devices: %q", out)
			}
			rt("delete --force inner")
			find := "find /sys/fs/cgroup -name inner"
			if c.own == "" {
				find += " -path '*/" + b.id + "/inner'" // not that of another test
			}
			if out := b.exec("ls /run/rt; " + find); out != "" {
				t.Errorf("left: %q", out)
			}
			// With its containers in it the outer one ends as a whole.
			rt("run -d inner")
			b.ok("delete", "--force", b.id)
		})
	}
}

// heldCapabilities are those that the test has.
func heldCapabilities() []string {
	var held uint64
	if data, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(line, "CapPrm:"); ok {
				held, _ = strconv.ParseUint(strings.TrimSpace(v), 16, 64)
			}
		}
	}
	names := []string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
		"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE",
		"SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE",
		"AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"}
	var list []string
	for i, n := range names {
		if held&(1<<i) != 0 {
			list = append(list, "CAP_"+n)
		}
	}
	return list
}
