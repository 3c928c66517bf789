package libcontainer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"rt/libcontainer/agent"
	"rt/libcontainer/cgroup"
	"rt/libcontainer/criu"
	"rt/libcontainer/mounts"
	"rt/libcontainer/plan"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RestoreOptions are the options of Restore.
type RestoreOptions struct {
	// CreateOptions are those of Run; PidfdSocket, ListenFDs, PreserveFDs, NotifySocket and Keep
	// are not for Restore.
	CreateOptions
	ImageOptions
	// LSMProfile is the TYPE:NAME of another profile or label than that of the images ("apparmor:NAME",
	// "selinux:LABEL"), LSMMountContext another label for mounts; "" for the same.
	LSMProfile, LSMMountContext string
}

// Restore makes the container id from a bundle and the images of a checkpoint: with the cgroup, the limits and the hooks
// prestart and createRuntime of the config, and the processes of the images. It then behaves
// as Run, and returns the same status.
//
// The images are believed in nothing that the config says: before the processes go on it is made sure
// that they are confined as the config has it.
func Restore(root, id string, o RestoreOptions) (int, error) {
	o.CatchSignals = o.CatchSignals || !o.Detach
	r, err := openRestoration(&o)
	if err != nil {
		return 1, err
	}
	defer r.close()
	c, err := newCreation(root, id, &o.CreateOptions, false, r)
	if err != nil {
		return 1, err
	}
	defer c.close()
	if err := c.takeTerminal(); err != nil {
		return 1, err
	}
	defer c.foreground.Close()
	if err := c.create(); err != nil {
		return 1, err
	}
	err = c.executed()
	if err == nil {
		fault("restore.criu")
		err = r.run(c)
	}
	if err == nil {
		err = writePidFile(c.pidFile, c.pid)
		c.wrotePidFile = err == nil && c.pidFile != ""
	}
	if err == nil && o.Detach {
		err = c.interrupted(nil)
	}
	if err != nil {
		err = c.interrupted(err)
		c.abort() // CRIU first: until it is gone nobody else can reap what it traces
		r.kill()
		c.rollback()
		r.work.Sweep("restore.log")
		return 1, err
	}
	c.dir.Unlock()
	fault("restore.done")
	if o.Detach {
		return 0, nil
	}
	return c.attend()
}

// restoration is what a restore has besides a creation.
type restoration struct {
	opts        *RestoreOptions
	program     string
	images      *criu.Images
	work        *criu.Images
	descriptors []string

	conn   *criu.Conn
	peer   int        // CRIU's end of the connection; -1 once it has it
	joined []int      // namespaces that CRIU is to join, its descriptors from 4 on
	names  []string   // of those
	mode   string     // how CRIU is to manage cgroups
	plan   *plan.Plan // of the container, as its create would carry it out

	init     int          // pid of the container's first process; 0 until it exists
	pidfd    int          // of it; -1 until it exists
	cgroups  criu.Cgroups // of the container
	mounts   mounts.Tree  // of the container, once CRIU has made it
	guard    *agent.Agent // nil when it is not needed
	verified bool
}

