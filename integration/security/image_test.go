package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rt/integration/ground"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// alive is a program that shows whether it has run since: its marks appear in the root file system. It has no file of
// the tests' open.
const alive = "exec </dev/null >/dev/null 2>&1; while :; do echo x >>/ran; sleep 0.02; done"

// criu is the directory of CRIU.
func (b *box) criu() string {
	b.t.Helper()
	return ground.NeedCRIU(b.t, "../lanes")
}

// images runs checkpoint or restore of images in the box's directory.
func (b *box) images(args ...string) result {
	b.t.Helper()
	return b.imagesWith(rt, nil, args...)
}

func (b *box) imagesWith(rt string, env []string, args ...string) result {
	b.t.Helper()
	dir := b.criu()
	c := b.command(append([]string{args[0], "--image-path", filepath.Join(b.dir, "images")}, args[1:]...)...)
	c.Path = rt
	c.Env = slices.Concat(os.Environ(), []string{"PATH=" + dir + ":" + os.Getenv("PATH")}, env)
	return c.run()
}

// checkpoint makes images of the box's container.
func (b *box) checkpoint() {
	b.t.Helper()
	b.criu()
	b.launch()
	eventually(b.t, func() error { _, err := os.Stat(filepath.Join(b.rootfs, "ran")); return err })
	if r := b.images("checkpoint", b.id); r.code != 0 || r.err != "" {
		log, _ := os.ReadFile(filepath.Join(b.dir, "images/dump.log"))
		b.t.Fatalf("%v\n%s", r, errorLines(log))
	}
}

func errorLines(log []byte) string {
	var list []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "Error") {
			list = append(list, line)
		}
	}
	return strings.Join(list, "")
}

// marks is how many times the program has run through its loop.
func (b *box) marks() int {
	data, _ := os.ReadFile(filepath.Join(b.rootfs, "ran"))
	return bytes.Count(data, []byte("x"))
}

// notRestored checks that a restore is refused with one line that holds the words, that the program has not gone on, and
// that nothing is left.
func (b *box) notRestored(words ...string) {
	b.t.Helper()
	before := b.marks()
	r := b.images("restore", "--detach", b.id)
	if r.code != 1 || strings.Count(r.err, "\n") != 1 {
		b.t.Errorf("%v; expected one line and status 1", r)
	}
	said := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(r.err)
	for _, w := range words {
		if !strings.Contains(said, w) {
			b.t.Errorf("%v; expected it to say %q", r, w)
		}
	}
	if left, _ := os.ReadDir(b.root); len(left) > 0 {
		b.t.Errorf("left: %v", left)
	}
	if after := b.marks(); after != before {
		b.t.Errorf("the program has gone on %d times", after-before)
	}
}

// restoredNow checks that the images go with the config as it is, and removes the container.
func (b *box) restoredNow() {
	b.t.Helper()
	before := b.marks()
	if r := b.images("restore", "--detach", b.id); r.code != 0 || r.err != "" {
		log, _ := os.ReadFile(filepath.Join(b.dir, "images/restore.log"))
		b.t.Fatalf("%v\n%s", r, errorLines(log))
	}
	eventually(b.t, func() error {
		if b.marks() == before {
			return fmt.Errorf("the program does not go on")
		}
		return nil
	})
	b.ok("delete", "--force", b.id)
}

