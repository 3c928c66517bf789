package engines

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rt/integration/ground"

	"golang.org/x/sys/unix"
)

// TestContainerd drives the runtime through Debian's containerd with ctr.
func TestContainerd(t *testing.T) {
	criu, noCRIU, err := ground.CRIU("../lanes")
	if err != nil {
		t.Fatal(err)
	}
	// The runtime looks for it in the PATH that containerd has.
	t.Setenv("PATH", criu+":"+os.Getenv("PATH"))
	c := startContainerd(t)
	for _, sub := range []struct {
		name string
		test func(*testing.T, *containerd)
	}{
		{"run", testRun},
		{"flags", testFlags},
		{"errors", testErrors},
		{"terminal", testTerminal},
		{"detached", testDetached},
		{"exec", testExec},
		{"exec terminal", testExecTerminal},
		{"kill", testKill},
		{"delete", testDelete},
		{"pause", testPause},
		{"checkpoint", func(t *testing.T, c *containerd) {
			if noCRIU != "" {
				t.Skip(noCRIU)
			}
			testCheckpoint(t, c)
		}},
		{"ps and metrics", testObserve},
		{"limits", testLimits},
		{"pids limit", testPidsLimit},
		{"shim killed", testShimKilled},
		{"parallel", testParallel},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.test(t, c) })
	}
}

// testRun runs attached containers to their end.
func testRun(t *testing.T, c *containerd) {
	r := c.attached("out", "echo out; echo err >&2; exit 7")
	if r.out != "out\n" || r.err != "err\n" || r.code != 7 {
		t.Errorf("output and exit code: %s", r)
	}
	r = c.printing("", c.run("--rm", imageRoot, c.id("command"))...)
	if r.out != "image command\n" || r.code != 0 {
		t.Errorf("the image's command: %s", r)
	}
	r = c.printing("one\ntwo\n", c.run("--rm", imageRoot, c.id("stdin"), "sh", "-c", "read a; read b; echo $b $a")...)
	if r.out != "two one\n" || r.code != 0 {
		t.Errorf("standard input: %s", r)
	}
	r = c.printing("", c.run("--rm", imageUser, c.id("user"), "id")...)
	if !strings.Contains(r.out, "uid=1000(user) gid=1000(user)") || r.code != 0 {
		t.Errorf("the image's user: %s", r)
	}
	if left := c.ok(t, "containers", "list", "--quiet"); left != "" {
		t.Errorf("containers left: %q", left)
	}
}

