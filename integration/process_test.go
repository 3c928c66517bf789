package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rt/integration/ground"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// field returns the value of a line "name:\tvalue" of /proc/PID/status.
func field(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// showStatus is the program that shows its own credentials.
var showStatus = args("cat", "/proc/self/status")

func TestArgs(t *testing.T) {
	t.Parallel()
	want := []string{"printf", "%s|", "", " ", "a b", "$HOME", "\"'\\\n", "\xff", "ü", strings.Repeat("x", 100_000)}
	b := newBox(t, args(want...))
	// JSON cannot hold what is no UTF-8.
	want[7] = "\ufffd"
	if out := b.run(); out != strings.Join(want[2:], "|")+"|" {
		t.Errorf("printed %.200q", out)
	}
	// The program's name is what it is called, whatever file it is.
	b.spec.Process.Args = []string{"/bin/cat", "/proc/self/cmdline"}
	b.write()
	if out := b.run(); out != "/bin/cat\x00/proc/self/cmdline\x00" {
		t.Errorf("the command line is %q", out)
	}
}

func TestProgramLookup(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	b.must(os.WriteFile(b.path("rootfs/plain"), nil, 0o644))
	b.must(ground.WriteProgram(b.path("rootfs/tmp/true"), "\x7fELF"))
	b.must(os.Mkdir(b.path("rootfs/bin/dir"), 0o755))
	b.must(os.Mkdir(b.path("rootfs/opt"), 0o755))
	b.must(os.WriteFile(b.path("rootfs/opt/true"), nil, 0o644))
	b.must(ground.WriteProgram(b.path("rootfs/nosuchinterpreter"), "#!/nonexistent\n"))
	const path = "PATH=/nonexistent:/opt:/bin:/sbin"
	for _, c := range []struct {
		env     string
		program string
		want    string // of the error; "" is success
	}{
		{path, "true", ""},
		{path, "/bin/true", ""},
		{path, "bin/true", ""},
		{path, "./bin/true", ""},
		{"PATH=bin", "true", ""},
		{"A=b", "true", ""}, // a default path
		{path, "nosuch", `exec: "nosuch": executable file not found in $PATH`},
		{"PATH=/sbin", "true", `exec: "true": executable file not found in $PATH`},
		{path, "/nosuch", `exec: "/nosuch": stat /nosuch: no such file or directory`},
		{path, "/bin/true/x", `exec: "/bin/true/x": stat /bin/true/x: not a directory`},
		{path, "/plain", `exec: "/plain": permission denied`},
		{path, "/bin/dir", `exec: "/bin/dir": is a directory`},
		{path, "/", `exec: "/": is a directory`},
	} {
		b.spec.Process.Env = []string{c.env}
		b.spec.Process.Args = []string{c.program}
		b.write()
		r := b.rt("create", b.id)
		if c.want == "" {
			if r.code != 0 {
				t.Errorf("%s with %s: %v", c.program, c.env, r)
				continue
			}
			b.ok("start", b.id)
			b.is("stopped")
			b.ok("delete", b.id)
			continue
		}
		r.refused(1, "rt create failed: ", c.want)
		b.clean()
	}
	// What only execve(2) finds out is an error of start, and of run its status 255.
	for program, want := range map[string]string{"/tmp/true": "exec format error", "/nosuchinterpreter": "no such file or directory"} {
		b.spec.Process.Args = []string{program}
		b.write()
		b.ok("create", b.id)
		b.refused([]string{"exec " + program + ": " + want}, "start", b.id)
		b.is("stopped")
		b.ok("delete", b.id)
		b.rt("run", b.id).refused(255, want)
		b.clean()
	}
}

func TestEnv(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("env"), func(s *specs.Spec) {
		s.Process.Env = []string{"PATH=/bin", "A=1", "B=", "C=x=y", "A=2", "D=a b\nc", "A=3", "HOME=/h"}
	})
	b.env = []string{"OF_RT=1"}
	out := b.run()
	if want := "PATH=/bin\nB=\nC=x=y\nD=a b\nc\nA=3\nHOME=/h\n"; !sameLines(out, want) {
		t.Errorf("the environment is %q, expected %q", out, want)
	}
	for _, bad := range []string{"NOVALUE", "=x", "A\x00=b", ""} {
		b.spec.Process.Env = []string{bad}
		b.write()
		b.refused([]string{"/process/env/0"}, "create", b.id)
	}
}

