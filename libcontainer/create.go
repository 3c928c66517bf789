package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"rt/libcontainer/agent"
	"rt/libcontainer/bundle"
	"rt/libcontainer/cgroup"
	"rt/libcontainer/cgroup/systemd"
	"rt/libcontainer/console"
	"rt/libcontainer/hooks"
	"rt/libcontainer/intelrdt"
	"rt/libcontainer/plan"
	"rt/libcontainer/state"
	"rt/nsenter"

	"github.com/go-json-experiment/json/jsontext"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// removeWait bounds the wait for a cgroup to become empty and go.
const removeWait = 10 * time.Second

// Create makes the container id from a bundle: its process waits at the gate for
// Start. After an error nothing is left of it.
func Create(root, id string, o CreateOptions) error {
	c, err := newCreation(root, id, &o, true, nil)
	if err != nil {
		return err
	}
	defer c.close()
	return c.create()
}

// creation is a container that is being made, by Create, Run or Restore.
type creation struct {
	launch
	id       string
	opts     *CreateOptions
	bundle   *bundle.Bundle
	root     *state.Root
	facts    *plan.Facts
	created  time.Time
	rec      state.Record
	preserve []int
	gate     bool
	warn     func(string)

	notify     *notifyProxy // of Run; nil for Create
	madeCgroup bool
	nested     bool         // rt is in a user namespace itself
	mover      *agent.Agent // of network devices that have been moved; nil without any
	rdt        intelrdt.Group
	madeRdt    bool
	rootless   bool // what is not permitted of the cgroup is passed over
}

// newCreation does all that has no side effect: everything that is wrong with
// the config or the options is found here. r is nil but for Restore.
func newCreation(root, id string, o *CreateOptions, gate bool, r *restoration) (_ *creation, err error) {
	if err := state.CheckID(id); err != nil {
		return nil, err
	}
	if err := checkKernel(); err != nil {
		return nil, err
	}
	c := &creation{id: id, opts: o, gate: gate, warn: o.Warn}
	if c.warn == nil {
		c.warn = func(string) {}
	}
	c.launch = launch{pidfd: -1, wait: patience(createWait)}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if o.CatchSignals {
		if c.signals, err = console.Catch(); err != nil {
			return nil, err
		}
	}
	if c.preserve, err = preserved(o.ListenFDs + o.PreserveFDs); err != nil {
		return nil, err
	}
	// Descriptors that the caller left open by mistake go to no child of ours.
	if err := unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("mark descriptors close-on-exec: %w", err)
	}
	if r == nil {
		if err := c.spawn(c.preserve); err != nil {
			return nil, err
		}
	}
	if o.PidFile != "" {
		if c.pidFile, err = filepath.Abs(o.PidFile); err != nil {
			return nil, fmt.Errorf("use pid file %q: %w", o.PidFile, err)
		}
	}
	if c.bundle, err = bundle.Load(o.Bundle); err != nil {
		return nil, err
	}
	for _, w := range c.bundle.Warnings {
		c.warn(w)
	}
	c.spec = c.bundle.Spec
	if err := checkHostNamespaces(c.spec); err != nil {
		return nil, err
	}
	if err := checkUnprivileged(c.spec); err != nil {
		return nil, err
	}
	if err := checkMapSize(c.spec); err != nil {
		return nil, err
	}
	if err := checkDevices(c.spec); err != nil {
		return nil, err
	}
	if err := checkLabels(c.spec); err != nil {
		return nil, err
	}
	if r == nil {
		err = c.begin(c.spec.Linux)
	} else {
		err = checkJoined(c.spec, c.warn)
	}
	if err != nil {
		return nil, err
	}
	c.nested = nested()
	if err := checkTerminal(c.spec.Process, o.ConsoleSocket, gate || o.Detach); err != nil {
		return nil, err
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	if c.cg, err = newManager(layout, c.spec, id, o, unix.Geteuid() != 0 || c.nested); err != nil {
		return nil, err
	}
	if err := c.chooseCgroup(layout); err != nil {
		return nil, err
	}
	if l := c.spec.Linux; l != nil && l.Resources != nil {
		warnings, err := c.cg.Check(l.Resources, nil)
		for _, w := range warnings {
			c.warn(w)
		}
		if err != nil {
			return nil, err
		}
	}
	if c.facts, err = gatherFacts(id, c.bundle, layout, c.cg, o); err != nil {
		return nil, err
	}
	if err := c.chooseRdt(); err != nil {
		return nil, err
	}
	c.facts.Gate = gate
	c.facts.Nested = c.nested
	c.facts.SetgroupsDenied = setgroupsDenied(c.spec)
	if o.NotifySocket != "" {
		c.facts.NotifyDir = filepath.Join(root, id, state.NotifyName)
	}
	if err := c.compileFilter(); err != nil {
		return nil, err
	}
	var warnings []string
	if c.plan, warnings, err = plan.Compile(c.spec, c.facts); err != nil {
		return nil, err
	}
	for _, w := range warnings {
		c.warn(w)
	}
	if r != nil {
		if err := r.prepare(c); err != nil {
			return nil, err
		}
	}
	if c.root, err = state.OpenRoot(root, true); err != nil {
		return nil, err
	}
	err = c.dial(o.ConsoleSocket, o.PidfdSocket)
	if err == nil && c.facts.ListenerState != nil {
		err = c.dialListener(c.spec.Linux.Seccomp.ListenerPath)
	}
	if err != nil {
		return nil, err
	}
	c.network, c.commit = c.moveDevices, c.commitCreate
	c.mounted = func() error { return c.hostHooks(c.pid) }
	if r != nil {
		c.commit = func() error { return nil } // of CRIU, which is not the container's process
	}
	return c, nil
}