// The images of a container that was confined less than the config says are those of processes that would have more
// than it gives. They go with the config that they come from, so the attack works on a runtime that
// believes them.
func TestS36ImagesOfTheLessConfined(t *testing.T) {
	t.Parallel()
	profiled := func(name string) edit {
		return func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{name}, Action: specs.ActErrno}}}
		}
	}
	masks := func(paths ...string) edit { return func(s *specs.Spec) { s.Linux.MaskedPaths = paths } }
	readonly := func(paths ...string) edit { return func(s *specs.Spec) { s.Linux.ReadonlyPaths = paths } }
	none := func(*specs.Spec) {}
	score := func(n int) edit { return func(s *specs.Spec) { s.Process.OOMScoreAdj = &n } }
	limit := func(n uint64) edit {
		return func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: n, Hard: n}}
		}
	}
	for name, c := range map[string]struct {
		loose, strict edit
		words         []string
	}{
		"capabilities": {caps("CAP_SYS_PTRACE"), none, []string{"/process/capabilities", "CAP_SYS_PTRACE"}},
		"user": {
			func(s *specs.Spec) { s.Process.User = specs.User{} }, func(s *specs.Spec) { s.Process.User = specs.User{UID: 1000, GID: 1000} },
			[]string{"/process/user/uid", "has 0"},
		},
		"groups": {
			func(s *specs.Spec) { s.Process.User.AdditionalGids = []uint32{6, 42} }, none, []string{"/process/user/additionalGids", "has 6"},
		},
		"out of memory": {score(950), score(1000), []string{"/process/oomScoreAdj", "has 950"}},
		"rlimits": {
			limit(1024), limit(512), []string{"/process/rlimits/0", "hard limit 1024"},
		},
		"nice": {
			func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_OTHER", Nice: -5} }, none,
			[]string{"/process/scheduler", "nice value -5"},
		},
		"no filter":         {none, profiled("getpriority"), []string{"/linux/seccomp"}},
		"another filter":    {profiled("getppid"), profiled("getpriority"), []string{"/linux/seccomp", "not the one"}},
		"mask of a file":    {masks(), masks("/proc/timer_list"), []string{"/linux/maskedPaths/0", "/proc/timer_list"}},
		"mask of directory": {masks(), masks("/sys/firmware"), []string{"/linux/maskedPaths/0", "/sys/firmware"}},
		"readonly path":     {readonly(), readonly("/proc/sys"), []string{"/linux/readonlyPaths/0", "/proc/sys", "writable"}},
		"host's network":    {without(specs.NetworkNamespace), none, []string{"/linux/namespaces", "network"}},
		"host's ipc":        {without(specs.IPCNamespace), none, []string{"/linux/namespaces", "ipc"}},
		"missing mount":     {noMount("/dev/shm"), none, []string{"/dev/shm"}},
		"device files":      {mnt("devtmpfs", "devtmpfs", "/host", "nosuid"), none, []string{"/mounts", "devtmpfs", "/host"}},
		"more of proc":      {mnt("proc", "proc", "/more"), none, []string{"/mounts", "proc", "/more"}},
		"writable mount":    {mnt("tmpfs", "tmpfs", "/data"), mnt("tmpfs", "tmpfs", "/data", "noexec", "ro"), []string{"/mounts", "/data", "writable"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, script(alive))
			b.criu()
			plain, err := json.Marshal(b.spec)
			b.must(err)
			b.edit(c.loose)
			b.checkpoint()
			b.restoredNow()
			// The config as it was, with what the strict one has.
			b.spec = new(specs.Spec)
			b.must(json.Unmarshal(plain, b.spec))
			b.edit(c.strict)
			b.notRestored(c.words...)
		})
	}
}

// A mount of the host's is never in the images, and they bring none that the config does not name.
func TestS36ImagesBringNothingOfTheHost(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive))
	mounts := b.spec.Mounts
	b.edit(mnt("bind", b.outside, "/stolen", "bind", "ro"))
	b.checkpoint()
	b.restoredNow()
	b.spec.Mounts = mounts
	b.edit()
	b.notRestored("criu failed: type RESTORE", "No mapping for")
}

