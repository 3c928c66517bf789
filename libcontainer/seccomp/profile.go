package seccomp

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// filter is a profile that has been checked, with every name resolved.
type filter struct {
	fallback uint32 // verdict of the default action
	archs    []*arch
	flags    uint32
	notify   bool
	rules    []rule
	entries  []entry
}

// entry is one member of syscalls: each of its names has the rules first to last-1.
type entry struct {
	first, last int
	names       []uint16 // indices of numbers
}

// rule applies if all its conditions do.
type rule struct {
	verdict uint32
	conds   []cond // ascending by arg, each arg once
}

// cond compares argument arg, with mask applied, to value.
type cond struct {
	arg         uint8
	op          operator
	value, mask uint64
}

type operator uint8

const (
	opEQ operator = iota
	opNE
	opLT
	opLE
	opGE
	opGT
	opMaskedEQ
)

// A choice is a name that profiles use and what it stands for.
type choice struct {
	name  string
	value uint32
}

// These are sorted by name.
var (
	actions = [...]choice{
		{"SCMP_ACT_ALLOW", unix.SECCOMP_RET_ALLOW},
		{"SCMP_ACT_ERRNO", unix.SECCOMP_RET_ERRNO},
		{"SCMP_ACT_KILL", unix.SECCOMP_RET_KILL_THREAD},
		{"SCMP_ACT_KILL_PROCESS", unix.SECCOMP_RET_KILL_PROCESS},
		{"SCMP_ACT_KILL_THREAD", unix.SECCOMP_RET_KILL_THREAD},
		{"SCMP_ACT_LOG", unix.SECCOMP_RET_LOG},
		{"SCMP_ACT_NOTIFY", unix.SECCOMP_RET_USER_NOTIF},
		{"SCMP_ACT_TRACE", unix.SECCOMP_RET_TRACE},
		{"SCMP_ACT_TRAP", unix.SECCOMP_RET_TRAP},
	}
	operators = [...]choice{
		{"SCMP_CMP_EQ", uint32(opEQ)},
		{"SCMP_CMP_GE", uint32(opGE)},
		{"SCMP_CMP_GT", uint32(opGT)},
		{"SCMP_CMP_LE", uint32(opLE)},
		{"SCMP_CMP_LT", uint32(opLT)},
		{"SCMP_CMP_MASKED_EQ", uint32(opMaskedEQ)},
		{"SCMP_CMP_NE", uint32(opNE)},
	}
	// TSYNC is accepted, and asks for nothing: the filter is loaded by a process
	// of one thread.
	flags = [...]choice{
		{"SECCOMP_FILTER_FLAG_LOG", unix.SECCOMP_FILTER_FLAG_LOG},
		{"SECCOMP_FILTER_FLAG_SPEC_ALLOW", unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{"SECCOMP_FILTER_FLAG_TSYNC", 0},
		{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV},
	}
)

// Actions returns the actions that a profile may name, sorted.
func Actions() []string { return namesOf(actions[:]) }

// Operators returns the operators that a profile may name, sorted.
func Operators() []string { return namesOf(operators[:]) }

// Flags returns the flags that a profile may name, sorted.
func Flags() []string { return namesOf(flags[:]) }

// Flag returns the SECCOMP_FILTER_FLAG_* of one of Flags; 0 for one that asks the
// kernel for nothing.
func Flag(name string) uint32 {
	v, _ := find(flags[:], name)
	return v
}

func namesOf(choices []choice) []string {
	names := make([]string, len(choices))
	for i := range choices {
		names[i] = choices[i].name
	}
	return names
}

func find(choices []choice, name string) (uint32, bool) {
	for i := range choices {
		if choices[i].name == name {
			return choices[i].value, true
		}
	}
	return 0, false
}

const (
	pointer  = "/linux/seccomp"
	maxShown = 20 // problems in one error
	maxValue = 64 // bytes of a value in a message
	maxErrno = 4095
	maxArg   = 5
)

// checker collects what is wrong with a profile.
type checker struct {
	problems []string
	warnings []string
}

func (c *checker) bad(at, value, message, accepted string) {
	text := pointer + at + ": "
	if value != "" {
		text += value + ": "
	}
	text += message
	if accepted != "" {
		text += "; accepted: " + accepted
	}
	c.problems = append(c.problems, text)
}

func (c *checker) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	if n := len(c.problems) - maxShown; n > 0 {
		c.problems = append(c.problems[:maxShown], "and "+strconv.Itoa(n)+" more")
	}
	return errors.New("config.json: " + strings.Join(c.problems, "; "))
}

