package seccomp

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// verdict is what the filter does for a system call number: return a value, or
// test the arguments with a chain of rules.
type verdict uint64

const (
	kindReturn verdict = (iota + 1) << 32 // the low half is the return value
	kindList                              // the low half indexes layout.lists
	kindChain                             // the low half indexes layout.chains
	kindMask   = math.MaxUint32 << 32
)

func returns(v uint32) verdict { return kindReturn | verdict(v) }

// segment gives all numbers from start to the next segment's one verdict.
type segment struct {
	start uint32
	verdict
}

// section is all of one AUDIT_ARCH_*.
type section struct {
	audit    uint32
	segments []segment // the first starts at 0; neighbours differ
}

// chain is the rules of a system call, in order; the first that applies counts,
// and the fallback if none does.
type chain struct {
	rules []rule
	wide  bool
}

// mention is a rule in the list of a number. Code, if not absent, is what must be in
// the first argument: the number is that of socketcall(2) or ipc(2).
type mention struct {
	rule int
	code uint16
}

const (
	codeMask = muxIPC - 1
	slots    = privateSlot + 16

	enosys = verdict(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)) | kindReturn
	killed = verdict(unix.SECCOMP_RET_KILL_THREAD) | kindReturn
)

// layout turns a filter into sections.
type layout struct {
	*filter
	chains []chain
	lists  [][]mention
	table  [slots]verdict
	// The names of socketcall and ipc in numbers.
	socketcall, ipc int
}

func (l *layout) sections() []section {
	l.socketcall, l.ipc = findName("socketcall"), findName("ipc")
	var all []section
	for i, a := range l.archs {
		if slices.ContainsFunc(l.archs[:i], func(b *arch) bool { return b.audit == a.audit }) {
			continue // x86-64 and x32 are one section
		}
		s := section{audit: a.audit, segments: make([]segment, 0, 128)}
		if a.audit == unix.AUDIT_ARCH_X86_64 {
			s.x86(l)
		} else {
			s.append(0, returns(l.fallback))
			s.arch(l, a)
		}
		all = append(all, s)
	}
	return all
}

// x86 appends the numbers of x86-64, and of x32 above them.
func (s *section) x86(l *layout) {
	wide := findArch("SCMP_ARCH_X86_64")
	x32 := findArch("SCMP_ARCH_X32")
	if slices.Contains(l.archs, wide) {
		s.append(0, returns(l.fallback))
		s.arch(l, wide)
	} else {
		s.append(0, killed)
	}
	if slices.Contains(l.archs, x32) {
		s.append(x32Bit, returns(l.fallback))
		s.arch(l, x32)
		return
	}
	s.append(x32Bit, killed)
	// -1 is no call of x32: a tracer skips a call with it, and the kernel filters
	// the call again after the tracer (since Linux 4.8).
	s.append(math.MaxUint32, returns(l.fallback))
}

// append starts a segment; start is above all before.
func (s *section) append(start uint32, v verdict) {
	n := len(s.segments)
	if n > 0 && s.segments[n-1].start == start {
		n--
		s.segments = s.segments[:n]
	}
	if n == 0 || s.segments[n-1].verdict != v {
		s.segments = append(s.segments, segment{start, v})
	}
}

// arch appends the numbers of one architecture, over the fallback.
func (s *section) arch(l *layout, a *arch) {
	ordinary, private := l.fill(a)
	last := max(ordinary, private)
	if last < 0 {
		return // a profile that names nothing here says nothing about what is new
	}
	refuse := true
	switch l.fallback & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
		refuse = false
	case unix.SECCOMP_RET_TRACE:
		refuse = false // a tracer may emulate calls that it does not know
	}
	for slot := 0; slot <= last; slot++ {
		v := l.table[slot]
		switch {
		case refuse && slot == 0 && a.setup:
			v = enosys
		case v&kindMask == kindList:
			v = l.chain(l.lists[uint32(v)], a.wide)
		case v != 0:
		case refuse && slot > ordinary && slot < privateSlot && ordinary >= 0:
			v = enosys
		default:
			v = returns(l.fallback)
		}
		s.append(a.number(slot), v)
	}
	if refuse {
		s.append(a.number(last)+1, enosys)
	} else {
		s.append(a.number(last)+1, returns(l.fallback))
	}
}

// fill writes the verdicts of one architecture to the table. It returns the highest
// slots that the profile names, -1 for none.
func (l *layout) fill(a *arch) (ordinary, private int) {
	clear(l.table[:])
	l.lists = l.lists[:0]
	row := &numbers[a.row]
	ordinary, private = -1, -1
	for i := range l.entries {
		e := &l.entries[i]
		same := l.rules[e.first].verdict == l.fallback // says nothing new
		for _, name := range e.names {
			if code := numbers[rowMux][name]; a.mux && code != absent {
				slot := int(row[l.socketcall])
				if code&muxIPC != 0 {
					slot = int(row[l.ipc])
				}
				ordinary = max(ordinary, slot)
				for r := e.first; r < e.last && !same; r++ {
					l.add(a, slot, mention{r, code & codeMask})
				}
			}
			slot := int(row[name])
			switch {
			case slot == absent:
				continue
			case slot < privateSlot:
				ordinary = max(ordinary, slot)
			default:
				private = max(private, slot)
			}
			for r := e.first; r < e.last && !same; r++ {
				l.add(a, slot, mention{r, absent})
			}
		}
	}
	return ordinary, private
}

func (l *layout) add(a *arch, slot int, m mention) {
	t := &l.table[slot]
	r := &l.rules[m.rule]
	switch {
	case *t&kindMask == kindReturn:
	case m.code == absent && !slices.ContainsFunc(r.conds, func(c cond) bool { return !c.always(a.wide) }):
		*t = returns(r.verdict)
	case *t == 0:
		*t = kindList | verdict(len(l.lists))
		l.lists = append(l.lists, []mention{m})
	default:
		list := &l.lists[uint32(*t)]
		*list = append(*list, m)
	}
}

// chain returns the verdict for a list of rules.
func (l *layout) chain(list []mention, wide bool) verdict {
	c := chain{make([]rule, 0, len(list)), wide}
	mixed := false
	for _, m := range list {
		r := rule{verdict: l.rules[m.rule].verdict}
		for _, d := range l.rules[m.rule].conds {
			if m.code != absent && d.arg == 0 || d.always(wide) {
				continue
			}
			if !wide {
				d.value &= math.MaxUint32
				d.mask &= math.MaxUint32
			}
			r.conds = append(r.conds, d)
		}
		if m.code != absent {
			code := cond{value: uint64(m.code), mask: math.MaxUint64}
			if !wide {
				code.mask = math.MaxUint32
			}
			r.conds = slices.Insert(r.conds, 0, code)
		}
		mixed = mixed || r.verdict != l.rules[list[0].rule].verdict
		c.rules = append(c.rules, r)
	}
	if mixed {
		slices.SortStableFunc(c.rules, order)
	}
	for i := range l.chains {
		if l.chains[i].equal(&c) {
			return kindChain | verdict(i)
		}
	}
	l.chains = append(l.chains, c)
	return kindChain | verdict(len(l.chains)-1)
}

func (c *chain) equal(d *chain) bool {
	return c.wide == d.wide && slices.EqualFunc(c.rules, d.rules, func(a, b rule) bool {
		return a.verdict == b.verdict && slices.Equal(a.conds, b.conds)
	})
}

// always says that the condition looks at no bit.
func (c *cond) always(wide bool) bool {
	return c.mask == 0 || !wide && uint32(c.mask) == 0
}
