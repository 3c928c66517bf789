package plan

import (
	"encoding/binary"
	"strconv"

	"rt/libcontainer/bundle"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const (
	policyDeadline = 6  // SCHED_DEADLINE
	schedAttrSize  = 56 // SCHED_ATTR_SIZE_VER1, Linux 5.3

	memoryModeMask = 0x1fff // set_mempolicy(2): the mode without its flags
)

// tune compiles how the process is scheduled, and where its memory comes from.
func (c *compiler) tune(p *specs.Process) {
	if p.Scheduler != nil && !isDeadline(p.Scheduler) {
		c.scheduler(p.Scheduler)
	}
	if p.IOPriority != nil {
		c.num(KindTune, "/process/ioPriority", TuneIOPriority, uint64(bundle.IOPriority(p.IOPriority)))
	}
	if m := c.linux.MemoryPolicy; m != nil {
		nodes, err := bundle.Nodes(m.Nodes)
		if err != nil {
			c.fail("/linux/memoryPolicy/nodes", "%w", err)
		}
		c.num(KindTune, "/linux/memoryPolicy", TuneMemoryPolicy, uint64(bundle.MemoryPolicy(m))).Data[0].String = string(nodes)
	}
	if m := c.linux.Personality; m != nil {
		c.num(KindTune, "/linux/personality", TunePersonality, uint64(bundle.Personality(m)))
	}
}

func isDeadline(s *specs.Scheduler) bool {
	policy, _ := bundle.SchedulerPolicy(s)
	return policy == policyDeadline
}

func (c *compiler) scheduler(s *specs.Scheduler) {
	policy, flags := bundle.SchedulerPolicy(s)
	le := binary.LittleEndian
	b := make([]byte, 0, schedAttrSize)
	b = le.AppendUint32(b, schedAttrSize)
	b = le.AppendUint32(b, policy)
	b = le.AppendUint64(b, uint64(flags))
	b = le.AppendUint32(b, uint32(s.Nice))
	b = le.AppendUint32(b, uint32(s.Priority))
	for _, ns := range [...]uint64{s.Runtime, s.Deadline, s.Period} {
		b = le.AppendUint64(b, ns)
	}
	// The specification has no values for the clamps that two of the flags set: 0.
	b = le.AppendUint64(b, 0)
	c.num(KindTune, "/process/scheduler", TuneScheduler).Data[0].String = string(b)
}

// affinity compiles the CPUs that the process may use; an empty list says nothing.
func (c *compiler) affinity(pointer, list string) {
	cpus, err := bundle.CPUs(list)
	if err != nil {
		c.fail(pointer, "%w", err)
	}
	if len(cpus) > 0 {
		c.num(KindTune, pointer, TuneAffinity).Data[0].String = string(cpus)
	}
}

// tuneLine describes a KindTune.
func tuneLine(op *Op) (object, detail string) {
	d := op.Data[0].String
	switch op.Num[0] {
	case TuneScheduler:
		if len(d) != schedAttrSize {
			return "scheduler", ""
		}
		field := func(at int) uint32 { return binary.LittleEndian.Uint32([]byte(d[at:])) }
		name := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
		object = "scheduler policy " + name(field(4))
		switch policy := field(4); policy {
		case 1, 2:
			detail = "priority " + name(field(20))
		case policyDeadline:
			ns := func(at int) string { return strconv.FormatUint(binary.LittleEndian.Uint64([]byte(d[at:])), 10) }
			detail = "runtime " + ns(24) + " deadline " + ns(32) + " period " + ns(40)
		default:
			detail = "nice " + strconv.Itoa(int(int32(field(16))))
		}
		if flags := field(8); flags != 0 {
			detail += " flags 0x" + strconv.FormatUint(uint64(flags), 16)
		}
	case TuneIOPriority:
		object = "I/O priority"
		detail = "class " + strconv.FormatUint(op.Num[1]>>13, 10) + " priority " + strconv.FormatUint(op.Num[1]&7, 10)
	case TuneAffinity:
		object, detail = "CPU affinity", bitList(d)
	case TuneMemoryPolicy:
		object = "memory policy " + strconv.FormatUint(op.Num[1]&memoryModeMask, 10)
		detail = "nodes " + orNone(bitList(d))
		if flags := op.Num[1] &^ memoryModeMask; flags != 0 {
			detail += " flags 0x" + strconv.FormatUint(flags, 16)
		}
	case TunePersonality:
		object = "personality " + strconv.FormatUint(op.Num[1], 10)
	}
	return object, detail
}

// bitList renders a mask as a list of ranges.
func bitList(mask string) string {
	list := ""
	for i := 0; i < len(mask)*8; i++ {
		first := i
		for i < len(mask)*8 && mask[i/8]>>(i%8)&1 == 1 {
			i++
		}
		if i == first {
			continue
		}
		if list != "" {
			list += ","
		}
		list += strconv.Itoa(first)
		if i-1 > first {
			list += "-" + strconv.Itoa(i-1)
		}
	}
	return list
}
