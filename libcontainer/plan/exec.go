package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ExecSpec is what a process that joins a running container needs.
type ExecSpec struct {
	Process *specs.Process
	// Namespaces are those of init that differ from rt's own: type and the
	// path of the namespace (/proc/PID/ns/...).
	Namespaces []specs.LinuxNamespace
	// MemoryPolicy and Personality are those of the container; nil for none.
	MemoryPolicy *specs.LinuxMemoryPolicy
	Personality  *specs.LinuxPersonality
	// Chroot is the host path of the root of a container without a mount
	// namespace; "" otherwise.
	Chroot string
}

// CompileExec compiles the plan of a process that joins a container. The
// stage is undumpable from its first operation: the container may be hostile.
func CompileExec(e *ExecSpec, facts *Facts) (*Plan, []string, error) {
	c := &compiler{
		spec:  &specs.Spec{Process: e.Process},
		linux: &specs.Linux{Namespaces: e.Namespaces, MemoryPolicy: e.MemoryPolicy, Personality: e.Personality},
		facts: facts, lastCap: facts.LastCap,
	}
	if c.lastCap == 0 {
		c.lastCap = len(capNames) - 1
	}
	c.plan.Ops = make([]Op, 0, 48)
	c.num(KindDumpable, byRuntime, 0)
	c.sheds = e.Process.Capabilities != nil
	affinity := e.Process.ExecCPUAffinity
	if affinity != nil {
		c.affinity("/process/execCPUAffinity/initial", affinity.Initial)
	}
	c.namespaces()
	if c.err == nil {
		c.raise()
		c.enter()
	}
	if affinity != nil {
		c.affinity("/process/execCPUAffinity/final", affinity.Final)
	}
	if c.err != nil {
		return nil, nil, c.err
	}
	if c.join&unix.CLONE_NEWUSER != 0 {
		c.op(KindSetroot, byRuntime)
	}
	c.keyring(0)
	c.op(KindSetsid, byRuntime)
	if e.Chroot != "" {
		c.data(KindRoot, "/root/path", e.Chroot)
		c.op(KindChroot, byRuntime)
	}
	if c.needHome() && facts.Home == "" {
		c.op(KindHome, "/process/user/uid")
	}
	if e.Process.Terminal {
		c.console(e.Process, 0)
	} else {
		c.num(KindStdio, byRuntime, uint64(e.Process.User.UID))
	}
	c.credentials(e.Process)
	c.ready()
	c.launch(e.Process)
	if c.err != nil {
		return nil, nil, c.err
	}
	c.receiveEarly(1) // undumpable first
	return &c.plan, c.warnings, nil
}

// shed gives up, before the process can be seen in the container that it joins,
// the capabilities that neither it nor its program is going to need: whoever has
// CAP_SYS_PTRACE in there may take it over (S2). In a user namespace
// nobody can, as its memory belongs to the host's.
func (c *compiler) shed() {
	if !c.sheds || c.userNamespace() {
		return
	}
	c.bounding(c.spec.Process.Capabilities)
	c.keep(c.join&unix.CLONE_NEWCGROUP != 0)
}

// shedRest follows once the cgroup namespace is joined, for which it took
// CAP_SYS_ADMIN.
func (c *compiler) shedRest() {
	if c.sheds && !c.userNamespace() {
		c.keep(false)
	}
}

// keep keeps what is still needed, with CAP_SYS_ADMIN if admin says so.
func (c *compiler) keep(admin bool) {
	p := c.spec.Process
	names := []string{
		"CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID", // for credentials
		"CAP_CHOWN",                        // of the terminal and of stdio
		"CAP_DAC_OVERRIDE",                 // the working directory
		"CAP_SYS_CHROOT",                   // without a mount namespace
		"CAP_SYS_RESOURCE", "CAP_SYS_NICE", // limits and scheduling
	}
	if admin || c.facts.Filter != "" && !p.NoNewPrivileges {
		names = append(names, "CAP_SYS_ADMIN")
	}
	names = append(append(names, p.Capabilities.Permitted...), p.Capabilities.Inheritable...)
	mask, _ := CapMask(names, c.lastCap) // of the program's own, unknown ones are told of later
	mask &= c.held()
	c.num(KindCaps, byRuntime, mask, mask)
}
