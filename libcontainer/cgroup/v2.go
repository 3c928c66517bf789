package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v2 is a Manager for cgroup2 alone.
type v2 struct {
	rec Record
	dir *dir
	// enableErr is why a controller could not be enabled. It is told only if a
	// limit turns out to need that controller.
	enableErr error
}

func (m *v2) Record() Record           { return m.rec }
func (m *v2) Paths() map[string]string { return map[string]string{"": m.dir.Host()} }
func (m *v2) Close()                   { m.dir.close() }

func (m *v2) Part(keep func(Mark) bool) Manager {
	if !keep(m.dir.owner()) {
		m.Close()
		return NewNone(m.rec.ID)
	}
	return m
}

func (m *v2) Create() error {
	root, err := m.dir.openMount()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := m.enable(root); err != nil {
		m.dir.unmake(root)
		return err
	}
	if err := m.dir.createAt(root); err != nil {
		return err
	}
	if err := m.usable(root); err != nil {
		m.dir.unmake(root)
		return err
	}
	return nil
}

// usable refuses what nothing may be started in, makes valid what lies below threaded
// cgroups, and marks a directory that was there before as used.
func (m *v2) usable(root int) error {
	if err := refuseBusy(m.dir); err != nil {
		return err
	}
	if s, err := m.dir.read("cgroup.events"); err == nil && field(s, "frozen") == "1" {
		return errFrozen
	}
	if s, err := m.dir.read("cgroup.type"); err == nil && s == invalidDomain {
		if err := m.makeThreaded(root); err != nil {
			return err
		}
	}
	if m.dir.made == 0 {
		m.dir.use()
	}
	return nil
}

// makeThreaded turns a directory below a threaded cgroup into a threaded one, as only such
// can have processes there. That those above it are threaded may be due to enable: where rt
// itself is in one of them it can enable only controllers that are content with threads.
func (m *v2) makeThreaded(root int) error {
	// From the top, for one below an invalid one cannot be made valid.
	for i, c := range m.dir.Path + "/" {
		if c != '/' {
			continue
		}
		p := m.dir.Path[:i]
		file := path.Join(p, "cgroup.type")
		if b, err := readFile(root, file); err != nil || strings.TrimSpace(string(b)) != invalidDomain {
			continue
		}
		if err := writeFile(root, file, "threaded"); err != nil {
			return fmt.Errorf("make cgroup %q threaded, as those above it are: %w", path.Join(m.dir.Mount, p), err)
		}
	}
	return nil
}

// invalidDomain is the cgroup.type of a directory that no process can enter.
const invalidDomain = "domain invalid"

// enable makes the parents of the directory and enables every controller that
// the mount offers on the way down. Each write to cgroup.subtree_control makes
// the kernel wait for an RCU grace period, so only what is missing is written,
// and when the parent has it all (what is enabled there is enabled above) that
// is nothing.
func (m *v2) enable(root int) error {
	all, err := controllers(root, "cgroup.controllers")
	if err != nil {
		return fmt.Errorf("read %q: %w", path.Join(m.dir.Mount, "cgroup.controllers"), err)
	}
	parent := path.Dir(m.dir.Path)
	if on, err := controllers(root, path.Join(parent, "cgroup.subtree_control")); err == nil && len(missing(all, on)) == 0 {
		return nil
	}
	for i, c := range m.dir.Path {
		if i == 0 {
			m.enableAt(root, "")
		}
		if c != '/' {
			continue
		}
		p := m.dir.Path[:i]
		switch err := unix.Mkdirat(root, p, 0o755); err {
		case nil:
			m.dir.made++
		case unix.EEXIST:
		default:
			return fmt.Errorf("create cgroup %q: %w", path.Join(m.dir.Mount, p), err)
		}
		m.enableAt(root, p)
	}
	return nil
}

