package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// bench is one measurement: the runtimes and what they are given.
type bench struct {
	options
	runtimes    []*runtime
	runBundle   string // its process is /bin/true
	sleepBundle string // its process sleeps for good
	limitBundle string // the same, with all resources that the lane has
	limitsFile  string // what update is given
	null        *os.File
	log         *os.File // standard error of warm-up commands
	interrupted atomic.Bool
}

// runtime is one of the programs compared.
type runtime struct {
	name    string
	version string
	path    string   // as seen below root
	root    string   // "" is the machine's
	global  []string // options before the command
	state   string
	alive   []string // ids of containers to delete at the end
}

// setup makes bundles, state directories and peers in the work directory, with
// tmpfs below all of them.
func setup(o options) (*bench, error) {
	b := &bench{options: o}
	// Of a container whose creator has ended, this process is the parent: it
	// reaps inits between measurements, and knows when they are gone.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	// crun refuses v1 with a v2 hierarchy beside it, so nobody gets to see that one.
	if err := unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("unmount %q: %w", "/sys/fs/cgroup/unified", err)
	}
	work := filepath.Join(o.workDir, "work")
	if err := tmpfs(work); err != nil {
		return nil, err
	}
	var err error
	if b.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if b.log, err = os.OpenFile(filepath.Join(work, "stderr"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	if err := b.makeBundles(work); err != nil {
		return nil, err
	}
	if err := b.install(); err != nil {
		return nil, err
	}
	peers := filepath.Join(o.workDir, "peers")
	b.runtimes = []*runtime{{name: "rt", path: b.rt}}
	var cache string
	if o.lane != "uml" { // its bars compare rt with itself
		out, err := exec.Command("integration/peers/peers").Output()
		if err != nil {
			return nil, fmt.Errorf("make peers: %w", errors.Join(err, stderrOf(err)))
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		var ok bool
		if cache, ok = strings.CutPrefix(lines[0], "peers: "); !ok || len(lines) != 3 {
			return nil, fmt.Errorf("make peers: unexpected output %q", out)
		}
		b.runtimes = append(b.runtimes,
			&runtime{name: "crun", path: "/usr/bin/crun", root: peers, version: lines[1], global: []string{"--cgroup-manager=cgroupfs"}},
			&runtime{name: "runc", path: "/usr/bin/runc", root: peers, version: lines[2]})
	}
	for _, r := range b.runtimes {
		r.state = filepath.Join(work, "state-"+r.name)
		r.global = append(r.global, "--root", r.state)
		if err := tmpfs(r.state); err != nil {
			return nil, err
		}
	}
	out, err := exec.Command(o.rt, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("run %s --version: %w", o.rt, err)
	}
	b.runtimes[0].version, _, _ = strings.Cut(string(out), "\n")
	if cache == "" {
		return b, nil
	}
	return b, makeRoot(cache, peers, work)
}

// install copies the runtime, as `make install` does and as a package's files come to
// be: what a linker has just written lies otherwise in the page cache, and costs
// 0.2 ms of page faults at each start.
func (b *bench) install() error {
	program, err := os.ReadFile(b.rt)
	if err != nil {
		return err
	}
	b.rt = filepath.Join(b.workDir, "rt")
	return os.WriteFile(b.rt, program, 0o755)
}

// makeRoot makes the root that peers are started in with chroot(2), which costs
// them nothing: dir is the peers' own, a mount as pivot_root needs it, and all
// that a runtime uses of the machine is found at the same place.
func makeRoot(cache, dir, work string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(cache, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %q on %q: %w", cache, dir, err)
	}
	if err := tmpfs(dir + "/run"); err != nil {
		return err
	}
	if err := os.MkdirAll(dir+work, 0o755); err != nil {
		return err
	}
	for _, m := range []struct {
		path  string
		flags uintptr
	}{
		{"/proc", unix.MS_BIND}, {"/dev", unix.MS_BIND}, {"/sys", unix.MS_BIND},
		{"/sys/fs/cgroup", unix.MS_BIND | unix.MS_REC}, {work, unix.MS_BIND | unix.MS_REC},
	} {
		if err := unix.Mount(m.path, dir+m.path, "", m.flags, ""); err != nil {
			return fmt.Errorf("bind %q on %q: %w", m.path, dir+m.path, err)
		}
	}
	return nil
}

func tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on %q: %w", dir, err)
	}
	return nil
}

