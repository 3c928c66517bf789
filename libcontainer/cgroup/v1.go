package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// v1 is a Manager for one directory in each v1 hierarchy, and on a hybrid host
// for one in cgroup2 too, which then is there for cgroup.kill, for
// whoever looks the container up in it, and for the controllers that only cgroup2 has.
type v1 struct {
	rec     Record
	dirs    []*dir
	unified *dir // nil in mode V1
}

func (m *v1) Record() Record { return m.rec }

func (m *v1) Paths() map[string]string {
	paths := map[string]string{}
	for _, d := range m.dirs {
		cs := controllersOf(d.Key)
		if len(cs) == 0 {
			cs = []string{d.Key}
		}
		for _, c := range cs {
			paths[c] = d.Host()
		}
	}
	if m.unified != nil {
		paths[""] = m.unified.Host()
	}
	return paths
}

func (m *v1) all() []*dir {
	if m.unified == nil {
		return m.dirs
	}
	return append(slices.Clip(m.dirs), m.unified)
}

// with returns the directory in the controller's hierarchy, nil if that is not
// mounted.
func (m *v1) with(controller string) *dir {
	for _, d := range m.dirs {
		if hasOptions(d.Key, controller) {
			return d
		}
	}
	return nil
}

func (m *v1) Close() {
	for _, d := range m.all() {
		d.close()
	}
}

// Part: the hierarchies may differ in whose the directories are, when some were removed
// behind rt's back or a create was killed in the middle.
func (m *v1) Part(keep func(Mark) bool) Manager {
	part := &v1{rec: m.rec}
	part.rec.Dirs = nil
	for _, d := range m.all() {
		if !keep(d.owner()) {
			d.close()
			continue
		}
		part.rec.Dirs = append(part.rec.Dirs, d.Dir)
		if d == m.unified {
			part.unified = d
		} else {
			part.dirs = append(part.dirs, d)
		}
	}
	if len(part.rec.Dirs) == 0 {
		return NewNone(m.rec.ID)
	}
	return part
}

func (m *v1) Create() error {
	for _, d := range m.all() {
		if err := d.create(); err != nil {
			m.Close() // if descriptors have run out
			return errors.Join(err, undo(time.Time{}, m.all()...))
		}
	}
	err := m.fillCpuset()
	if err == nil {
		err = refuseBusy(m.all()...)
	}
	if err == nil {
		var frozen bool
		if frozen, err = m.Frozen(); frozen {
			err = errFrozen
		}
	}
	if err != nil {
		m.Close()
		return errors.Join(err, undo(time.Time{}, m.all()...))
	}
	for _, d := range m.all() {
		if d.made == 0 {
			d.use()
		}
	}
	return nil
}

func (m *v1) Undo(deadline time.Time) error { return undo(deadline, m.all()...) }

// fillCpuset gives the cpuset directory the CPUs and memory nodes of the ones
// above it: a new one has none, and nothing can enter it then (cpuset(7)).
func (m *v1) fillCpuset() error {
	d := m.with("cpuset")
	if d == nil {
		return nil
	}
	root, err := d.openMount()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	for _, file := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := fill(root, d.Path, file); err != nil {
			return fmt.Errorf("fill %s of cgroup %q: %w", file, d.Host(), err)
		}
	}
	return nil
}

// fill returns the content of file in the cgroup p after it has set it, and
// those above, from the closest one that is not empty.
func fill(root int, p, file string) (string, error) {
	b, err := readFile(root, path.Join(p, file))
	if err == unix.ENOENT { // mounted with noprefix
		file = file[len("cpuset."):]
		b, err = readFile(root, path.Join(p, file))
	}
	if err != nil {
		return "", err
	}
	if len(b) > 1 || p == "" { // an empty one reads as "\n"
		return string(b), nil
	}
	up := path.Dir(p)
	if up == "." {
		up = ""
	}
	value, err := fill(root, up, file)
	if err != nil {
		return "", err
	}
	return value, writeFile(root, path.Join(p, file), value)
}

