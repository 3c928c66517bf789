package libcontainer

import (
	"encoding/json"
	"fmt"

	"rt/libcontainer/bundle"
	"rt/libcontainer/state"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// UpdateOptions are the options of Container.Update.
type UpdateOptions struct {
	// Resources is what is to change; what is nil, zero or empty stays as it is. It
	// must be valid, see bundle.ValidateResources. Devices are passed over: an
	// update never touches the device policy.
	Resources *specs.LinuxResources
	// IntelRdt holds new schemata for the container's class of service, in L3CacheSchema and
	// MemBwSchema; nil and "" change nothing. It must be valid, see bundle.ValidateSchemata.
	IntelRdt *specs.LinuxIntelRdt
	// IntelRdtOrigin says what messages call a member of IntelRdt, given by its name.
	IntelRdtOrigin func(member string) string
	// Origin says what messages call a member of Resources, given by its JSON
	// pointer; nil is its place in config.json.
	Origin func(pointer string) string
	// Warn receives what deserves a line in the log; nil discards it.
	Warn func(string)
}

// extraResources is the record's member for the limits that updates have asked
// for since create, as a linux.resources without devices: with those of the
// stored config.json they are what is in force.
const extraResources = "resources"

// Update changes the limits of a container that is created, running or paused,
// all of them or, with an error, none. It gives ErrNotRunning for a stopped one.
func (c *Container) Update(o UpdateOptions) error {
	if err := c.lock(); err != nil {
		return err
	}
	defer c.dir.Unlock()
	status, err := c.status()
	switch {
	case err != nil:
		return err
	case status == Stopped || c.rec.Phase == state.PhaseDeleting:
		return ErrNotRunning
	case status == Creating:
		return fmt.Errorf("update container %s: it is being created", c.ID())
	}
	m, err := c.manager()
	if err != nil {
		return err
	}
	defer m.Close()
	warnings, err := m.Check(o.Resources, o.Origin)
	if o.Warn != nil {
		for _, w := range warnings {
			o.Warn(w)
		}
	}
	if err != nil {
		return err
	}
	undo, err := c.updateRdt(&o)
	if err != nil {
		return err
	}
	fault("update.schemata")
	if err := m.Update(o.Resources, o.Origin); err != nil {
		if e := undo(); e != nil {
			err = fmt.Errorf("%w; %w", err, e)
		}
		return err
	}
	fault("update.limits")
	err = c.recordLimits(o.Resources)
	fault("update.record")
	return err
}

// updateRdt writes new schemata and returns what undoes that.
func (c *Container) updateRdt(o *UpdateOptions) (undo func() error, err error) {
	if r := o.IntelRdt; r == nil || r.L3CacheSchema == "" && r.MemBwSchema == "" {
		return func() error { return nil }, nil
	}
	group, err := recordedRdt(c.rec.Extra)
	if err != nil {
		return nil, err
	}
	origin := o.IntelRdtOrigin
	if origin == nil {
		origin = func(member string) string { return "config.json /linux/intelRdt/" + member }
	}
	return group.Update(o.IntelRdt, origin)
}

// recordLimits adds what an update has set to what earlier ones have.
func (c *Container) recordLimits(r *specs.LinuxResources) error {
	old := new(specs.LinuxResources)
	if raw, ok := c.rec.Extra[extraResources]; ok {
		var err error
		if old, _, err = bundle.ParseResources("stored resources", raw); err != nil {
			return fmt.Errorf("record limits of container %q: %w", c.ID(), err)
		}
	}
	bundle.MergeResources(old, r)
	raw, err := json.Marshal(old)
	if err != nil {
		return fmt.Errorf("record limits of container %q: %w", c.ID(), err)
	}
	if c.rec.Extra == nil {
		c.rec.Extra = map[string]jsontext.Value{}
	}
	c.rec.Extra[extraResources] = raw
	return c.dir.Save(c.rec)
}