func sameLines(a, b string) bool {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(la)
	slices.Sort(lb)
	return slices.Equal(la, lb)
}

func TestCwd(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("pwd"))
	b.must(os.Mkdir(b.path("rootfs/private"), 0o700))
	b.must(os.Symlink("/etc", b.path("rootfs/link")))
	b.must(os.Symlink("/proc/1/cwd", b.path("rootfs/magic")))
	for _, c := range []struct {
		cwd, want string
		uid       uint32
	}{
		{"/", "/", 0},
		{"/tmp", "/tmp", 0},
		{"/made/for/it", "/made/for/it", 0},
		{"/made/for/it", "/made/for/it", 1000},
		{"/tmp/../etc/.", "/etc", 0},
		{"/link", "/etc", 0},
		{"/dev/shm/new", "/dev/shm/new", 0},
	} {
		b.spec.Process.Cwd = c.cwd
		b.spec.Process.User.UID = c.uid
		b.write()
		if out := b.run(); strings.TrimSpace(out) != c.want {
			t.Errorf("the working directory for %s is %q", c.cwd, out)
		}
	}
	if info, err := os.Stat(b.path("rootfs/made/for/it")); err != nil || info.Mode() != os.ModeDir|0o755 {
		t.Errorf("the directory made: %v %v", info, err)
	}
	// It is entered before root turns into the user, who may not.
	b.spec.Process.Cwd, b.spec.Process.User.UID = "/private", 1000
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{}
	b.write()
	if out := b.run(); out != "/private\n" {
		t.Errorf("the working directory in a directory of root's is %q", out)
	}
	b.spec.Process.User.UID = 0
	for _, cwd := range []string{"relative", ""} {
		b.spec.Process.Cwd = cwd
		b.write()
		b.refused([]string{"Cwd "}, "create", b.id)
	}
	b.spec.Process.Cwd = "/bin/busybox"
	b.write()
	b.refused([]string{`chdir to cwd ("/bin/busybox") set in config.json failed: not a directory`}, "create", b.id)
}

// A working directory on a read-only root is made nevertheless.
func TestCwdOnReadonlyRoot(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("pwd"), func(s *specs.Spec) { s.Root.Readonly = true; s.Process.Cwd = "/new" })
	if out := b.run(); out != "/new\n" {
		t.Errorf("the working directory is %q", out)
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	umask := uint32(0o027)
	b := newBox(t, showStatus, func(s *specs.Spec) {
		s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 70000, 7, 5}, Umask: &umask}
	})
	out := b.run()
	if u, g := field(out, "Uid"), field(out, "Gid"); u != "1000\t1000\t1000\t1000" || g != "1001\t1001\t1001\t1001" {
		t.Errorf("uids %q, gids %q", u, g)
	}
	if g := strings.Fields(field(out, "Groups")); !slices.Equal(g, []string{"5", "5", "7", "70000"}) && !slices.Equal(g, []string{"5", "7", "70000"}) {
		t.Errorf("groups %q", g)
	}
	if m := field(out, "Umask"); m != "0027" {
		t.Errorf("umask %q", m)
	}
	// Without any the caller's are dropped (S22), and the umask is 0022.
	b.spec.Process.User = specs.User{}
	b.write()
	p := b.command(bin, "--root", b.root, "run", b.id)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Groups: []uint32{4, 27}}}
	r := p.start().end()
	if g, m := field(r.out, "Groups"), field(r.out, "Umask"); r.code != 0 || g != "" || m != "0022" {
		t.Errorf("groups %q, umask %q: %v", g, m, r)
	}
	for _, user := range []specs.User{{UID: 1<<32 - 1}, {GID: 1<<32 - 1}, {AdditionalGids: []uint32{1<<32 - 1}}} {
		b.spec.Process.User = user
		b.write()
		b.refused([]string{"/process/user/"}, "create", b.id)
	}
}

