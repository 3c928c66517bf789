package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"rt/libcontainer/bundle"
	"rt/libcontainer/cgroup"
	"rt/libcontainer/console"
	"rt/libcontainer/plan"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exec runs another process in a container that is created or running, with the
// container's namespaces and cgroup. In the foreground it returns the
// process's exit status; with Detach 0 once it runs. A failing exec touches
// nothing but the new process.
func (c *Container) Exec(o ExecOptions) (int, error) {
	e := &execution{container: c, opts: &o, warn: o.Warn}
	e.launch = launch{pidfd: -1, wait: patience(execWait)}
	if e.warn == nil {
		e.warn = func(string) {}
	}
	defer e.close()
	return e.run()
}

type execution struct {
	launch
	container *Container
	opts      *ExecOptions
	warn      func(string)
	config    *specs.Spec // the container's, if it has something for the process
}

func (e *execution) run() (int, error) {
	o := e.opts
	if o.IgnorePaused {
		if err := e.container.waitResumed(); err != nil {
			return 0, err
		}
	}
	var signals *console.Signals
	if !o.Detach {
		var err error
		if signals, err = console.Catch(); err != nil {
			return 0, err
		}
		defer signals.Stop()
	}
	if err := checkKernel(); err != nil {
		return 0, err
	}
	preserve, err := preserved(o.PreserveFDs)
	if err != nil {
		return 0, err
	}
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 0, fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	if err := e.spawn(preserve); err != nil {
		return 0, err
	}
	if o.PidFile != "" {
		if e.pidFile, err = filepath.Abs(o.PidFile); err != nil {
			return 0, fmt.Errorf("use pid file %q: %w", o.PidFile, err)
		}
	}
	if err := e.refuse(); err != nil {
		return 0, err
	}
	process, err := e.process()
	if err != nil {
		return 0, err
	}
	if err := checkProcessLabels("process", "", process); err != nil {
		return 0, err
	}
	e.spec = &specs.Spec{Process: process}
	if err := checkTerminal(process, o.ConsoleSocket, o.Detach); err != nil {
		return 0, err
	}
	if err := e.compile(process); err != nil {
		return 0, err
	}
	if err := e.dial(o.ConsoleSocket, o.PidfdSocket); err != nil {
		return 0, err
	}
	if !o.Detach {
		if process.Terminal {
			if e.foreground, err = console.Open(); err != nil {
				return 0, err
			}
			defer e.foreground.Close()
		}
	}
	e.commit = func() error { return e.deliverPidfd("setns") }
	e.early = o.PidfdSocket == "" && e.plan.Undisturbed()
	if err := e.enter(); err != nil {
		e.abort()
		return 0, err
	}
	if o.Detach {
		return 0, nil
	}
	signals.Forward(e.pidfd)
	status, err := waitChild(e.pid)
	signals.Finish()
	if e.foreground != nil {
		e.foreground.Close()
	}
	return status, err
}

// enter brings the process into the container and up to its program.
func (e *execution) enter() error {
	if err := e.openFiles(false); err != nil {
		return err
	}
	// What was opened by init's pid is init's only if that still lives.
	if alive, err := e.container.rec.Init.Alive(); err != nil || !alive {
		return errors.Join(errors.New("cannot exec in a stopped container"), err)
	}
	fault("exec.launch")
	if err := e.admit(); err != nil {
		return err
	}
	if err := e.start(); err != nil {
		return err
	}
	if err := e.converse(); err != nil {
		return err
	}
	if err := e.executed(); err != nil {
		return err
	}
	// Callers take a pid file for the proof that the process runs.
	fault("exec.pidfile")
	return writePidFile(e.pidFile, e.pid)
}

// waitResumed waits as long as the container is paused. A signal may end rt
// meanwhile: there is nothing to undo yet.
func (c *Container) waitResumed() error {
	for wait := 5 * time.Millisecond; c.rec != nil; wait = min(2*wait, 100*time.Millisecond) {
		status, err := c.status()
		if err != nil || status != Paused {
			return err
		}
		time.Sleep(wait)
	}
	return nil
}

