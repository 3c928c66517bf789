package seccomp

import "cmp"

// order is the order in which the rules of one system call are tested where their
// actions differ: the one in which libseccomp tests them, whatever the profile's.
// Conditions are compared pairwise: a higher argument goes first; then EQ, NE and
// MASKED_EQ, then LT and LE, then GT and GE; then the value, ascending for
// LT and LE, else descending. Of two rules that are the same so far, the profile's
// first goes first.
func order(a, b rule) int {
	for i := range min(len(a.conds), len(b.conds)) {
		x, y := &a.conds[i], &b.conds[i]
		if c := cmp.Compare(y.arg, x.arg); c != 0 {
			return c
		}
		if c := cmp.Compare(x.op.class(), y.op.class()); c != 0 {
			return c
		}
		c := cmp.Compare(x.value, y.value)
		if x.op.class() != classLess {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

const (
	classEqual = iota
	classLess
	classGreater
)

func (op operator) class() int {
	switch op {
	case opLT, opLE:
		return classLess
	case opGT, opGE:
		return classGreater
	default:
		return classEqual
	}
}