// checkTerminal checks that what the config wants of a terminal and what the
// caller gives go together.
func checkTerminal(p *specs.Process, socket string, detach bool) error {
	terminal := p != nil && p.Terminal
	switch {
	case terminal && detach && socket == "":
		return errors.New("cannot allocate tty if rt will detach without setting console socket")
	case socket != "" && !(terminal && detach):
		return errors.New("cannot use console socket if rt will not detach or allocate tty")
	}
	return nil
}

// create makes the container, and unmakes it again when anything fails.
//
// The stage begins first, and makes the network namespace while the parent makes the rest.
func (c *creation) create() error {
	if err := c.openFiles(false); err != nil {
		return err
	}
	fault("create.launch")
	if err := c.start(); err != nil {
		c.abort()
		return err
	}
	if err := c.interrupted(nil); err != nil {
		c.abort()
		return err
	}
	if m, ok := c.cg.(*systemd.Manager); ok {
		if err := c.awaitStage(); err != nil {
			return c.interrupted(err)
		}
		m.Begin(c.stage.First())
		c.entered = m.Entered
	}
	if err := c.reserve(); err != nil {
		c.abort()
		return err
	}
	err := c.build()
	if c.gate {
		fault("create.done")
	}
	if err = c.interrupted(err); err != nil {
		c.rollback()
	} else if c.gate {
		c.leaveDevices()
	}
	return err
}

// reserve claims the id and writes down what is going to happen. It is the first
// effect that lasts; everything after it can be undone from what it has written.
func (c *creation) reserve() error {
	self, err := state.IdentityOf(unix.Getpid())
	if err != nil {
		return err
	}
	c.created = time.Now().UTC()
	in := state.Intent{Bundle: c.bundle.Dir, Creator: self, Created: c.created}
	if in.Cgroup, err = c.cg.Record().AppendJSON(nil); err != nil {
		return err
	}
	if h := c.spec.Hooks; h != nil {
		if in.Poststop, err = hooks.Encode(h.Poststop); err != nil {
			return err
		}
	}
	if !c.ownMounts() {
		if in.Extra, err = hostRootMount(c.facts.Rootfs); err != nil {
			return err
		}
	}
	if c.rdt.Clos != "" {
		if in.Extra == nil {
			in.Extra = map[string]jsontext.Value{}
		}
		if err := recordRdt(in.Extra, c.rdt); err != nil {
			return err
		}
	}
	if c.dir, err = c.root.Reserve(c.id, in); err != nil {
		return err
	}
	c.rec = state.Record{
		Bundle: in.Bundle, Rootfs: c.facts.Rootfs, Created: in.Created, Owner: uint32(unix.Geteuid()),
		Annotations: c.spec.Annotations, NoPivot: c.opts.NoPivot, Cgroup: in.Cgroup, Poststop: in.Poststop, Extra: in.Extra,
	}
	if c.rec.Extra == nil {
		c.rec.Extra = map[string]jsontext.Value{}
	}
	if c.opts.NoNewKeyring {
		c.rec.Extra[extraNoNewKeyring] = jsontext.Value("true")
	}
	if mayTrace(c.spec.Process) {
		c.rec.Extra[extraTracer] = jsontext.Value("true")
	}
	if kept := keptForExec(c.spec); kept != 0 {
		c.rec.Extra[extraKept] = jsontext.Value(strconv.Itoa(kept))
	}
	if c.facts.Filter != "" {
		c.rec.Extra[extraFilterFlags] = jsontext.Value(strconv.FormatUint(uint64(c.facts.FilterFlags), 10))
	}
	if c.facts.Home != "" {
		home, err := jsontext.AppendQuote(nil, c.facts.Home)
		if err != nil {
			home = []byte(`"/"`) // not UTF-8
		}
		c.rec.Extra[extraHome] = home
		c.rec.Extra[extraHomeUID] = jsontext.Value(strconv.FormatUint(uint64(c.spec.Process.User.UID), 10))
	}
	fault("create.claim")
	return nil
}