// The umask of the program is not that with which rt was called, and what is made in
// the container does not depend on it either.
func TestCallersUmask(t *testing.T) {
	t.Parallel()
	b := newBox(t, mnt("tmpfs", "tmpfs", "/made/dir"), script("umask; stat -c %a /made /dev/null /dev"))
	p := b.command("/bin/sh", "-c", "umask 077; exec \"$@\"", "sh", bin, "--root", b.root, "run", b.id)
	if r := p.start().end(); r.code != 0 || r.out != "0022\n755\n666\n755\n" {
		t.Error(r)
	}
}

// TestCapabilities looks at all five sets as the kernel has them in the program.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	const chown, kill, netraw, admin = "CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_ADMIN"
	held := field(contentsOf(t, "/proc/self/status"), "CapPrm")
	for _, c := range []struct {
		name string
		uid  uint32
		caps *specs.LinuxCapabilities
		want string // CapInh CapPrm CapEff CapBnd CapAmb
	}{
		{"none", 0, &specs.LinuxCapabilities{}, "0 0 0 0 0"},
		{"root", 0, &specs.LinuxCapabilities{
			Bounding: []string{chown, kill, netraw}, Permitted: []string{chown, kill}, Effective: []string{chown, kill},
		}, "0 21 21 2021 0"}, // execve(2) of root: permitted is the bounding set
		{"user", 1000, &specs.LinuxCapabilities{
			Bounding: []string{chown, kill}, Permitted: []string{chown, kill}, Effective: []string{chown, kill},
		}, "0 0 0 21 0"}, // execve(2) of a user drops what is not ambient
		{"inheritable", 1000, &specs.LinuxCapabilities{
			Bounding: []string{chown, kill, netraw}, Permitted: []string{chown, kill}, Inheritable: []string{chown, kill},
		}, "21 0 0 2021 0"},
		{"ambient", 1000, &specs.LinuxCapabilities{
			Bounding: []string{chown, kill, netraw, admin}, Permitted: []string{chown, kill}, Inheritable: []string{chown, kill},
			Effective: []string{chown}, Ambient: []string{kill},
		}, "21 20 20 202021 20"},
		{"ambient without inheritable", 1000, &specs.LinuxCapabilities{
			Bounding: []string{chown}, Permitted: []string{chown}, Ambient: []string{chown},
		}, "0 0 0 1 0"},
		{"unknown", 1000, &specs.LinuxCapabilities{
			Bounding: []string{chown, "CAP_UNHEARD_OF"}, Permitted: []string{"CAP_UNHEARD_OF"},
		}, "0 0 0 1 0"},
		{"absent", 0, nil, "0 all all all 0"},
	} {
		b := newBox(t, showStatus, func(s *specs.Spec) {
			s.Process.Capabilities, s.Process.User.UID, s.Process.NoNewPrivileges = c.caps, c.uid, false
		})
		r := b.rt("run", b.id)
		if r.code != 0 {
			t.Errorf("%s: %v", c.name, r)
			continue
		}
		want := strings.Fields(strings.ReplaceAll(c.want, "all", strings.TrimLeft(held, "0")))
		for i, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			got := field(r.out, set)
			n, _ := strconv.ParseUint(got, 16, 64)
			expected := want[i]
			// execve(2) of root takes the whole bounding set.
			if c.name == "root" && (set == "CapPrm" || set == "CapEff") {
				expected = want[3]
			}
			if fmt.Sprintf("%x", n) != expected {
				t.Errorf("%s: %s is %s, expected %s", c.name, set, got, expected)
			}
		}
	}
}

