package bundle

import (
	"math"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// process checks a process whose document has it at base.
func (c *checker) process(base string, p *specs.Process) {
	c.command(base, p)
	c.environment(base+"/env", p.Env)
	c.user(base+"/user", &p.User)
	c.console(base, p)
	c.capabilities(base+"/capabilities", p.Capabilities)
	c.rlimits(base+"/rlimits", p.Rlimits)
	if n := p.OOMScoreAdj; n != nil && (*n < -1000 || *n > 1000) {
		c.not(base+"/oomScoreAdj", number(*n), "out of range", integers(-1000, 1000))
	}
	c.scheduler(base+"/scheduler", p.Scheduler)
	c.ioPriority(base+"/ioPriority", p.IOPriority)
	c.affinity(base+"/execCPUAffinity", p.ExecCPUAffinity)
}

func (c *checker) command(base string, p *specs.Process) {
	switch {
	case len(p.Args) == 0:
		c.bad(base+"/args", "", "args must not be empty")
	case p.Args[0] == "":
		c.bad(base+"/args/0", `""`, "the program's name must not be empty")
	default:
		c.strings(base+"/args", p.Args)
	}
	switch {
	case p.Cwd == "":
		c.bad(base+"/cwd", "", "Cwd property must not be empty")
	case p.Cwd[0] != '/':
		c.bad(base+"/cwd", quote(p.Cwd), "Cwd must be an absolute path")
	default:
		c.text(base+"/cwd", p.Cwd)
	}
}

func (c *checker) user(pointer string, u *specs.User) {
	c.id(pointer+"/uid", u.UID)
	c.id(pointer+"/gid", u.GID)
	for i, gid := range u.AdditionalGids {
		if gid == noID {
			c.id(at(pointer, "additionalGids", i), gid)
		}
	}
	if u.Umask != nil && *u.Umask > 0o777 {
		c.not(pointer+"/umask", number(*u.Umask), "out of range", "permission bits, 0 to 511 (0777)")
	}
}

func (c *checker) id(pointer string, id uint32) {
	if id == noID {
		c.not(pointer, number(id), "no valid id", integers(0, noID-1))
	}
}

// console checks the size, which counts only with a terminal. The kernel keeps
// it in 16 bits (struct winsize).
func (c *checker) console(base string, p *specs.Process) {
	if !p.Terminal || p.ConsoleSize == nil {
		return
	}
	if n := p.ConsoleSize.Height; n > math.MaxUint16 {
		c.not(base+"/consoleSize/height", number(n), "out of range", integers(0, math.MaxUint16))
	}
	if n := p.ConsoleSize.Width; n > math.MaxUint16 {
		c.not(base+"/consoleSize/width", number(n), "out of range", integers(0, math.MaxUint16))
	}
}

// capabilities only warns: the specification wants unknown names, and ambient
// ones that cannot be raised, to be passed over.
func (c *checker) capabilities(pointer string, caps *specs.LinuxCapabilities) {
	if caps == nil {
		return
	}
	c.capabilitySet(pointer+"/bounding", caps.Bounding)
	c.capabilitySet(pointer+"/effective", caps.Effective)
	c.capabilitySet(pointer+"/inheritable", caps.Inheritable)
	c.capabilitySet(pointer+"/permitted", caps.Permitted)
	c.capabilitySet(pointer+"/ambient", caps.Ambient)
	for i, name := range caps.Ambient {
		if isCapability(name) && !(slices.Contains(caps.Permitted, name) && slices.Contains(caps.Inheritable, name)) {
			c.warn(at(pointer, "ambient", i), quote(name), "ignored, it is not both permitted and inheritable")
		}
	}
}

func (c *checker) capabilitySet(pointer string, set []string) {
	for i, name := range set {
		if !isCapability(name) {
			c.warn(at(pointer, i), quote(name), "unknown capability is ignored")
		}
	}
}

func isCapability(name string) bool {
	switch name {
	case "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
		"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
		"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
		"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
		"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
		"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
		"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE",
		"CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
		"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE":
		return true
	}
	return false
}

func (c *checker) rlimits(pointer string, limits []specs.POSIXRlimit) {
	for i := range limits {
		r := &limits[i]
		switch {
		case !isRlimit(r.Type):
			c.not(at(pointer, i, "type"), quote(r.Type), "unknown resource", choices(r.Type, []string{
				"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS",
				"RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC",
				"RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
			}))
		case slices.ContainsFunc(limits[:i], func(o specs.POSIXRlimit) bool { return o.Type == r.Type }):
			c.bad(at(pointer, i, "type"), quote(r.Type), "resource is listed twice")
		case r.Soft > r.Hard:
			c.not(at(pointer, i, "soft"), number(r.Soft), "above the hard limit", "up to "+number(r.Hard))
		}
		if len(c.problems) >= maxProblems {
			return
		}
	}
}

func isRlimit(name string) bool {
	switch name {
	case "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS",
		"RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC",
		"RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK":
		return true
	}
	return false
}

// ParseUser parses exec's --user, "UID" or "UID:GID" in decimal digits; gid is
// nil if it is left out. There are no names, and 4294967295 is refused, for it
// means "unchanged" to setresuid(2).
func ParseUser(s string) (uid uint32, gid *uint32, err error) {
	u, g, hasGID := strings.Cut(s, ":")
	uid, ok := parseUserID(u)
	if ok && hasGID {
		gid = new(uint32)
		*gid, ok = parseUserID(g)
	}
	if !ok {
		return 0, nil, Problem{
			File: "user", Value: quote(s), Message: "bad uid or gid", Accepted: "UID or UID:GID, each " + integers(0, noID-1),
		}
	}
	return uid, gid, nil
}

func parseUserID(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != noID && isNumeric(s)
}
