package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// How a process is scheduled, and where its memory comes from. The tables have
// the kernel's numbers, which the plan needs too.

// named is a name of the specification and the kernel's number for it.
type named struct {
	name  string
	value uint32
}

var (
	// include/uapi/linux/sched.h
	schedulerPolicies = [...]named{
		{"SCHED_OTHER", 0}, {"SCHED_FIFO", 1}, {"SCHED_RR", 2}, {"SCHED_BATCH", 3},
		{"SCHED_ISO", 4}, {"SCHED_IDLE", 5}, {"SCHED_DEADLINE", 6},
	}
	schedulerFlags = [...]named{
		{"SCHED_FLAG_RESET_ON_FORK", 0x01}, {"SCHED_FLAG_RECLAIM", 0x02}, {"SCHED_FLAG_DL_OVERRUN", 0x04},
		{"SCHED_FLAG_KEEP_POLICY", 0x08}, {keepParams, 0x10},
		{"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20}, {"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40},
	}
	// include/uapi/linux/ioprio.h
	ioClasses = [...]named{{"IOPRIO_CLASS_RT", 1}, {"IOPRIO_CLASS_BE", 2}, {"IOPRIO_CLASS_IDLE", 3}}
	// include/uapi/linux/mempolicy.h
	memoryModes = [...]named{
		{"MPOL_DEFAULT", 0}, {"MPOL_PREFERRED", 1}, {"MPOL_BIND", 2}, {"MPOL_INTERLEAVE", 3},
		{"MPOL_LOCAL", 4}, {"MPOL_PREFERRED_MANY", 5}, {"MPOL_WEIGHTED_INTERLEAVE", 6},
	}
	memoryFlags = [...]named{
		{"MPOL_F_NUMA_BALANCING", 1 << 13}, {relativeNodes, 1 << 14}, {staticNodes, 1 << 15},
	}
	// include/uapi/linux/personality.h
	personalities = [...]named{{"LINUX", 0}, {"LINUX32", 8}}
)

const (
	keepParams    = "SCHED_FLAG_KEEP_PARAMS"
	relativeNodes = "MPOL_F_RELATIVE_NODES"
	staticNodes   = "MPOL_F_STATIC_NODES"

	// What the kernel could be built for: CONFIG_NR_CPUS, CONFIG_NODES_SHIFT.
	maxCPU  = 8191
	maxNode = 1023

	minRuntime = 1024 // ns, of a deadline task (kernel/sched/deadline.c)
)

func lookUp(table []named, name string) (uint32, bool) {
	for i := range table {
		if table[i].name == name {
			return table[i].value, true
		}
	}
	return 0, false
}

func namesIn(table []named) []string {
	list := make([]string, len(table))
	for i := range table {
		list[i] = table[i].name
	}
	return list
}

// union ors the numbers of the names; those that are unknown add nothing.
func union[T ~string](table []named, list []T) uint32 {
	sum := uint32(0)
	for _, name := range list {
		n, _ := lookUp(table, string(name))
		sum |= n
	}
	return sum
}

// SchedulerPolicy returns the kernel's numbers for a scheduler's policy and flags.
func SchedulerPolicy(s *specs.Scheduler) (policy, flags uint32) {
	policy, _ = lookUp(schedulerPolicies[:], string(s.Policy))
	return policy, union(schedulerFlags[:], s.Flags)
}

// IOPriority returns the value for ioprio_set(2).
func IOPriority(p *specs.LinuxIOPriority) uint32 {
	class, _ := lookUp(ioClasses[:], string(p.Class))
	return class<<13 | uint32(p.Priority)
}

// MemoryPolicy returns the mode with its flags for set_mempolicy(2).
func MemoryPolicy(p *specs.LinuxMemoryPolicy) uint32 {
	mode, _ := lookUp(memoryModes[:], string(p.Mode))
	return mode | union(memoryFlags[:], p.Flags)
}

// Personality returns the value for personality(2).
func Personality(p *specs.LinuxPersonality) uint32 {
	n, _ := lookUp(personalities[:], string(p.Domain))
	return n
}

// MemoryPolicyModes and MemoryPolicyFlags list the names that are known.
func MemoryPolicyModes() []string { return namesIn(memoryModes[:]) }

// MemoryPolicyFlags: see MemoryPolicyModes.
func MemoryPolicyFlags() []string { return namesIn(memoryFlags[:]) }

// CPUs parses a list of CPUs as in cpuset(7), "0-3,7", into a mask of bits, and
// Nodes a list of memory nodes. Blanks and empty entries are passed over; the mask
// of an empty list is empty. It is a multiple of 8 bytes, in the order of bytes
// that the kernel has on a little endian machine.
func CPUs(list string) ([]byte, error) { return mask(list, maxCPU) }

// Nodes: see CPUs.
func Nodes(list string) ([]byte, error) { return mask(list, maxNode) }

func mask(list string, highest int) ([]byte, error) {
	var m []byte
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		from, to, isRange := strings.Cut(entry, "-")
		first, err := position(from, highest)
		last := first
		if err == nil && isRange {
			last, err = position(to, highest)
		}
		if err != nil {
			return nil, err
		}
		if last < first {
			return nil, fmt.Errorf("%s runs backwards", quote(entry))
		}
		if need := (last/64 + 1) * 8; need > len(m) {
			m = append(m, make([]byte, need-len(m))...)
		}
		for i := first; i <= last; i++ {
			m[i/8] |= 1 << (i % 8)
		}
	}
	return m, nil
}

func position(s string, highest int) (int, error) {
	s = strings.TrimSpace(s)
	if s == "" || !isNumeric(s) {
		return 0, fmt.Errorf("%s is no number", quote(s))
	}
	n, err := strconv.Atoi(s)
	if err != nil || n > highest {
		return 0, errors.New(quote(s) + " is above " + strconv.Itoa(highest))
	}
	return n, nil
}

