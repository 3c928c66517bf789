package libcontainer

import (
	"errors"
	"fmt"
	"strconv"

	"rt/libcontainer/plan"
	"rt/libcontainer/seccomp"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// compileFilter compiles the seccomp profile.
func (c *creation) compileFilter() error {
	if c.spec.Linux == nil || c.spec.Linux.Seccomp == nil {
		return nil
	}
	profile := c.spec.Linux.Seccomp
	p, warnings, err := seccomp.Compile(profile, "")
	if err != nil || p == nil {
		return err
	}
	for _, w := range warnings {
		c.warn(w)
	}
	c.facts.Filter, c.facts.FilterFlags = string(p.Filter), p.Flags
	if !p.Notify {
		return nil
	}
	if p.Flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0 && !filterFlag(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
		return errors.New("config.json: /linux/seccomp/flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: this kernel does not have it; Linux 5.19 does")
	}
	c.facts.ListenerState = plan.ListenerJSON(c.id, string(Creating), c.bundle.Dir, c.spec.Annotations, profile.ListenerMetadata, 0)
	return nil
}

// filterFlag asks the kernel whether it has a SECCOMP_FILTER_FLAG_*: if so it goes
// on to read the filter, of which there is none.
func filterFlag(flag uintptr) bool {
	if flag == unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV {
		flag |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER // it goes only with that one
	}
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flag, 0)
	return err == unix.EFAULT
}

// SeccompFlags lists those flags of a profile that this kernel has.
func SeccompFlags() []string {
	list := []string{}
	for _, name := range seccomp.Flags() {
		if filterFlag(uintptr(seccomp.Flag(name))) {
			list = append(list, name)
		}
	}
	return list
}

// extraFilterFlags is kept with the record if there is a filter: its flags.
const extraFilterFlags = "seccomp_flags"

// filter is the container's seccomp filter, as create compiled it.
func (c *Container) filter() (filter string, flags uint32, err error) {
	raw, ok := c.rec.Extra[extraFilterFlags]
	if !ok {
		return "", 0, nil
	}
	n, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil {
		return "", 0, fmt.Errorf("read seccomp flags of container %q: %w", c.ID(), err)
	}
	b, err := c.dir.LoadFilter()
	return string(b), uint32(n), err
}

// listen prepares an exec for a filter that has a listener: the profile says who
// receives it.
func (e *execution) listen(profile *specs.LinuxSeccomp, facts *plan.Facts) error {
	c := e.container
	if profile == nil || profile.ListenerPath == "" {
		return fmt.Errorf("read stored config.json of container %q: no listenerPath for its filter", c.ID())
	}
	facts.ListenerState = plan.ListenerJSON(c.ID(), string(Running), c.rec.Bundle, c.rec.Annotations, profile.ListenerMetadata, c.rec.Init.Pid)
	return e.dialListener(profile.ListenerPath)
}