// ownMounts says whether the container's mounts vanish with its mount namespace.
func (c *creation) ownMounts() bool { return hasNamespace(c.spec, specs.MountNamespace) }

func hasNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	if s.Linux != nil {
		for _, n := range s.Linux.Namespaces {
			if n.Type == t {
				return true
			}
		}
	}
	return false
}

// newNamespace says whether the container gets a new namespace of the type.
func newNamespace(s *specs.Spec, t specs.LinuxNamespaceType) bool {
	if s.Linux != nil {
		for _, n := range s.Linux.Namespaces {
			if n.Type == t {
				return n.Path == ""
			}
		}
	}
	return false
}

func (c *creation) build() error {
	c.madeCgroup = true
	if err := c.cg.Create(); err != nil {
		c.madeCgroup = false
		return c.causeOf(err)
	}
	fault("create.cgroup")
	if c.rdt.Clos != "" {
		if err := c.rdt.Create(c.spec.Linux.IntelRdt); err != nil {
			return err
		}
		c.madeRdt = true
	}
	if err := c.limit(); err != nil {
		return err
	}
	if c.facts.NotifyDir != "" {
		if err := unix.Mkdirat(c.dir.FD(), state.NotifyName, 0o755); err != nil {
			return fmt.Errorf("make directory for readiness messages: %w", err)
		}
	}
	if c.gate {
		if err := c.dir.MakeFifos(); err != nil {
			return err
		}
	} else {
		// Without a gate the program may be ready before anything else happens.
		var err error
		if c.notify, err = listenNotify(c.dir, c.opts.NotifySocket); err != nil {
			return err
		}
	}
	fault("create.fifos")
	if err := c.openFiles(true); err != nil {
		return err
	}
	if err := c.sendFiles(true); err != nil {
		return err
	}
	fault("create.files")
	// The stage is at work on the other processor meanwhile. It runs nothing of
	// the container's before the commit.
	if c.oneProgram() {
		if err := c.devices(); err != nil {
			return err
		}
	}
	if err := c.dir.SaveConfig(c.bundle.Raw); err != nil {
		return err
	}
	if c.facts.Filter != "" {
		if err := c.dir.SaveFilter([]byte(c.facts.Filter)); err != nil {
			return err
		}
	}
	fault("create.config")
	return c.converse()
}

func (c *creation) limit() error {
	if l := c.spec.Linux; l != nil && l.Resources != nil && c.cg.Record().Mode != cgroup.None {
		if err := c.cg.Apply(l.Resources); err != nil {
			return err
		}
	}
	fault("create.limits")
	if c.oneProgram() {
		return nil
	}
	return c.devices()
}

// oneProgram says whether the device policy takes effect as a whole. On v1 it is
// written rule by rule; before the last one the stage could make no device nodes.
func (c *creation) oneProgram() bool { return c.cg.Record().Mode == cgroup.V2 }

// A caller without power over devices cannot grant any either: then there is no policy
// but the one that it is under itself.
func (c *creation) devices() error {
	if c.rootless {
		return nil
	}
	var rules []specs.LinuxDeviceCgroup
	if l := c.spec.Linux; l != nil && l.Resources != nil {
		rules = l.Resources.Devices
	}
	if err := c.cg.Devices(rules); err != nil {
		return err
	}
	fault("create.devices")
	return nil
}

// hostHooks runs the hooks of create that belong to the host. They run without
// the lock: one that asks for the container's state must not wait for itself.
func (c *creation) hostHooks(pid int) error {
	h := c.spec.Hooks
	fault("create.hooks")
	st := hookState(c.id, Creating, pid, c.bundle.Dir, c.spec.Annotations)
	o := hooks.Options{Dir: c.bundle.Dir, Interrupt: c.signals.FD()}
	c.dir.Unlock()
	err := hooks.RunList(hooks.Prestart, h.Prestart, st, o) //nolint:staticcheck // prestart is deprecated, not gone
	if err == nil {
		err = hooks.RunList(hooks.CreateRuntime, h.CreateRuntime, st, o)
	}
	if lockErr := c.dir.Lock(time.Now().Add(lockWait)); err == nil {
		err = lockErr
	}
	fault("create.hooked")
	return err
}

