package bundle

import specs "github.com/opencontainers/runtime-spec/specs-go"

// What the specification has and this version of rt has not: refused when it is
// asked for, rather than left out in silence. All of that is in this file.

// missing refuses a member if it is asked for. What is a subject and its verb.
func (c *checker) missing(asked bool, pointer, what string) {
	if asked {
		c.bad(pointer, "", what+" not built into this version of rt")
	}
}

func (c *checker) unsupportedSpec(s *specs.Spec, l *specs.Linux) {
	// What the profile says is judged where it is compiled (package seccomp).
	if f := l.Seccomp; f != nil && f.DefaultAction == "" && len(f.Syscalls) > 0 {
		c.bad("/linux/seccomp/defaultAction", "", "must be specified")
	}
	c.missing(len(l.NetDevices) > 0, "/linux/netDevices", "moving network devices is")
}

// asks tells whether a value is given and not zero.
func asks[T comparable](p *T) bool {
	var zero T
	return p != nil && *p != zero
}