// testFlags checks one effect of each flag, in a container of its own.
func testFlags(t *testing.T, c *containerd) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("from host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	netns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		flags  []string
		script string
		code   int
		out    string // the whole standard output
	}{
		{"env", []string{"--env", "A=b c"}, `echo "$A $IMAGE_ENV"`, 0, "b c set\n"},
		{"cwd", []string{"--cwd", "/mnt"}, "pwd", 0, "/mnt\n"},
		{"cwd made", []string{"--cwd", "/new/dir"}, "pwd", 0, "/new/dir\n"},
		{"writable", nil, "touch /file && echo yes", 0, "yes\n"},
		{"read-only", []string{"--read-only"}, "touch /file 2>/dev/null; echo $?; touch /dev/shm/file && echo yes", 0, "1\nyes\n"},
		{"bind read-only", []string{"--mount", "type=bind,src=" + dir + ",dst=/host,options=rbind:ro"},
			"cat /host/file; touch /host/new 2>/dev/null; echo $?", 0, "from host\n1\n"},
		{"bind writable", []string{"--mount", "type=bind,src=" + dir + ",dst=/host,options=rbind:rw"},
			"touch /host/new; echo $?", 0, "0\n"},
		{"bind of a file", []string{"--mount", "type=bind,src=" + dir + "/file,dst=/etc/new/file,options=bind:ro"},
			"cat /etc/new/file", 0, "from host\n"},
		{"tmpfs", []string{"--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=size=1m:mode=700"},
			`grep -c '^tmpfs /mnt tmpfs .*size=1024k,mode=700' /proc/mounts`, 0, "1\n"},
		{"capabilities", nil, "grep CapEff /proc/self/status", 0, "CapEff:\t00000000a80425fb\n"},
		{"capability added", []string{"--cap-add", "CAP_SYS_NICE"}, "grep CapEff /proc/self/status", 0, "CapEff:\t00000000a88425fb\n"},
		{"capability dropped", []string{"--cap-drop", "CAP_CHOWN"}, "grep CapEff /proc/self/status", 0, "CapEff:\t00000000a80425fa\n"},
		{"no new privileges", nil, "grep NoNewPrivs /proc/self/status", 0, "NoNewPrivs:\t1\n"},
		{"new privileges", []string{"--allow-new-privs"}, "grep NoNewPrivs /proc/self/status", 0, "NoNewPrivs:\t0\n"},
		{"own network", nil, "readlink /proc/self/ns/net | grep -cF '" + netns + "'", 1, "0\n"},
		{"host network", []string{"--net-host"}, "readlink /proc/self/ns/net", 0, netns + "\n"},
		{"joined network", []string{"--with-ns", "network:/proc/1/ns/net"}, "readlink /proc/self/ns/net", 0, netns + "\n"},
		{"no pivot", []string{"--no-pivot"}, "echo yes", 0, "yes\n"},
		{"device", []string{"--device", "/dev/full"}, "echo x >/dev/full || echo full", 0, "full\n"},
		{"device refused", nil, "mknod /tmp/kmsg c 1 11 && echo made; (: </tmp/kmsg) 2>/dev/null || echo no", 0, "made\nno\n"},
		{"user namespace", []string{"--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000"},
			"cat /proc/self/uid_map /proc/self/gid_map | while read a b c; do echo $a $b $c; done", 0, "0 100000 1000\n0 200000 1000\n"},
		{"masked", nil, "cat /proc/keys /proc/timer_list | wc -c", 0, "0\n"},
		{"read-only paths", nil, "(echo x >/proc/sys/kernel/domainname) 2>/dev/null || echo no", 0, "no\n"},
		{"privileged", []string{"--privileged"}, "mount -t tmpfs tmpfs /mnt && echo yes", 0, "yes\n"},
		// containerd's default profile; a user namespace needs no capability.
		{"seccomp", []string{"--seccomp"}, "grep Seccomp: /proc/self/status; busybox unshare -U true 2>&1; echo works", 0,
			"Seccomp:\t2\nunshare: unshare(0x10000000): Operation not permitted\nworks\n"},
		{"no seccomp", nil, "grep Seccomp: /proc/self/status; busybox unshare -U true && echo yes", 0, "Seccomp:\t0\nyes\n"},
		{"unprivileged", nil, "mount -t tmpfs tmpfs /mnt 2>/dev/null || echo no", 0, "no\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := c.attached(strings.ReplaceAll(tt.name, " ", "-"), tt.script, tt.flags...)
			if r.out != tt.out || r.code != tt.code {
				t.Errorf("%q with %q: %s; want code %d, stdout %q", tt.script, tt.flags, r, tt.code, tt.out)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err != nil {
		t.Errorf("file made in a bind mount: %v", err)
	}
}

// testErrors checks the words that reach ctr's user, which engines match.
func testErrors(t *testing.T, c *containerd) {
	for _, tt := range []struct {
		name  string
		flags []string
		args  []string
		want  string
	}{
		{"not in PATH", nil, []string{"nosuch"}, `exec: "nosuch": executable file not found in $PATH`},
		{"no such file", nil, []string{"/no/such"}, `exec: "/no/such": stat /no/such: no such file or directory`},
		{"not executable", nil, []string{"/etc/passwd"}, `exec: "/etc/passwd": permission denied`},
		// runc 1.1 says permission denied, later ones is a directory.
		{"directory", nil, []string{"/etc"}, `exec: "/etc": `},
		{"bind source", []string{"--mount", "type=bind,src=/no/such,dst=/mnt,options=bind"}, []string{"true"}, "no such file or directory"},
		{"mount option", []string{"--mount", "type=tmpfs,src=tmpfs,dst=/mnt,options=sise=1m"}, []string{"true"}, "invalid argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := c.id("error-" + strings.ReplaceAll(tt.name, " ", "-"))
			args := append([]string{"--rm"}, tt.flags...)
			r := c.ctr(c.run(append(append(args, imageRoot, id), tt.args...)...)...)
			if r.code == 0 || !strings.Contains(r.err, tt.want) {
				t.Errorf("run %q: %s; want %q in stderr", tt.args, r, tt.want)
			}
			if left := c.task(t, id); left != (task{}) {
				t.Errorf("a task is left: %+v", left)
			}
		})
	}
}

func testTerminal(t *testing.T, c *containerd) {
	ctx, cancel := context.WithTimeout(context.Background(), ctrTimeout)
	defer cancel()
	term := startTerminal(t, c.command(ctx, c.run("--rm", "--tty", imageRoot, c.id("tty"), "sh")...), 40, 100)
	term.expect("# ")
	term.send("tty; test -c /dev/console && echo console' 'is' 'there\n")
	term.expect("/dev/pts/0\n")
	term.expect("console is there\n")
	// ctr sets the size after the start. Quotes keep the echoed command from matching.
	term.send("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.1; done; echo size' 'is' 'right\n")
	term.expect("size is right\n")
	// A job of an interactive shell dies of ^C, the shell lives: the terminal controls it.
	term.send("sleep 1000\n")
	time.Sleep(300 * time.Millisecond)
	term.send("\x03")
	term.send("echo code' '$?\n")
	term.expect("code 130\n")
	term.send("exit 5\n")
	if code := term.wait(); code != 5 {
		t.Errorf("exit code %d, want 5; terminal shows %q", code, term.output())
	}
}

func testDetached(t *testing.T, c *containerd) {
	id, log := c.id("detached"), filepath.Join(t.TempDir(), "log")
	pidFile := filepath.Join(t.TempDir(), "pid")
	c.ok(t, c.run("--detach", "--log-uri", "file://"+log, "--pid-file", pidFile, imageRoot, id,
		"sh", "-c", "echo started; sleep 1000 & wait")...)
	t.Cleanup(func() { c.remove(t, id) })
	running := c.task(t, id)
	if running.status != "RUNNING" {
		t.Errorf("status %q, want RUNNING", running.status)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil || string(b) != strconv.Itoa(running.pid) {
		t.Errorf("pid file: %q, %v; want %d", b, err, running.pid)
	}
	if !eventually(5*time.Second, func() bool { b, err = os.ReadFile(log); return string(b) == "started\n" }) {
		t.Errorf("log: %q, %v", b, err)
	}
}

func testExec(t *testing.T, c *containerd) {
	id, _ := c.detached(t, "exec", "echo $$ >/tmp/pid; sleep 1000 & wait", "--env", "A=b")
	exec := func(word string, flags []string, args ...string) result {
		return c.printing("", append(append(append([]string{"tasks", "exec", "--exec-id", word}, flags...), id), args...)...)
	}
	for _, tt := range []struct {
		name  string
		flags []string
		args  []string
		code  int
		out   string
	}{
		{"output-and-code", nil, []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, 3, "out\n"},
		{"same-namespaces", nil, []string{"sh", "-c", "cat /tmp/pid; ps | grep -c ' [s]leep 1000$'"}, 0, "1\n1\n"},
		{"env", nil, []string{"sh", "-c", "echo $A $IMAGE_ENV"}, 0, "b set\n"},
		{"cwd", []string{"--cwd", "/mnt"}, []string{"pwd"}, 0, "/mnt\n"},
		{"user-number", []string{"--user", "1000:2000"}, []string{"sh", "-c", "id -u; id -g"}, 0, "1000\n2000\n"},
		{"user-name", []string{"--user", "user"}, []string{"id", "-un"}, 0, "user\n"},
		{"no-new-privileges", nil, []string{"grep", "NoNewPrivs", "/proc/self/status"}, 0, "NoNewPrivs:\t1\n"},
		{"signal", nil, []string{"sh", "-c", "echo out; kill -KILL $$"}, 137, "out\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := exec(tt.name, tt.flags, tt.args...)
			if r.code != tt.code || r.out != tt.out {
				t.Errorf("exec %q: %s; want code %d, stdout %q", tt.args, r, tt.code, tt.out)
			}
		})
	}
	for _, tt := range []struct{ name, program, want string }{
		{"not-in-path", "nosuch", `exec: "nosuch": executable file not found in $PATH`},
		{"no-such-file", "/no/such", `exec: "/no/such": stat /no/such: no such file or directory`},
		{"not-executable", "/etc/passwd", `exec: "/etc/passwd": permission denied`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r := exec(tt.name, nil, tt.program); r.code == 0 || !strings.Contains(r.err, tt.want) {
				t.Errorf("exec %q: %s; want %q in stderr", tt.program, r, tt.want)
			}
		})
	}
	t.Run("detached", func(t *testing.T) {
		c.ok(t, "tasks", "exec", "--detach", "--exec-id", "detached", id, "sh", "-c", "echo here >/tmp/detached; sleep 1000 & wait")
		if !eventually(5*time.Second, func() bool {
			return exec("look-"+strconv.FormatInt(time.Now().UnixNano(), 36), nil, "cat", "/tmp/detached").out == "here\n"
		}) {
			t.Errorf("the exec'd process has not written its file")
		}
		c.ok(t, "tasks", "kill", "--signal", "KILL", "--exec-id", "detached", id)
	})
	if s := c.task(t, id).status; s != "RUNNING" {
		t.Errorf("status %q after all, want RUNNING", s)
	}
}

