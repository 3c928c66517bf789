package libcontainer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"rt/libcontainer/cgroup"
	"rt/libcontainer/console"
	"rt/libcontainer/hooks"
	"rt/libcontainer/plan"
	"rt/libcontainer/state"
	"rt/nsenter"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Deadlines for a stage that says nothing.
const (
	createWait = 120 * time.Second // its mounts may touch slow disks
	execWait   = 10 * time.Second  // it only joins
	killWait   = 10 * time.Second
)

// launch is a stage on its way to being a container's process: what create, run
// and exec share. Close releases what it holds; what is still running then dies.
type launch struct {
	plan *plan.Plan
	spec *specs.Spec // of create; exec fills Process only
	cg   cgroup.Manager
	dir  *state.Dir // of create: gate and result; nil otherwise
	wait time.Duration
	// exposed says that the stage enters a container that may look at it before it
	// has closed the cgroup's descriptor. That costs 0.4 ms: with the clone of the
	// mount goes a wait for an RCU grace period.
	exposed  bool
	files    []int // of plan.Files, until the stage has them
	idMaps   idMaps
	stage    *nsenter.Stage
	starting chan error // until awaitStage has been called
	none     bool       // the stage could not be executed

	consoleSocket *console.Socket
	pidfdSocket   *console.Socket
	listener      *console.Socket // for the seccomp listener
	foreground    *console.Foreground
	signals       *console.Signals // that interrupt it; nil for none
	pidFile       string
	wrotePidFile  bool

	pid   int // of the second process, 0 until it exists
	pidfd int // -1 until it exists
	last  int // index of the operation that the stage was heard from last

	// entered, if not nil, is called when the second process is in the cgroup and the first has ended.
	entered func() error
	// network is called when all mounts are done, to move network devices.
	network func() error
	// mounted is called after that, for the hooks of the host.
	mounted func() error
	// commit is called when the stage waits for nothing but the commit; early
	// says that it may be called, and the stage told, as soon as there is a
	// process: nobody is told of the container before it runs.
	commit func() error
	early  bool
}

// spawn executes the stage while its caller reads and compiles what becomes the plan: it
// is a process without a name or a trace, which ends with its parent.
func (l *launch) spawn(preserve []int) error {
	var err error
	if l.stage, err = nsenter.New(); err != nil {
		return err
	}
	l.starting = make(chan error, 1)
	go func(s *nsenter.Stage, done chan<- error) {
		done <- s.Start(&nsenter.Launch{Stdio: [3]int{0, 1, 2}, Preserve: preserve})
	}(l.stage, l.starting)
	return nil
}

// awaitStage waits until the stage has been executed. What needs no more of it than to send to it does
// not wait: to be woken costs a tenth of a millisecond.
func (l *launch) awaitStage() error {
	if l.starting == nil {
		return nil
	}
	err := <-l.starting
	l.starting, l.none = nil, err != nil
	return err
}

// begin lets the stage begin with what comes first in the plan of such a config.
func (l *launch) begin(linux *specs.Linux) error {
	if flags := plan.Ahead(linux); flags != 0 {
		return ignoreDead(l.stage.Begin(flags))
	}
	return nil
}

// ignoreDead passes over a stage that is dead: what it says of its end comes with its next message.
func ignoreDead(err error) error {
	if errors.Is(err, nsenter.ErrDied) {
		return nil
	}
	return err
}

// dial connects to the sockets that wait for descriptors, before there is
// anything to undo.
func (l *launch) dial(consoleSocket, pidfdSocket string) error {
	deadline := time.Now().Add(console.SendTimeout)
	var err error
	if consoleSocket != "" {
		if l.consoleSocket, err = console.Dial(consoleSocket, deadline); err != nil {
			return err
		}
	}
	if pidfdSocket != "" {
		l.pidfdSocket, err = console.Dial(pidfdSocket, deadline)
	}
	return err
}

// dialListener connects to the listenerPath of a seccomp profile.
func (l *launch) dialListener(path string) error {
	var err error
	if l.listener, err = console.Dial(path, time.Now().Add(console.SendTimeout)); err != nil {
		return fmt.Errorf("config.json: /linux/seccomp/listenerPath: %w", err)
	}
	return nil
}

// start gives the stage its plan, and the files that are open by now.
func (l *launch) start() error {
	l.stage.Interrupt = l.signals.FD()
	if err := ignoreDead(l.stage.SendPlan(l.plan, stageFault(l.plan))); err != nil {
		return err
	}
	return l.sendFiles(false)
}

// Interrupted is the error of a command that a signal has ended before its work was done, and
// that has undone it.
type Interrupted struct {
	Signal syscall.Signal
	// Err is what failed because of it, or beside it.
	Err error
}

func (e *Interrupted) Error() string {
	s := fmt.Sprintf("interrupted by signal %d (%s)", int(e.Signal), e.Signal)
	if errors.Is(e.Err, nsenter.ErrInterrupted) || errors.Is(e.Err, hooks.ErrInterrupted) {
		return s
	}
	return s + ": " + e.Err.Error()
}