// resources are limits of every kind that the lane's controllers have, and that
// all of the runtimes set.
func (o *options) resources() map[string]any {
	const mb = 1 << 20
	switch o.lane {
	case "host-v2": // v1 holds the controllers
		return map[string]any{"unified": map[string]any{"cgroup.max.depth": "7", "cgroup.max.descendants": "9"}}
	case "uml":
		return map[string]any{"memory": map[string]any{"limit": 256 * mb, "reservation": 64 * mb},
			"cpu":  map[string]any{"shares": 512, "quota": 90000, "period": 100000, "burst": 1000},
			"pids": map[string]any{"limit": 200}, "unified": map[string]any{"memory.high": "201326592", "cgroup.max.depth": "7"}}
	}
	return map[string]any{"memory": map[string]any{"limit": 256 * mb, "reservation": 64 * mb},
		"cpu":  map[string]any{"shares": 512, "quota": 90000, "period": 100000, "cpus": "0", "mems": "0"},
		"pids": map[string]any{"limit": 200}}
}

// makeBundles makes bundles that differ in their arguments and resources only.
func (b *bench) makeBundles(work string) error {
	from := b.bundle
	if from == "" {
		from = filepath.Join(work, "default")
		bin := filepath.Join(from, "rootfs/bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return err
		}
		busybox, err := os.ReadFile("/usr/bin/busybox")
		if err != nil {
			return err
		}
		if err := os.WriteFile(bin+"/busybox", busybox, 0o755); err != nil {
			return err
		}
		for _, applet := range []string{"true", "sleep", "sh"} {
			if err := os.Symlink("busybox", bin+"/"+applet); err != nil {
				return err
			}
		}
		spec := exec.Command(b.rt, "spec")
		spec.Dir = from
		if out, err := spec.CombinedOutput(); err != nil {
			return fmt.Errorf("run %s spec: %w: %s", b.rt, err, out)
		}
	}
	data, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(data, &config); err != nil {
		return fmt.Errorf("read config.json of %q: %w", from, err)
	}
	process, _ := config["process"].(map[string]any)
	root, _ := config["root"].(map[string]any)
	path, _ := root["path"].(string)
	if process == nil || path == "" {
		return fmt.Errorf("read config.json of %q: expected process and root.path", from)
	}
	if !filepath.IsAbs(path) {
		if path, err = filepath.Abs(filepath.Join(from, path)); err != nil {
			return err
		}
	}
	if b.bundle != "" { // where the peers see it too
		if err := bind(path, filepath.Join(work, "rootfs")); err != nil {
			return err
		}
		path = filepath.Join(work, "rootfs")
	}
	process["terminal"] = false
	root["path"] = path
	b.runBundle, b.sleepBundle, b.limitBundle = filepath.Join(work, "run"), filepath.Join(work, "sleep"), filepath.Join(work, "limit")
	b.limitsFile = filepath.Join(work, "limits.json")
	if data, err = json.Marshal(b.resources()); err != nil {
		return err
	}
	if err := os.WriteFile(b.limitsFile, data, 0o644); err != nil {
		return err
	}
	for _, kind := range []struct {
		dir     string
		args    []string
		limited bool
	}{{b.runBundle, []string{"/bin/true"}, false}, {b.sleepBundle, []string{"/bin/sleep", "1000000"}, false}, {b.limitBundle, []string{"/bin/sleep", "1000000"}, true}} {
		dir := kind.dir
		process["args"] = kind.args
		if kind.limited {
			linux, _ := config["linux"].(map[string]any)
			resources, _ := linux["resources"].(map[string]any)
			if resources == nil {
				return fmt.Errorf("read config.json of %q: expected linux.resources", from)
			}
			for name, value := range b.resources() {
				resources[name] = value
			}
		}
		data, err := json.MarshalIndent(config, "", "\t")
		if err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(dir+"/config.json", data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func bind(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %q on %q: %w", from, to, err)
	}
	return nil
}

// cleanup deletes what containers are left; the mounts end with the namespace.
func (b *bench) cleanup() {
	for _, r := range b.runtimes {
		for _, id := range r.alive {
			_, _ = b.exec(r, b.null, "delete", "--force", id)
		}
	}
	for { // inits that the deletions killed
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func stderrOf(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return errors.New(string(exit.Stderr))
	}
	return nil
}