func contentsOf(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A capability that rt does not hold itself is left out (D5).
func TestCapabilityNotHeld(t *testing.T) {
	t.Parallel()
	held, _ := strconv.ParseUint(field(contentsOf(t, "/proc/self/status"), "CapPrm"), 16, 64)
	const resource = 24
	caps := []string{"CAP_SYS_RESOURCE", "CAP_CHOWN"}
	b := newBox(t, showStatus, func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	})
	r := b.rt("run", b.id)
	if want := fmt.Sprintf("%016x", 1|held&(1<<resource)); r.code != 0 || field(r.out, "CapEff") != want || field(r.out, "CapBnd") != want {
		t.Errorf("expected capabilities %s: %v", want, r)
	}
}

func TestNoNewPrivileges(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		b := newBox(t, args("/suid/probe", "status"), func(s *specs.Spec) {
			s.Process.NoNewPrivileges = on
			s.Process.User.UID = 1000
			s.Process.Capabilities = nil
		})
		// busybox would give its privileges up.
		b.must(os.Mkdir(b.path("rootfs/suid"), 0o755))
		b.must(os.Link(filepath.Join(work, "base/suid"), b.path("rootfs/suid/probe")))
		out := b.run()
		want := map[bool]string{true: "1", false: "0"}[on]
		if field(out, "NoNewPrivs") != want {
			t.Errorf("NoNewPrivs is %q, expected %s", field(out, "NoNewPrivs"), want)
		}
		uids := strings.Fields(field(out, "Uid"))
		if root := slices.Contains(uids, "0"); root == on {
			t.Errorf("noNewPrivileges %v: a set-uid program runs with uids %v", on, uids)
		}
	}
}

func TestOOMScoreAdj(t *testing.T) {
	t.Parallel()
	own := strings.TrimSpace(contentsOf(t, "/proc/self/oom_score_adj"))
	b := newBox(t, args("cat", "/proc/self/oom_score_adj"))
	if out := strings.TrimSpace(b.run()); out != own {
		t.Errorf("without oomScoreAdj it is %s, rt's own is %s", out, own)
	}
	for _, n := range []int{500, 1000, 0} {
		b.spec.Process.OOMScoreAdj = &n
		b.write()
		// Lowering it below one's own minimum takes CAP_SYS_RESOURCE.
		if out := strings.TrimSpace(b.run()); out != strconv.Itoa(n) {
			t.Errorf("oomScoreAdj %d gave %s", n, out)
		}
	}
	for _, n := range []int{1001, -1001} {
		b.spec.Process.OOMScoreAdj = &n
		b.write()
		b.refused([]string{"oomScoreAdj"}, "create", b.id)
		b.clean()
	}
}