func (e *Interrupted) Unwrap() error { return e.Err }

// interrupted is an *Interrupted with err if a signal has been caught, else err. With nil
// for err it finds out whether to go on.
func (l *launch) interrupted(err error) error {
	sig := l.signals.Caught()
	if sig == 0 {
		return err
	}
	if err == nil {
		err = nsenter.ErrInterrupted
	}
	return &Interrupted{sig, err}
}

// converse answers the stage until it has been told to commit.
func (l *launch) converse() error {
	if err := l.awaitStage(); err != nil {
		return err
	}
	for {
		m, err := l.stage.Recv(l.wait)
		if err != nil {
			return l.explain(err)
		}
		l.last = m.Op
		if err := l.answer(&m); err != nil {
			return l.explain(l.lastWords(err))
		}
		if m.Type == plan.MsgAck {
			return nil
		}
	}
}

// lastWords is the error that a stage reported before it died, if err only says
// that it is dead: with an early commit one side may find out before the other has spoken.
func (l *launch) lastWords(err error) error {
	if !errors.Is(err, state.ErrDead) && !errors.Is(err, nsenter.ErrDied) {
		return err
	}
	for {
		m, last := l.stage.Recv(l.wait)
		if last != nil {
			return last
		}
		for _, fd := range m.FDs {
			unix.Close(fd)
		}
	}
}

// executed waits until the user's program has taken the stage's place. The
// socket closes with execve(2), so its end after the last word means success.
func (l *launch) executed() error {
	wait := l.wait
	if slices.ContainsFunc(l.plan.Ops, func(op plan.Op) bool { return startHook(op.Kind, op.Num[2]) }) {
		wait = noDeadline
	}
	said := false
	for {
		m, err := l.stage.Recv(wait)
		if errors.Is(err, nsenter.ErrDied) && said {
			return nil
		}
		if err != nil {
			return l.explain(err)
		}
		l.last = m.Op
		said = m.Type == plan.MsgExec
	}
}

// noDeadline is for startContainer hooks, which have their own or mean to have none.
const noDeadline = 100 * 365 * 24 * time.Hour

func startHook(k plan.Kind, hook uint64) bool {
	return k == plan.KindHook && hook == plan.HookStartContainer
}

func (l *launch) answer(m *nsenter.Message) error {
	for _, fd := range m.FDs {
		defer unix.Close(fd)
	}
	switch m.Type {
	case plan.MsgChild:
		if err := l.born(int(m.Value)); err != nil || !l.early {
			return err
		}
		// While the stage is at work, which finds the answer waiting.
		return l.committed()
	case plan.MsgMaps:
		dir, err := openProc(l.pid)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		fault("parent.maps")
		if err := writeUserMaps(dir, l.pid, l.spec.Linux, l.signals.FD()); err != nil {
			return err
		}
		return l.stage.Go("", -1)
	case plan.MsgTime:
		dir, err := openProc(l.pid)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		fd, err := writeTimeOffsets(dir, l.spec.Linux.TimeOffsets)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return l.stage.Go("", fd)
	case plan.MsgCopyUp:
		if err := copyUp(m.FDs[0], m.FDs[1]); err != nil {
			return fmt.Errorf("%s: copy up: %w", l.plan.Line(m.Op), err)
		}
		return l.stage.Go("", -1)
	case plan.MsgHome:
		home := lookupHome(m.FDs[0], l.spec.Process.User.UID)
		if len(home) > plan.MaxText {
			home = "/"
		}
		return l.stage.Go(home, -1)
	case plan.MsgNetwork:
		if err := l.network(); err != nil {
			return err
		}
		return l.stage.Go("", -1)
	case plan.MsgMounted:
		if err := l.mounted(); err != nil {
			return err
		}
		return l.stage.Go("", -1)
	case plan.MsgConsole:
		if err := l.deliverConsole(m.FDs[0]); err != nil {
			return err
		}
		return l.stage.Go("", -1)
	case plan.MsgReady:
		l.reapFirst()
		if !l.early {
			return l.committed()
		}
	}
	return nil
}

func (l *launch) committed() error {
	if err := l.commit(); err != nil {
		return err
	}
	fault("parent.commit")
	if err := l.stage.Go("", -1); err != nil {
		return err
	}
	fault("parent.committed")
	return nil
}

// reapFirst reaps the first process once the second has spoken. It has ended by itself, or is in
// the wrong hands.
func (l *launch) reapFirst() {
	l.stage.KillFirst()
	l.stage.Reap()
}