// chosen checks a name that must be one of the table's.
func (c *checker) chosen(pointer string, table []named, name, what string) bool {
	if name == "" {
		c.not(pointer, "", "must be specified", choices(name, namesIn(table)))
		return false
	}
	if _, ok := lookUp(table, name); !ok {
		c.not(pointer, quote(name), "unknown "+what, choices(name, namesIn(table)))
		return false
	}
	return true
}

func (c *checker) scheduler(pointer string, s *specs.Scheduler) {
	if s == nil {
		return
	}
	for i, f := range s.Flags {
		c.chosen(at(pointer, "flags", i), schedulerFlags[:], string(f), "flag")
	}
	if !c.chosen(pointer+"/policy", schedulerPolicies[:], string(s.Policy), "policy") {
		return
	}
	policy := string(s.Policy)
	keep := slices.Contains(s.Flags, specs.LinuxSchedulerFlag(keepParams))
	realtime := policy == "SCHED_FIFO" || policy == "SCHED_RR"
	switch {
	case policy == "SCHED_OTHER" || policy == "SCHED_BATCH":
		if s.Nice < -20 || s.Nice > 19 {
			c.not(pointer+"/nice", number(s.Nice), "out of range", integers(-20, 19))
		}
	case s.Nice != 0:
		c.warn(pointer+"/nice", number(s.Nice), "is ignored with "+policy)
	}
	switch {
	case !realtime && s.Priority != 0:
		c.not(pointer+"/priority", number(s.Priority), "cannot be set for "+policy, "SCHED_FIFO or SCHED_RR")
	case realtime && !keep && (s.Priority < 1 || s.Priority > 99):
		c.not(pointer+"/priority", number(s.Priority), "out of range", integers(1, 99))
	}
	if policy != "SCHED_DEADLINE" {
		for _, v := range [...]struct {
			name  string
			value uint64
		}{{"runtime", s.Runtime}, {"deadline", s.Deadline}, {"period", s.Period}} {
			if v.value != 0 {
				c.not(at(pointer, v.name), number(v.value), "cannot be set for "+policy, "SCHED_DEADLINE")
			}
		}
		return
	}
	if keep {
		return
	}
	switch period := max(s.Period, s.Deadline); {
	case s.Runtime < minRuntime:
		c.not(pointer+"/runtime", number(s.Runtime), "too short", "nanoseconds, "+number(uint(minRuntime))+" and more")
	case s.Deadline < s.Runtime:
		c.not(pointer+"/deadline", number(s.Deadline), "shorter than the runtime", number(s.Runtime)+" and more")
	case s.Period != 0 && s.Period < s.Deadline:
		c.not(pointer+"/period", number(s.Period), "shorter than the deadline", "0, or "+number(s.Deadline)+" and more")
	case period >= 1<<63:
		c.not(pointer+"/period", number(period), "out of range", "nanoseconds, below 9223372036854775808")
	}
}

func (c *checker) ioPriority(pointer string, p *specs.LinuxIOPriority) {
	if p == nil {
		return
	}
	c.chosen(pointer+"/class", ioClasses[:], string(p.Class), "class")
	if p.Priority < 0 || p.Priority > 7 {
		c.not(pointer+"/priority", number(p.Priority), "out of range", integers(0, 7))
	}
}

func (c *checker) affinity(pointer string, a *specs.CPUAffinity) {
	if a == nil {
		return
	}
	c.bits(pointer+"/initial", a.Initial, maxCPU)
	c.bits(pointer+"/final", a.Final, maxCPU)
}

// bits checks a list of numbers and tells whether there is one.
func (c *checker) bits(pointer, list string, highest int) bool {
	m, err := mask(list, highest)
	if err != nil {
		c.not(pointer, quote(list), err.Error(), "numbers and ranges of them, such as 0-3,7")
	}
	return m != nil
}

func (c *checker) memoryPolicy(pointer string, p *specs.LinuxMemoryPolicy) {
	if p == nil {
		return
	}
	for i, f := range p.Flags {
		c.chosen(at(pointer, "flags", i), memoryFlags[:], string(f), "flag")
	}
	if slices.Contains(p.Flags, specs.MemoryPolicyFlagType(staticNodes)) && slices.Contains(p.Flags, specs.MemoryPolicyFlagType(relativeNodes)) {
		c.not(pointer+"/flags", "", "contradict each other", "either of "+staticNodes+" and "+relativeNodes)
	}
	given := c.bits(pointer+"/nodes", p.Nodes, maxNode)
	if !c.chosen(pointer+"/mode", memoryModes[:], string(p.Mode), "mode") {
		return
	}
	switch mode := string(p.Mode); mode {
	case "MPOL_DEFAULT", "MPOL_LOCAL":
		if given {
			c.not(pointer+"/nodes", quote(p.Nodes), "cannot be set for "+mode, "no nodes")
		}
	case "MPOL_PREFERRED":
	default:
		if !given && p.Nodes == "" {
			c.bad(pointer+"/nodes", "", "must be specified for "+mode)
		} else if !given {
			c.bad(pointer+"/nodes", quote(p.Nodes), "must not be empty for "+mode)
		}
	}
}

func (c *checker) personality(pointer string, p *specs.LinuxPersonality) {
	if p == nil {
		return
	}
	c.chosen(pointer+"/domain", personalities[:], string(p.Domain), "domain")
	for i, f := range p.Flags {
		// The specification defines none.
		c.warn(at(pointer, "flags", i), quote(string(f)), "unknown flag is ignored")
	}
}