// openRestoration does what has nothing to do with the config.
func openRestoration(o *RestoreOptions) (_ *restoration, err error) {
	r := &restoration{opts: o, peer: -1, pidfd: -1}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.images, r.work, err = openImages(&o.ImageOptions, false); err != nil {
		return nil, err
	}
	if r.descriptors, err = r.images.LoadDescriptors(); err != nil {
		return nil, err
	}
	if r.program, err = criu.Program(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *restoration) close() {
	if r.guard != nil {
		r.guard.Close() // all has been undone
	}
	if r.conn != nil {
		r.conn.Close()
	}
	r.handedOver()
	if r.pidfd >= 0 {
		unix.Close(r.pidfd)
	}
	r.closeImages()
}

func (r *restoration) closeImages() {
	if r.work != nil && r.work != r.images {
		r.work.Close()
	}
	if r.images != nil {
		r.images.Close()
	}
}

// handedOver closes what CRIU has by now.
func (r *restoration) handedOver() {
	if r.peer >= 0 {
		unix.Close(r.peer)
		r.peer = -1
	}
	for _, fd := range r.joined {
		unix.Close(fd)
	}
	r.joined = nil
}

// prepare replaces the plan of the container by that of CRIU, and has the stage for it executed.
func (r *restoration) prepare(c *creation) error {
	if c.facts.ListenerState != nil {
		return errors.New("config.json: /linux/seccomp: a container whose filter has a listener cannot be restored")
	}
	r.plan = c.plan
	if r.mode = r.opts.CgroupsMode; r.mode == "" {
		// Of itself CRIU puts all processes into its own cgroup, and they keep the namespace in which it is.
		r.mode = "ignore"
		if newNamespace(c.spec, specs.UserNamespace) && newNamespace(c.spec, specs.CgroupNamespace) {
			r.mode = "soft" // for that one is to belong to the other
		}
	}
	if r.mode != "ignore" {
		if err := r.images.CheckCgroups(); err != nil {
			return err
		}
	}
	if err := r.verifyFilter(); err != nil {
		return unlike(err)
	}
	var err error
	if c.plan, err = plan.CompileRestore(c.spec, c.facts, &plan.RestoreSpec{
		Program: r.program, Args: criu.Args(3), Env: criu.Environment,
		CgroupNamespace: r.mode == "ignore",
	}); err != nil {
		return err
	}
	if r.conn, r.peer, err = criu.Pair(); err != nil {
		return err
	}
	for _, n := range c.spec.Linux.Namespaces {
		name := joinName(n.Type)
		if n.Path == "" || name == "" || isOwn(n) {
			continue
		}
		fd, err := openNamespace(&plan.File{Path: n.Path, Type: plan.NamespaceFlag(n.Type)})
		if err != nil {
			return err
		}
		r.joined, r.names = append(r.joined, fd), append(r.names, name)
	}
	if err := c.spawn(append([]int{r.peer}, r.joined...)); err != nil {
		return err
	}
	// The descriptors must stay what they are until then.
	return c.awaitStage()
}

// run has CRIU, which is c's process, make the container's processes, and puts the first of those in
// its place.
func (r *restoration) run(c *creation) error {
	r.handedOver()
	if err := r.enter(c.pid); err != nil {
		return err
	}
	req, err := r.request(c)
	if err != nil {
		return err
	}
	if err := r.watch(c); err != nil {
		return err
	}
	r.conn.Pidfd, r.conn.Interrupt, r.conn.Wait = c.pidfd, c.signals.FD(), patience(criuWait)
	r.conn.Progress = func() int64 { return bytesRead(c.cg) }
	typ := rpc.CriuReqType_RESTORE
	_, err = r.conn.Do(&rpc.CriuReq{Type: &typ, Opts: req}, func(e criu.Event) error { return r.event(c, e) })
	if err != nil {
		if failed, ok := errors.AsType[*criu.Failed](err); ok {
			failed.Log = r.work.LogErrors("restore.log", 3)
		}
		return fmt.Errorf("restore container %q: %w", c.id, err)
	}
	if !r.verified {
		return fmt.Errorf("restore container %q: this CRIU lets the processes go on before they can be looked at; accepted is version 3.17 or newer", c.id)
	}
	// It ends by itself; if not it is no longer needed.
	r.conn.Close()
	var ws unix.WaitStatus
	if pid, err := wait4(c.pid, &ws, killWait); err != nil || pid != c.pid {
		unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
		wait4(c.pid, &ws, killWait)
	}
	unix.Close(c.pidfd)
	c.pid, c.pidfd = r.init, r.pidfd
	r.pidfd = -1
	return nil
}

// watch starts the guard.
func (r *restoration) watch(c *creation) error {
	var err error
	if r.guard, err = agent.Start(criu.Guard, nil); err != nil {
		return err
	}
	return r.askGuard(&criu.GuardRequest{Cgroup: c.rec.Cgroup})
}

func (r *restoration) askGuard(q *criu.GuardRequest) error {
	var reply criu.GuardReply
	err := r.guard.Ask("watch", q, &reply)
	if err == nil && reply.Error != "" {
		err = errors.New(reply.Error)
	}
	if err != nil {
		return fmt.Errorf("watch over the restore: %w", err)
	}
	return nil
}

// relax ends the guard.
func (r *restoration) relax() error {
	if r.guard == nil {
		return nil
	}
	err := r.askGuard(&criu.GuardRequest{Done: true})
	r.guard.Close()
	r.guard = nil
	return err
}

// enter replaces the directories by what CRIU sees of them in its mount namespace.
func (r *restoration) enter(pid int) error {
	images, err := r.images.As(pid)
	if err != nil {
		return err
	}
	work := images
	if r.work != r.images {
		if work, err = r.work.As(pid); err != nil {
			images.Close()
			return err
		}
	}
	r.closeImages()
	r.images, r.work = images, work
	return nil
}

// request is fixed but for the caller's options and what the config says.
func (r *restoration) request(c *creation) (*rpc.CriuOpts, error) {
	o := imageRequest(&r.opts.ImageOptions, r.images, r.work, "restore.log")
	o.Root = &c.facts.Rootfs
	o.RstSibling = new(true)
	if newNamespace(c.spec, specs.UserNamespace) {
		// The other way to restore mounts does not work in one (CRIU 4.1).
		o.MntnsCompatMode = new(true)
	}
	var err error
	if o.ExtMnt, err = hostMounts(r.plan); err != nil {
		return nil, err
	}
	o.InheritFd = criu.Inherited(r.descriptors)
	for i, name := range r.names {
		o.InheritFd = append(o.InheritFd, criu.Inherit(name, 4+i))
	}
	// CRIU is in the cgroup of the container.
	if r.cgroups, err = criu.ReadCgroups("/proc/" + strconv.Itoa(c.pid) + "/cgroup"); err != nil {
		return nil, err
	}
	mode, _ := cgroupMode(r.mode)
	o.ManageCgroupsMode = &mode
	if r.mode != "ignore" {
		o.CgRoot = r.cgroups.Roots()
	}
	if s := r.opts.LSMProfile; s != "" {
		o.LsmProfile = &s
	}
	if s := r.opts.LSMMountContext; s != "" {
		o.LsmMountContext = &s
	}
	return &o, nil
}

// event answers CRIU at its steps. It has read the images, which are hostile, but its own words are believed.
func (r *restoration) event(c *creation, e criu.Event) error {
	switch e.Name {
	case "setup-namespaces":
		if err := r.born(e.Pid); err != nil {
			return err
		}
		// Hooks take it for the container's, and may configure it.
		if err := unlike(r.verifyNamespace(c, specs.NetworkNamespace)); err != nil {
			return err
		}
		if h := c.spec.Hooks; h != nil && (len(h.Prestart) > 0 || len(h.CreateRuntime) > 0) { //nolint:staticcheck // prestart is deprecated, not gone
			return c.hostHooks(e.Pid)
		}
	case "post-restore":
		return r.born(e.Pid)
	case "orphan-pts-master":
		if e.FD < 0 {
			return errors.New("read CRIU: no descriptor came with the terminal")
		}
		if p := c.spec.Process; p == nil || !p.Terminal {
			return errors.New("the images have a terminal, and config.json has none at /process/terminal")
		}
		return c.deliverConsole(e.FD)
	case "pre-resume":
		// CRIU no longer gives up by itself; until it is answered all processes are stopped.
		err := r.confirm(c)
		if err != nil {
			// CRIU with them: until it is gone nobody else can reap what it traces.
			below, _ := descendants(r.init)
			c.cg.Kill()
			for _, pid := range below {
				unix.Kill(pid, unix.SIGKILL) // the images may have put them anywhere
			}
			r.kill()
		}
		return err
	}
	return nil
}

// born notes the container's first process.
func (r *restoration) born(pid int) error {
	if r.init != 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
		unix.Close(fd)
		return fmt.Errorf("read CRIU: process %d is not a child of rt", pid)
	}
	r.init, r.pidfd = pid, fd
	return nil
}

