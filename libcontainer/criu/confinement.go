package criu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"rt/libcontainer/plan"
)

// Confinement is what a plan takes away from the processes of its container.
type Confinement struct {
	capabilities uint64 // all that any of them may have
	bounded      bool   // or else no set is looked at
	noNewPrivs   bool
	// Filter is the seccomp filter of all, as an array of struct sock_filter; "" for none.
	Filter string
	// UID, GID and Groups are the ids of all, in decimal as rt sees them, unless they could change them. "" is any.
	UID, GID string
	Groups   []string
}

// May says whether a process may have a capability.
func (w *Confinement) May(capability string) bool {
	mask, _ := plan.CapMask([]string{capability}, 63)
	return !w.bounded || w.capabilities&mask != 0
}

// ConfinementOf reads it off a plan.
func ConfinementOf(p *plan.Plan) *Confinement {
	w := new(Confinement)
	for i := range p.Ops {
		switch op := &p.Ops[i]; op.Kind {
		case plan.KindBounding:
			w.bounded = true
			w.capabilities |= op.Num[0]
		case plan.KindCaps:
			w.capabilities |= op.Num[1] | op.Num[2]
		case plan.KindNoNewPrivs:
			w.noNewPrivs = true
		case plan.KindSeccomp:
			w.Filter = op.Data[0].String
		}
	}
	return w
}

// Check checks a thread by its proc_pid_status(5).
func (w *Confinement) Check(pid int, status string) error {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch name {
		case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb":
			mask, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return fmt.Errorf("read %s of process %d: %w", name, pid, err)
			}
			if more := mask &^ w.capabilities; w.bounded && more != 0 {
				return fmt.Errorf("/process/capabilities: process %d has %s in %s besides", pid, strings.Join(plan.CapNames(more), ", "), name)
			}
		case "Uid":
			if err := w.checkIDs(pid, value, "CAP_SETUID", "uid", w.UID); err != nil {
				return err
			}
		case "Gid":
			if err := w.checkIDs(pid, value, "CAP_SETGID", "gid", w.GID); err != nil {
				return err
			}
		case "Groups":
			if err := w.checkIDs(pid, value, "CAP_SETGID", "additionalGids", w.Groups...); err != nil {
				return err
			}
		case "NoNewPrivs":
			if w.noNewPrivs && value != "1" {
				return fmt.Errorf("/process/noNewPrivileges: process %d may gain privileges", pid)
			}
		case "Seccomp":
			if w.Filter != "" && value != "2" {
				return fmt.Errorf("/linux/seccomp: process %d has no filter", pid)
			}
		}
	}
	return nil
}

// checkIDs checks the ids of a thread that cannot have changed them.
func (w *Confinement) checkIDs(pid int, value, capability, name string, accepted ...string) error {
	if w.UID == "" || !w.noNewPrivs || w.May(capability) {
		return nil
	}
	for id := range strings.FieldsSeq(value) {
		if !slices.Contains(accepted, id) {
			return fmt.Errorf("/process/user/%s: process %d has %s", name, pid, id)
		}
	}
	return nil
}
