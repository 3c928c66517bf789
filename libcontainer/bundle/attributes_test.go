package bundle

import (
	"encoding/hex"
	"fmt"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestAttributes(t *testing.T) {
	const (
		s, io, cpus, mem, dom = "/process/scheduler", "/process/ioPriority", "/process/execCPUAffinity", "/linux/memoryPolicy", "/linux/personality"

		policies = `"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"`
		flags    = `"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"`
		classes  = `"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"`
		modes    = `"MPOL_DEFAULT", "MPOL_PREFERRED", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE"`
		list     = "; accepted: numbers and ranges of them, such as 0-3,7"
		nices    = "; accepted: an integer from -20 to 19"
		rt       = "; accepted: an integer from 1 to 99"
	)
	bad := func(pointer, value, err string) row { return one(pointer+" "+value, pointer+" "+value, err) }
	ok := func(pointer, value string) row { return good(pointer+" "+value, pointer+" "+value) }
	for _, r := range []row{
		ok(s, `{"policy":"SCHED_OTHER"}`),
		ok(s, `{"policy":"SCHED_OTHER","nice":-20}`),
		ok(s, `{"policy":"SCHED_BATCH","nice":19,"flags":[`+flags+`]}`),
		ok(s, `{"policy":"SCHED_IDLE"}`),
		ok(s, `{"policy":"SCHED_ISO"}`),
		ok(s, `{"policy":"SCHED_FIFO","priority":1}`),
		ok(s, `{"policy":"SCHED_RR","priority":99}`),
		ok(s, `{"policy":"SCHED_RR","flags":["SCHED_FLAG_KEEP_PARAMS"]}`),
		ok(s, `{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":1024}`),
		ok(s, `{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":2000,"period":2000}`),
		ok(s, `{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_KEEP_PARAMS"]}`),
		{"nice of another policy", []string{s + ` {"policy":"SCHED_FIFO","priority":1,"nice":3}`}, "", s + "/nice: 3: is ignored with SCHED_FIFO"},
		bad(s, `{}`, s+"/policy: must be specified; accepted: "+policies),
		bad(s, `{"policy":"fifo"}`, s+`/policy: "fifo": unknown policy; accepted: `+policies),
		bad(s, `{"policy":"SCHED_OTHER","flags":["RESET"]}`, s+`/flags/0: "RESET": unknown flag; accepted: `+flags),
		bad(s, `{"policy":"SCHED_OTHER","nice":20}`, s+"/nice: 20: out of range"+nices),
		bad(s, `{"policy":"SCHED_BATCH","nice":-21}`, s+"/nice: -21: out of range"+nices),
		bad(s, `{"policy":"SCHED_OTHER","priority":1}`, s+"/priority: 1: cannot be set for SCHED_OTHER; accepted: SCHED_FIFO or SCHED_RR"),
		bad(s, `{"policy":"SCHED_FIFO"}`, s+"/priority: 0: out of range"+rt),
		bad(s, `{"policy":"SCHED_RR","priority":100}`, s+"/priority: 100: out of range"+rt),
		bad(s, `{"policy":"SCHED_RR","priority":-1}`, s+"/priority: -1: out of range"+rt),
		bad(s, `{"policy":"SCHED_IDLE","runtime":1,"period":2}`, s+"/period: 2: cannot be set for SCHED_IDLE; accepted: SCHED_DEADLINE; "+s+"/runtime: 1: cannot be set for SCHED_IDLE; accepted: SCHED_DEADLINE"),
		bad(s, `{"policy":"SCHED_DEADLINE","priority":1,"runtime":2000,"deadline":3000}`, s+"/priority: 1: cannot be set for SCHED_DEADLINE; accepted: SCHED_FIFO or SCHED_RR"),
		bad(s, `{"policy":"SCHED_DEADLINE","runtime":1023,"deadline":5000}`, s+"/runtime: 1023: too short; accepted: nanoseconds, 1024 and more"),
		bad(s, `{"policy":"SCHED_DEADLINE","runtime":5000,"deadline":4999}`, s+"/deadline: 4999: shorter than the runtime; accepted: 5000 and more"),
		bad(s, `{"policy":"SCHED_DEADLINE","runtime":5000,"deadline":6000,"period":5999}`, s+"/period: 5999: shorter than the deadline; accepted: 0, or 6000 and more"),
		bad(s, `{"policy":"SCHED_DEADLINE","runtime":5000,"deadline":6000,"period":9223372036854775808}`, s+"/period: 9223372036854775808: out of range; accepted: nanoseconds, below 9223372036854775808"),

		ok(io, `{"class":"IOPRIO_CLASS_RT","priority":0}`),
		ok(io, `{"class":"IOPRIO_CLASS_IDLE","priority":7}`),
		bad(io, `{"priority":1}`, io+"/class: must be specified; accepted: "+classes),
		bad(io, `{"class":"RT"}`, io+`/class: "RT": unknown class; accepted: `+classes),
		bad(io, `{"class":"IOPRIO_CLASS_BE","priority":8}`, io+"/priority: 8: out of range; accepted: an integer from 0 to 7"),
		bad(io, `{"class":"IOPRIO_CLASS_BE","priority":-1}`, io+"/priority: -1: out of range; accepted: an integer from 0 to 7"),

		ok(cpus, `{"initial":"0-3,7","final":" 0 , ,8191, 1 - 2 "}`),
		bad(cpus, `{"initial":"a"}`, cpus+`/initial: "a": "a" is no number`+list),
		bad(cpus, `{"initial":"0-"}`, cpus+`/initial: "0-": "" is no number`+list),
		bad(cpus, `{"initial":"0-1-2"}`, cpus+`/initial: "0-1-2": "1-2" is no number`+list),
		bad(cpus, `{"final":"-1"}`, cpus+`/final: "-1": "" is no number`+list),
		bad(cpus, `{"final":"3-1"}`, cpus+`/final: "3-1": "3-1" runs backwards`+list),
		bad(cpus, `{"final":"8192"}`, cpus+`/final: "8192": "8192" is above 8191`+list),
		bad(cpus, `{"final":"99999999999999999999"}`, cpus+`/final: "99999999999999999999": "99999999999999999999" is above 8191`+list),

		ok(mem, `{"mode":"MPOL_DEFAULT"}`),
		ok(mem, `{"mode":"MPOL_PREFERRED"}`),
		ok(mem, `{"mode":"MPOL_WEIGHTED_INTERLEAVE","nodes":"0-1023","flags":["MPOL_F_STATIC_NODES","MPOL_F_NUMA_BALANCING"]}`),
		bad(mem, `{"nodes":"0"}`, mem+"/mode: must be specified; accepted: "+modes),
		bad(mem, `{"mode":"BIND","nodes":"0"}`, mem+`/mode: "BIND": unknown mode; accepted: `+modes),
		bad(mem, `{"mode":"MPOL_BIND"}`, mem+"/nodes: must be specified for MPOL_BIND"),
		bad(mem, `{"mode":"MPOL_PREFERRED_MANY","nodes":", "}`, mem+`/nodes: ", ": must not be empty for MPOL_PREFERRED_MANY`),
		bad(mem, `{"mode":"MPOL_LOCAL","nodes":"0"}`, mem+`/nodes: "0": cannot be set for MPOL_LOCAL; accepted: no nodes`),
		bad(mem, `{"mode":"MPOL_BIND","nodes":"1024"}`, mem+`/nodes: "1024": "1024" is above 1023`+list),
		bad(mem, `{"mode":"MPOL_BIND","nodes":"0","flags":["STATIC"]}`, mem+`/flags/0: "STATIC": unknown flag; accepted: "MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"`),
		bad(mem, `{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}`, mem+"/flags: contradict each other; accepted: either of MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES"),

		ok(dom, `{"domain":"LINUX"}`),
		bad(dom, `{}`, dom+`/domain: must be specified; accepted: "LINUX", "LINUX32"`),
		bad(dom, `{"domain":"BSD"}`, dom+`/domain: "BSD": unknown domain; accepted: "LINUX", "LINUX32"`),
		{"flags of a personality", []string{dom + ` {"domain":"LINUX32","flags":["ADDR_NO_RANDOMIZE"]}`}, "", dom + `/flags/0: "ADDR_NO_RANDOMIZE": unknown flag is ignored`},
	} {
		r.run(t)
	}
}

// The numbers are those of the kernel's headers.
func TestAttributeNumbers(t *testing.T) {
	policy, flags := SchedulerPolicy(&specs.Scheduler{Policy: "SCHED_DEADLINE", Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX"}})
	got := fmt.Sprint(policy, flags,
		IOPriority(&specs.LinuxIOPriority{Class: "IOPRIO_CLASS_IDLE", Priority: 5}),
		MemoryPolicy(&specs.LinuxMemoryPolicy{Mode: "MPOL_PREFERRED_MANY", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_STATIC_NODES"}}),
		Personality(&specs.LinuxPersonality{Domain: "LINUX32"}))
	if want := fmt.Sprint(6, 0x41, 3<<13|5, 5|1<<15, 8); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCPUs(t *testing.T) {
	for list, want := range map[string]string{
		"": "", " , ": "", "0": "0100000000000000", "0-3,7": "8f00000000000000", "7,0": "8100000000000000",
		"63": "0000000000000080", "64": "00000000000000000100000000000000", "62-65": "00000000000000c00300000000000000",
	} {
		m, err := CPUs(list)
		if got := hex.EncodeToString(m); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", list, got, err, want)
		}
	}
	if m, err := CPUs("0-8191"); err != nil || len(m) != 1024 {
		t.Errorf("all: %d bytes, %v", len(m), err)
	}
}

func FuzzCPUs(f *testing.F) {
	for _, s := range []string{"0-3,7", " 1 - 2 ,, 8191", "3-1", "-", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		m, err := CPUs(list)
		if err == nil && (len(m)%8 != 0 || len(m) > 1024) || err != nil && m != nil {
			t.Errorf("%q: %d bytes, %v", list, len(m), err)
		}
	})
}
