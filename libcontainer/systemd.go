package libcontainer

import (
	"errors"
	"strings"
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
		User: user, Devices: o.Rootless != RootlessTrue,
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

// admit has the process that will clone the one of exec moved into the container's unit, if
// that is one of a user's systemd and the kernel would not let the process clone into
// its cgroup from where rt is, such as a login session: no cgroup above both is delegated.
func (e *execution) admit() error {
	m, err := e.container.manager()
	if err != nil {
		return err
	}
	rec := m.Record()
	if !rec.User || len(rec.Dirs) != 1 {
		return nil
	}
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if cgroup.Permitted(l, e.cg) == nil {
		return nil
	}
	if err := e.awaitStage(); err != nil {
		return err
	}
	sub := strings.TrimPrefix(e.cg.Record().Dirs[0].Path, rec.Dirs[0].Path)
	return m.(*systemd.Manager).Attach(e.stage.First(), sub)
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
