package libcontainer

import (
	"errors"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/cgroup/systemd"
	"rt/nsenter"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// newManager returns the manager of the cgroup of a container that is to be made; with
// user, of one whose caller has systemd as that user only.
func newManager(l *cgroup.Layout, spec *specs.Spec, id string, o *CreateOptions, user bool) (cgroup.Manager, error) {
	if !o.SystemdCgroup {
		return cgroup.New(l, cgroupsPath(spec), id)
	}
	so := systemd.Options{
		CgroupsPath: cgroupsPath(spec), ID: id, Annotations: spec.Annotations,
		User: user,
	}
	if spec.Linux != nil {
		so.Resources = spec.Linux.Resources
	}
	m, err := systemd.New(l, so)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// loadManager returns the manager of a recorded cgroup.
func loadManager(raw jsontext.Value) (cgroup.Manager, error) {
	rec, err := cgroup.ParseRecord(raw)
	if err != nil {
		return nil, err
	}
	if rec.Unit != "" {
		return systemd.Load(rec), nil
	}
	return cgroup.Load(rec), nil
}

// causeOf returns what the stage reports of its end, if it has ended and that is why
// systemd refused to start a scope with it; else err.
func (c *creation) causeOf(err error) error {
	if c.entered == nil {
		return err
	}
	_, said := c.stage.Recv(time.Millisecond)
	if op := (*nsenter.OpError)(nil); errors.As(said, &op) {
		return said
	}
	return err
}
