package engines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerd is a daemon with private directories and socket, and what ctr
// needs to drive it.
type containerd struct {
	cmd         *exec.Cmd
	dir         string // all that is the daemon's lies below
	log         string
	socket      string
	namespace   string // containerd's, and the parent of the containers' cgroups
	snapshotter string
	runtime     string // the OCI runtime
	lost        atomic.Int32
}

// maxLost is how often the output of a command may be lost in all tests, see printing.
const maxLost = 3

// ctrTimeout is how long any one ctr command may take.
const ctrTimeout = 60 * time.Second

// startContainerd starts the daemon, imports the images, and has it all ended
// and checked for leftovers with the test.
func startContainerd(t *testing.T) *containerd {
	t.Helper()
	needPrograms(t, map[string]string{
		"containerd": "containerd", "ctr": "containerd", "containerd-shim-runc-v2": "containerd", "busybox": "busybox-static",
	})
	c := &containerd{
		runtime: runtimeBinary(t),
		dir:     t.TempDir(),
		// Unique on the host, as the cgroup tree is not private.
		namespace: fmt.Sprintf("rt-engines-%x", time.Now().UnixNano()),
	}
	// Mapped roots must reach the root file systems below it.
	for _, dir := range []string{c.dir, filepath.Dir(c.dir)} {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	c.log = filepath.Join(c.dir, "containerd.log")
	c.socket = filepath.Join(c.dir, "containerd.sock")
	c.snapshotter = snapshotter(t, c.dir)
	tmp := filepath.Join(c.dir, "tmp")
	if err := os.Mkdir(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	// Not /run/containerd/s and fifo: a killed shim leaves its socket, a detached ctr its fifos.
	left := newLeftovers(t, c.namespace,
		tmp,
		filepath.Join(c.dir, "state/io.containerd.runtime.v2.task", c.namespace),
		filepath.Join(c.dir, "root/io.containerd.runtime.v2.task", c.namespace),
		filepath.Join("/run/containerd/runc", c.namespace))

	config := filepath.Join(c.dir, "config.toml")
	if err := os.WriteFile(config, []byte(c.config()), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.cmd = exec.Command("containerd", "--config", config)
	c.cmd.Dir = c.dir
	c.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.stop(t)
		left.check(t)
		left.sweep(t)
		if n := c.lost.Load(); n > maxLost {
			t.Errorf("the output of %d commands was lost, tolerated are %d", n, maxLost)
		}
		if t.Failed() {
			b, _ := os.ReadFile(c.log)
			t.Logf("end of containerd's log:\n%s", b[max(0, len(b)-4096):])
		}
	})
	if !eventually(20*time.Second, func() bool { return c.ctr("version").code == 0 }) {
		t.Fatalf("containerd does not answer: %s", c.ctr("version").err)
	}

	archive := filepath.Join(c.dir, "images.tar")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	buildImages(t, archive, busybox)
	c.ok(t, "images", "import", "--snapshotter", c.snapshotter, archive)
	return c
}

// config is the daemon's configuration: only what the tests need is started.
func (c *containerd) config() string {
	return fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = %q

[debug]
  level = "warn"
`, filepath.Join(c.dir, "root"), filepath.Join(c.dir, "state"), c.socket)
}

// stop ends the daemon and waits for it.
func (c *containerd) stop(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Errorf("end containerd: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("containerd: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("containerd does not end on SIGTERM")
		if err := c.cmd.Process.Kill(); err != nil {
			t.Errorf("kill containerd: %v", err)
		}
		<-ended
	}
}

// snapshotter returns the faster one of those that work on the file system of dir.
func snapshotter(t *testing.T, dir string) string {
	t.Helper()
	probe := filepath.Join(dir, "probe")
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(probe, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", probe)
	merged := filepath.Join(probe, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return "native"
	}
	if err := unix.Unmount(merged, 0); err != nil {
		t.Fatal(err)
	}
	return "overlayfs"
}

// result is what a command printed, and its exit code.
type result struct {
	out, err string
	code     int
}

func (r result) String() string {
	return fmt.Sprintf("code %d, stdout %q, stderr %q", r.code, r.out, r.err)
}

// command returns the ctr command with args, not started. ctx ends it.
func (c *containerd) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ctr", append([]string{"--address", c.socket, "--namespace", c.namespace}, args...)...)
	cmd.Dir = c.dir
	return cmd
}

// ctr runs ctr to its end.
func (c *containerd) ctr(args ...string) result { return c.input("", args...) }

// input is ctr with a text for standard input.
func (c *containerd) input(stdin string, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), ctrTimeout)
	defer cancel()
	cmd := c.command(ctx, args...)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &err
	failure := cmd.Run()
	if ctx.Err() != nil {
		fmt.Fprintf(&err, "[ended after %s]", ctrTimeout)
	} else if exit := (*exec.ExitError)(nil); failure != nil && !errors.As(failure, &exit) {
		fmt.Fprintf(&err, "[%v]", failure)
	}
	code := -1
	if cmd.ProcessState != nil {
		code = cmd.ProcessState.ExitCode()
	}
	return result{out: out.String(), err: err.String(), code: code}
}

// printing is input for a command of which the container prints something. About
// once in 500 runs, with every runtime, ctr 1.6 prints nothing at all of it: that is tried
// again once, and counted.
func (c *containerd) printing(stdin string, args ...string) result {
	r := c.input(stdin, args...)
	if r.code >= 0 && r.out == "" && r.err == "" {
		c.lost.Add(1)
		r = c.input(stdin, args...)
	}
	return r
}

// ok is ctr that must succeed; it returns standard output.
func (c *containerd) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := c.ctr(args...)
	if r.code != 0 {
		t.Fatalf("ctr %s: %s", strings.Join(args, " "), r)
	}
	return r.out
}

// id returns the name of a container: unique on the host, told apart by word.
func (c *containerd) id(word string) string { return c.namespace + "-" + word }

// run is the start of a `ctr run` command line.
func (c *containerd) run(args ...string) []string {
	run := []string{"run", "--runtime", "io.containerd.runc.v2", "--runc-binary", c.runtime, "--snapshotter", c.snapshotter}
	if !haveController("cpu") {
		// ctr asks for 1024 shares unless told otherwise, and where no controller
		// can give them that is an error.
		run = append(run, "--cpu-shares", "0")
	}
	return append(run, args...)
}

// attached runs `ctr run --rm` with flags, and sh -c script, which prints something.
func (c *containerd) attached(word, script string, flags ...string) result {
	args := append([]string{"--rm"}, flags...)
	return c.printing("", c.run(append(args, imageRoot, c.id(word), "sh", "-c", script)...)...)
}

// detached starts a container with sh -c script, and removes it with the test.
// It returns the container's id and the pid of its init.
func (c *containerd) detached(t *testing.T, word, script string, flags ...string) (id string, pid int) {
	t.Helper()
	id = c.id(word)
	args := append([]string{"--detach", "--null-io"}, flags...)
	c.ok(t, c.run(append(args, imageRoot, id, "sh", "-c", script)...)...)
	t.Cleanup(func() { c.remove(t, id) })
	return id, c.task(t, id).pid
}

// remove kills and deletes a container and its task, which may be gone already.
func (c *containerd) remove(t *testing.T, id string) {
	t.Helper()
	if c.task(t, id).status != "" {
		// The exit code is the task's own.
		c.ctr("tasks", "delete", "--force", id)
	}
	c.ok(t, "containers", "delete", id)
}

// task is a line of `ctr tasks list`; the zero value is no task.
type task struct {
	pid    int
	status string
}

func (c *containerd) task(t *testing.T, id string) task {
	t.Helper()
	for _, line := range strings.Split(c.ok(t, "tasks", "list"), "\n") {
		var name string
		var found task
		if n, _ := fmt.Sscan(line, &name, &found.pid, &found.status); n == 3 && name == id {
			return found
		}
	}
	return task{}
}

// waitStatus waits until the task has the status.
func (c *containerd) waitStatus(t *testing.T, id, status string) {
	t.Helper()
	var last task
	if !eventually(10*time.Second, func() bool {
		last = c.task(t, id)
		return last.status == status
	}) {
		t.Fatalf("task %s: status %q, want %q", id, last.status, status)
	}
}