// What is changed in the images, or cut off, makes them useless, and is no way to anything else.
func TestS36ChangedImages(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive), func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"getpriority"}, Action: specs.ActErrno}}}
	})
	b.checkpoint()
	images := filepath.Join(b.dir, "images")
	change := func(name string, to []byte) (undo func()) {
		t.Helper()
		path := filepath.Join(images, name)
		data, err := os.ReadFile(path)
		b.must(err)
		b.must(os.WriteFile(path, to, 0o600))
		return func() { b.must(os.WriteFile(path, data, 0o600)) }
	}
	for _, text := range []string{"", "{}", `["/dev/null"]`, `["a","b","c","d"]`, `["a","b",1]`, `["a","b","c"] x`, `["` + strings.Repeat("a", 1<<17) + `","",""]`} {
		undo := change("descriptors.json", []byte(text))
		b.notRestored("descriptors.json")
		undo()
	}
	filter, err := os.ReadFile(filepath.Join(images, "seccomp.img"))
	b.must(err)
	// The last instruction of the filter returns what is not allowed; allow it.
	open := bytes.ReplaceAll(filter, []byte{0x06, 0, 0, 0, 1, 0, 5, 0}, []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f})
	if bytes.Equal(open, filter) {
		t.Fatal("the filter in the images does not return EPERM anywhere")
	}
	undo := change("seccomp.img", open)
	b.notRestored("/linux/seccomp", "not the one")
	undo()
	list, err := filepath.Glob(images + "/*.img")
	b.must(err)
	refused := 0
	for _, path := range list {
		name := filepath.Base(path)
		data, err := os.ReadFile(path)
		b.must(err)
		if len(data) < 16 || strings.HasPrefix(name, "stats") || strings.Contains(name, "tables-") || strings.Contains(name, "tmpfs-") {
			continue
		}
		undo := change(name, data[:len(data)/2])
		before := b.marks()
		// CRIU looks for the other half of some for ever.
		r := b.imagesWith(rtFault, []string{"RT_FAULT_WAIT=2"}, "restore", "--detach", b.id)
		if r.code == 0 {
			t.Logf("%s: half of it is enough", name)
			b.ok("delete", "--force", b.id)
		} else {
			refused++
			if r.code != 1 || strings.Count(r.err, "\n") != 1 || b.marks() != before {
				t.Errorf("half of %s: %v; the program has gone on %d times", name, r, b.marks()-before)
			}
		}
		undo()
	}
	if refused < 10 {
		t.Errorf("only %d of %d images were needed", refused, len(list))
	}
	b.restoredNow()
}

// Links in the place of images, descriptors and logs lead to no file that is read or written. CRIU itself follows them.
func TestS36LinksAmongImages(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive))
	dir := b.criu()
	secret := b.decoy("descriptors.json", `["/dev/null","/dev/null","/dev/null"]`)
	// The careless way: a log that is a link.
	careless := t.TempDir()
	victim := filepath.Join(careless, "victim")
	b.must(os.WriteFile(victim, []byte("precious"), 0o600))
	b.must(os.MkdirAll(filepath.Join(careless, "images"), 0o700))
	b.must(os.Symlink(victim, filepath.Join(careless, "images/restore.log")))
	exec.Command(dir+"/criu", "restore", "-D", filepath.Join(careless, "images"), "-o", "restore.log").Run()
	if data, err := os.ReadFile(victim); err != nil || string(data) == "precious" {
		t.Fatalf("CRIU has not written its log through a link: %q, %v", data, err)
	}

	b.checkpoint()
	images := filepath.Join(b.dir, "images")
	list, err := os.ReadDir(images)
	b.must(err)
	for _, e := range append(names(list), "restore.log", "parent") {
		path := filepath.Join(images, e)
		kept := filepath.Join(b.dir, "kept")
		if _, err := os.Lstat(path); err == nil {
			b.must(os.Rename(path, kept))
		}
		b.must(os.Symlink(secret, path))
		b.notRestored(e)
		b.must(os.Remove(path))
		if _, err := os.Lstat(kept); err == nil {
			b.must(os.Rename(kept, path))
		}
	}
	fifo := filepath.Join(images, "pages-9.img")
	b.must(unix.Mkfifo(fifo, 0o600))
	b.notRestored("pages-9.img", "not a regular file")
	b.must(os.Remove(fifo))
	b.restoredNow()

	// The same for what a checkpoint writes.
	b.launch()
	for _, name := range []string{"dump.log", "descriptors.json", "inventory.img"} {
		os.Remove(filepath.Join(images, name))
		b.must(os.Symlink(secret, filepath.Join(images, name)))
		if r := b.images("checkpoint", "--leave-running", b.id); r.code != 1 || !strings.Contains(r.err, name) {
			t.Errorf("%v; expected it to refuse the link %s", r, name)
		}
		b.must(os.Remove(filepath.Join(images, name)))
	}
	work := filepath.Join(b.dir, "work")
	b.must(os.Mkdir(work, 0o700))
	b.must(os.Symlink(secret, filepath.Join(work, "dump.log")))
	if r := b.images("checkpoint", "--leave-running", "--work-path", work, b.id); r.code != 1 || !strings.Contains(r.err, "dump.log") {
		t.Errorf("%v; expected it to refuse the link", r)
	}
	b.is("running")
}