// knobs returns what r asks for. On a hybrid host that of a controller that only
// cgroup2 has is set there.
func (m *v1) knobs(r *specs.LinuxResources, update bool) []knob {
	ks := v1Knobs(r, update)
	elsewhere := func(k knob) bool { return k.controller != "" && m.with(k.controller) == nil }
	if m.unified == nil || !slices.ContainsFunc(ks, elsewhere) {
		return ks
	}
	offered, err := controllers(unix.AT_FDCWD, path.Join(m.unified.Mount, "cgroup.controllers"))
	if err != nil || len(offered) == 0 {
		return ks
	}
	name := func(k knob) string {
		if k.controller == "io" {
			return "blkio"
		}
		return k.controller
	}
	ks = slices.DeleteFunc(ks, func(k knob) bool {
		return elsewhere(k) && slices.ContainsFunc(offered, func(o string) bool { return name(knob{controller: o}) == k.controller })
	})
	for _, k := range v2Knobs(r, update, present(m.unified)) {
		if m.with(name(k)) == nil && slices.Contains(offered, k.controller) && !strings.HasPrefix(k.pointer, "/unified/") {
			k.unified = true
			if k.or != nil {
				k.or.unified = true
			}
			ks = append(ks, k)
		}
	}
	return ks
}

func (m *v1) Check(r *specs.LinuxResources, o Origin) ([]string, error) {
	return check(m.knobs(r, first), o, m.missing)
}

func (m *v1) missing(k knob) string {
	if k.unified || k.controller == "" || m.with(k.controller) != nil {
		return ""
	}
	return fmt.Sprintf("no cgroup hierarchy with the controller %s is mounted", k.controller)
}

func (m *v1) Apply(r *specs.LinuxResources) error {
	return m.apply(m.knobs(r, first), nil, first)
}

func (m *v1) Update(r *specs.LinuxResources, o Origin) error {
	ks := m.knobs(r, update)
	if _, err := check(ks, o, m.missing); err != nil {
		return err
	}
	if checksUsage(r) && m.unified != nil {
		if err := checkUsage(slices.DeleteFunc(slices.Clone(ks), func(k knob) bool { return !k.unified }), o, m.unified.read); err != nil {
			return err
		}
	}
	return m.apply(ks, o, update)
}

func (m *v1) apply(ks []knob, o Origin, update bool) error {
	if slices.ContainsFunc(ks, func(k knob) bool { return k.unified }) {
		root, err := m.unified.openMount()
		if err != nil {
			return err
		}
		u := v2{dir: m.unified}
		err = u.enable(root)
		unix.Close(root)
		if err != nil {
			return err
		}
	}
	return apply(ks, o, m, update)
}

// file is where a knob is, on a hierarchy that is perhaps mounted with noprefix.
func (m *v1) file(k knob) (*dir, string, error) {
	if k.unified {
		return m.unified, k.file, nil
	}
	d := m.with(k.controller)
	if d == nil {
		return nil, "", fmt.Errorf("%s: %w", m.missing(k), unix.ENOENT)
	}
	if k.controller == "cpuset" && d.open() == nil {
		var st unix.Stat_t
		if unix.Fstatat(d.fd, k.file, &st, 0) == unix.ENOENT {
			return d, k.file[len("cpuset."):], nil
		}
	}
	return d, k.file, nil
}

func (m *v1) readKnob(k knob) (string, error) {
	d, file, err := m.file(k)
	if err != nil {
		return "", err
	}
	return d.read(file)
}

func (m *v1) writeKnob(k knob) error {
	d, file, err := m.file(k)
	if err != nil {
		return err
	}
	if err := d.write(file, k.value); err != nil {
		if errors.Is(err, unix.EINVAL) && k.file == "memory.limit_in_bytes" {
			if sum, e := d.read("memory.memsw.limit_in_bytes"); e == nil {
				return fmt.Errorf("%w: the limit of memory and swap together is %s", err, sum)
			}
		}
		return usageError(err, k, d.read)
	}
	if k.readBack {
		// The kernel clamps these in silence.
		if got, err := d.read(file); err == nil && got != k.value {
			return fmt.Errorf("the kernel made it %s: %w", got, unix.ERANGE)
		}
	}
	return nil
}