// born notes the second process and sets what only the parent can.
func (l *launch) born(pid int) error {
	fault("parent.child")
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open pidfd of process %d: %w", pid, err)
	}
	// It will be killed if anything fails, so it must be the stage's, which made it a child of
	// ours: who has got hold of the first process may say any number.
	if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil || pid == l.stage.First() {
		unix.Close(fd)
		return fmt.Errorf("read stage: process %d is not its child", pid)
	}
	l.pid, l.pidfd = pid, fd
	if l.entered != nil {
		// The second waits for its last word: it must not be killed.
		if _, ended := l.stage.ReapWithin(l.wait); !ended {
			return errors.New("read stage: its first process has made the second and does not end")
		}
		if err := l.entered(); err != nil {
			return err
		}
	}
	if p := l.spec.Process; p != nil && p.OOMScoreAdj != nil {
		dir, err := openProc(pid)
		if err != nil {
			return err
		}
		defer unix.Close(dir)
		return writeProc(dir, "oom_score_adj", strconv.Itoa(*p.OOMScoreAdj), "/process/oomScoreAdj")
	}
	return nil
}

func (l *launch) deliverConsole(ptmx int) error {
	if l.foreground != nil {
		fd, err := unix.FcntlInt(uintptr(ptmx), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return fmt.Errorf("duplicate ptmx: %w", err)
		}
		return l.foreground.Start(fd)
	}
	return l.consoleSocket.Send("/dev/pts/ptmx", ptmx, time.Now().Add(console.SendTimeout))
}

// deliverPidfd sends the process's pidfd to its socket, if there is one.
func (l *launch) deliverPidfd(name string) error {
	if l.pidfdSocket == nil {
		return nil
	}
	return l.pidfdSocket.Send(name, l.pidfd, time.Now().Add(console.SendTimeout))
}

// explain finds the cause of a stage that died without a word.
func (l *launch) explain(err error) error {
	if errors.Is(err, nsenter.ErrTimeout) {
		return fmt.Errorf("%w: no progress for %v", err, l.wait)
	}
	if !errors.Is(err, nsenter.ErrDied) {
		return err
	}
	if n, oom := l.cg.OOMKills(); oom == nil && n > 0 {
		return errors.New("container init was OOM-killed (memory limit too low?)")
	}
	if l.pid == 0 {
		ws, ended := l.stage.ReapWithin(2 * time.Second)
		if !ended {
			return errors.New("the stage hung up, and lives")
		}
		fork := slices.IndexFunc(l.plan.Ops, func(op plan.Op) bool { return op.Kind == plan.KindFork })
		return fmt.Errorf("the stage died before it had entered the namespaces (operations 1 to %d): %s", fork+1, statusText(ws))
	}
	var ws unix.WaitStatus
	if pid, werr := wait4(l.pid, &ws, killWait); werr == nil && pid == l.pid {
		l.pid = 0
		if first, ended := l.stage.ReapWithin(0); ended && first.Signaled() {
			ws = first // of which the second has died
		}
		return fmt.Errorf("the stage died during set-up, after operation %d (%s): %s", l.last+1, l.plan.Line(l.last), statusText(ws))
	}
	return err
}

func statusText(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf("killed by signal %d (%s)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// wait4 waits for a child of ours, at most timeout.
func wait4(pid int, ws *unix.WaitStatus, timeout time.Duration) (int, error) {
	deadline := time.Now().Add(timeout)
	for {
		got, err := unix.Wait4(pid, ws, unix.WNOHANG, nil)
		if err == unix.EINTR || err == nil && got == 0 && time.Now().Before(deadline) {
			if got == 0 {
				unix.Poll(nil, 1) // ms; time.Sleep may need descriptors
			}
			continue
		}
		return got, err
	}
}

// writePidFile replaces the pid file by rename.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	const flags = os.O_WRONLY | os.O_CREATE | os.O_EXCL | unix.O_NOFOLLOW
	f, err := os.OpenFile(tmp, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		// Left by a command that was killed.
		if err = os.Remove(tmp); err == nil {
			f, err = os.OpenFile(tmp, flags, 0o644)
		}
	}
	if err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	_, err = f.WriteString(strconv.Itoa(pid))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// abort kills what has been started and waits for its end.
func (l *launch) abort() {
	if l.awaitStage() == nil && l.stage != nil {
		l.stage.KillFirst()
		l.stage.Close()
		l.stage.ReapWithin(2 * time.Second)
	}
	if l.pidfd >= 0 && l.pid != 0 {
		unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, 0)
		var ws unix.WaitStatus
		wait4(l.pid, &ws, killWait)
	}
}

// close releases descriptors. A stage that was not committed dies of it.
func (l *launch) close() {
	if l.starting != nil {
		l.abort() // it was not needed
	}
	l.idMaps.close()
	l.closeFiles()
	if l.stage != nil {
		l.stage.Close()
	}
	if l.pidfd >= 0 {
		unix.Close(l.pidfd)
		l.pidfd = -1
	}
	if l.consoleSocket != nil {
		l.consoleSocket.Close()
	}
	if l.pidfdSocket != nil {
		l.pidfdSocket.Close()
	}
	if l.listener != nil {
		l.listener.Close()
	}
}