// refuse checks the container's status and the options.
func (e *execution) refuse() error {
	c, o := e.container, e.opts
	if c.rec == nil {
		return fmt.Errorf("cannot exec in a container that is not created: %w", c.damaged)
	}
	status, err := c.status()
	switch {
	case err != nil:
		return err
	case status == Stopped:
		return errors.New("cannot exec in a stopped container")
	case status == Creating:
		// Its root may still be the host's.
		return errors.New("cannot exec in a container that is being created")
	case status == Created && unix.Geteuid() != 0:
		// Its first process is still the stage, which is undumpable: proc_pid_ns(5).
		return errors.New("cannot exec in a container that is created and not started: only root can, others have to start it first")
	case status == Paused && !o.IgnorePaused:
		return errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	return nil
}

// process is the process to run: the caller's, or the container's own with the
// caller's changes. As in runc, what the caller's leaves out of how a process is confined
// and scheduled is the container's.
func (e *execution) process() (*specs.Process, error) {
	o := e.opts
	e.config = &specs.Spec{}
	if o.Process != nil && !e.needsConfig(o.Process) {
		return o.Process, nil
	}
	data, err := e.container.dir.LoadConfig()
	if err != nil {
		return nil, err
	}
	if e.config, _, err = bundle.Parse("stored config.json", data); err != nil {
		return nil, err
	}
	if o.Process != nil {
		return inherit(*o.Process, e.config.Process), nil
	}
	p := e.config.Process
	if p == nil {
		p = &specs.Process{Cwd: "/"}
	}
	p.Args = o.Args
	p.Env = append(p.Env, o.Env...)
	p.Terminal = o.Terminal
	p.ConsoleSize = nil
	p.CommandLine = ""
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.User != "" {
		uid, gid, err := bundle.ParseUser(o.User)
		if err != nil {
			return nil, err
		}
		p.User.UID = uid
		if gid != nil {
			p.User.GID = *gid
		}
	}
	p.User.AdditionalGids = append(p.User.AdditionalGids, o.AdditionalGids...)
	if o.NoNewPrivs {
		p.NoNewPrivileges = true
	}
	if o.Apparmor != "" {
		p.ApparmorProfile = o.Apparmor
	}
	if o.ProcessLabel != "" {
		p.SelinuxLabel = o.ProcessLabel
	}
	addCaps(p, o.Caps)
	warnings, err := bundle.ValidateProcess("process", p)
	for _, w := range warnings {
		e.warn(w)
	}
	return p, err
}

// What a config has for every process of the container, as bits of extraKept: so
// that most of the time exec need not read the config.
const (
	keptRlimits   = 1 << iota
	keptScheduler // or ioPriority, execCPUAffinity
	keptLinux     // memoryPolicy, personality, a seccomp listener
)

func keptForExec(s *specs.Spec) int {
	kept := 0
	if p := s.Process; p != nil {
		if len(p.Rlimits) > 0 {
			kept |= keptRlimits
		}
		if p.Scheduler != nil || p.IOPriority != nil || p.ExecCPUAffinity != nil {
			kept |= keptScheduler
		}
	}
	if l := s.Linux; l != nil && (l.MemoryPolicy != nil || l.Personality != nil || l.Seccomp != nil && l.Seccomp.ListenerPath != "") {
		kept |= keptLinux
	}
	return kept
}

// needsConfig says whether the container's config has something for p.
func (e *execution) needsConfig(p *specs.Process) bool {
	kept, err := strconv.Atoi(string(e.container.rec.Extra[extraKept]))
	if err != nil {
		kept = 0 // there is none
	}
	return p.Capabilities == nil || kept&keptLinux != 0 ||
		kept&keptRlimits != 0 && len(p.Rlimits) == 0 ||
		kept&keptScheduler != 0 && (p.Scheduler == nil || p.IOPriority == nil || p.ExecCPUAffinity == nil)
}

// inherit returns p with what it lacks from the container's own process.
func inherit(p specs.Process, own *specs.Process) *specs.Process {
	if own == nil {
		return &p
	}
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if len(p.Rlimits) == 0 {
		p.Rlimits = own.Rlimits
	}
	if p.Scheduler == nil {
		p.Scheduler = own.Scheduler
	}
	if p.IOPriority == nil {
		p.IOPriority = own.IOPriority
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = own.ExecCPUAffinity
	}
	return &p
}

// addCaps adds capabilities as exec --cap does: never to the inheritable set, and
// to the ambient one only where the container uses it.
func addCaps(p *specs.Process, caps []string) {
	if len(caps) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	c := p.Capabilities
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Permitted} {
		for _, name := range caps {
			if !slices.Contains(*set, name) {
				*set = append(*set, name)
			}
		}
	}
	if c.Inheritable != nil {
		for _, name := range caps {
			if slices.Contains(c.Inheritable, name) && !slices.Contains(c.Ambient, name) {
				c.Ambient = append(c.Ambient, name)
			}
		}
	}
}