func (m *v1) Devices(rules []specs.LinuxDeviceCgroup) error {
	list, err := deviceRules(rules)
	if err != nil {
		return err
	}
	writes, err := v1Devices(list)
	if err != nil {
		return err
	}
	d := m.with("devices")
	if d == nil {
		return fmt.Errorf("set device policy: no cgroup hierarchy with the controller devices is mounted: %w", unix.ENOENT)
	}
	if err := d.open(); err != nil {
		return err
	}
	var fds [2]int // of devices.deny, devices.allow
	for i, file := range [...]string{"devices.deny", "devices.allow"} {
		if fds[i], err = openat(d.fd, file, unix.O_WRONLY); err != nil {
			return fmt.Errorf("open %s of cgroup %q: %w", file, d.Host(), err)
		}
		defer unix.Close(fds[i])
	}
	for _, w := range writes {
		fd, file := fds[0], "devices.deny"
		if w.allow {
			fd, file = fds[1], "devices.allow"
		}
		if _, err := unix.Write(fd, []byte(w.value)); err != nil {
			return fmt.Errorf("write %q to %s of cgroup %q (%s): %w", w.value, file, d.Host(), w.origin, err)
		}
	}
	return nil
}

func (m *v1) OpenDir() (int, error) {
	if m.unified == nil {
		return -1, nil
	}
	return m.unified.openPath()
}

func (m *v1) OpenTasks() ([]Task, error) {
	tasks := make([]Task, 0, len(m.dirs))
	for _, d := range m.dirs {
		err := d.open()
		fd := -1
		if err == nil {
			fd, err = openat(d.fd, "tasks", unix.O_WRONLY)
		}
		if err != nil {
			for _, t := range tasks {
				unix.Close(t.FD)
			}
			return nil, fmt.Errorf("open tasks of cgroup %q: %w", d.Host(), err)
		}
		tasks = append(tasks, Task{Dir: d.Host(), FD: fd})
	}
	return tasks, nil
}

// listed returns the processes of all hierarchies: one may have been moved in some
// of them, and is the container's as long as it is in any.
func (m *v1) listed() ([]int, error) {
	var pids []int
	for _, d := range m.all() {
		p, err := d.pids()
		if err != nil {
			return nil, err
		}
		pids = append(pids, p...)
	}
	return pids, nil
}

func (m *v1) Pids() ([]int, error) {
	pids, err := m.listed()
	return sorted(pids), err
}

func (m *v1) Populated() (bool, error) {
	for _, d := range m.all() {
		if p, err := d.populated(); p || err != nil {
			return p, err
		}
	}
	return false, nil
}

// Freezer states (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
const (
	stateThawed = "THAWED"
	stateFrozen = "FROZEN"
)

func (m *v1) Freeze() error {
	d := m.with("freezer")
	if d == nil {
		if m.unified != nil {
			return m.unified.freeze("1")
		}
		return fmt.Errorf("freeze cgroup: no cgroup hierarchy with the controller freezer is mounted: %w", unix.ENOENT)
	}
	return d.freezeV1(time.Now().Add(freezeWait))
}

// freezeV1 freezes. A process that forks while it is being frozen can leave
// the cgroup FREEZING for good; writing the state again catches up, and now
// and then all must run for a moment before it works.
func (d *dir) freezeV1(deadline time.Time) error {
	pause := minPause / 4
	for i := 1; ; i++ {
		err := d.write("freezer.state", stateFrozen)
		var state string
		if err == nil {
			state, err = d.read("freezer.state")
		}
		if err == nil && state == stateFrozen {
			return nil
		}
		if err == nil && time.Now().After(deadline) {
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			_ = d.write("freezer.state", stateThawed) // the first error is the one to tell
			return fmt.Errorf("freeze cgroup %q: %w", d.Host(), err)
		}
		sleep(pause)
		pause = min(2*pause, maxPause)
		if i%20 == 0 {
			_ = d.write("freezer.state", stateThawed) // the next write tells
			sleep(minPause)
		}
	}
}

