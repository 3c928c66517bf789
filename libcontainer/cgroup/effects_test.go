package cgroup

import (
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

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestLiveS26Devices(t *testing.T) {
	tmp := t.TempDir()
	node := func(name string, major, minor uint32) bool {
		p := filepath.Join(tmp, name)
		_ = os.Remove(p)
		if err := unix.Mknod(p, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))); err != nil {
			t.Skip("mknod:", err)
		}
		// Else that the container cannot open it shows nothing.
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	node("null", 1, 3)
	// Two that the default rules do not allow: mem, kmsg, fuse, loop-control, tty0.
	var closed [][2]uint32
	for _, d := range [][2]uint32{{1, 1}, {1, 11}, {10, 229}, {10, 237}, {4, 0}} {
		if len(closed) < 2 && node([]string{"mem", "kmsg"}[len(closed)], d[0], d[1]) {
			closed = append(closed, d)
		}
	}
	if len(closed) < 2 {
		t.Skip("this host opens no two of the devices to forbid")
	}
	major, minor := int64(closed[0][0]), int64(closed[0][1])
	const script = `cd "$1"
		check() { if eval "$2" 2>/dev/null; then r=yes; else r=no; fi; [ $r = $3 ] || { echo "$1: $r" >&2; bad=1; }; }
		check null 'exec 4<>null' yes
		check mem 'exec 4<mem' $2
		check memwrite 'exec 4<>mem' no
		check kmsg 'exec 4<kmsg' $3
		check mknod 'mknod $$ b 8 0' $4
		check opened 'exec 4<$$' no
		rm -f $$
		exit $bad`
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  []string // mem for reading, kmsg, mknod of a disk
	}{
		{"absent", nil, []string{"no", "no", "yes"}},
		{"one allowed", []specs.LinuxDeviceCgroup{{}, rule(true, "c", major, minor, "r")}, []string{"yes", "no", "yes"}},
		{"allowed and taken back", []specs.LinuxDeviceCgroup{rule(true, "c", major, minor, "rw"), rule(false, "c", major, -1, "rw")}, []string{"no", "no", "yes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := live(t, "a")
			create(t, m)
			if err := m.Devices(tt.rules); err != nil {
				t.Fatal(err)
			}
			cmd := start(t, m, "bad=0\n"+script, append([]string{tmp}, tt.want...)...)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, cmd.Stderr)
			}
		})
	}
	t.Run("all allowed", func(t *testing.T) {
		m := live(t, "a")
		create(t, m)
		if err := m.Devices([]specs.LinuxDeviceCgroup{{Allow: true}}); err != nil {
			t.Fatal(err)
		}
		if err := start(t, m, `exec 4<"$1"/mem 5<"$1"/kmsg`, tmp).Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestLiveFreeze(t *testing.T) {
	m := live(t, "a")
	create(t, m)
	file := filepath.Join(t.TempDir(), "out")
	start(t, m, `while :; do echo x >>"$1"; done`, file)
	size := func() int64 {
		fi, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return fi.Size()
	}
	grows := func() bool {
		before := size()
		for range 100 {
			if time.Sleep(10 * time.Millisecond); size() > before {
				return true
			}
		}
		return false
	}
	for range 3 {
		if !grows() {
			t.Fatal("the process does not run")
		}
		if err := m.Freeze(); err != nil {
			t.Fatal(err)
		}
		before := size()
		time.Sleep(100 * time.Millisecond)
		if f, err := m.Frozen(); !f || err != nil || size() != before {
			t.Fatalf("frozen %v, %v, %d bytes written", f, err, size()-before)
		}
		if err := m.Thaw(); err != nil {
			t.Fatal(err)
		}
		if f, err := m.Frozen(); f || err != nil {
			t.Fatalf("frozen %v, %v", f, err)
		}
	}
}

func TestLiveS33Kill(t *testing.T) {
	m, below := live(t, "a"), live(t, "a/b")
	stranger := live(t, "z")
	create(t, m)
	create(t, stranger)
	other := start(t, stranger, "exec sleep 60")
	const bomb = `trap "" TERM HUP INT; for i in $(seq 20); do (trap "" TERM; while :; do sleep 0.01; done) & done; wait`
	start(t, m, bomb)
	// v2 allows processes in both, as no controller is enabled for the children.
	create(t, below)
	start(t, below, bomb)
	if err := below.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitEmpty(time.Now().Add(20 * time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("wait for a full cgroup: %v", err)
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitEmpty(time.Now().Add(5 * time.Second)); err != nil {
		pids, _ := m.Pids()
		t.Fatal(err, pids)
	}
	pids, err := m.Pids()
	if p, err2 := m.Populated(); len(pids) != 0 || p || err != nil || err2 != nil {
		t.Errorf("pids %v, populated %v, %v, %v", pids, p, err, err2)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the stranger: %v", err)
	}
	if pids, _ := stranger.Pids(); len(pids) != 1 {
		t.Errorf("the stranger: %v", pids)
	}
}

func TestLiveS33KillV1(t *testing.T) {
	m := live(t, "a")
	rec := m.Record()
	if rec.Mode == V2 {
		t.Skip("no v1 here")
	}
	rec.Mode = V1
	rec.Dirs = slices.DeleteFunc(slices.Clone(rec.Dirs), func(d Dir) bool { return d.Key == "" })
	for _, freezer := range []bool{true, false} {
		if !freezer {
			rec.Dirs = slices.DeleteFunc(slices.Clone(rec.Dirs), func(d Dir) bool { return d.Key == "freezer" })
		}
		only := Load(rec)
		defer only.Close()
		create(t, only)
		bomb := start(t, only, `trap "" TERM; for i in 1 2 3 4 5 6 7 8; do (sleep 1000 &); done; while :; do (sleep 0.01 &); done`)
		lone := exec.Command("sleep", "1000")
		if err := lone.Start(); err != nil {
			t.Fatal(err)
		}
		defer lone.Process.Kill()
		dir := only.Paths()["pids"]
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(lone.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		if err := only.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := only.WaitEmpty(time.Now().Add(5 * time.Second)); err != nil {
			pids, _ := only.Pids()
			t.Fatal(err, pids)
		}
		for _, c := range []*exec.Cmd{bomb, lone} {
			if err := c.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Errorf("freezer %v: wait: %v", freezer, err)
			}
		}
		if f, err := only.Frozen(); f || err != nil {
			t.Errorf("frozen %v, %v", f, err)
		}
		if err := only.Remove(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLiveKillFrozen(t *testing.T) {
	m := live(t, "a")
	create(t, m)
	cmd := start(t, m, "sleep 60 & wait")
	if err := m.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("wait: %v", err)
	}
	if err := m.WaitEmpty(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if f, err := m.Frozen(); f || err != nil {
		t.Errorf("frozen %v, %v", f, err)
	}
}

func TestLiveApply(t *testing.T) {
	m := live(t, "p/a")
	create(t, m)
	l := layout(t)
	if l.Mode == V2 {
		// Whatever the mount offers has reached the directory.
		all, _ := os.ReadFile(filepath.Join(defaultMount, "cgroup.controllers"))
		got, err := os.ReadFile(filepath.Join(m.Paths()[""], "cgroup.controllers"))
		if err != nil || string(got) != string(all) {
			t.Errorf("controllers %q of %q, %v", got, all, err)
		}
		if !strings.Contains(string(all), "pids") {
			checkErr(t, m.Apply(pids(5)), "controller pids is not in")
			t.Skip("no pids, memory and cpu on cgroup2 here")
		}
	}
	r := mem(64<<20, 64<<20)
	r.Memory.Reservation = p(int64(32 << 20))
	r.Pids = pids(6).Pids
	r.CPU = &specs.LinuxCPU{Shares: p(uint64(512)), Quota: p(int64(20000)), Period: p(uint64(50000)), Burst: p(uint64(1000))}
	if err := m.Apply(r); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"pids.max": "6", "memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "67108864",
		"memory.soft_limit_in_bytes": "33554432", "cpu.shares": "512", "cpu.cfs_quota_us": "20000", "cpu.cfs_period_us": "50000", "cpu.cfs_burst_us": "1000"}
	if l.Mode == V2 {
		want = map[string]string{"pids.max": "6", "memory.max": "67108864", "memory.swap.max": "0", "memory.low": "33554432",
			"cpu.weight": "59", "cpu.max": "20000 50000", "cpu.max.burst": "1000"}
	}
	for file, v := range want {
		dir := m.Paths()[""]
		if l.Mode != V2 {
			c, _, _ := strings.Cut(file, ".")
			dir = m.Paths()[c]
		}
		got, err := os.ReadFile(filepath.Join(dir, file))
		if errors.Is(err, fs.ErrNotExist) && strings.Contains(file, "sw") {
			continue // no swap accounting
		}
		if err != nil || strings.TrimSpace(string(got)) != v {
			t.Errorf("%s is %q, want %q, %v", file, got, v, err)
		}
	}
	// All grow and all shrink, in whatever order the kernel wants it.
	for _, mb := range []int64{256, 48} {
		r := mem(mb<<20, mb<<20)
		r.CPU = &specs.LinuxCPU{Quota: p(mb * 100), Period: p(uint64(mb * 200)), Burst: p(uint64(mb * 50))}
		if err := m.Apply(r); err != nil {
			t.Errorf("%d MB: %v", mb, err)
		}
	}
	cmd := start(t, m, "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
	_ = cmd.Wait() // bash gives up with 254 in the end
	if !strings.Contains(fmt.Sprint(cmd.Stderr), "Resource temporarily unavailable") {
		t.Errorf("8 processes ran under a limit of 6: %v", cmd.Stderr)
	}
	if n, err := m.OOMKills(); n != 0 || err != nil {
		t.Errorf("%d out of memory kills, %v", n, err)
	}
	if err := m.Apply(mem(16<<20, 16<<20)); err != nil {
		t.Fatal(err)
	}
	if err := start(t, m, "exec tail /dev/zero").Wait(); err == nil {
		t.Error("64 MB of memory under a limit of 16")
	}
	if n, err := m.OOMKills(); n == 0 || err != nil {
		t.Errorf("%d out of memory kills, %v", n, err)
	}
	if l.Mode != V2 {
		checkErr(t, m.Apply(cpu(specs.LinuxCPU{Shares: p(uint64(1))})), `set cpu.shares to "1" (config.json /linux/resources/cpu/shares): the kernel made it 2`)
	}
}