// complete completes the record with the container's first process.
func (c *creation) complete(pid int) error {
	var err error
	if c.rec.Init, err = state.IdentityOf(pid); err != nil {
		return err
	}
	c.rec.Namespaces = namespaceTypes(c.spec)
	c.rec.OwnPidNS = newNamespace(c.spec, specs.PIDNamespace)
	c.rec.Phase = state.PhaseCreated
	return nil
}

// commitCreate writes the record that makes the container one.
func (c *creation) commitCreate() error {
	err := c.complete(c.pid)
	if err != nil {
		return err
	}
	c.rec.Extra[extraStage] = jsontext.Value(imageJSON(c.stage.Image))
	c.rec.Operations = storedOps(nsenter.GateOps(c.plan))
	if h := c.spec.Hooks; h != nil {
		if c.rec.Poststart, err = hooks.Encode(h.Poststart); err != nil {
			return err
		}
	}
	fault("create.state")
	if err := c.deliverPidfd("standard"); err != nil {
		return err
	}
	if err := c.dir.Save(&c.rec); err != nil {
		return err
	}
	fault("create.pidfile")
	if err := writePidFile(c.pidFile, c.pid); err != nil {
		return err
	}
	c.wrotePidFile = c.pidFile != ""
	return c.keepDevices()
}

// namespaceTypes lists the namespaces that the config asks for: those that
// exec joins.
func namespaceTypes(s *specs.Spec) []state.Namespace {
	if s.Linux == nil {
		return nil
	}
	list := make([]state.Namespace, len(s.Linux.Namespaces))
	for i, n := range s.Linux.Namespaces {
		list[i].Type = plan.NamespaceFile(n.Type)
	}
	return list
}

// rollback undoes create: process, cgroup, mounts, hooks, directory.
func (c *creation) rollback() {
	c.abort()
	c.returnDevices()
	for _, fd := range c.files {
		unix.Close(fd)
	}
	c.files = nil
	if c.wrotePidFile {
		os.Remove(c.pidFile) // it names nobody any more; if it stays, so be it
	}
	if c.madeCgroup {
		deadline := time.Now().Add(removeWait)
		// A cgroup that was there before stays. Nothing could be cloned into it any more if
		// it were killed in vain (Linux 6.14 to 6.18 at least).
		if alive, err := c.cg.Populated(); alive || err != nil {
			c.cg.Kill()
			if err := c.cg.WaitEmpty(deadline); err != nil {
				c.warn(err.Error())
			}
		}
		c.cg.Close() // if descriptors have run out
		if err := c.cg.Undo(deadline); err != nil {
			// What is left stays known, for delete --force.
			c.warn(err.Error())
			return
		}
	}
	if c.madeRdt {
		if err := removeRdt(c.rec.Extra); err != nil {
			c.warn(err.Error())
		}
	}
	if err := unmountHostRoot(c.rec.Extra); err != nil {
		c.warn(err.Error())
	}
	if !c.none { // else there never was a process of the container's
		runPoststop(c.rec.Poststop, c.id, c.bundle.Dir, c.spec.Annotations, c.warn)
	}
	if err := c.dir.Remove(); err != nil {
		c.warn(err.Error())
	}
}

func runPoststop(raw jsontext.Value, id, bundle string, annotations map[string]string, warn func(string)) {
	list, err := hooks.Decode(raw)
	if err != nil {
		warn(err.Error())
		return
	}
	if len(list) == 0 {
		return
	}
	st := hookState(id, Stopped, 0, bundle, annotations)
	hooks.RunList(hooks.Poststop, list, st, hooks.Options{Dir: bundle, Warn: func(err error) { warn(err.Error()) }})
}

// close releases what the creation holds; the container lives on.
func (c *creation) close() {
	c.signals.Stop() // before the pidfd is closed to which it passes them on
	c.launch.close()
	if c.notify != nil {
		c.notify.close()
	}
	if c.cg != nil {
		c.cg.Close()
	}
	if c.dir != nil {
		c.dir.Close()
	}
	if c.root != nil {
		c.root.Close()
	}
}
