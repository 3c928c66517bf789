package libcontainer

import (
	"fmt"
	"os"

	"rt/libcontainer/bundle"
	"rt/libcontainer/plan"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// checkHostNamespaces refuses to set what belongs to a namespace that the
// config joins by a path, if that turns out to be rt's own: it would be set on the host.
func checkHostNamespaces(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	refuse := func(pointer string, t specs.LinuxNamespaceType) error {
		for i, n := range s.Linux.Namespaces {
			if n.Type == t && n.Path != "" && isOwn(n) {
				return fmt.Errorf("config.json: %s: cannot be set in the %s namespace of the host, which is %q of /linux/namespaces/%d; accepted is a new one, or one of another container", pointer, t, n.Path, i)
			}
		}
		return nil
	}
	for key := range s.Linux.Sysctl {
		if err := refuse("/linux/sysctl/"+key, bundle.SysctlNamespace(key)); err != nil {
			return err
		}
	}
	if len(s.Linux.NetDevices) > 0 {
		// They are there already.
		if err := refuse("/linux/netDevices", specs.NetworkNamespace); err != nil {
			return err
		}
	}
	if s.Hostname != "" {
		if err := refuse("/hostname", specs.UTSNamespace); err != nil {
			return err
		}
	}
	if s.Domainname != "" {
		return refuse("/domainname", specs.UTSNamespace)
	}
	return nil
}

// isOwn says whether the namespace is the one that rt is in. One that cannot be
// looked at is not: to join it will fail.
func isOwn(n specs.LinuxNamespace) bool {
	own, err := os.Stat("/proc/self/ns/" + plan.NamespaceFile(n.Type))
	if err != nil {
		return false
	}
	joined, err := os.Stat(n.Path)
	return err == nil && os.SameFile(own, joined)
}