func (m *v1) Thaw() error {
	d := m.with("freezer")
	if d == nil {
		if m.unified != nil {
			return m.unified.freeze("0")
		}
		return fmt.Errorf("thaw cgroup: no cgroup hierarchy with the controller freezer is mounted: %w", unix.ENOENT)
	}
	err := d.write("freezer.state", stateThawed)
	if err == nil {
		// It takes effect at once, unless a cgroup above is frozen.
		var state string
		if state, err = d.read("freezer.state"); err == nil && state != stateThawed {
			err = fmt.Errorf("a cgroup above it is frozen: %w", unix.EBUSY)
		}
	}
	if err != nil {
		return fmt.Errorf("thaw cgroup %q: %w", d.Host(), err)
	}
	return nil
}

func (m *v1) Frozen() (bool, error) {
	if d := m.with("freezer"); d != nil {
		s, err := d.read("freezer.state")
		if err != nil && !gone(err) {
			return false, fmt.Errorf("read freezer.state of cgroup %q: %w", d.Host(), err)
		}
		// FREEZING counts: whoever enters now is stopped too.
		if err == nil && s != stateThawed {
			return true, nil
		}
	}
	if m.unified != nil {
		u := v2{dir: m.unified}
		return u.Frozen()
	}
	return false, nil
}

// Kill on a hybrid host uses cgroup.kill first, which no fork escapes. What is
// then still only in v1 hierarchies is stopped by the freezer while it is
// signalled, so that it cannot fork away; SIGKILL acts when it is thawed.
func (m *v1) Kill() error {
	if m.unified != nil {
		if err := (&v2{dir: m.unified}).Kill(); err != nil {
			return err
		}
	}
	freezer := m.with("freezer")
	killed := map[int]bool{}
	if m.unified != nil {
		pids, err := m.unified.pids()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			killed[pid] = true
		}
	}
	// More than one round is needed only when the freezer is missing, or does
	// not get hold of a process in time.
	deadline := time.Now().Add(killWait)
	for {
		pids, err := m.Pids()
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(pids, func(pid int) bool { return killed[pid] })
		if len(left) > 0 {
			whole := freezer != nil && freezer.freezeV1(time.Now().Add(killWait/4)) == nil
			var done []int
			done, err = signal(m.listed, unix.SIGKILL)
			for _, pid := range done {
				killed[pid] = true
			}
			if whole {
				left = nil
			}
		}
		if freezer != nil {
			err = errors.Join(err, freezer.thawTree())
		}
		if err != nil {
			return err
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("kill cgroup %q: new processes %v appear faster than they are killed: %w", m.all()[0].Host(), left, os.ErrDeadlineExceeded)
		}
	}
}

// killWait bounds the rounds of Kill.
const killWait = 4 * time.Second

// thawTree thaws the freezer directory and all below: a container may have
// frozen some itself.
func (d *dir) thawTree() error {
	if err := d.open(); err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	err := walk(d.fd, nil, func(fd int) error {
		return writeFile(fd, "freezer.state", stateThawed)
	}, nil)
	if err != nil && !gone(err) {
		return fmt.Errorf("thaw cgroup %q: %w", d.Host(), err)
	}
	return nil
}

// WaitEmpty waits for cgroup2's event first where there is one; v1 has none.
func (m *v1) WaitEmpty(deadline time.Time) error {
	var err error
	if m.unified != nil {
		err = m.unified.waitEvent("populated", "0", deadline)
	}
	for pause := minPause; err == nil; pause = min(2*pause, maxPause) {
		var busy bool
		if busy, err = m.Populated(); err != nil {
			return err
		}
		if !busy {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			err = os.ErrDeadlineExceeded
			break
		}
		sleep(min(pause, left))
	}
	return fmt.Errorf("wait for cgroup %q to be empty: %w", m.all()[0].Host(), err)
}

func (m *v1) Remove(deadline time.Time) error {
	var errs []error
	for _, d := range m.all() {
		errs = append(errs, d.remove(deadline))
	}
	return errors.Join(errs...)
}

func (m *v1) OOMKills() (uint64, error) {
	d := m.with("memory")
	if d == nil {
		return 0, nil
	}
	return d.oomKills("memory.oom_control")
}