func testExecTerminal(t *testing.T, c *containerd) {
	id, _ := c.detached(t, "exec-tty", "sleep 1000 & wait")
	ctx, cancel := context.WithTimeout(context.Background(), ctrTimeout)
	defer cancel()
	term := startTerminal(t, c.command(ctx, "tasks", "exec", "--tty", "--exec-id", "tty", id, "sh"), 30, 90)
	term.expect("# ")
	term.send("tty\n")
	term.expect("/dev/pts/0\n")
	term.send("until [ \"$(stty size)\" = '30 90' ]; do sleep 0.1; done; echo size' 'is' 'right\n")
	term.expect("size is right\n")
	term.send("exit 6\n")
	if code := term.wait(); code != 6 {
		t.Errorf("exit code %d, want 6; terminal shows %q", code, term.output())
	}
}

func testKill(t *testing.T, c *containerd) {
	const waits = `trap 'exit 9' TERM; touch /tmp/ready; while :; do sleep 0.1; done`
	t.Run("TERM", func(t *testing.T) {
		id := c.id("term")
		done := make(chan result, 1)
		go func() { done <- c.ctr(c.run("--rm", imageRoot, id, "sh", "-c", waits)...) }()
		c.waitReady(t, id)
		c.ok(t, "tasks", "kill", "--signal", "TERM", id)
		if r := <-done; r.code != 9 {
			t.Errorf("run: %s; want code 9, from the trap", r)
		}
	})
	t.Run("KILL", func(t *testing.T) {
		id := c.id("kill")
		done := make(chan result, 1)
		go func() { done <- c.ctr(c.run("--rm", imageRoot, id, "sh", "-c", waits)...) }()
		c.waitReady(t, id)
		c.ok(t, "tasks", "kill", "--signal", "KILL", id)
		if r := <-done; r.code != 128+int(unix.SIGKILL) {
			t.Errorf("run: %s; want code 137", r)
		}
	})
	t.Run("all", func(t *testing.T) {
		id, _ := c.detached(t, "kill-all", waits)
		c.waitReady(t, id)
		c.ok(t, "tasks", "kill", "--all", "--signal", "KILL", id)
		c.waitStatus(t, id, "STOPPED")
	})
	t.Run("stopped", func(t *testing.T) {
		id, _ := c.detached(t, "kill-stopped", "exit 0")
		c.waitStatus(t, id, "STOPPED")
		if r := c.ctr("tasks", "kill", "--signal", "KILL", id); r.code == 0 || !strings.Contains(r.err, "not found") {
			t.Errorf("kill of a stopped task: %s; want not found", r)
		}
	})
}

