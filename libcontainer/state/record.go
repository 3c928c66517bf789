package state

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Intent is what create means to do, written before it does any of it: what
// delete works from when there is no Record.
type Intent struct {
	ID      string
	Bundle  string
	Creator Identity // the process that runs create
	Created time.Time
	// Cgroup is the cgroup manager's own record, as JSON; nil for none.
	Cgroup jsontext.Value
	// Poststop are the hooks to run after a failed create, in the form of package
	// hooks; nil for none.
	Poststop jsontext.Value
	// Extra holds whatever else a caller needs after a crash, as JSON by name.
	Extra map[string]jsontext.Value
}

func (in *Intent) members() []member {
	return []member{
		{"id", &in.ID},
		{"bundle", &in.Bundle},
		{"creator_pid", &in.Creator.Pid},
		{"creator_start", &in.Creator.Start},
		{"boot_id", &in.Creator.BootID},
		{"created", &in.Created},
		{"cgroup", &in.Cgroup},
		{"poststop", &in.Poststop},
		{"extra", &in.Extra},
	}
}

// Phase is how far the commands have brought a container, as far as that cannot
// be seen from its process; it is not its status.
type Phase string

const (
	// PhaseCreating: create has not committed; the process dies with it.
	PhaseCreating Phase = "creating"
	// PhaseCreated: the process lives on without create.
	PhaseCreated Phase = "created"
	// PhaseStarting: start has begun and may be killed anywhere.
	PhaseStarting Phase = "starting"
	// PhaseStarted: the user's program has been executed.
	PhaseStarted Phase = "started"
	// PhaseDeleting: delete has begun; only delete may go on.
	PhaseDeleting Phase = "deleting"
)

// Record is what is known of a created container. The zero value of every
// field says "none".
type Record struct {
	ID string
	// Init is the container's first process as the host sees it.
	Init        Identity
	Phase       Phase
	Bundle      string // absolute
	Rootfs      string // absolute
	Created     time.Time
	Owner       uint32 // uid that ran create
	Annotations map[string]string
	// Rootless says that create had no privilege of the host's.
	Rootless bool
	// NoPivot says that create was asked for no pivot_root(2).
	NoPivot bool
	// OwnPidNS says that the container's processes die with Init.
	OwnPidNS bool
	// Namespaces are those Init had when it was created.
	Namespaces []Namespace
	// Operations are those of the plan that run after the gate, for the errors
	// that start must word.
	Operations []Operation
	// Cgroup is the cgroup manager's own record, as JSON; nil for none.
	Cgroup jsontext.Value
	// Poststart and Poststop are lists in the form of package hooks; nil for none.
	Poststart jsontext.Value
	Poststop  jsontext.Value
	// Extra holds what other rooms keep, as JSON by name.
	Extra map[string]jsontext.Value
}

// Namespace identifies one namespace by the device and inode number of its
// nsfs file.
type Namespace struct {
	Type string // as in /proc/PID/ns: "mnt", "pid" ...
	Dev  uint64
	Ino  uint64
}

// Operation is one operation of a plan, for messages.
type Operation struct {
	Index  int // in the plan, from 0
	Kind   int // plan.Kind
	Verb   string
	Object string
	Detail string
	Origin string // JSON pointer into config.json, or "runtime"
}

func (r *Record) members() []member {
	return []member{
		{"id", &r.ID},
		{"pid", &r.Init.Pid},
		{"start", &r.Init.Start},
		{"boot_id", &r.Init.BootID},
		{"phase", (*string)(&r.Phase)},
		{"bundle", &r.Bundle},
		{"rootfs", &r.Rootfs},
		{"created", &r.Created},
		{"owner", &r.Owner},
		{"annotations", &r.Annotations},
		{"rootless", &r.Rootless},
		{"no_pivot", &r.NoPivot},
		{"own_pidns", &r.OwnPidNS},
		{"namespaces", &r.Namespaces},
		{"operations", &r.Operations},
		{"cgroup", &r.Cgroup},
		{"poststart", &r.Poststart},
		{"poststop", &r.Poststop},
		{"extra", &r.Extra},
	}
}

func (n *Namespace) members() []member {
	return []member{{"type", &n.Type}, {"dev", &n.Dev}, {"ino", &n.Ino}}
}

func (o *Operation) members() []member {
	return []member{{"index", &o.Index}, {"kind", &o.Kind}, {"verb", &o.Verb}, {"object", &o.Object}, {"detail", &o.Detail}, {"origin", &o.Origin}}
}

// Save replaces the container's record; r.ID is set here. It needs the lock. A
// reader sees the old record or the new one.
func (d *Dir) Save(r *Record) error {
	r.ID = d.id
	data, err := encode(r.members())
	if err == nil {
		err = d.writeFile(recordName, data, 0)
	}
	if err != nil {
		return fmt.Errorf("save state of container %q: %w", d.id, err)
	}
	return nil
}

// Load returns the container's record: ErrIncomplete when there is none yet,
// ErrDamaged when it is not as it was written or of another version.
func (d *Dir) Load() (*Record, error) {
	r := new(Record)
	if err := d.load(recordName, r.members(), &r.ID); err != nil {
		return nil, fmt.Errorf("load state of container %q: %w", d.id, err)
	}
	return r, nil
}

// LoadIntent returns the container's intent, with the errors of Load.
func (d *Dir) LoadIntent() (*Intent, error) {
	in := new(Intent)
	if err := d.load(intentName, in.members(), &in.ID); err != nil {
		return nil, fmt.Errorf("load intent of container %q: %w", d.id, err)
	}
	return in, nil
}

func (d *Dir) load(name string, into []member, id *string) error {
	data, err := d.readFile(name)
	if err != nil {
		return err
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("read %q: %w", name, err)
	}
	if *id != d.id {
		return fmt.Errorf("read %q: %w: it is of container %q", name, ErrDamaged, *id)
	}
	return nil
}
