package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Adopt takes the place of m.Create where systemd has made the cgroup of a unit: what
// systemd left out, which is the v1 hierarchies that it does not manage and the
// controllers of cgroup2 that it does not know, is made. Any process in it but
// first is refused. When it fails it has undone what it did.
func Adopt(m Manager, first int) error {
	switch m := m.(type) {
	case *v2:
		return m.adopt(first)
	case *v1:
		return m.adopt(first)
	}
	return fmt.Errorf("adopt cgroup: %T is no manager of files", m)
}

func (m *v2) adopt(first int) error {
	root, err := m.dir.openMount()
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := m.enable(root); err != nil {
		return err
	}
	// A slice without processes may have no directory yet.
	if err := m.dir.mkdir(root); err != nil {
		return err
	}
	err = m.dir.openAt(root)
	if err == nil {
		err = refuseOthers(first, m.dir)
	}
	if err == nil {
		var frozen bool
		if frozen, err = m.Frozen(); frozen {
			err = errFrozen
		}
	}
	if err != nil {
		m.dir.unmake(root)
		return err
	}
	m.dir.mark()
	return nil
}

func (m *v1) adopt(first int) error {
	var err error
	for _, d := range m.all() {
		if err = d.create(); err != nil {
			break
		}
		d.mark()
	}
	if err == nil {
		err = m.fillCpuset()
	}
	if err == nil {
		err = refuseOthers(first, m.all()...)
	}
	if err == nil {
		var frozen bool
		if frozen, err = m.Frozen(); frozen {
			err = errFrozen
		}
	}
	if err != nil {
		return errors.Join(err, undo(time.Time{}, m.all()...))
	}
	return nil
}

func refuseOthers(first int, dirs ...*dir) error {
	var all []int
	for _, d := range dirs {
		pids, err := d.pids()
		if err != nil {
			return err
		}
		all = append(all, pids...)
	}
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(pid int) bool { return pid == first })
	if len(all) > 0 {
		return fmt.Errorf("container's cgroup is not empty: %d process(es) found", len(all))
	}
	return nil
}