func quote(s string) string {
	if len(s) > maxValue {
		return strconv.Quote(s[:maxValue]) + "..."
	}
	return strconv.Quote(s)
}

func (c *checker) profile(p *specs.LinuxSeccomp, own *arch) *filter {
	f := &filter{archs: []*arch{own}}
	f.fallback = c.action(p.DefaultAction, p.DefaultErrnoRet, "/defaultAction", "/defaultErrnoRet")
	if p.DefaultAction == specs.ActNotify {
		c.bad("/defaultAction", quote(string(p.DefaultAction)), "cannot be the default action", "")
	}
	for i, name := range p.Architectures {
		c.arch(f, string(name), "/architectures/"+strconv.Itoa(i))
	}
	f.entries = make([]entry, 0, len(p.Syscalls))
	f.rules = make([]rule, 0, len(p.Syscalls))
	for i := range p.Syscalls {
		c.syscall(f, &p.Syscalls[i], i)
	}
	if len(c.problems) == 0 {
		c.contradictions(f, p)
	}
	c.flags(f, p.Flags)
	if f.notify && p.ListenerPath == "" {
		c.bad("/listenerPath", "", "must be specified for SCMP_ACT_NOTIFY", "")
	}
	if p.ListenerMetadata != "" && p.ListenerPath == "" {
		c.bad("/listenerMetadata", "", "cannot be set without listenerPath", "")
	}
	return f
}

func (c *checker) arch(f *filter, name, at string) {
	a := findArch(name)
	switch {
	case a != nil && !slices.Contains(f.archs, a):
		f.archs = append(f.archs, a)
	case a != nil:
	case slices.Contains(noArchs[:], name):
		c.bad(at, quote(name), "architecture is not built into this version of rt", strings.Join(Architectures(), ", "))
	default:
		c.bad(at, quote(name), "unknown architecture", strings.Join(Architectures(), ", "))
	}
}