func names(list []os.DirEntry) []string {
	var n []string
	for _, e := range list {
		n = append(n, e.Name())
	}
	return n
}

// The images of cgroups say which files of theirs CRIU writes. It does so only if it is asked to, and then the
// names are looked at first.
func TestS36CgroupNames(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive))
	b.checkpoint()
	path := filepath.Join(b.dir, "images/cgroup.img")
	good, err := os.ReadFile(path)
	b.must(err)
	edited := false
	for _, name := range []string{"cgroup.clone_children", "notify_on_release", "cgroup.max.depth", "cgroup.type", "cpu.shares", "cgroup.procs"} {
		// A property of the same length, so that the rest can stay.
		evil := ("../../../../../../../../" + name)[:len(name)]
		if bytes.Contains(good, []byte(name)) {
			b.must(os.WriteFile(path, bytes.ReplaceAll(good, []byte(name), []byte(evil)), 0o600))
			edited = true
			break
		}
	}
	if !edited {
		t.Fatalf("no known property is in the images: %q", good)
	}
	before := b.marks()
	r := b.images("restore", "--detach", "--manage-cgroups-mode", "soft", b.id)
	if r.code != 1 || !strings.Contains(r.err, "cgroup.img") || b.marks() != before {
		t.Errorf("%v; expected it to refuse the name", r)
	}
	b.restoredNow()
}

// What is mounted in another mount namespace than that of the first process nobody could judge by the config.
func TestS36OtherMountNamespace(t *testing.T) {
	t.Parallel()
	b := newBox(t, caps("CAP_SYS_ADMIN"), script("exec </dev/null >/dev/null 2>&1; busybox unshare -m sleep 1000 & while :; do echo x >>/ran; sleep 0.02; done"))
	b.checkpoint()
	b.notRestored("/linux/namespaces", "another mount namespace")
}

// Hooks of the host do not get to see a network that is not the container's.
func TestS36HookSeesNoOtherNetwork(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive), without(specs.NetworkNamespace))
	b.checkpoint()
	mark := filepath.Join(b.dir, "hook")
	b.edit(func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", ">" + mark}}}}
	})
	b.notRestored("/linux/namespaces", "host's network namespace")
	if _, err := os.Lstat(mark); err == nil {
		t.Error("the hook has run")
	}
}

// Whoever could gain privileges when the images were made cannot after a restore that forbids it.
func TestS36NoNewPrivileges(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive), func(s *specs.Spec) { s.Process.NoNewPrivileges = false })
	b.checkpoint()
	b.edit(func(s *specs.Spec) { s.Process.NoNewPrivileges = true })
	if r := b.images("restore", "--detach", b.id); r.code != 0 {
		t.Fatal(r)
	}
	if out := b.ok("exec", b.id, "cat", "/proc/1/status"); !strings.Contains(out, "NoNewPrivs:\t1\n") {
		t.Error("the process may still gain privileges")
	}
}

// No annotation configures CRIU: its configuration can name programs to run.
func TestS36AnnotationIsNoConfiguration(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(alive))
	b.criu()
	mark := filepath.Join(b.dir, "mark")
	b.must(ground.WriteProgram(filepath.Join(b.dir, "action"), "#!/bin/sh\n>"+mark+"\n"))
	b.must(os.WriteFile(filepath.Join(b.dir, "criu.conf"), []byte("action-script "+filepath.Join(b.dir, "action")+"\n"), 0o644))
	b.edit(func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.criu.config": filepath.Join(b.dir, "criu.conf"), "run.oci.criu.config": filepath.Join(b.dir, "criu.conf")}
	})
	b.checkpoint()
	b.restoredNow()
	if _, err := os.Lstat(mark); err == nil {
		t.Error("CRIU has run the program")
	}
}
