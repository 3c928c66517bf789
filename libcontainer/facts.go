package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"rt/libcontainer/bundle"
	"rt/libcontainer/cgroup"
	"rt/libcontainer/cgroup/systemd"
	"rt/libcontainer/plan"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// checkKernel refuses kernels below the floor, once, so that nothing else needs a
// fallback.
func checkKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("read kernel version: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	for i, c := range rest {
		if c < '0' || c > '9' {
			minor = rest[:i]
			break
		}
	}
	a, err1 := strconv.Atoi(major)
	b, err2 := strconv.Atoi(minor)
	if err1 == nil && err2 == nil && (a < 5 || a == 5 && b < 14) {
		return fmt.Errorf("this is Linux %s, rt needs 5.14 or newer", release)
	}
	return nil
}

// checkNamespaces refuses types of namespaces without which this kernel was built. Of those
// in a default config there are no such kernels that run containers.
func checkNamespaces(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	for i, n := range s.Linux.Namespaces {
		if n.Type != specs.TimeNamespace && n.Type != specs.UserNamespace {
			continue
		}
		err := unix.Access("/proc/self/ns/"+plan.NamespaceFile(n.Type), unix.F_OK)
		if err == unix.ENOENT {
			return fmt.Errorf("config.json: /linux/namespaces/%d/type: %q: this kernel has no namespaces of this type", i, n.Type)
		}
	}
	return nil
}

// heldCapabilities is rt's own permitted set.
func heldCapabilities() uint64 {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0
	}
	return uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
}

// hardLimits are rt's own hard limits, of the resources that the process asks
// for; the others are left infinite.
func hardLimits(p *specs.Process) []uint64 {
	if p == nil || len(p.Rlimits) == 0 {
		return nil
	}
	limits := make([]uint64, plan.Rlimits)
	for i := range limits {
		limits[i] = ^uint64(0)
	}
	for _, r := range p.Rlimits {
		n := plan.RlimitNumber(r.Type)
		var lim unix.Rlimit
		if n >= 0 && unix.Prlimit(0, n, nil, &lim) == nil {
			limits[n] = lim.Max
		}
	}
	return limits
}

// resolveRootfs returns the host path of the root file system without symbolic
// links. The bundle is the caller's, so its path may be walked.
func resolveRootfs(b *bundle.Bundle) (string, error) {
	p := b.Spec.Root.Path
	if !filepath.IsAbs(p) {
		p = filepath.Join(b.Dir, p)
	}
	real, err := filepath.EvalSymlinks(p)
	if err == nil {
		var st unix.Stat_t
		if err = unix.Stat(real, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = errors.New("not a directory")
		}
	}
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", fmt.Errorf("config.json: /root/path: invalid rootfs: stat %s: %w", p, err)
	}
	return real, nil
}

// gatherFacts collects what the plan of a new container must know.
func gatherFacts(id string, b *bundle.Bundle, l *cgroup.Layout, m cgroup.Manager, o *CreateOptions) (*plan.Facts, error) {
	if err := checkNamespaces(b.Spec); err != nil {
		return nil, err
	}
	rootfs, err := resolveRootfs(b)
	if err != nil {
		return nil, err
	}
	f := &plan.Facts{
		ID: id, Bundle: b.Dir, Rootfs: rootfs,
		Capabilities: heldCapabilities(),
		HardLimits:   hardLimits(b.Spec.Process),
		Unprivileged: unix.Geteuid() != 0,
		NoPivot:      o.NoPivot, NoNewKeyring: o.NoNewKeyring,
		ListenFDs: o.ListenFDs,
	}
	f.Cgroup = cgroupFacts(l, m)
	if p := b.Spec.Process; p != nil && plan.NeedHome(p.Env) && !passwdMayBeCovered(b.Spec) {
		f.Home = lookupHomeAt(rootfs, p.User.UID)
	}
	return f, nil
}

// Plan compiles the plan of a bundle without any side effect, for people to
// read. An unprivileged caller sees the plan that root would get, but for what
// root's own limits and capabilities change.
func Plan(dir string, o CreateOptions) (*plan.Plan, []string, error) {
	b, err := bundle.Load(dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := cgroup.Detect()
	if err != nil {
		return nil, nil, err
	}
	var m cgroup.Manager
	if o.SystemdCgroup {
		var rec cgroup.Record
		rec, err = systemd.Place(l, cgroupsPath(b.Spec), "ID")
		m = cgroup.Load(rec)
	} else {
		m, err = cgroup.New(l, cgroupsPath(b.Spec), "ID")
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := gatherFacts("ID", b, l, m, &o)
	if err != nil {
		return nil, nil, err
	}
	if f.Unprivileged {
		f.Unprivileged, f.Capabilities = false, 0
	}
	f.Gate = true
	p, warnings, err := plan.Compile(b.Spec, f)
	if err != nil {
		return nil, nil, err
	}
	return p, append(b.Warnings, warnings...), nil
}

// cgroupFacts is how the cgroup of m is entered, and what a mount of type cgroup holds.
func cgroupFacts(l *cgroup.Layout, m cgroup.Manager) plan.CgroupFacts {
	f := plan.CgroupFacts{Into: l.Mode != cgroup.V1}
	dirs := m.Record().Dirs
	if len(dirs) == 0 {
		ownCgroup(&f, l)
		return f
	}
	host := func(key string) string {
		for _, d := range dirs {
			if d.Key == key {
				return d.Host()
			}
		}
		return ""
	}
	if l.Mode == cgroup.V2 {
		f.Path, f.Mount = host(""), dirs[0].Mount
		return f
	}
	for _, d := range dirs {
		if d.Key != "" {
			f.Tasks = append(f.Tasks, d.Host())
		}
	}
	for _, h := range l.Mounts() {
		f.V1 = append(f.V1, plan.CgroupMount{
			Name: h.Name, Options: strings.Split(h.Options, ","), Path: host(h.Key), Links: h.Links,
		})
	}
	return f
}

func cgroupsPath(s *specs.Spec) string {
	if s.Linux == nil {
		return ""
	}
	return s.Linux.CgroupsPath
}