// waitReady waits until the container's program has made /tmp/ready.
func (c *containerd) waitReady(t *testing.T, id string) {
	t.Helper()
	if !eventually(10*time.Second, func() bool {
		pid := c.task(t, id).pid
		if pid == 0 {
			return false
		}
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/tmp/ready", pid))
		return err == nil
	}) {
		t.Fatalf("container %s does not get ready", id)
	}
}

func testDelete(t *testing.T, c *containerd) {
	id, pid := c.detached(t, "delete", "sleep 1000 & wait")
	if r := c.ctr("tasks", "delete", id); r.code == 0 || !strings.Contains(r.err, "running") {
		t.Errorf("delete of a running task: %s; want an error", r)
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Errorf("init after that: %v", err)
	}
	if r := c.ctr("tasks", "delete", "--force", id); r.code != 128+int(unix.SIGKILL) && r.code != 0 {
		t.Errorf("delete --force: %s", r)
	}
	if s := c.task(t, id); s != (task{}) {
		t.Errorf("task after delete --force: %+v", s)
	}
	if left := cgroups(t, id); len(left) != 0 {
		t.Errorf("cgroups after delete --force: %q", left)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("init after delete --force: %v, want %v", err, unix.ESRCH)
	}
}

// testCheckpoint puts a running container into an image, and makes another one of that, which goes on.
func testCheckpoint(t *testing.T, c *containerd) {
	dir := t.TempDir()
	id, _ := c.detached(t, "checkpoint", "i=0; while :; do i=$((i+1)); echo $i >/host/count; sleep 0.02; done",
		"--mount", "type=bind,src="+dir+",dst=/host,options=bind:rw")
	count := func() int {
		b, _ := os.ReadFile(filepath.Join(dir, "count"))
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	if !eventually(5*time.Second, func() bool { return count() > 50 }) {
		t.Fatalf("the container does not count")
	}
	ref := "docker.io/library/checkpoint:" + id
	c.ok(t, "containers", "checkpoint", "--task", "--rw", id, ref)
	after := count()
	c.ctr("tasks", "delete", "--force", id) // its exit code is the task's own
	if err := os.Remove(filepath.Join(dir, "count")); err != nil {
		t.Fatal(err)
	}
	again := c.id("restored")
	c.ok(t, "containers", "restore", "--live", "--rw", again, ref)
	t.Cleanup(func() {
		c.remove(t, again)
		// containerd does not remove what it has unpacked the images to.
		unpacked, _ := filepath.Glob(filepath.Join(c.dir, "tmp/ctrd-checkpoint*"))
		for _, d := range unpacked {
			os.RemoveAll(d)
		}
	})
	if !eventually(5*time.Second, func() bool { return count() > 0 }) {
		t.Fatalf("the restored container does not count")
	}
	if n := count(); n <= 50 || n > after+1000 {
		t.Errorf("it goes on with %d after %d", n, after)
	}
	c.waitStatus(t, again, "RUNNING")
}

func testPause(t *testing.T, c *containerd) {
	dir := t.TempDir()
	id, _ := c.detached(t, "pause", "while echo >>/host/count; do sleep 0.02; done",
		"--mount", "type=bind,src="+dir+",dst=/host,options=bind:rw")
	count := func() int64 {
		st, err := os.Stat(filepath.Join(dir, "count"))
		if err != nil {
			return 0
		}
		return st.Size()
	}
	if !eventually(5*time.Second, func() bool { return count() > 2 }) {
		t.Fatalf("the container does not count")
	}
	c.ok(t, "tasks", "pause", id)
	if s := c.task(t, id).status; s != "PAUSED" {
		t.Errorf("status %q, want PAUSED", s)
	}
	before := count()
	time.Sleep(300 * time.Millisecond)
	if after := count(); after != before {
		t.Errorf("a paused container counted from %d to %d", before, after)
	}
	if r := c.ctr("tasks", "exec", "--exec-id", "paused", id, "true"); r.code == 0 {
		t.Errorf("exec in a paused container: %s; want an error", r)
	}
	c.ok(t, "tasks", "resume", id)
	if s := c.task(t, id).status; s != "RUNNING" {
		t.Errorf("status %q, want RUNNING", s)
	}
	if !eventually(5*time.Second, func() bool { return count() > before }) {
		t.Errorf("a resumed container does not count")
	}
}

// testObserve is ps, which asks the runtime, and metrics, which come from the
// cgroup that containerd found init in.
func testObserve(t *testing.T, c *containerd) {
	id, pid := c.detached(t, "observe", "sleep 1000 & touch /tmp/ready; wait")
	c.waitReady(t, id)
	var pids []int
	for _, line := range strings.Split(c.ok(t, "tasks", "ps", id), "\n")[1:] {
		var p int
		if n, _ := fmt.Sscan(line, &p); n == 1 {
			pids = append(pids, p)
		}
	}
	if len(pids) != 2 || pids[0] != pid && pids[1] != pid {
		t.Errorf("ps: %v, want two, one of them %d", pids, pid)
	}
	var metrics struct {
		Pids struct {
			Current int `json:"current"`
		} `json:"pids"`
	}
	out := c.ok(t, "tasks", "metrics", "--format", "json", id)
	if err := json.Unmarshal([]byte(out), &metrics); err != nil {
		t.Fatalf("metrics: %v in %q", err, out)
	}
	if haveController("pids") && metrics.Pids.Current != 2 {
		t.Errorf("metrics: %d processes, want 2", metrics.Pids.Current)
	}
}

func testLimits(t *testing.T, c *containerd) {
	for _, tt := range []struct {
		controller string
		flags      []string
		v1, v2     [2]string // file, content
	}{
		{"memory", []string{"--memory-limit", "67108864"}, [2]string{"memory.limit_in_bytes", "67108864"}, [2]string{"memory.max", "67108864"}},
		{"cpu", []string{"--cpus", "0.5"}, [2]string{"cpu.cfs_quota_us", "50000"}, [2]string{"cpu.max", "50000 100000"}},
		{"cpu", []string{"--cpu-quota", "20000", "--cpu-period", "50000"}, [2]string{"cpu.cfs_period_us", "50000"}, [2]string{"cpu.max", "20000 50000"}},
		// runc 1.1 and the kernel's own tables turn 512 shares into weight 20.
		{"cpu", []string{"--cpu-shares", "512"}, [2]string{"cpu.shares", "512"}, [2]string{"cpu.weight", "20"}},
	} {
		t.Run(strings.Join(tt.flags, " "), func(t *testing.T) {
			if !haveController(tt.controller) {
				t.Skipf("the cgroup tree has no controller %s", tt.controller)
			}
			_, pid := c.detached(t, "limits", "sleep 1000 & wait", tt.flags...)
			want := tt.v1
			if unified() {
				want = tt.v2
			}
			if got := readCgroup(t, pid, tt.controller, want[0]); got != want[1] {
				t.Errorf("%s is %q, want %q", want[0], got, want[1])
			}
		})
	}
}

// testPidsLimit needs a whole config, as ctr has no flag for it.
func testPidsLimit(t *testing.T, c *containerd) {
	if !haveController("pids") {
		t.Skip("the cgroup tree has no controller pids")
	}
	dir, id := t.TempDir(), c.id("pids")
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	c.ok(t, "images", "mount", "--snapshotter", c.snapshotter, "--rw", imageRoot, rootfs)
	t.Cleanup(func() { c.ok(t, "images", "unmount", "--snapshotter", c.snapshotter, "--rm", rootfs) })

	var spec map[string]any
	if err := json.Unmarshal([]byte(c.ok(t, "oci", "spec")), &spec); err != nil {
		t.Fatal(err)
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["args"] = []string{"sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.5 & done; wait; echo all"}
	process["env"] = []string{"PATH=/bin"}
	process["user"] = map[string]any{"uid": 1000, "gid": 1000}
	spec["root"] = map[string]any{"path": rootfs}
	linux["cgroupsPath"] = filepath.Join("/", c.namespace, id)
	linux["resources"].(map[string]any)["pids"] = map[string]any{"limit": 5}
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, toJSON(t, spec), 0o644); err != nil {
		t.Fatal(err)
	}
	r := c.printing("", c.run("--rm", "--config", config, id)...)
	if r.code == 0 || !strings.Contains(r.err, "can't fork") {
		t.Errorf("ten processes where five may be: %s; want can't fork", r)
	}
}

// testShimKilled kills the shim: containerd then cleans up through
// `containerd-shim-runc-v2 delete`, which calls the runtime's delete --force.
func testShimKilled(t *testing.T, c *containerd) {
	id, pid := c.detached(t, "shim", "sleep 1000 & wait")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// PID (COMM) STATE PPID, see proc_pid_stat(5).
	_, after, _ := strings.Cut(string(b), ") ")
	var state string
	var shim int
	if _, err := fmt.Sscan(after, &state, &shim); err != nil {
		t.Fatalf("parent of init: %v in %q", err, b)
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", shim))
	if err != nil || !strings.Contains(string(args), "containerd-shim-runc-v2") {
		t.Fatalf("init's parent is %d, %q, %v; want the shim", shim, args, err)
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !eventually(10*time.Second, func() bool {
		return unix.Kill(pid, 0) == unix.ESRCH && c.task(t, id) == task{} && len(cgroups(t, id)) == 0
	}) {
		t.Errorf("after the shim's death: init %v, task %+v, cgroups %q", unix.Kill(pid, 0), c.task(t, id), cgroups(t, id))
	}
}

// testParallel runs twice twenty containers at a time.
func testParallel(t *testing.T, c *containerd) {
	for round := range 2 {
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				word := fmt.Sprintf("parallel-%d-%d", round, n)
				r := c.attached(word, "echo "+word+"; exit "+strconv.Itoa(n))
				if r.out != word+"\n" || r.code != n {
					t.Errorf("%s: %s", word, r)
				}
			})
		}
		wg.Wait()
		if left := c.ok(t, "tasks", "list", "--quiet"); left != "" {
			t.Errorf("tasks left: %q", left)
		}
		if left := cgroups(t, c.id("parallel")); len(left) != 0 {
			t.Errorf("cgroups left: %q", left)
		}
	}
}
