package libcontainer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rt/libcontainer/bundle"
	"rt/libcontainer/cgroup"
	"rt/libcontainer/console"
	"rt/libcontainer/criu"
	"rt/libcontainer/plan"
	"rt/libcontainer/state"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// criuWait is how long CRIU may do nothing that shows in the files that it writes.
const criuWait = 120 * time.Second

// criuUndo is how long it has to undo a checkpoint.
const criuUndo = 500 * time.Millisecond

// ImageOptions are those that Checkpoint and Restore share; what each means for processes criu(8) says.
type ImageOptions struct {
	// ImagePath is the directory of the images; WorkPath that of logs, "" for the same.
	ImagePath, WorkPath string
	// TCPEstablished, ExtUnixSk, ShellJob, FileLocks: allow open TCP connections, sockets whose peers are
	// outside, processes of a session of the caller's, and file locks.
	TCPEstablished, ExtUnixSk, ShellJob, FileLocks bool
	// CgroupsMode is soft, full, strict or ignore; "" is soft.
	CgroupsMode string
	// EmptyNetwork leaves the content of the network namespace to somebody else.
	EmptyNetwork bool
	AutoDedup    bool
	// LazyPages leaves the memory to a server of pages.
	LazyPages bool
}

// logInfo is the level of CRIU's log. One more, and images that have been cut off fill the disk with it.
const logInfo = 3

// CheckpointOptions are the options of Container.Checkpoint.
type CheckpointOptions struct {
	ImageOptions
	// ParentPath is the directory of an earlier pre-dump, relative to ImagePath; "" for none.
	ParentPath string
	// LeaveRunning lets the container go on; else it is deleted.
	LeaveRunning bool
	// PreDump writes only memory, and lets the container go on.
	PreDump         bool
	TCPSkipInFlight bool
	// LinkRemap allows open files that have been removed.
	LinkRemap bool
	// PageServer is the ADDRESS:PORT of a server that gets the memory; "" for none.
	PageServer string
	// StatusFD is a descriptor that gets a zero byte when the server of lazy pages is ready; -1 for none.
	StatusFD int
	// CatchSignals makes SIGINT, SIGTERM, SIGHUP and SIGQUIT end Checkpoint with an error of type *Interrupted:
	// the container goes on.
	CatchSignals bool
	// Warn receives what deserves a line in the log; nil discards it.
	Warn func(string)
}

// Checkpoint writes the processes of a running or paused container to image files, and deletes the container unless
// it is to go on. After an error it goes on as it was.
func (c *Container) Checkpoint(o CheckpointOptions) error {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if err := checkKernel(); err != nil {
		return err
	}
	var signals *console.Signals
	if o.CatchSignals {
		var err error
		if signals, err = console.Catch(); err != nil {
			return err
		}
		defer signals.Stop()
	}
	if err := c.lock(); err != nil {
		return err
	}
	defer c.dir.Unlock()
	status, err := c.status()
	if err != nil {
		return err
	}
	if status != Running && status != Paused {
		return fmt.Errorf("Container cannot be checkpointed in %s state", status)
	}
	d := &dump{container: c, opts: &o, signals: signals}
	defer d.close()
	if err := d.prepare(); err != nil {
		return err
	}
	if err := d.run(); err != nil {
		if sig := signals.Caught(); sig != 0 {
			return &Interrupted{sig, err}
		}
		return err
	}
	if o.PreDump || o.LeaveRunning {
		return nil
	}
	fault("checkpoint.done")
	return c.delete(&DeleteOptions{Force: true, Warn: o.Warn})
}

// dump is a checkpoint that is being made.
type dump struct {
	container   *Container
	opts        *CheckpointOptions
	signals     *console.Signals
	manager     cgroup.Manager
	program     string
	images      *criu.Images
	work        *criu.Images
	descriptors []string
	req         rpc.CriuOpts
	saved       bool // the images are complete
}

func (d *dump) close() {
	if d.work != nil && d.work != d.images {
		d.work.Close()
	}
	if d.images != nil {
		d.images.Close()
	}
	if d.manager != nil {
		d.manager.Close()
	}
}

// prepare does all that changes nothing but directories.
func (d *dump) prepare() error {
	c, o := d.container, d.opts
	spec, p, err := c.storedPlan()
	if err != nil {
		return err
	}
	if err := checkJoined(spec, o.Warn); err != nil {
		return err
	}
	if d.program, err = criu.Program(); err != nil {
		return err
	}
	if d.manager, err = c.manager(); err != nil {
		return err
	}
	if d.images, d.work, err = openImages(&o.ImageOptions, true); err != nil {
		return err
	}
	pid := c.rec.Init.Pid
	var external []string
	if d.descriptors, external, err = describe(c.rec.Init); err != nil {
		return err
	}
	namespaces, err := externalNamespaces(pid, spec)
	if err != nil {
		return err
	}
	d.req = imageRequest(&o.ImageOptions, d.images, d.work, "dump.log")
	r := &d.req
	r.Root = &c.rec.Rootfs
	r.Pid = int32p(pid)
	r.LeaveRunning = &o.LeaveRunning
	r.TcpSkipInFlight = &o.TCPSkipInFlight
	r.LinkRemap = &o.LinkRemap
	r.External = append(external, namespaces...)
	if r.Ps, err = pageServer(o.PageServer); err != nil {
		return err
	}
	if o.ParentPath != "" {
		r.ParentImg, r.TrackMem = &o.ParentPath, new(true)
	}
	if o.PreDump {
		r.TrackMem = new(true)
		return nil
	}
	r.FreezeCgroup = d.freezer()
	r.ExtMnt, err = externalMounts(pid, p)
	return err
}

