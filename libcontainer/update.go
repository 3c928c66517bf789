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
	if err := m.Update(o.Resources, o.Origin); err != nil {
		return err
	}
	fault("update.limits")
	return c.recordLimits(o.Resources)
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