func TestRlimits(t *testing.T) {
	t.Parallel()
	// name in config.json, and of the line in /proc/self/limits
	names := [][2]string{
		{"RLIMIT_CPU", "Max cpu time"}, {"RLIMIT_FSIZE", "Max file size"}, {"RLIMIT_DATA", "Max data size"},
		{"RLIMIT_STACK", "Max stack size"}, {"RLIMIT_CORE", "Max core file size"}, {"RLIMIT_RSS", "Max resident set"},
		{"RLIMIT_NPROC", "Max processes"}, {"RLIMIT_NOFILE", "Max open files"}, {"RLIMIT_MEMLOCK", "Max locked memory"},
		{"RLIMIT_AS", "Max address space"}, {"RLIMIT_LOCKS", "Max file locks"}, {"RLIMIT_SIGPENDING", "Max pending signals"},
		{"RLIMIT_MSGQUEUE", "Max msgqueue size"}, {"RLIMIT_NICE", "Max nice priority"},
		{"RLIMIT_RTPRIO", "Max realtime priority"}, {"RLIMIT_RTTIME", "Max realtime timeout"},
	}
	b := newBox(t, args("cat", "/proc/self/limits"))
	b.spec.Process.Rlimits = nil
	want := map[string][2]uint64{}
	for i, n := range names {
		var own unix.Rlimit
		if err := unix.Prlimit(0, i, nil, &own); err != nil {
			t.Fatal(err)
		}
		hard := min(own.Max, uint64(1)<<30)
		soft := hard / 2
		if n[0] == "RLIMIT_NICE" || n[0] == "RLIMIT_RTPRIO" {
			hard = min(own.Max, 3)
			soft = hard
		}
		want[n[1]] = [2]uint64{soft, hard}
		b.spec.Process.Rlimits = append(b.spec.Process.Rlimits, specs.POSIXRlimit{Type: n[0], Soft: soft, Hard: hard})
	}
	// The numbers of this test are those of the kernel.
	for i, n := range []int{unix.RLIMIT_CPU, unix.RLIMIT_FSIZE, unix.RLIMIT_DATA, unix.RLIMIT_STACK, unix.RLIMIT_CORE, unix.RLIMIT_RSS, unix.RLIMIT_NPROC, unix.RLIMIT_NOFILE, unix.RLIMIT_MEMLOCK, unix.RLIMIT_AS} {
		if i != n {
			t.Fatalf("resource %s is number %d", names[i][0], n)
		}
	}
	b.write()
	out := b.run()
	for name, w := range want {
		line := fmt.Sprintf("%-25s %-20d %-20d ", name, w[0], w[1])
		if !strings.Contains(out, line) {
			t.Errorf("no line %q in %s", line, out)
		}
	}
	// A small address space hinders the program, not rt.
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 64 << 20, Hard: 64 << 20}, {Type: "RLIMIT_NOFILE", Soft: 3, Hard: 4}}
	b.spec.Process.Args = []string{"true"}
	b.write()
	b.run()
	for _, bad := range [][]specs.POSIXRlimit{
		{{Type: "RLIMIT_TEST", Soft: 1, Hard: 1}},
		{{Type: "NOFILE", Soft: 1, Hard: 1}},
		{{Type: "RLIMIT_NOFILE", Soft: 2, Hard: 1}},
		{{Type: "RLIMIT_NOFILE", Soft: 1, Hard: 1}, {Type: "RLIMIT_NOFILE", Soft: 1, Hard: 1}},
	} {
		b.spec.Process.Rlimits = bad
		b.write()
		b.refused([]string{"/process/rlimits/"}, "create", b.id)
	}
}

// Limits that are not given are rt's own as it was called, not those of a Go
// program that raises its own.
func TestRlimitsUntouched(t *testing.T) {
	t.Parallel()
	b := newBox(t, args("cat", "/proc/self/limits"))
	b.spec.Process.Rlimits = nil
	b.write()
	p := b.command("/bin/sh", "-c", "ulimit -S -n 77; ulimit -c 0; exec \"$@\"", "sh", bin, "--root", b.root, "run", b.id)
	r := p.start().end()
	var own unix.Rlimit
	b.must(unix.Getrlimit(unix.RLIMIT_NOFILE, &own))
	if want := fmt.Sprintf("%-25s %-20d %-20d ", "Max open files", 77, own.Max); r.code != 0 || !strings.Contains(r.out, want) {
		t.Errorf("no line %q: %v", want, r)
	}
}

// A hard limit above rt's own needs CAP_SYS_RESOURCE.
func TestRlimitAboveOwn(t *testing.T) {
	t.Parallel()
	held, _ := strconv.ParseUint(field(contentsOf(t, "/proc/self/status"), "CapPrm"), 16, 64)
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	if own.Max == unix.RLIM_INFINITY {
		t.Skip("there is no higher limit than rt's own")
	}
	b := newBox(t, args("cat", "/proc/self/limits"))
	b.spec.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: own.Max + 1, Hard: own.Max + 1}}
	b.write()
	r := b.rt("run", b.id)
	if held&(1<<24) == 0 {
		r.refused(1, "RLIMIT_NOFILE", "CAP_SYS_RESOURCE")
		return
	}
	if want := fmt.Sprintf("%-25s %-20d %-20d ", "Max open files", own.Max+1, own.Max+1); r.code != 0 || !strings.Contains(r.out, want) {
		t.Errorf("no line %q: %v", want, r)
	}
}
