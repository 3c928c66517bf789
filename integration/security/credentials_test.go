package security

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func parseStatus(t *testing.T, out string) (s status) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return s
}

var dump = args("/attacker", "status")

// A user is two numbers, or an error.
func TestS20UserString(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("sleep", "1000"))
	b.launch()
	for user, want := range map[string]string{"1": "1:0", "1:2": "1:2", "0": "0:0", "4294967294": "4294967294:0"} {
		s := parseStatus(t, b.ok("exec", "--user", user, b.id, "/attacker", "status"))
		if got := strings.Fields(s.Status["Uid"])[0] + ":" + strings.Fields(s.Status["Gid"])[0]; got != want {
			t.Errorf("user %q runs as %s, expected %s", user, got, want)
		}
	}
	for _, user := range []string{"+1", "-1", " 1", "1 ", "0x1", "1:", ":1", "1:2:3", "4294967295", "4294967296", "18446744073709551616", "1e0", "１", "", "root", "1.0", "01:-1", "1\n", "1:4294967295"} {
		r := b.rt("exec", "--user", user, b.id, "touch", "/executed")
		if r.code == 0 || strings.Count(r.err, "\n") != 1 {
			t.Errorf("user %q: %v", user, r)
		}
		if _, err := os.Stat(filepath.Join(b.rootfs, "executed")); err == nil {
			t.Errorf("user %q: something has been executed", user)
		}
	}
	for _, id := range []any{-1, 4294967295, 4294967296, "1", 1.5} {
		for _, field := range []string{"uid", "gid", "additionalGids"} {
			b := newBox(t, args("touch", "/executed"))
			value := id
			if field == "additionalGids" {
				value = []any{id}
			}
			b.patch(func(doc map[string]any) { doc["process"].(map[string]any)["user"].(map[string]any)[field] = value })
			b.refused([]string{"/process/user/" + field}, "run", b.id)
		}
	}
}

// patch changes config.json by what the types of the specification cannot say.
func (b *box) patch(change func(doc map[string]any)) {
	b.t.Helper()
	file := filepath.Join(b.dir, "config.json")
	data, err := os.ReadFile(file)
	b.must(err)
	var doc map[string]any
	b.must(json.Unmarshal(data, &doc))
	change(doc)
	data, err = json.Marshal(doc)
	b.must(err)
	b.must(os.WriteFile(file, data, 0o644))
}

const allSets = "CapInh CapPrm CapEff CapBnd CapAmb"

func sets(s status) string {
	var list []string
	for _, name := range strings.Fields(allSets) {
		list = append(list, strings.TrimLeft(s.Status[name], "0"))
	}
	return strings.Join(list, " ")
}

// The five sets are the ones of the configuration, and exec --cap adds to no inheritable one.
func TestS21CapabilitySets(t *testing.T) {
	t.Parallel()
	const kill, chown = "CAP_KILL", "CAP_CHOWN" // masks 0x20 and 1
	for _, c := range []struct {
		name string
		uid  uint32
		caps specs.LinuxCapabilities
		want string
	}{
		{"none", 0, specs.LinuxCapabilities{}, "    "},
		{"bounding", 0, specs.LinuxCapabilities{Bounding: []string{kill}}, "   20 "},
		{"no inheritable", 0, specs.LinuxCapabilities{Bounding: []string{kill}, Permitted: []string{kill}, Effective: []string{kill}}, " 20 20 20 "},
		{"inheritable", 0, specs.LinuxCapabilities{Bounding: []string{kill}, Permitted: []string{kill}, Effective: []string{kill}, Inheritable: []string{kill}}, "20 20 20 20 "},
		{"user", 1000, specs.LinuxCapabilities{Bounding: []string{kill}, Permitted: []string{kill}, Effective: []string{kill}}, "   20 "},
		{"user, inheritable", 1000, specs.LinuxCapabilities{Bounding: []string{kill}, Permitted: []string{kill}, Effective: []string{kill}, Inheritable: []string{kill}}, "20   20 "},
		{"user, ambient", 1000, specs.LinuxCapabilities{Bounding: []string{kill, chown}, Permitted: []string{kill}, Effective: []string{kill}, Inheritable: []string{kill}, Ambient: []string{kill}}, "20 20 20 21 20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t, dump, func(s *specs.Spec) { s.Process.Capabilities, s.Process.User.UID = &c.caps, c.uid })
			b.file("etc/x", "", 0o644)
			got := sets(parseStatus(t, b.run()))
			if got != c.want {
				t.Errorf("the sets are %q, expected %q", got, c.want)
			}
			b.edit(args("sleep", "1000"))
			b.launch()
			if again := sets(parseStatus(t, b.ok("exec", b.id, "/attacker", "status"))); again != got {
				t.Errorf("those of exec are %q, expected %q", again, got)
			}
			more := parseStatus(t, b.ok("exec", "--cap", "CAP_SYS_CHROOT", b.id, "/attacker", "status"))
			for _, set := range []string{"CapInh", "CapAmb"} {
				if was := parseStatus(t, b.ok("exec", b.id, "/attacker", "status")).Status[set]; more.Status[set] != was {
					t.Errorf("with --cap %s is %s, was %s", set, more.Status[set], was)
				}
			}
		})
	}
}