// enableAt enables for the children of p what p has. It cannot fail: a
// controller that is not there matters only to a limit that needs it.
func (m *v2) enableAt(root int, p string) {
	all, err1 := controllers(root, path.Join(p, "cgroup.controllers"))
	on, err2 := controllers(root, path.Join(p, "cgroup.subtree_control"))
	want := missing(all, on)
	if err1 != nil || err2 != nil || len(want) == 0 {
		return
	}
	file := path.Join(p, "cgroup.subtree_control")
	err := writeFile(root, file, "+"+strings.Join(want, " +"))
	if err == nil {
		return
	}
	// One that the kernel refuses (EBUSY: threads in a realtime class,
	// EOPNOTSUPP: below a threaded cgroup) must not cost us the others.
	for _, c := range want {
		if e := writeFile(root, file, "+"+c); e != nil && m.enableErr == nil {
			m.enableErr = fmt.Errorf("write %q to %q: %w", "+"+c, path.Join(m.dir.Mount, file), e)
		}
	}
}

func controllers(at int, file string) ([]string, error) {
	b, err := readFile(at, file)
	return strings.Fields(string(b)), err
}

func missing(all, on []string) []string {
	var out []string
	for _, c := range all {
		if !slices.Contains(on, c) {
			out = append(out, c)
		}
	}
	return out
}

// explain tells why the directory has no files of the controller.
func (m *v2) explain(controller string) error {
	root, err := m.dir.openMount()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	all, err := controllers(root, "cgroup.controllers")
	if err != nil || !slices.Contains(all, controller) {
		return fmt.Errorf("controller %s is not in %q", controller, path.Join(m.dir.Mount, "cgroup.controllers"))
	}
	for i, c := range "/" + m.dir.Path {
		if c != '/' {
			continue
		}
		p := m.dir.Path[:max(i-1, 0)]
		on, err := controllers(root, path.Join(p, "cgroup.subtree_control"))
		if err == nil && !slices.Contains(on, controller) {
			err = fmt.Errorf("controller %s is not in %q", controller, path.Join(m.dir.Mount, p, "cgroup.subtree_control"))
			if m.enableErr != nil {
				err = fmt.Errorf("%w (%w)", err, m.enableErr)
			}
			return err
		}
	}
	return nil
}

func (m *v2) Undo(deadline time.Time) error { return undo(deadline, m.dir) }

func (m *v2) knobs(r *specs.LinuxResources, update bool) []knob {
	return v2Knobs(r, update, present(m.dir))
}

// present gives the content of a file of the directory for v2Knobs.
func present(d *dir) func(file string) string {
	return func(file string) string {
		s, err := d.read(file)
		if err != nil {
			return ""
		}
		return s
	}
}

func (m *v2) Check(r *specs.LinuxResources, o Origin) ([]string, error) {
	return m.check(m.knobs(r, first), o)
}

// check reads what the mount offers, if it matters.
func (m *v2) check(ks []knob, o Origin) ([]string, error) {
	file := path.Join(m.dir.Mount, "cgroup.controllers")
	var offered []string
	var err error
	if len(ks) > 0 {
		if offered, err = controllers(unix.AT_FDCWD, file); err != nil {
			return nil, fmt.Errorf("read %q: %w", file, err)
		}
	}
	return check(ks, o, func(k knob) string {
		if k.controller == "cgroup" || slices.Contains(offered, k.controller) {
			return ""
		}
		return fmt.Sprintf("controller %s is not in %q", k.controller, file)
	})
}

func (m *v2) Apply(r *specs.LinuxResources) error {
	return apply(m.knobs(r, first), nil, m, first)
}

func (m *v2) Update(r *specs.LinuxResources, o Origin) error {
	ks := m.knobs(r, update)
	if _, err := m.check(ks, o); err != nil {
		return err
	}
	if checksUsage(r) {
		if err := checkUsage(ks, o, m.dir.read); err != nil {
			return err
		}
	}
	return apply(ks, o, m, update)
}

func (m *v2) readKnob(k knob) (string, error) { return m.dir.read(k.file) }