// freezer is the directory through which CRIU freezes the container; nil if there is none.
func (d *dump) freezer() *string {
	paths := d.manager.Paths()
	for _, key := range []string{"freezer", ""} {
		if p, ok := paths[key]; ok {
			return &p
		}
	}
	return nil
}

// run has CRIU do it.
func (d *dump) run() error {
	frozen, err := d.manager.Frozen()
	if err != nil {
		return err
	}
	if err := d.images.DropDescriptors(); err != nil {
		return err
	}
	conn, peer, err := criu.Pair()
	if err != nil {
		return err
	}
	defer conn.Close()
	said, err := unix.MemfdCreate("criu-stderr", unix.MFD_CLOEXEC)
	if err != nil {
		unix.Close(peer)
		return fmt.Errorf("create memfd: %w", err)
	}
	words := os.NewFile(uintptr(said), "criu-stderr")
	defer words.Close()
	end := os.NewFile(uintptr(peer), "criu")
	cmd := &exec.Cmd{
		Path: d.program, Args: criu.Args(3), Dir: "/", Env: criu.Environment, ExtraFiles: []*os.File{end},
		Stdout: words, Stderr: words,
		// A terminal's signals are rt's to answer; and one signal is to end it and all its children.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	fault("checkpoint.criu")
	err = cmd.Start()
	end.Close()
	if err != nil {
		return fmt.Errorf("start CRIU: %w", err)
	}
	if conn.Pidfd, err = unix.PidfdOpen(cmd.Process.Pid, 0); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return fmt.Errorf("open pidfd of CRIU: %w", err)
	}
	defer unix.Close(conn.Pidfd)
	conn.Interrupt = d.signals.FD()
	if !d.opts.LazyPages {
		conn.Wait = patience(criuWait)
	}
	conn.Progress = func() int64 { return d.images.Size() + d.work.Size() }
	typ := rpc.CriuReqType_DUMP
	if d.opts.PreDump {
		typ = rpc.CriuReqType_PRE_DUMP
	}
	_, err = conn.Do(&rpc.CriuReq{Type: &typ, Opts: &d.req}, d.event)
	conn.Close()
	if err != nil {
		// It undoes what it has done when it finds the connection at its end. If it does not soon, its tracees go on
		// when it dies. The process that traces them is a child of the one that rt knows.
		waitPidfd(conn.Pidfd, criuUndo)
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	}
	// After a pre-dump it waits for the dump, and calls the end of the connection an error.
	cmd.Wait()
	if err == nil {
		return nil
	}
	failed, answered := errors.AsType[*criu.Failed](err)
	if d.saved && !answered && !d.opts.LeaveRunning {
		// CRIU was about to end the processes, and may have begun with it. They are in the images, so what is left to
		// do is to delete the container.
		d.opts.Warn(err.Error())
		return nil
	}
	if answered {
		failed.Log = d.work.LogErrors("dump.log", 3)
	} else if errors.Is(err, criu.ErrEnded) {
		if text := firstLine(words); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
	}
	if derr := d.images.DropDescriptors(); derr != nil {
		d.opts.Warn(derr.Error())
	}
	if !answered {
		if nerr := criu.OpenNetwork(d.container.rec.Init.Pid); nerr != nil {
			d.opts.Warn(nerr.Error())
		}
	}
	if now, ferr := d.manager.Frozen(); ferr == nil && now && !frozen {
		if terr := d.manager.Thaw(); terr != nil {
			d.opts.Warn(terr.Error())
		}
	}
	return fmt.Errorf("checkpoint container %q: %w", d.container.ID(), err)
}

// event answers CRIU at its steps.
func (d *dump) event(e criu.Event) error {
	switch e.Name {
	case "post-dump":
		// All is written, and CRIU ends the processes next, or lets them go on.
		if d.opts.PreDump {
			return nil
		}
		fault("checkpoint.dumped")
		if err := d.images.SaveDescriptors(d.descriptors); err != nil {
			return err
		}
		d.saved = true
	case "status-ready":
		if d.opts.StatusFD < 0 {
			return nil
		}
		if _, err := unix.Write(d.opts.StatusFD, []byte{0}); err != nil {
			return fmt.Errorf("write to --status-fd %d: %w", d.opts.StatusFD, err)
		}
	}
	return nil
}

