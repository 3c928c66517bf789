package cgroup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// laneVar tells the test binary, run again by TestV2Lane, to put a fresh
// cgroup2 mount over /sys/fs/cgroup in the mount namespace that it was given.
const laneVar = "RT_TEST_CGROUP_LANE"

func TestMain(m *testing.M) {
	if os.Getenv(laneVar) == "v2" {
		for _, err := range []error{
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Unmount(defaultMount, unix.MNT_DETACH),
			unix.Mount("cgroup2", defaultMount, "cgroup2", 0, ""),
		} {
			if err != nil {
				fmt.Fprintln(os.Stderr, "prepare the v2 lane:", err)
				os.Exit(1)
			}
		}
	}
	os.Exit(m.Run())
}

// TestV2Lane runs all live tests once more on cgroup2. It has only the
// controllers that no v1 hierarchy of the host holds.
func TestV2Lane(t *testing.T) {
	needRoot(t)
	l := layout(t)
	if os.Getenv(laneVar) != "" || l.Mode == V2 {
		t.Skip("this is the v2 lane")
	}
	// The new mount shows the host's own cgroup2 tree: a controller that the
	// tests enable at its root is enabled on the host.
	if l.Mode == Hybrid {
		top := l.Hierarchies[len(l.Hierarchies)-1].Mountpoint
		before, err := controllers(unix.AT_FDCWD, filepath.Join(top, "cgroup.subtree_control"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			after, err := controllers(unix.AT_FDCWD, filepath.Join(top, "cgroup.subtree_control"))
			for _, c := range missing(after, before) {
				err = errors.Join(err, writeFile(unix.AT_FDCWD, filepath.Join(top, "cgroup.subtree_control"), "-"+c))
			}
			if err != nil {
				t.Errorf("disable what was enabled: %v", err)
			}
		}()
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLive", "-test.v", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), laneVar+"=v2")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLiveCreate") {
		t.Errorf("v2 lane: %v", err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func layout(t *testing.T) *Layout {
	t.Helper()
	l, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(laneVar) == "v2" && l.Mode != V2 {
		t.Fatalf("lane v2, but the layout is %+v", l)
	}
	return l
}

// live returns the manager of a cgroup of the test's own, and sees to it that
// the cgroup is gone after the test.
func live(t *testing.T, sub string) Manager {
	t.Helper()
	needRoot(t)
	top := fmt.Sprintf("rt-test-%d-%s", os.Getpid(), t.Name())
	top = strings.ReplaceAll(top, "/", "-")
	m, err := New(layout(t), filepath.Join(top, sub), "test-id")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		all, err := New(layout(t), top, "")
		if err == nil {
			err = errors.Join(all.Kill(), all.Remove(time.Now().Add(5*time.Second)))
			all.Close()
		}
		if err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return m
}

func create(t *testing.T, m Manager) {
	t.Helper()
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
}

// start runs a bash script inside the cgroup, the way the stage enters it.
func start(t *testing.T, m Manager, script string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := m.OpenDir()
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := m.OpenTasks()
	if err != nil {
		t.Fatal(err)
	}
	enter := ""
	// bash keeps 255 for itself and wants its descriptors below.
	cmd := exec.Command("bash", append([]string{"-c", "", "bash"}, args...)...)
	for i, task := range tasks {
		f := os.NewFile(uintptr(task.FD), task.Dir)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		enter += fmt.Sprintf("echo 0 >&%d || exit 99; exec %d>&-\n", i+3, i+3)
	}
	cmd.Args[2] = enter + "echo in; exec 1>&2\n" + script
	if dir >= 0 {
		defer unix.Close(dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: dir}
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() {
		t.Errorf("process %d has not ended after a minute", cmd.Process.Pid)
		_ = m.Kill()
		_ = cmd.Process.Kill()
	})
	t.Cleanup(func() {
		late.Stop()
		_ = m.Kill()
		_ = cmd.Process.Kill()
		done := make(chan bool)
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Errorf("process %d does not die", cmd.Process.Pid)
		}
		if t.Failed() {
			t.Logf("stderr of the process: %s", &errs)
		}
	})
	var b [8]byte
	if n, _ := out.Read(b[:]); string(b[:n]) != "in\n" {
		t.Fatalf("process did not enter the cgroup: %s", &errs)
	}
	return cmd
}

// dirsOf returns all directories at and below the cgroup, in all hierarchies.
func dirsOf(m Manager) []string {
	var out []string
	for _, d := range m.Record().Dirs {
		_ = filepath.WalkDir(d.Host(), func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				out = append(out, p)
			}
			return nil
		})
	}
	return out
}

// owners are the marks of the directories of m.
func owners(m Manager) (list []Mark) {
	m.Part(func(mark Mark) bool {
		list = append(list, mark)
		return true
	})
	return list
}

func TestLiveCreate(t *testing.T) {
	m := live(t, "a/b")
	create(t, m)
	rec := m.Record()
	for _, d := range rec.Dirs {
		if fi, err := os.Stat(d.Host()); err != nil || !fi.IsDir() {
			t.Errorf("%s: %v", d.Host(), err)
		}
	}
	t.Logf("%+v", m.Paths())
	if len(m.Paths()) < len(rec.Dirs) {
		t.Errorf("%d paths for %d directories", len(m.Paths()), len(rec.Dirs))
	}
	for _, got := range owners(m) {
		if got.ID != "test-id" {
			t.Errorf("owner %+v", got)
		}
	}
	b, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	var again Record
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	m2 := Load(again)
	defer m2.Close()
	if busy, err := m2.Populated(); busy || err != nil {
		t.Errorf("populated %v, %v", busy, err)
	}
	cmd := start(t, m, "sleep 60 & wait")
	pids, err := m2.Pids()
	if err != nil || !slices.Contains(pids, cmd.Process.Pid) {
		t.Errorf("pids %v without %d, %v", pids, cmd.Process.Pid, err)
	}
	// In every hierarchy, not in some.
	b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", cmd.Process.Pid))
	for _, d := range rec.Dirs {
		if !strings.Contains(string(b), ":"+d.Key+":/") || !strings.Contains(string(b), "/a/b\n") {
			t.Errorf("process is not in %+v: %s", d, b)
		}
	}
	if n := strings.Count(string(b), "/a/b\n"); n != len(rec.Dirs) {
		t.Errorf("process is in %d hierarchies of %d: %s", n, len(rec.Dirs), b)
	}
	if err := m2.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := m2.Remove(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if left := dirsOf(m); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for _, d := range rec.Dirs { // L25
		if _, err := os.Stat(filepath.Dir(d.Host())); err != nil {
			t.Errorf("the parent is gone too: %v", err)
		}
	}
}

func TestLiveUndo(t *testing.T) {
	m := live(t, "a/b/c")
	// One parent is there before, in every hierarchy.
	var parents []string
	for _, d := range m.Record().Dirs {
		p := filepath.Dir(filepath.Dir(d.Host()))
		parents = append(parents, p)
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	create(t, m)
	start(t, m, "exec sleep 0.1")
	if err := m.Undo(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, p := range parents {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("a directory that Create found is gone: %v", err)
		}
		if _, err := os.Stat(filepath.Join(p, "b")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s/b: %v", p, err)
		}
	}
}

func TestLiveF24Refuse(t *testing.T) {
	t.Run("foreign and empty", func(t *testing.T) {
		m := live(t, "a")
		for _, d := range m.Record().Dirs {
			if err := os.MkdirAll(d.Host(), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		create(t, m)
		for _, got := range owners(m) {
			if got.ID != "test-id" {
				t.Errorf("owner %+v", got)
			}
		}
		if err := m.Undo(time.Time{}); err != nil {
			t.Fatal(err)
		}
		for _, got := range owners(m) {
			if got != (Mark{}) {
				t.Errorf("owner %+v after Undo", got)
			}
		}
		if n := len(dirsOf(m)); n != len(m.Record().Dirs) {
			t.Errorf("%d directories left, Undo removed what it did not make", n)
		}
	})
	t.Run("left by a crash", func(t *testing.T) {
		m := live(t, "a")
		create(t, m)
		var before []uint64
		for _, d := range m.Record().Dirs {
			before = append(before, inode(t, d.Host()))
		}
		again := Load(m.Record())
		defer again.Close()
		create(t, again)
		for i, d := range m.Record().Dirs {
			if inode(t, d.Host()) == before[i] {
				t.Errorf("%s with its old limits is still there", d.Host())
			}
		}
	})
	t.Run("with a process", func(t *testing.T) {
		m := live(t, "a")
		create(t, m)
		cmd := start(t, m, "exec sleep 60")
		again := Load(m.Record())
		defer again.Close()
		checkErr(t, again.Create(), "container's cgroup is not empty: 1 process(es) found")
		if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
			t.Errorf("the stranger: %v", err)
		}
		if pids, err := m.Pids(); len(pids) != 1 || err != nil {
			t.Errorf("pids %v, %v", pids, err)
		}
	})
	t.Run("with a process below", func(t *testing.T) {
		m, below := live(t, "a"), live(t, "a/b")
		create(t, below)
		start(t, below, "exec sleep 60")
		checkErr(t, m.Create(), "container's cgroup is not empty: 1 process(es) found")
	})
	t.Run("frozen", func(t *testing.T) {
		m, below := live(t, "a"), live(t, "a/b")
		create(t, m)
		if err := m.Freeze(); err != nil {
			t.Fatal(err)
		}
		checkErr(t, below.Create(), "container's cgroup unexpectedly frozen")
		for _, d := range below.Record().Dirs {
			if _, err := os.Stat(d.Host()); err == nil {
				t.Errorf("%s is left", d.Host())
			}
		}
		if f, err := m.Frozen(); !f || err != nil {
			t.Errorf("frozen %v, %v", f, err)
		}
	})
}

func inode(t *testing.T, p string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestLiveS33KillV1 kills without the help of cgroup2, a process that is in one
// hierarchy only among the others.
func TestLiveS34Remove(t *testing.T) {
	m := live(t, "a")
	create(t, m)
	for _, d := range m.Record().Dirs[:1] {
		fd, err := unix.Open(d.Host(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			if err := unix.Mkdirat(fd, "s"+strconv.Itoa(i), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for range 30 { // the path is longer than PATH_MAX in the end
			name := strings.Repeat("n", 200)
			if err := unix.Mkdirat(fd, name, 0o755); err != nil {
				t.Fatal(err)
			}
			next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			fd = next
		}
		unix.Close(fd)
	}
	if _, err := m.Pids(); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(time.Now()); err != nil {
		t.Fatal(err)
	}
	if left := dirsOf(m); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLiveF21RemoveBusy(t *testing.T) {
	m := live(t, "a")
	create(t, m)
	cmd := start(t, m, "sleep 60 & wait")
	err := m.Remove(time.Now().Add(50 * time.Millisecond))
	checkErr(t, err, "with processes ["+strconv.Itoa(cmd.Process.Pid))
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("error %v is not EBUSY", err)
	}
	// A slow exit is waited for.
	done := make(chan error)
	go func() { done <- m.Remove(time.Now().Add(5 * time.Second)) }()
	time.Sleep(50 * time.Millisecond)
	pids, err := Load(m.Record()).Pids()
	if err != nil || len(pids) != 2 {
		t.Errorf("pids %v, %v", pids, err)
	}
	if err := Load(m.Record()).Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLiveF23Gone(t *testing.T) {
	for _, open := range []bool{false, true} {
		m := live(t, "a")
		create(t, m)
		if !open {
			m.Close()
		}
		for _, d := range m.Record().Dirs {
			if err := os.Remove(d.Host()); err != nil {
				t.Fatal(err)
			}
		}
		pids, err := m.Pids()
		busy, err2 := m.Populated()
		ice, err3 := m.Frozen()
		oom, err4 := m.OOMKills()
		if len(pids) > 0 || busy || ice || oom > 0 || owners(m)[0] != (Mark{}) {
			t.Errorf("pids %v, populated %v, frozen %v, oom %d, owners %v", pids, busy, ice, oom, owners(m))
		}
		now := time.Now()
		if err := errors.Join(err, err2, err3, err4, m.Kill(), m.WaitEmpty(now), m.Remove(now)); err != nil {
			t.Error(err)
		}
		if err := m.Freeze(); !gone(err) {
			t.Errorf("freeze: %v", err)
		}
	}
}

// TestLiveApply sets what the controllers here offer, and sees it work.
func TestLiveDetectFast(t *testing.T) {
	l := layout(t)
	if l.Mode == V2 && l.Hierarchies[0].Mountpoint == defaultMount && !plainV2() {
		t.Log("mountinfo had to be read")
	}
	t.Logf("%+v", l)
}

func BenchmarkDetect(b *testing.B) {
	for b.Loop() {
		if _, err := Detect(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate is what create pays for the cgroup, and what delete does.
func BenchmarkCreate(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	var times [5]time.Duration
	for b.Loop() {
		at := time.Now()
		lap := func(i int) { now := time.Now(); times[i] += now.Sub(at); at = now }
		l, err := Detect()
		if err != nil {
			b.Fatal(err)
		}
		lap(0)
		m, err := New(l, "", fmt.Sprintf("rt-test-%d-bench", os.Getpid()))
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Create(); err != nil {
			b.Fatal(err)
		}
		lap(1)
		if err := m.Devices(nil); err != nil {
			b.Fatal(err)
		}
		lap(2)
		tasks, err := m.OpenTasks()
		dir, err2 := m.OpenDir()
		if err != nil || err2 != nil {
			b.Fatal(err, err2)
		}
		for _, t := range tasks {
			unix.Close(t.FD)
		}
		if dir >= 0 {
			unix.Close(dir)
		}
		lap(3)
		m.Close()
		if err := m.Remove(time.Now().Add(time.Second)); err != nil {
			b.Fatal(err)
		}
		lap(4)
	}
	for i, name := range []string{"detect", "create", "devices", "open", "remove"} {
		b.ReportMetric(float64(times[i].Microseconds())/float64(b.N), name+"-µs")
	}
}