func (c *checker) flags(f *filter, names []specs.LinuxSeccompFlag) {
	if names == nil {
		f.flags = unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
	}
	for i, name := range names {
		v, ok := find(flags[:], string(name))
		if !ok {
			c.bad("/flags/"+strconv.Itoa(i), quote(string(name)), "unknown flag", strings.Join(Flags(), ", "))
		}
		f.flags |= v
	}
	if f.notify {
		f.flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	} else {
		// It says how a listener is waited for; the kernel refuses it without one.
		f.flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
}

// action returns the filter's return value for an action.
func (c *checker) action(name specs.LinuxSeccompAction, errno *uint, at, errnoAt string) uint32 {
	if name == "" {
		c.bad(at, "", "must be specified", "")
		return 0
	}
	v, ok := find(actions[:], string(name))
	if !ok {
		c.bad(at, quote(string(name)), "unknown action", strings.Join(Actions(), ", "))
		return 0
	}
	limit := uint(maxErrno)
	switch name {
	case specs.ActTrace:
		limit = math.MaxUint16 // a message to the tracer, no error number
	case specs.ActErrno:
	default:
		if errno != nil {
			c.bad(errnoAt, "", "cannot be set for "+string(name), "SCMP_ACT_ERRNO or SCMP_ACT_TRACE")
		}
		return v
	}
	if errno == nil {
		return v | uint32(unix.EPERM)
	}
	if *errno > limit {
		c.bad(errnoAt, strconv.FormatUint(uint64(*errno), 10), "out of range", "0 to "+strconv.FormatUint(uint64(limit), 10))
	}
	return v | uint32(*errno)&unix.SECCOMP_RET_DATA
}

func (c *checker) syscall(f *filter, s *specs.LinuxSyscall, i int) {
	at := "/syscalls/" + strconv.Itoa(i)
	verdict := c.action(s.Action, s.ErrnoRet, at+"/action", at+"/errnoRet")
	f.notify = f.notify || s.Action == specs.ActNotify
	if len(s.Names) == 0 {
		c.bad(at+"/names", "", "must not be empty", "")
	}
	e := entry{first: len(f.rules), names: make([]uint16, 0, len(s.Names))}
	for j, name := range s.Names {
		if name == "" {
			c.bad(at+"/names/"+strconv.Itoa(j), `""`, "a name must not be empty", "")
			continue
		}
		if name == "write" && s.Action == specs.ActNotify {
			// The stage reports an exec that failed by a write after the filter.
			c.bad(at+"/names/"+strconv.Itoa(j), `"write"`, "SCMP_ACT_NOTIFY cannot be used for it", "")
		}
		n := findName(name)
		if n < 0 {
			c.warnings = append(c.warnings, "config.json: "+pointer+at+"/names/"+strconv.Itoa(j)+": "+quote(name)+": unknown system call, skipped")
			continue
		}
		e.names = append(e.names, uint16(n))
	}
	f.rules = c.rules(f.rules, verdict, s.Args, at+"/args/")
	e.last = len(f.rules)
	f.entries = append(f.entries, e)
}

// rules appends the rule that args make. If an argument is in two conditions,
// each condition makes a rule of its own, as in runc: profiles rely on it
// to list alternatives.
func (c *checker) rules(rules []rule, verdict uint32, args []specs.LinuxSeccompArg, at string) []rule {
	if len(args) == 0 {
		return append(rules, rule{verdict: verdict})
	}
	conds := make([]cond, 0, len(args))
	var seen [maxArg + 1]bool
	alternatives := false
	for i := range args {
		a := &args[i]
		op, ok := find(operators[:], string(a.Op))
		if !ok {
			c.bad(at+strconv.Itoa(i)+"/op", quote(string(a.Op)), "unknown operator", strings.Join(Operators(), ", "))
		}
		if a.Index > maxArg {
			c.bad(at+strconv.Itoa(i)+"/index", strconv.FormatUint(uint64(a.Index), 10), "out of range", "0 to 5")
			continue
		}
		alternatives = alternatives || seen[a.Index]
		seen[a.Index] = true
		d := cond{arg: uint8(a.Index), op: operator(op), value: a.Value, mask: math.MaxUint64}
		if d.op == opMaskedEQ {
			d.op, d.mask, d.value = opEQ, a.Value, a.ValueTwo&a.Value
		}
		conds = append(conds, d)
	}
	if !alternatives {
		slices.SortFunc(conds, func(a, b cond) int { return int(a.arg) - int(b.arg) })
		return append(rules, rule{verdict, conds})
	}
	for i := range conds {
		rules = append(rules, rule{verdict, conds[i : i+1]})
	}
	return rules
}

// contradictions refuses rules for one call with the same conditions and different actions, as
// libseccomp does. Where there is a rule without conditions too, none of the others counts.
func (c *checker) contradictions(f *filter, p *specs.LinuxSeccomp) {
	for i := range f.entries {
		e := &f.entries[i]
		if !f.conditional(e) {
			continue
		}
		for j := range f.entries[:i] {
			o := &f.entries[j]
			if !f.conditional(o) || f.rules[o.first].verdict == f.rules[e.first].verdict || !f.meet(e, o) {
				continue
			}
			for _, name := range e.names {
				if slices.Contains(o.names, name) && f.counts(name) {
					c.bad("/syscalls/"+strconv.Itoa(i)+"/action", quote(string(p.Syscalls[i].Action)),
						"contradicts "+pointer+"/syscalls/"+strconv.Itoa(j)+", which has the same conditions for "+quote(callName(int(name))), "")
					break
				}
			}
		}
	}
}

// conditional says whether e has rules with conditions that libseccomp is told of.
func (f *filter) conditional(e *entry) bool {
	return e.first < e.last && len(f.rules[e.first].conds) > 0 && f.rules[e.first].verdict != f.fallback
}

// meet says whether a rule of a has the conditions of one of b.
func (f *filter) meet(a, b *entry) bool {
	for i := a.first; i < a.last; i++ {
		for j := b.first; j < b.last; j++ {
			if slices.Equal(f.rules[i].conds, f.rules[j].conds) {
				return true
			}
		}
	}
	return false
}

// counts says whether the conditional rules for a call count: some architecture has it, and no
// rule goes without conditions.
func (f *filter) counts(name uint16) bool {
	for i := range f.entries {
		e := &f.entries[i]
		if e.first < e.last && len(f.rules[e.first].conds) == 0 && f.rules[e.first].verdict != f.fallback && slices.Contains(e.names, name) {
			return false
		}
	}
	return slices.ContainsFunc(f.archs, func(a *arch) bool { return numbers[a.row][name] != absent })
}

// named counts the different names of the profile.
func (f *filter) named() int {
	var seen [nameCount]bool
	n := 0
	for i := range f.entries {
		for _, name := range f.entries[i].names {
			if !seen[name] {
				seen[name] = true
				n++
			}
		}
	}
	return n
}
