package bundle

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Validate judges a whole specification by all that can be judged without the
// host. It returns warnings, a line each, and an error of type Problems.
func Validate(spec *specs.Spec) (warnings []string, err error) {
	c := checker{file: configName}
	c.spec(spec)
	return c.result()
}

// ValidateProcess judges a process that exec starts. Messages call it name.
func ValidateProcess(name string, p *specs.Process) (warnings []string, err error) {
	c := checker{file: name}
	c.process("", p)
	return c.result()
}

func (c *checker) spec(s *specs.Spec) {
	c.version(s.Version)
	c.root(s.Root)
	if s.Process != nil {
		c.process("/process", s.Process)
	}
	c.hooks(s.Hooks)
	c.annotations(s.Annotations)
	l := s.Linux
	if l == nil {
		l = new(specs.Linux)
	}
	n := c.namespaces(l.Namespaces)
	c.mounts(s.Mounts, n)
	c.hostNames(s, n)
	c.mappings(s.Process, l, n)
	c.timeOffsets(l.TimeOffsets, n)
	c.sysctl(l.Sysctl, n)
	c.devices(l.Devices)
	c.paths(l, n)
	c.propagation(l.RootfsPropagation)
	if l.Resources != nil {
		c.resources("/linux/resources", l.Resources)
	}
	c.memoryPolicy("/linux/memoryPolicy", l.MemoryPolicy)
	c.personality("/linux/personality", l.Personality)
	c.text("/linux/cgroupsPath", l.CgroupsPath)
	c.intelRdt(l.IntelRdt)
	c.netDevices(l.NetDevices, n)
	// What else the profile says is judged where it is compiled (package seccomp).
	if f := l.Seccomp; f != nil && f.DefaultAction == "" && len(f.Syscalls) > 0 {
		c.bad("/linux/seccomp/defaultAction", "", "must be specified")
	}
}

// version demands SemVer 2.0 of major version 1, as the specification does;
// later minor versions only add members.
func (c *checker) version(v string) {
	const accepted = "a semantic version 1.x.y"
	switch {
	case v == "":
		c.not("/ociVersion", "", "must be specified", accepted)
	case !isSemver(v):
		c.not("/ociVersion", quote(v), "not a semantic version", accepted)
	case !strings.HasPrefix(v, "1."):
		c.not("/ociVersion", quote(v), "unsupported version", accepted)
	}
}

// isSemver tells whether v is MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD], semver.org.
func isSemver(v string) bool {
	v, build, hasBuild := strings.Cut(v, "+")
	v, pre, hasPre := strings.Cut(v, "-")
	if hasBuild && !identifiers(build, false) || hasPre && !identifiers(pre, true) {
		return false
	}
	parts := 0
	for part := range strings.SplitSeq(v, ".") {
		if parts++; !isNumeric(part) || part[0] == '0' && len(part) > 1 {
			return false
		}
	}
	return parts == 3
}

// identifiers tells whether s is dot-separated [0-9A-Za-z-]+; in a prerelease
// numbers have no leading zero.
func identifiers(s string, prerelease bool) bool {
	for id := range strings.SplitSeq(s, ".") {
		if id == "" || prerelease && isNumeric(id) && id[0] == '0' && len(id) > 1 {
			return false
		}
		for i := range len(id) {
			if !isAlnum(id[i]) && id[i] != '-' {
				return false
			}
		}
	}
	return true
}

func isNumeric(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func isAlnum(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}

func (c *checker) root(r *specs.Root) {
	switch {
	case r == nil:
		c.bad("/root", "", "root must be specified")
	case r.Path == "":
		c.bad("/root/path", "", "must not be empty")
	default:
		c.text("/root/path", r.Path)
	}
}

// text refuses a NUL, which would cut s short on its way into the kernel. The
// decoder does so for all strings; this is for those not decoded from JSON.
func (c *checker) text(pointer, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		c.bad(pointer, quote(s), "contains a NUL byte")
	}
}