func (e *execution) compile(p *specs.Process) error {
	c := e.container
	m, err := e.cgroup()
	if err != nil {
		return err
	}
	e.cg = m
	spec := plan.ExecSpec{Process: p}
	if e.exposed, err = c.exposed(p); err != nil {
		return err
	}
	var profile *specs.LinuxSeccomp
	if l := e.config.Linux; l != nil {
		spec.MemoryPolicy, spec.Personality, profile = l.MemoryPolicy, l.Personality, l.Seccomp
	}
	own := false
	for _, n := range c.rec.Namespaces {
		if n.Type == "mnt" {
			own = true
		}
		spec.Namespaces = append(spec.Namespaces, specs.LinuxNamespace{
			Type: plan.NamespaceType(n.Type),
			Path: "/proc/" + strconv.Itoa(c.rec.Init.Pid) + "/ns/" + n.Type,
		})
	}
	if !own {
		spec.Chroot = c.rec.Rootfs
	}
	filter, flags, err := c.filter()
	if err != nil {
		return err
	}
	rdt, err := recordedRdt(c.rec.Extra)
	if err != nil {
		return err
	}
	facts := plan.Facts{
		Rdt:    rdt.Tasks(),
		Filter: filter, FilterFlags: flags,
		ID: c.ID(), Bundle: c.rec.Bundle, Rootfs: c.rec.Rootfs,
		Capabilities: heldCapabilities(), HardLimits: hardLimits(p),
		Nested:       nested(),
		NoNewKeyring: c.noNewKeyring(), Home: c.home(p.User.UID),
		Cgroup: execCgroup(m),
	}
	if flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		if err := e.listen(profile, &facts); err != nil {
			return err
		}
	}
	var warnings []string
	e.plan, warnings, err = plan.CompileExec(&spec, &facts)
	for _, w := range warnings {
		e.warn(w)
	}
	return err
}

// cgroup is the manager of the cgroup that the process goes to: the
// container's, or a sub-cgroup.
func (e *execution) cgroup() (cgroup.Manager, error) {
	m, err := e.container.manager()
	if err != nil {
		return nil, err
	}
	rec := m.Record()
	if len(e.opts.Cgroup) > 0 {
		rec, err = rec.Below(e.opts.Cgroup)
	} else {
		rec, err = rec.Leaf(func() ([]byte, error) {
			return os.ReadFile("/proc/" + strconv.Itoa(e.container.rec.Init.Pid) + "/cgroup")
		})
	}
	if err != nil {
		return nil, err
	}
	return cgroup.Load(rec), nil
}

// execCgroup is how the container's existing cgroup is entered.
func execCgroup(m cgroup.Manager) plan.CgroupFacts {
	var f plan.CgroupFacts
	for _, d := range m.Record().Dirs {
		if d.Key == "" {
			f.Into = true
		} else {
			f.Tasks = append(f.Tasks, d.Host())
		}
	}
	return f
}

// What create keeps with the record, mostly for exec: its flag --no-new-keyring, the
// home directory that it found for the container's user, what of the config applies
// to every process (kept*), and so on.
const (
	extraKept         = "kept"
	extraNoNewKeyring = "no_new_keyring"
	extraHome         = "home"
	extraHomeUID      = "home_uid"
	extraTracer       = "tracer" // present if a process was given CAP_SYS_PTRACE
	extraStage        = "stage"  // what init executes until it is the user's program
)

// exposed says whether processes of the container may look at one that enters it:
// one of them was ever given CAP_SYS_PTRACE, or p, which enters now, is; or others
// share its pid namespace. In a user namespace they cannot,
// as the memory of the stage belongs to the host's.
func (c *Container) exposed(p *specs.Process) (bool, error) {
	for _, n := range c.rec.Namespaces {
		if n.Type == "user" {
			return false, nil
		}
	}
	if _, ok := c.rec.Extra[extraTracer]; ok {
		return true, nil
	}
	if !mayTrace(p) {
		return !c.rec.OwnPidNS, nil
	}
	if err := c.lock(); err != nil {
		return false, err
	}
	defer c.dir.Unlock()
	if c.rec.Extra == nil {
		c.rec.Extra = map[string]jsontext.Value{}
	}
	c.rec.Extra[extraTracer] = jsontext.Value("true")
	return true, c.dir.Save(c.rec)
}

// mayTrace says whether the process can have CAP_SYS_PTRACE.
func mayTrace(p *specs.Process) bool {
	const name = "CAP_SYS_PTRACE"
	if p == nil {
		return false
	}
	caps := p.Capabilities
	return caps == nil || slices.Contains(caps.Bounding, name) || slices.Contains(caps.Permitted, name) || slices.Contains(caps.Inheritable, name)
}

// home is the home directory that create found for uid; "" if it must be looked
// up in the container.
func (c *Container) home(uid uint32) string {
	if string(c.rec.Extra[extraHomeUID]) != strconv.FormatUint(uint64(uid), 10) {
		return ""
	}
	home, err := jsontext.AppendUnquote(nil, c.rec.Extra[extraHome])
	if err != nil {
		return ""
	}
	return string(home)
}

func (c *Container) noNewKeyring() bool { return string(c.rec.Extra[extraNoNewKeyring]) == "true" }