func (m *v2) writeKnob(k knob) error {
	err := m.dir.write(k.file, k.value)
	if gone(err) && k.controller != "cgroup" {
		if why := m.explain(k.controller); why != nil {
			return fmt.Errorf("%w: %w", why, unix.ENOENT)
		}
	}
	if err == unix.EINVAL && k.controller == "cpu" && k.file == "cpu.weight" {
		if idle, e := m.dir.read("cpu.idle"); e == nil && idle == "1" {
			return fmt.Errorf("%w: an idle cgroup has no weight, and cpu.idle is 1", err)
		}
	}
	return err
}

func (m *v2) Devices(rules []specs.LinuxDeviceCgroup) error {
	list, err := deviceRules(rules)
	if err != nil {
		return err
	}
	insns := deviceProgram(list)
	if insns == nil {
		return nil
	}
	if err := m.dir.open(); err != nil {
		return err
	}
	return attachDevices(m.dir.fd, insns)
}

func (m *v2) OpenDir() (int, error) { return m.dir.openPath() }

func (d *dir) openPath() (int, error) {
	if err := d.open(); err != nil {
		return -1, err
	}
	fd, err := openat(d.fd, ".", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fmt.Errorf("open cgroup %q: %w", d.Host(), err)
	}
	return fd, nil
}

func (m *v2) OpenTasks() ([]Task, error) { return nil, nil }

func (m *v2) Pids() ([]int, error) {
	pids, err := m.dir.pids()
	return sorted(pids), err
}

func (m *v2) Populated() (bool, error) { return m.dir.populated() }

// freezeWait is how long Freeze waits; kernel work that cannot be
// interrupted may hold a process up.
const freezeWait = 10 * time.Second

func (m *v2) Freeze() error { return m.dir.freeze("1") }
func (m *v2) Thaw() error   { return m.dir.freeze("0") }

func (d *dir) freeze(value string) error {
	verb := "freeze"
	if value == "0" {
		verb = "thaw"
	}
	err := d.write("cgroup.freeze", value)
	if err == nil {
		err = d.waitEvent("frozen", value, time.Now().Add(freezeWait))
	}
	if err == nil {
		return nil
	}
	if value == "1" {
		_ = d.write("cgroup.freeze", "0") // the first error is the one to tell
	}
	return fmt.Errorf("%s cgroup %q: %w", verb, d.Host(), err)
}

func (m *v2) Frozen() (bool, error) {
	s, err := m.dir.read("cgroup.events")
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read cgroup.events of cgroup %q: %w", m.dir.Host(), err)
	}
	return field(s, "frozen") == "1", nil
}

func (m *v2) Kill() error {
	err := m.dir.write("cgroup.kill", "1")
	if errors.Is(err, unix.EOPNOTSUPP) { // a threaded cgroup
		_, err = signal(m.dir.pids, unix.SIGKILL)
	}
	if err == nil {
		// A dead container must not look like a paused one.
		err = m.dir.write("cgroup.freeze", "0")
	}
	if err != nil && !gone(err) {
		return fmt.Errorf("kill cgroup %q: %w", m.dir.Host(), err)
	}
	return nil
}

func (m *v2) WaitEmpty(deadline time.Time) error {
	if err := m.dir.waitEvent("populated", "0", deadline); err != nil {
		return fmt.Errorf("wait for cgroup %q to be empty: %w", m.dir.Host(), err)
	}
	return nil
}

func (m *v2) Remove(deadline time.Time) error { return m.dir.remove(deadline) }

func (m *v2) OOMKills() (uint64, error) { return m.dir.oomKills("memory.events") }

func (d *dir) oomKills(file string) (uint64, error) {
	s, err := d.read(file)
	if gone(err) {
		return 0, nil
	}
	if err == nil {
		var n uint64
		if n, err = strconv.ParseUint(field(s, "oom_kill"), 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("read %s of cgroup %q: %w", file, d.Host(), err)
}
