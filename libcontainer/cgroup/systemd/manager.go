// Package systemd is the cgroup driver that leaves a container's cgroup to systemd:
// it is that of a transient unit, mostly a scope. Limits are properties of
// the unit; what has no property, and what needs to be exact, is then written to the files
// as the cgroupfs driver does, which may be done as the unit is delegated.
package systemd

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/cgroup/systemd/unit"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Manager is a cgroup.Manager for a unit. Only New, Create, Update, Attach, Undo and
// Remove speak with systemd.
//
// # How the container gets into its scope
//
// systemd refuses to start a scope without a process, and drops one whose last process
// has gone. runc and crun hand it the container's own process, which then is
// moved into its cgroup with all that it is. In rt the stage has started by the time
// that its cgroup is made, and its first process is one that ends when it has cloned
// the container's: so the unit is started with that. systemd moves it
// by a write to cgroup.procs, in which it waits for an RCU grace period, while the
// process makes the network namespace. rt itself writes to no such file: the
// container's process is cloned into the cgroup as ever. If rt dies on the way the
// stage dies with it, and systemd removes the scope, which is then empty.
//
// The first process counts as one of the unit's, so the file pids.max
// allows one more than the limit until it has ended (Entered).
type Manager struct {
	cgroup.Manager // the files
	rec            cgroup.Record

	name      unit.Name
	resources *specs.LinuxResources
	props     []unit.Property // of resources and annotations

	agent *connection // nil when there is no need of one
	first int         // the process with which the scope begins; 0 when it has ended
}

// Options are what New needs to know.
type Options struct {
	CgroupsPath string // of config.json
	ID          string
	Resources   *specs.LinuxResources // nil for none
	Annotations map[string]string     // of config.json
	User        bool                  // the user's systemd
	Devices     bool                  // the container has a device policy, which rootless ones have not
}

// New returns the Manager of a unit that does not exist yet. It connects to systemd,
// and finds what is wrong with the options; it changes nothing. An error
// wraps ErrAbsent if there is no systemd. Close ends the connection.
func New(l *cgroup.Layout, o Options) (*Manager, error) {
	name, err := unit.Parse(o.CgroupsPath, o.ID, o.User)
	if err != nil {
		return nil, err
	}
	m := &Manager{name: name, resources: o.Resources}
	// Where the cgroup will be does not matter to the properties.
	rec, err := record(l, name, path.Join("/", name.Path), o)
	if err != nil {
		return nil, err
	}
	files := cgroup.Load(rec)
	defer files.Close()
	if m.props, err = cgroup.UnitProperties(files, o.Resources); err != nil {
		return nil, err
	}
	if o.Devices {
		var rules []specs.LinuxDeviceCgroup
		if o.Resources != nil {
			rules = o.Resources.Devices
		}
		devices, err := cgroup.DeviceProperties(files, rules)
		if err != nil {
			return nil, err
		}
		m.props = append(m.props, devices...)
	}
	set, err := unit.FromAnnotations(o.Annotations)
	if err != nil {
		return nil, err
	}
	m.props = append(m.props, set...)
	if o.User && l.Mode != cgroup.V2 {
		return nil, errors.New("use the systemd cgroup driver: the user's systemd can delegate cgroups on cgroup v2 only")
	}
	var group string
	if m.agent, group, err = open(o.User, m.props); err != nil {
		return nil, err
	}
	if m.rec, err = record(l, name, path.Join("/", group, name.Path), o); err != nil {
		m.Close()
		return nil, err
	}
	m.Manager = cgroup.Load(m.rec)
	return m, nil
}

// Place returns the record of the unit as New does, without asking systemd: where
// the cgroup will be if it is the machine's own systemd.
func Place(l *cgroup.Layout, cgroupsPath, id string) (cgroup.Record, error) {
	name, err := unit.Parse(cgroupsPath, id, false)
	if err != nil {
		return cgroup.Record{}, err
	}
	return record(l, name, path.Join("/", name.Path), Options{ID: id})
}

func record(l *cgroup.Layout, name unit.Name, group string, o Options) (cgroup.Record, error) {
	files, err := cgroup.New(l, group, o.ID)
	if err != nil {
		return cgroup.Record{}, err
	}
	rec := files.Record()
	rec.Unit, rec.User = name.Unit, o.User
	return rec, nil
}

// Load returns the Manager of a recorded unit; it does nothing.
func Load(rec cgroup.Record) *Manager {
	return &Manager{Manager: cgroup.Load(rec), rec: rec, name: unit.Name{Unit: rec.Unit}}
}

func (m *Manager) Record() cgroup.Record { return m.rec }

// Begin names the process with which Create is to start the scope. It must be a
// child of the caller's that has not been reaped.
func (m *Manager) Begin(first int) { m.first = first }

// Create starts the unit with all its properties.
func (m *Manager) Create() error {
	if !m.name.Scope() {
		m.first = 0
	}
	props := slices.Concat(m.ownProperties(), m.props)
	if _, err := m.ask(&unit.Request{Op: unit.Start, Unit: m.rec.Unit, Pid: m.first, Properties: props}); err != nil {
		return err
	}
	if err := cgroup.Adopt(m.Manager, m.first); err != nil {
		return errors.Join(err, m.stop())
	}
	return nil
}