func (c *checker) hostNames(s *specs.Spec, n namespaceSet) {
	c.hostName("/hostname", s.Hostname, n)
	c.hostName("/domainname", s.Domainname, n)
}

func (c *checker) hostName(pointer, name string, n namespaceSet) {
	switch {
	case name == "":
	case !n.listed(specs.UTSNamespace):
		c.bad(pointer, quote(name), `cannot be set without a namespace of type "uts"`)
	case len(name) > maxUTS:
		c.not(pointer, quote(name), "too long", "up to 64 bytes")
	default:
		c.text(pointer, name)
	}
}

func (c *checker) annotations(a map[string]string) {
	if _, ok := a[""]; ok {
		c.bad("/annotations/", `""`, "an annotation's name must not be empty")
	}
}

// paths checks maskedPaths and readonlyPaths.
func (c *checker) paths(l *specs.Linux, n namespaceSet) {
	c.pathList("/linux/maskedPaths", l.MaskedPaths, n)
	c.pathList("/linux/readonlyPaths", l.ReadonlyPaths, n)
}

func (c *checker) pathList(pointer string, paths []string, n namespaceSet) {
	if len(paths) > 0 && !n.listed(specs.MountNamespace) {
		c.bad(pointer, "", `cannot be applied without a namespace of type "mount"`)
		return
	}
	for i, p := range paths {
		switch {
		case !strings.HasPrefix(p, "/"):
			c.not(at(pointer, i), quote(p), "not an absolute path", "a path that begins with /")
		case path.Clean(p) == "/":
			c.bad(at(pointer, i), quote(p), "cannot be the root itself, which has root.readonly")
		default:
			if strings.IndexByte(p, 0) >= 0 {
				c.text(at(pointer, i), p)
			}
		}
	}
}

func (c *checker) propagation(p string) {
	switch p {
	case "", "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable":
		return
	}
	c.not("/linux/rootfsPropagation", quote(p), "unknown propagation", choices(p, []string{
		"shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable",
	}))
}

func (c *checker) hooks(h *specs.Hooks) {
	if h == nil {
		return
	}
	c.hookList("/hooks/prestart", h.Prestart)
	c.hookList("/hooks/createRuntime", h.CreateRuntime)
	c.hookList("/hooks/createContainer", h.CreateContainer)
	c.hookList("/hooks/startContainer", h.StartContainer)
	c.hookList("/hooks/poststart", h.Poststart)
	c.hookList("/hooks/poststop", h.Poststop)
}

func (c *checker) hookList(pointer string, hooks []specs.Hook) {
	for i := range hooks {
		h, p := &hooks[i], at(pointer, i)
		switch {
		case h.Path == "":
			c.bad(p+"/path", "", "must be specified")
		case h.Path[0] != '/':
			c.not(p+"/path", quote(h.Path), "not an absolute path", "a path that begins with /")
		default:
			c.text(p+"/path", h.Path)
		}
		if h.Timeout != nil && *h.Timeout <= 0 {
			c.not(p+"/timeout", number(*h.Timeout), "must be positive", "seconds from 1 on, or no timeout")
		}
		c.strings(p+"/args", h.Args)
		c.environment(p+"/env", h.Env)
	}
}

// strings checks the arguments of a program.
func (c *checker) strings(pointer string, list []string) {
	for i, s := range list {
		switch {
		case len(s) > maxString:
			c.not(at(pointer, i), "", number(len(s))+" bytes", "up to "+number(maxString))
		case strings.IndexByte(s, 0) >= 0:
			c.text(at(pointer, i), s)
		}
	}
}

func (c *checker) environment(pointer string, env []string) {
	c.strings(pointer, env)
	for i, s := range env {
		if strings.IndexByte(s, '=') <= 0 {
			c.not(at(pointer, i), quote(s), "not a variable", "NAME=VALUE")
		}
	}
}
