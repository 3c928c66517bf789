package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rt/libcontainer/cgroup/systemd/unit"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// patience bounds a request: systemd may be busy, or wait for a job before ours.
const patience = 30 * time.Second

// units are those of the systemd that it is connected to.
type units struct{ conn *systemd.Conn }

func (u *units) do(q *unit.Request) (r unit.Reply) {
	if err := u.try(q, &r); err != nil {
		r.Error, r.Absent = err.Error(), errors.Is(err, errAbsent)
	}
	return r
}

func (u *units) try(q *unit.Request, r *unit.Reply) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	props, err := properties(q.Properties)
	if err != nil {
		return err
	}
	switch q.Op {
	case unit.Open:
		if u.conn, err = connect(q.User); err != nil {
			return err
		}
		r.Group, err = u.group()
		return err
	case unit.Start:
		return u.start(ctx, q, props)
	case unit.Set:
		if err := u.conn.SetUnitPropertiesContext(ctx, q.Unit, true, props...); err != nil {
			return fmt.Errorf("set properties of systemd unit %q: %w", q.Unit, err)
		}
		return nil
	case unit.Stop:
		return u.stop(ctx, q.Unit)
	case unit.Attach:
		if err := u.conn.AttachProcessesToUnit(ctx, q.Unit, q.Sub, []uint32{uint32(q.Pid)}); err != nil {
			return fmt.Errorf("move process %d into systemd unit %q: %w", q.Pid, q.Unit, err)
		}
		return nil
	}
	return fmt.Errorf("unknown request %q", q.Op)
}

// properties parses the values. Their types are given, so that a number needs no
// prefix to be one of 64 bits.
func properties(list []unit.Property) ([]systemd.Property, error) {
	out := make([]systemd.Property, len(list))
	for i, p := range list {
		out[i].Name = p.Name
		var err error
		switch p.Type {
		case "a(ss)", "a(st)":
			out[i].Value, err = pairs(p)
		default:
			var sig dbus.Signature
			if sig, err = dbus.ParseSignature(p.Type); err == nil {
				out[i].Value, err = dbus.ParseVariant(p.Value, sig)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("set systemd property %s to %q: %w; accepted is GVariant text of type %s", p.Name, p.Value, err, p.Type)
		}
	}
	return out, nil
}

func pairs(p unit.Property) (dbus.Variant, error) {
	list, err := unit.ParsePairs(p.Value, p.Type == "a(st)")
	texts, numbers := []text{}, []number{}
	for _, e := range list {
		texts = append(texts, text{e.Name, e.Text})
		numbers = append(numbers, number{e.Name, e.Number})
	}
	if p.Type == "a(st)" {
		return dbus.MakeVariant(numbers), err
	}
	return dbus.MakeVariant(texts), err
}

type (
	text   struct{ Name, Value string }
	number struct {
		Name  string
		Value uint64
	}
)

// start starts the unit. The name may be taken by one that has failed, which
// systemd keeps for people to look at.
func (u *units) start(ctx context.Context, q *unit.Request, props []systemd.Property) error {
	if q.Pid != 0 {
		props = append(props, systemd.PropPids(uint32(q.Pid)))
	}
	for again := false; ; again = true {
		done := make(chan string, 1)
		_, err := u.conn.StartTransientUnitContext(ctx, q.Unit, "replace", props, done)
		if err == nil {
			return wait(ctx, "start", q.Unit, done)
		}
		if again || !named(err, "org.freedesktop.systemd1.UnitExists") {
			return fmt.Errorf("start systemd unit %q: %w", q.Unit, err)
		}
		// One that is active is not touched by this, and then refused.
		if err := u.reset(ctx, q.Unit); err != nil {
			return err
		}
	}
}

func (u *units) stop(ctx context.Context, name string) error {
	done := make(chan string, 1)
	_, err := u.conn.StopUnitContext(ctx, name, "replace", done)
	switch {
	case err == nil:
		err = wait(ctx, "stop", name, done)
	case named(err, noSuchUnit):
		err = nil
	default:
		err = fmt.Errorf("stop systemd unit %q: %w", name, err)
	}
	if err != nil {
		return err
	}
	return u.reset(ctx, name)
}

const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

func (u *units) reset(ctx context.Context, name string) error {
	err := u.conn.ResetFailedUnitContext(ctx, name)
	if err != nil && !named(err, noSuchUnit) {
		return fmt.Errorf("reset systemd unit %q: %w", name, err)
	}
	return nil
}

func named(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

func wait(ctx context.Context, verb, name string, done <-chan string) error {
	select {
	case r := <-done:
		if r == "done" {
			return nil
		}
		return fmt.Errorf("%s systemd unit %q: the job's result is %q", verb, name, r)
	case <-ctx.Done():
		return fmt.Errorf("%s systemd unit %q: %w", verb, name, ctx.Err())
	}
}

// group asks for the cgroup below which the instance's units lie.
func (u *units) group() (string, error) {
	text, err := u.conn.GetManagerProperty("ControlGroup")
	if err != nil {
		return "", fmt.Errorf("ask systemd for its cgroup: %w", err)
	}
	v, err := dbus.ParseVariant(text, dbus.ParseSignatureMust("s"))
	if err != nil {
		return "", fmt.Errorf("ask systemd for its cgroup: %w", err)
	}
	group, _ := v.Value().(string)
	return group, nil
}