// ownProperties are those that every container's unit has.
func (m *Manager) ownProperties() []unit.Property {
	list := []unit.Property{
		unit.Text("Description", "container "+m.rec.ID),
		unit.Bool("MemoryAccounting", true), unit.Bool("CPUAccounting", true), unit.Bool("TasksAccounting", true),
		// With the default dependencies systemd would stop it early at shutdown.
		unit.Bool("DefaultDependencies", false),
	}
	if m.rec.Mode == cgroup.V2 {
		list = append(list, unit.Bool("IOAccounting", true))
	} else {
		list = append(list, unit.Bool("BlockIOAccounting", true))
	}
	if !m.name.Scope() {
		// A slice lies in the one that its name says, and is always delegated.
		return append(list, unit.Texts("Wants", m.name.Slice))
	}
	return append(list, unit.Text("Slice", m.name.Slice), unit.Bool("Delegate", true),
		// No failed scope, such as one in which memory ran out, stays behind.
		unit.Text("CollectMode", "inactive-or-failed"))
}

// Apply writes the limits to the files. systemd has been told of them by Create.
func (m *Manager) Apply(r *specs.LinuxResources) error {
	if limit := pidsLimit(r); limit > 0 && m.first != 0 {
		raised := *r
		raised.Pids = &specs.LinuxPids{Limit: new(int64)}
		*raised.Pids.Limit = limit + 1
		r = &raised
	}
	return m.Manager.Apply(r)
}

// Update writes the files, which restores what was there if one is refused, and
// then tells systemd. That writes its own idea of them, in which a CPU quota is a whole
// percentage; so they are written once more.
func (m *Manager) Update(r *specs.LinuxResources, o cgroup.Origin) error {
	props, err := cgroup.UnitProperties(m.Manager, r)
	if err == nil && len(props) > 0 {
		err = m.connect(props)
	}
	if err == nil {
		err = m.Manager.Update(r, o)
	}
	if err != nil || len(props) == 0 {
		return err
	}
	if _, err := m.ask(&unit.Request{Op: unit.Set, Unit: m.rec.Unit, Properties: props}); err != nil {
		return err
	}
	return m.Manager.Apply(r)
}

func pidsLimit(r *specs.LinuxResources) int64 {
	if r == nil || r.Pids == nil || r.Pids.Limit == nil {
		return 0
	}
	return *r.Pids.Limit
}

// Entered is to be called when the container's process is in the cgroup and the first
// one has been reaped. It ends the connection to systemd.
func (m *Manager) Entered() error {
	m.disconnect()
	if m.first == 0 {
		return nil
	}
	m.first = 0
	if pidsLimit(m.resources) > 0 {
		return m.Manager.Apply(&specs.LinuxResources{Pids: m.resources.Pids})
	}
	return nil
}

// Undo stops the unit and removes what else Create made.
func (m *Manager) Undo(deadline time.Time) error {
	return errors.Join(m.stop(), m.Manager.Undo(deadline))
}

// Remove stops the unit, and removes what of its cgroup is left then: the v1
// hierarchies that systemd does not manage.
func (m *Manager) Remove(deadline time.Time) error {
	err := m.stop()
	if errors.Is(err, ErrAbsent) {
		// It was there when the container was made, and has taken its units with it.
		err = nil
	}
	return errors.Join(err, m.Manager.Remove(deadline))
}

// Attach has systemd move the process, a child of the caller's, into the unit's cgroup or
// into sub, which is "" or a path below it: from outside of what is delegated to a
// user only systemd can.
func (m *Manager) Attach(pid int, sub string) error {
	_, err := m.ask(&unit.Request{Op: unit.Attach, Unit: m.rec.Unit, Pid: pid, Sub: sub})
	m.disconnect()
	return err
}

func (m *Manager) stop() error {
	_, err := m.ask(&unit.Request{Op: unit.Stop, Unit: m.rec.Unit})
	return err
}

// ask asks the agent, which it starts if there is none.
func (m *Manager) ask(q *unit.Request) (unit.Reply, error) {
	if err := m.connect(nil); err != nil {
		return unit.Reply{}, fmt.Errorf("%s unit %q: %w", q.Op, q.Unit, err)
	}
	r, err := m.agent.ask(q)
	if err != nil {
		// It may still be at it, or out of step.
		m.disconnect()
	}
	return r, err
}

// connect starts an agent if there is none; that checks props.
func (m *Manager) connect(props []unit.Property) (err error) {
	if m.agent == nil {
		m.agent, _, err = open(m.rec.User, props)
	}
	return err
}

func (m *Manager) disconnect() {
	if m.agent != nil {
		m.agent.close()
		m.agent = nil
	}
}

// Part is that of the files. The unit belongs to it unless some of them are another
// container's by now: then the unit of that name is too.
func (m *Manager) Part(keep func(cgroup.Mark) bool) cgroup.Manager {
	foreign := false
	files := m.Manager.Part(func(mark cgroup.Mark) bool {
		foreign = foreign || mark.ID != "" && mark.ID != m.rec.ID
		return keep(mark)
	})
	if foreign || files.Record().Mode == cgroup.None {
		return files
	}
	part := *m
	part.Manager = files
	return &part
}

// Close ends the connection, and closes what the files took.
func (m *Manager) Close() {
	m.disconnect()
	if m.Manager != nil {
		m.Manager.Close()
	}
}