// confirm makes sure that the processes are those of such a container, and then makes it one.
func (r *restoration) confirm(c *creation) error {
	if r.init == 0 {
		return errors.New("read CRIU: it has not said which process is the first")
	}
	// If rt dies now they stay as they are, until the guard ends them.
	if err := c.cg.Freeze(); err != nil {
		return err
	}
	if err := r.verify(c); err != nil {
		return err
	}
	fault("restore.verified")
	if err := c.interrupted(nil); err != nil {
		return err
	}
	if err := c.complete(r.init); err != nil {
		return err
	}
	if err := c.dir.Save(&c.rec); err != nil {
		return err
	}
	if err := r.relax(); err != nil {
		return err
	}
	if err := c.cg.Thaw(); err != nil {
		return err
	}
	r.verified = true
	r.conn.Interrupt = 0 // from here on signals are the program's
	return nil
}

// kill ends the container's first process, if there is one.
func (r *restoration) kill() {
	if r.pidfd < 0 {
		return
	}
	unix.PidfdSendSignal(r.pidfd, unix.SIGKILL, nil, 0)
	var ws unix.WaitStatus
	wait4(r.init, &ws, killWait)
}

// bytesRead is how much all processes of a cgroup have read: what CRIU does longest is to fill their memory. That of
// images that have been cut off it looks for without end.
func bytesRead(m cgroup.Manager) (sum int64) {
	pids, err := m.Pids()
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/io") // proc_pid_io(5)
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(data), "\n")
		n, _ := strconv.ParseInt(strings.TrimPrefix(line, "rchar: "), 10, 64)
		sum += n
	}
	return sum
}