// A file with inheritable capabilities gains nothing where the set is empty.
func TestS21FileCapabilities(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("/withcaps", "status"), func(s *specs.Spec) {
		s.Process.User.UID, s.Process.NoNewPrivileges = 1000, false
	})
	data, err := os.ReadFile(attacker)
	b.must(err)
	// It goes by the name of the program.
	b.must(os.MkdirAll(filepath.Join(b.rootfs, "caps"), 0o755))
	b.file("caps/attacker", string(data), 0o755)
	b.edit(args("/caps/attacker", "status"))
	// struct vfs_cap_data: revision 2, effective bit; permitted none; inheritable CAP_KILL.
	b.must(unix.Setxattr(filepath.Join(b.rootfs, "caps/attacker"), "security.capability", []byte("\x01\x00\x00\x02\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
	s := parseStatus(t, b.run())
	if s.Status["CapEff"] != strings.Repeat("0", 16) || s.Status["CapPrm"] != strings.Repeat("0", 16) {
		t.Errorf("it gained %s", sets(s))
	}
	// With the set it does gain: the file's capabilities work.
	b.spec.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
	b.edit()
	if s := parseStatus(t, b.run()); s.Status["CapPrm"] == strings.Repeat("0", 16) {
		t.Errorf("the file's capabilities have no effect at all: %s", sets(s))
	}
}

// The caller's groups stay outside.
func TestS22Groups(t *testing.T) {
	t.Parallel()
	for _, gids := range [][]uint32{nil, {}, {5}, {12, 3}} {
		b := newBox(t, dump, func(s *specs.Spec) { s.Process.User.AdditionalGids = gids })
		with := func(args ...string) status {
			c := b.command(args...)
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{7, 8, 9}}}
			r := c.run()
			if r.code != 0 {
				t.Fatal(r)
			}
			return parseStatus(t, r.out)
		}
		want := map[string]bool{}
		for _, g := range gids {
			want[fmt.Sprint(g)] = true
		}
		check := func(s status) {
			got := map[string]bool{}
			for _, g := range strings.Fields(s.Status["Groups"]) {
				got[g] = true
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("groups are %v, expected %v", got, want)
			}
		}
		check(with("run", b.id))
		b.edit(args("sleep", "1000"))
		b.launch()
		check(with("exec", b.id, "/attacker", "status"))
	}
}

// exec is confined exactly as init is.
func TestS23ExecAsConfinedAsInit(t *testing.T) {
	t.Parallel()
	adj, umask := 55, uint32(0o27)
	for name, e := range map[string][]edit{
		"default": nil,
		"limits": {func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NPROC", Soft: 99, Hard: 99}}
			s.Process.OOMScoreAdj, s.Process.User.Umask = &adj, &umask
		}},
		"user": {func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5}}
			s.Process.NoNewPrivileges = false
		}},
		"seccomp": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mknod"}, Action: specs.ActErrno}}}
		}},
		"seccomp without no_new_privs": {func(s *specs.Spec) {
			s.Process.NoNewPrivileges = false
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mknod"}, Action: specs.ActErrno}}}
		}},
		"user namespace": {mapped},
		"ambient": {func(s *specs.Spec) {
			l := []string{"CAP_KILL"}
			s.Process.Capabilities.Inheritable, s.Process.Capabilities.Ambient, s.Process.User.UID = l, l, 7
		}},
		"no pid namespace": {without(specs.PIDNamespace)},
		"all capabilities": {func(s *specs.Spec) { s.Process.Capabilities = nil }},
		"cgroup namespace": {without(specs.CgroupNamespace), func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}},
		"time namespace": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 100}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, append([]edit{script("/attacker status >/tmp/init; exec sleep 1000")}, e...)...)
			b.must(os.Chmod(filepath.Join(b.rootfs, "tmp"), 0o777))
			b.launch()
			var init status
			eventually(t, func() error {
				data, err := os.ReadFile(filepath.Join(b.rootfs, "tmp/init"))
				if err == nil {
					err = json.Unmarshal(data, &init)
				}
				return err
			})
			// By a shell, too, for it changes the environment.
			later := parseStatus(t, b.ok("exec", b.id, "sh", "-c", "/attacker status; true"))
			if !reflect.DeepEqual(init, later) {
				t.Errorf("init has %+v, exec %+v", init, later)
			}
		})
	}
}

