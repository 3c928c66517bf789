package bundle

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// sysctl accepts only what belongs to a namespace of the container: anything
// else would set the host's.
func (c *checker) sysctl(values map[string]string, n namespaceSet) {
	const pointer = "/linux/sysctl"
	paths := make([]string, 0, len(values))
	for key, value := range values {
		p, ok := sysctlPath(key)
		if !ok {
			c.not(at(pointer, key), "", "malformed name", `components of letters, digits, "_" and "-", separated by "." or by "/"`)
			continue
		}
		if strings.ContainsAny(value, "\x00\n") {
			c.bad(at(pointer, key), quote(value), "contains a NUL byte or a newline")
		}
		c.sysctlAllowed(at(pointer, key), p, n)
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for i := 1; i < len(paths); i++ {
		if paths[i] == paths[i-1] {
			c.bad(pointer, quote(paths[i]), "is set twice")
		}
	}
}

func (c *checker) sysctlAllowed(pointer, p string, n namespaceSet) {
	ns := sysctlNamespace(p)
	switch {
	case p == "kernel/hostname":
		c.bad(pointer, "", "cannot be set here, config.json has hostname for it")
	case ns == "":
		c.not(pointer, "", "belongs to no namespace, so it would be the host's",
			"net.*, user.*, fs.mqueue.*, kernel.domainname and those of System V IPC")
	case !n.listed(ns):
		c.bad(pointer, "", "cannot be set without a namespace of type "+quote(string(ns)))
	}
}

// SysctlNamespace is the type of namespace that a sysctl belongs to, named as in
// config.json; "" if it belongs to none.
func SysctlNamespace(key string) specs.LinuxNamespaceType {
	p, ok := sysctlPath(key)
	if !ok {
		return ""
	}
	return sysctlNamespace(p)
}

func sysctlNamespace(p string) specs.LinuxNamespaceType {
	top, _, _ := strings.Cut(p, "/")
	switch {
	case p == "kernel/domainname":
		return specs.UTSNamespace
	case isIPCSysctl(p) || strings.HasPrefix(p, "fs/mqueue/"):
		return specs.IPCNamespace
	case top == "net" && p != top:
		return specs.NetworkNamespace
	case top == "user" && p != top:
		return specs.UserNamespace
	}
	return ""
}

func isIPCSysctl(p string) bool {
	switch p {
	case "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall",
		"kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced":
		return true
	}
	return false
}

// sysctlPath is the path below /proc/sys of a name as sysctl.d(5) writes it:
// the first separator, "." or "/", is the separator, and the other one stands
// for a dot inside a component. It is false for names that are malformed.
func sysctlPath(key string) (string, bool) {
	p := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		p = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." {
			return "", false
		}
		for i := range len(part) {
			if b := part[i]; !isAlnum(b) && b != '_' && b != '-' && b != '.' {
				return "", false
			}
		}
	}
	return p, true
}
