package bundle

import (
	"os"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The document, member by member: runtime-spec schema/config-schema.json. What
// is for other systems (solaris, windows, vm, zos, freebsd, process.commandLine,
// user.username) is unknown here, hence skipped.

func readSpec(d *decoder, s *specs.Spec) {
	d.object(
		member{"ociVersion", &s.Version},
		member{"process", structure(&s.Process, readProcess)},
		member{"root", structure(&s.Root, readRoot)},
		member{"hostname", &s.Hostname},
		member{"domainname", &s.Domainname},
		member{"mounts", list(&s.Mounts, maxMounts, readMount)},
		member{"hooks", structure(&s.Hooks, readHooks)},
		member{"annotations", &s.Annotations},
		member{"linux", structure(&s.Linux, readLinux)},
	)
}

func readRoot(d *decoder, r *specs.Root) {
	d.object(
		member{"path", &r.Path},
		member{"readonly", &r.Readonly},
	)
}

func readProcess(d *decoder, p *specs.Process) {
	d.object(
		member{"terminal", &p.Terminal},
		member{"consoleSize", structure(&p.ConsoleSize, readBox)},
		member{"user", func(d *decoder) { readUser(d, &p.User) }},
		member{"args", &p.Args},
		member{"env", &p.Env},
		member{"cwd", &p.Cwd},
		member{"capabilities", structure(&p.Capabilities, readCapabilities)},
		member{"rlimits", list(&p.Rlimits, maxList, readRlimit)},
		member{"noNewPrivileges", &p.NoNewPrivileges},
		member{"apparmorProfile", &p.ApparmorProfile},
		member{"oomScoreAdj", &p.OOMScoreAdj},
		member{"scheduler", structure(&p.Scheduler, readScheduler)},
		member{"selinuxLabel", &p.SelinuxLabel},
		member{"ioPriority", structure(&p.IOPriority, readIOPriority)},
		member{"execCPUAffinity", structure(&p.ExecCPUAffinity, readAffinity)},
	)
}

func readBox(d *decoder, b *specs.Box) {
	d.object(
		member{"height", &b.Height},
		member{"width", &b.Width},
	)
}

func readUser(d *decoder, u *specs.User) {
	d.object(
		member{"uid", &u.UID},
		member{"gid", &u.GID},
		member{"umask", &u.Umask},
		member{"additionalGids", &u.AdditionalGids},
	)
}

func readCapabilities(d *decoder, c *specs.LinuxCapabilities) {
	d.object(
		member{"bounding", &c.Bounding},
		member{"effective", &c.Effective},
		member{"inheritable", &c.Inheritable},
		member{"permitted", &c.Permitted},
		member{"ambient", &c.Ambient},
	)
}

func readRlimit(d *decoder, r *specs.POSIXRlimit) {
	seen := d.object(
		member{"type", &r.Type},
		member{"hard", &r.Hard},
		member{"soft", &r.Soft},
	)
	// A limit that was forgotten would be 0, and nothing would start.
	d.require(seen, 1<<1, "hard")
	d.require(seen, 1<<2, "soft")
}

// require refuses the object just read if seen lacks bit.
func (d *decoder) require(seen, bit uint64, name string) {
	if d.err == nil && seen&isObject != 0 && seen&bit == 0 {
		d.bad(at(string(d.dec.StackPointer()), name), "", "must be specified")
	}
}

func readScheduler(d *decoder, s *specs.Scheduler) {
	d.object(
		member{"policy", (*string)(&s.Policy)},
		member{"nice", &s.Nice},
		member{"priority", &s.Priority},
		member{"flags", names(&s.Flags)},
		member{"runtime", &s.Runtime},
		member{"deadline", &s.Deadline},
		member{"period", &s.Period},
	)
}

func readIOPriority(d *decoder, p *specs.LinuxIOPriority) {
	d.object(
		member{"class", (*string)(&p.Class)},
		member{"priority", &p.Priority},
	)
}

func readAffinity(d *decoder, a *specs.CPUAffinity) {
	d.object(
		member{"initial", &a.Initial},
		member{"final", &a.Final},
	)
}

func readMount(d *decoder, m *specs.Mount) {
	d.object(
		member{"destination", &m.Destination},
		member{"type", &m.Type},
		member{"source", &m.Source},
		member{"options", &m.Options},
		member{"uidMappings", list(&m.UIDMappings, maxMappings, readMapping)},
		member{"gidMappings", list(&m.GIDMappings, maxMappings, readMapping)},
	)
}

func readMapping(d *decoder, m *specs.LinuxIDMapping) {
	d.object(
		member{"containerID", &m.ContainerID},
		member{"hostID", &m.HostID},
		member{"size", &m.Size},
	)
}

func readHooks(d *decoder, h *specs.Hooks) {
	d.object(
		// Deprecated, and still in every GPU bundle.
		member{"prestart", list(&h.Prestart, maxList, readHook)},
		member{"createRuntime", list(&h.CreateRuntime, maxList, readHook)},
		member{"createContainer", list(&h.CreateContainer, maxList, readHook)},
		member{"startContainer", list(&h.StartContainer, maxList, readHook)},
		member{"poststart", list(&h.Poststart, maxList, readHook)},
		member{"poststop", list(&h.Poststop, maxList, readHook)},
	)
}

func readHook(d *decoder, h *specs.Hook) {
	d.object(
		member{"path", &h.Path},
		member{"args", &h.Args},
		member{"env", &h.Env},
		member{"timeout", &h.Timeout},
	)
}

func readLinux(d *decoder, l *specs.Linux) {
	d.object(
		member{"uidMappings", list(&l.UIDMappings, maxMappings, readMapping)},
		member{"gidMappings", list(&l.GIDMappings, maxMappings, readMapping)},
		member{"sysctl", &l.Sysctl},
		member{"resources", structure(&l.Resources, readResources)},
		member{"cgroupsPath", &l.CgroupsPath},
		member{"namespaces", list(&l.Namespaces, maxList, readNamespace)},
		member{"devices", list(&l.Devices, maxList, readDevice)},
		member{"netDevices", byName(&l.NetDevices, readNetDevice)},
		member{"seccomp", structure(&l.Seccomp, readSeccomp)},
		member{"rootfsPropagation", &l.RootfsPropagation},
		member{"maskedPaths", &l.MaskedPaths},
		member{"readonlyPaths", &l.ReadonlyPaths},
		member{"mountLabel", &l.MountLabel},
		member{"intelRdt", structure(&l.IntelRdt, readIntelRdt)},
		member{"memoryPolicy", structure(&l.MemoryPolicy, readMemoryPolicy)},
		member{"personality", structure(&l.Personality, readPersonality)},
		member{"timeOffsets", byName(&l.TimeOffsets, readTimeOffset)},
	)
}

func readNamespace(d *decoder, n *specs.LinuxNamespace) {
	d.object(
		member{"type", (*string)(&n.Type)},
		member{"path", &n.Path},
	)
}

func readDevice(d *decoder, v *specs.LinuxDevice) {
	var mode *uint32
	seen := d.object(
		member{"path", &v.Path},
		member{"type", &v.Type},
		member{"major", &v.Major},
		member{"minor", &v.Minor},
		member{"fileMode", &mode},
		member{"uid", &v.UID},
		member{"gid", &v.GID},
	)
	if v.Type != "p" {
		d.require(seen, 1<<2, "major")
		d.require(seen, 1<<3, "minor")
	}
	if mode != nil {
		// Engines pass on st_mode as it is, with the type, which "type" says again.
		if t := *mode & syscall.S_IFMT; t == formatOf(v.Type) {
			*mode &^= t
		}
		m := os.FileMode(*mode)
		v.FileMode = &m
	}
}

// formatOf is the st_mode file type of a device type, 0 if unknown.
func formatOf(device string) uint32 {
	switch device {
	case "c", "u":
		return syscall.S_IFCHR
	case "b":
		return syscall.S_IFBLK
	case "p":
		return syscall.S_IFIFO
	}
	return 0
}

func readNetDevice(d *decoder, n *specs.LinuxNetDevice) {
	d.object(member{"name", &n.Name})
}

func readTimeOffset(d *decoder, o *specs.LinuxTimeOffset) {
	d.object(
		member{"secs", &o.Secs},
		member{"nanosecs", &o.Nanosecs},
	)
}

func readSeccomp(d *decoder, s *specs.LinuxSeccomp) {
	d.object(
		member{"defaultAction", (*string)(&s.DefaultAction)},
		member{"defaultErrnoRet", &s.DefaultErrnoRet},
		member{"architectures", names(&s.Architectures)},
		member{"flags", names(&s.Flags)},
		member{"listenerPath", &s.ListenerPath},
		member{"listenerMetadata", &s.ListenerMetadata},
		member{"syscalls", list(&s.Syscalls, maxList, readSyscall)},
	)
}

func readSyscall(d *decoder, s *specs.LinuxSyscall) {
	d.object(
		member{"names", &s.Names},
		member{"action", (*string)(&s.Action)},
		member{"errnoRet", &s.ErrnoRet},
		member{"args", list(&s.Args, maxList, readSyscallArg)},
	)
}

func readSyscallArg(d *decoder, a *specs.LinuxSeccompArg) {
	d.object(
		member{"index", &a.Index},
		member{"value", &a.Value},
		member{"valueTwo", &a.ValueTwo},
		member{"op", (*string)(&a.Op)},
	)
}

func readIntelRdt(d *decoder, r *specs.LinuxIntelRdt) {
	d.object(
		member{"closID", &r.ClosID},
		member{"schemata", &r.Schemata},
		member{"l3CacheSchema", &r.L3CacheSchema},
		member{"memBwSchema", &r.MemBwSchema},
		member{"enableMonitoring", &r.EnableMonitoring},
	)
}

func readMemoryPolicy(d *decoder, p *specs.LinuxMemoryPolicy) {
	d.object(
		member{"mode", (*string)(&p.Mode)},
		member{"nodes", &p.Nodes},
		member{"flags", names(&p.Flags)},
	)
}

func readPersonality(d *decoder, p *specs.LinuxPersonality) {
	d.object(
		member{"domain", (*string)(&p.Domain)},
		member{"flags", names(&p.Flags)},
	)
}
