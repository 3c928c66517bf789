package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// sandboxCommand as first argument makes this program pid 1 of a sandbox; the
// second is the job, as JSON.
const sandboxCommand = "sandbox"

// sandboxFailed is the exit status of a sandbox that could not be set up; the
// programs themselves end with 0, 1 or 2.
const sandboxFailed = 125

// cloneNewcgroup is CLONE_NEWCGROUP of namespaces(7), which syscall lacks for some architectures.
const cloneNewcgroup = 0x02000000

// sandboxJob is what the pid 1 of a sandbox is told.
type sandboxJob struct {
	Lane     lane
	Program  string      // absolute path
	Runtime  string      // absolute path
	PeerRoot string      // see options.peerRoot
	Cgroups  []hierarchy // Dir is the cgroup to enter
}

// output is what a program left: status is its exit status, 128+n when it was
// killed by signal n, -1 when its time was up.
type output struct {
	stdout, stderr []byte
	status         int
}

// run runs the job in directory dir. When ctx ends the whole sandbox is killed.
func (j sandboxJob) run(ctx context.Context, dir string) (output, error) {
	data, err := json.Marshal(j)
	if err != nil {
		return output{}, err
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, "/proc/self/exe", sandboxCommand, string(data))
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	err = cmd.Run()
	res := output{stdout: out.Bytes(), stderr: errOut.Bytes()}
	switch {
	case cmd.ProcessState == nil:
		return output{}, err
	case ctx.Err() != nil:
		res.status = -1
	default:
		res.status = cmd.ProcessState.ExitCode()
	}
	if res.status == sandboxFailed {
		return output{}, fmt.Errorf("set up sandbox: %s", bytes.TrimSpace(res.stderr))
	}
	return res, nil
}

// sandboxMain is pid 1: it sets the sandbox up, runs the program, reaps whatever
// is left to it, and takes all of that along when it ends with the program's status.
func sandboxMain(data string) int {
	// Namespaces belong to a thread; a child has those of the thread that forks it.
	runtime.LockOSThread()
	var j sandboxJob
	err := json.Unmarshal([]byte(data), &j)
	if err == nil {
		err = j.setUp()
	}
	var pid int
	if err == nil {
		pid, err = syscall.ForkExec(j.Program, []string{j.Program}, &syscall.ProcAttr{
			Env:   append(os.Environ(), "TMPDIR=/run/tmp", "RUNTIME="+j.Runtime),
			Files: []uintptr{0, 1, 2},
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return sandboxFailed
	}
	for {
		var status syscall.WaitStatus
		reaped, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR || reaped != pid:
		case status.Signaled():
			return 128 + int(status.Signal())
		default:
			return status.ExitStatus()
		}
	}
}

func (j sandboxJob) setUp() error {
	for _, h := range j.Cgroups {
		if err := enterCgroup(h.Dir); err != nil {
			return err
		}
	}
	if err := syscall.Unshare(cloneNewcgroup); err != nil {
		return fmt.Errorf("unshare cgroup namespace: %w", err)
	}
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	// All that programs and runtimes keep is below /run: bundles in TMPDIR and the
	// runtimes' state. Other containers' state is out of their sight.
	if err := mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := os.Mkdir("/run/tmp", 0o755); err != nil {
		return err
	}
	if j.PeerRoot != "" {
		if err := overlayLibraries(j.PeerRoot); err != nil {
			return err
		}
	}
	if j.Lane == laneHostV2 {
		return mountV2()
	}
	return mountV1(j.Cgroups)
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s (%q): %w", fstype, target, data, err)
	}
	return nil
}

func enterCgroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

// unmountCgroups takes away the host's cgroup mounts: a runtime that finds two
// for a hierarchy may well choose the one that is out of sight.
func unmountCgroups() error {
	if err := syscall.Unmount(cgroupRoot, syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", cgroupRoot, err)
	}
	return nil
}

func mountV2() error {
	if err := unmountCgroups(); err != nil {
		return err
	}
	if err := mount("cgroup2", cgroupRoot, "cgroup2", 0, ""); err != nil {
		return err
	}
	// Controllers can be enabled only in a cgroup without processes.
	dir := filepath.Join(cgroupRoot, "lane")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return enterCgroup(dir)
}

func mountV1(hs []hierarchy) error {
	// Merged hierarchies have symbolic links for their parts.
	links := map[string]string{}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(cgroupRoot, e.Name())); err == nil {
			links[e.Name()] = target
		}
	}
	if err := unmountCgroups(); err != nil {
		return err
	}
	if err := mount("tmpfs", cgroupRoot, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, h := range hs {
		dir, fstype := filepath.Join(cgroupRoot, h.Name), "cgroup"
		if h.V2 {
			fstype = "cgroup2"
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := mount(fstype, dir, fstype, 0, h.Options); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(cgroupRoot, name)); err != nil {
			return err
		}
	}
	return nil
}

// overlayLibraries lays a root's libraries over this machine's, so that a
// runtime from a newer distribution runs with its own.
func overlayLibraries(root string) error {
	dirs, err := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		own := filepath.Join("/usr/lib", filepath.Base(dir))
		if err := mount("overlay", own, "overlay", 0, "lowerdir="+dir+":"+own); err != nil {
			return err
		}
	}
	return nil
}