// storedPlan compiles the plan of a container again, from what its create has stored: what it
// mounted, and where that came from.
func (c *Container) storedPlan() (*specs.Spec, *plan.Plan, error) {
	raw, err := c.dir.LoadConfig()
	if err != nil {
		return nil, nil, err
	}
	spec, _, err := bundle.Parse("stored config.json", raw)
	if err != nil {
		return nil, nil, err
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, nil, err
	}
	m, err := c.manager()
	if err != nil {
		return nil, nil, err
	}
	defer m.Close()
	b := &bundle.Bundle{Dir: c.rec.Bundle, Spec: spec, Raw: raw}
	facts, err := gatherFacts(c.ID(), b, layout, m, &CreateOptions{NoPivot: c.rec.NoPivot})
	if err != nil {
		return nil, nil, err
	}
	if notify := c.dir.Path() + "/" + state.NotifyName; unix.Access(notify, unix.F_OK) == nil {
		facts.NotifyDir = notify
	}
	facts.Nested, facts.SetgroupsDenied = nested(), setgroupsDenied(spec)
	p, _, err := plan.Compile(spec, facts)
	return spec, p, err
}

// openImages opens and checks the two directories.
func openImages(o *ImageOptions, create bool) (images, work *criu.Images, err error) {
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	if images, err = criu.Open("image-path", o.ImagePath, create); err != nil {
		return nil, nil, err
	}
	work = images
	if o.WorkPath != "" && o.WorkPath != o.ImagePath {
		if work, err = criu.Open("work-path", o.WorkPath, true); err != nil {
			images.Close()
			return nil, nil, err
		}
		err = work.CheckLogs()
	}
	if err == nil {
		err = images.Check()
	}
	if err != nil {
		if work != images {
			work.Close()
		}
		images.Close()
		return nil, nil, err
	}
	return images, work, nil
}

// imageRequest is what the requests of both directions share. It is fixed but for
// the caller's options: nothing of the container's, annotations included, has a say in it.
func imageRequest(o *ImageOptions, images, work *criu.Images, log string) rpc.CriuOpts {
	r := rpc.CriuOpts{
		ImagesDirFd: int32p(images.FD()), WorkDirFd: int32p(work.FD()),
		LogLevel: int32p(logInfo), LogFile: &log, ConfigFile: criu.HostConfig(),
		NotifyScripts: new(true), EvasiveDevices: new(true), OrphanPtsMaster: new(true),
		TcpEstablished: &o.TCPEstablished, ExtUnixSk: &o.ExtUnixSk, ShellJob: &o.ShellJob, FileLocks: &o.FileLocks,
		AutoDedup: &o.AutoDedup, LazyPages: &o.LazyPages,
		ManageCgroups: new(true),
	}
	mode, _ := cgroupMode(o.CgroupsMode)
	r.ManageCgroupsMode = &mode
	if o.EmptyNetwork {
		r.EmptyNs = new(uint32(unix.CLONE_NEWNET))
	}
	return r
}

// cgroupMode is what ImageOptions.CgroupsMode means.
func cgroupMode(s string) (rpc.CriuCgMode, bool) {
	switch s {
	case "", "soft":
		return rpc.CriuCgMode_SOFT, true
	case "full":
		return rpc.CriuCgMode_FULL, true
	case "strict":
		return rpc.CriuCgMode_STRICT, true
	case "ignore":
		return rpc.CriuCgMode_IGNORE, true
	}
	return 0, false
}

// check checks what there is to check without a side effect.
func (o *ImageOptions) check() error {
	if _, ok := cgroupMode(o.CgroupsMode); !ok {
		return fmt.Errorf("Invalid manage-cgroups-mode value: %q; accepted are soft, full, strict and ignore", o.CgroupsMode)
	}
	return nil
}

// pageServer reads ADDRESS:PORT. An IPv6 address stands in brackets.
func pageServer(s string) (*rpc.CriuPageServerInfo, error) {
	if s == "" {
		return nil, nil
	}
	i := strings.LastIndexByte(s, ':')
	host := strings.TrimSuffix(strings.TrimPrefix(s[:max(i, 0)], "["), "]")
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if host == "" || err != nil || port == 0 {
		return nil, fmt.Errorf("Use --page-server ADDRESS:PORT to specify the page server: %q is not of that form", s)
	}
	return &rpc.CriuPageServerInfo{Address: &host, Port: int32p(int(port))}, nil
}

func int32p(n int) *int32 { return new(int32(n)) }

// firstLine is the first line of a file, at most 200 bytes of it.
func firstLine(f *os.File) string {
	b := make([]byte, 200)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return ""
	}
	for i := range n {
		if b[i] == '\n' {
			n = i
			break
		}
	}
	return string(b[:n])
}