// Calls by other numbers than those of the filter's architecture do not get around it.
func TestS24OtherArchitecture(t *testing.T) {
	t.Parallel()
	compiler, err := exec.LookPath("musl-gcc")
	if err != nil {
		t.Skip("musl-gcc is not installed (Debian's package musl-tools)")
	}
	b := newBox(t)
	source := filepath.Join(b.dir, "probe.c")
	// getpid by x86-64, x32 and 32-bit numbers, each in a child, as the filter may kill it.
	b.must(os.WriteFile(source, []byte(`
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static long call(const char *how) {
	long r;
	if (!strcmp(how, "native")) __asm__ volatile("syscall" : "=a"(r) : "a"(39L) : "rcx", "r11", "memory");
	else if (!strcmp(how, "x32")) __asm__ volatile("syscall" : "=a"(r) : "a"(0x40000000L + 39) : "rcx", "r11", "memory");
	else __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
	return r;
}
int main(void) {
	static const char *how[] = { "native", "x32", "int80" };
	for (int i = 0; i < 3; i++) {
		int status, pid = fork();
		if (!pid) _exit(call(how[i]) > 0 ? 0 : 1);
		waitpid(pid, &status, 0);
		printf("%s %s\n", how[i], WIFSIGNALED(status) ? "killed" : WEXITSTATUS(status) ? "refused" : "works");
	}
	return 0;
}
`), 0o644))
	if out, err := exec.Command(compiler, "-static", "-O1", "-o", b.in("probe"), source).CombinedOutput(); err != nil {
		t.Skipf("compile for this architecture: %v: %s", err, out)
	}
	for _, c := range []struct {
		arch  []specs.Arch
		int80 string
	}{
		{nil, "killed"},
		{[]specs.Arch{specs.ArchX86_64}, "killed"},
		{[]specs.Arch{specs.ArchX86_64, specs.ArchX86}, "refused"},
	} {
		b.edit(args("/probe"), func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: c.arch,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"getpid"}, Action: specs.ActErrno}}}
		})
		out := b.run()
		for _, want := range []string{"native refused\n", "int80 " + c.int80 + "\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("architectures %v: %q, expected %q", c.arch, out, want)
			}
		}
		if strings.Contains(out, "works") {
			t.Errorf("architectures %v: %q", c.arch, out)
		}
	}
}

// A filter that forbids what the stage itself does traps nobody.
func TestS25FilterTrapsStage(t *testing.T) {
	t.Parallel()
	for _, nnp := range []bool{true, false} {
		for _, action := range []specs.LinuxSeccompAction{specs.ActErrno, specs.ActTrap, specs.ActKillProcess} {
			for _, call := range []string{"write", "close", "close_range", "sendmsg", "execve", "execveat", "exit_group", "prctl", "capset", "setresuid", "prlimit64"} {
				t.Run(fmt.Sprint(call, " ", action, " no_new_privs ", nnp), func(t *testing.T) {
					t.Parallel()
					b := newBox(t, args("true"), func(s *specs.Spec) {
						s.Process.NoNewPrivileges = nnp
						s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{call}, Action: action}}}
					})
					for _, command := range []string{"run", "create", "start"} {
						r := b.rt(command, b.id)
						if r.took > 5*time.Second || r.code == 1 && strings.Count(r.err, "\n") != 1 || strings.Contains(r.err, "goroutine") {
							t.Error(r)
						}
						if r.code != 0 && command == "create" {
							t.Errorf("%v; the filter must not act before start", r)
						}
					}
				})
			}
		}
	}
}

// Devices are denied unless they are allowed.
func TestS26Devices(t *testing.T) {
	t.Parallel()
	var disk unix.Stat_t
	if err := unix.Stat("/tmp", &disk); err != nil {
		t.Fatal(err)
	}
	nodes := []string{"c:1:1", "c:10:237", "b:7:0", fmt.Sprintf("b:%d:%d", unix.Major(disk.Dev), unix.Minor(disk.Dev)), "c:10:229", "c:1:5"}
	careless := newCommand(t, append([]string{attacker, "devices"}, nodes[5])...).run()
	if !strings.Contains(careless.out, "mknod <nil> open <nil>") {
		t.Fatalf("%v; expected the host to be able", careless)
	}
	os.Remove("/tmp/c-1-5")
	for name, e := range map[string]edit{
		"default":    func(*specs.Spec) {},
		"absent":     func(s *specs.Spec) { s.Linux.Resources.Devices = nil },
		"no section": func(s *specs.Spec) { s.Linux.Resources = nil },
		"empty list": func(s *specs.Spec) { s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t, caps("CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYS_RAWIO", "CAP_DAC_OVERRIDE"), e, args(append([]string{"/attacker", "devices"}, nodes...)...))
			check := func(out string) {
				t.Helper()
				lines := strings.Split(strings.TrimSpace(out), "\n")
				if len(lines) != len(nodes) {
					t.Fatalf("%q", out)
				}
				for i, line := range lines {
					denied := strings.HasSuffix(line, "open operation not permitted") || strings.HasSuffix(line, "open no such file or directory")
					if allowed := nodes[i] == "c:1:5"; denied == allowed {
						t.Errorf("%s", line)
					}
				}
			}
			check(b.run())
			b.edit(args("sleep", "1000"))
			b.launch()
			check(b.ok(append([]string{"exec", b.id, "/attacker", "devices"}, nodes...)...))
		})
	}
}
