package systemd

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"rt/libcontainer/cgroup/systemd/unit"

	"golang.org/x/sys/unix"
)

// program is the agent, built by `make` from libcontainer/cgroup/systemd/agent.
//
//go:embed agent/agent
var program string

// ErrAbsent is wrapped by the errors of a host, or of a user, without systemd.
var ErrAbsent = errors.New("systemd not running on this host, cannot use systemd cgroups manager")

// patience is somewhat more than that of the agent, which tells what it waits for.
const patience = 40 * time.Second

// agent is a running agent. It ends when rt does, however that may be.
type agent struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *os.File
	dec *json.Decoder
}

// open starts an agent and connects it to systemd. It returns the cgroup of that.
func open(user bool, props []unit.Property) (*agent, string, error) {
	// What is so on most hosts that refuse needs no agent to tell.
	if st, err := os.Stat("/run/systemd/system"); err != nil || !st.IsDir() {
		return nil, "", ErrAbsent
	}
	fd, err := unix.MemfdCreate("rt-systemd", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("rt-systemd", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, "", fmt.Errorf("start systemd agent: create memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "rt-systemd")
	defer file.Close()
	if _, err := file.WriteString(program); err != nil {
		return nil, "", fmt.Errorf("start systemd agent: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil, "", fmt.Errorf("start systemd agent: seal memfd: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, "", fmt.Errorf("start systemd agent: %w", err)
	}
	defer w.Close()
	cmd := &exec.Cmd{Path: "/proc/self/fd/" + strconv.Itoa(fd), Args: []string{"rt-systemd"}, Dir: "/", Env: []string{}}
	for _, name := range []string{"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	// A terminal's signals are rt's to answer.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	a := newAgent(cmd, r, w)
	if err := a.start(); err != nil {
		r.Close()
		return nil, "", fmt.Errorf("start systemd agent: %w", err)
	}
	reply, err := a.ask(&unit.Request{Op: unit.Open, User: user, Properties: props})
	if err != nil {
		a.close()
		return nil, "", err
	}
	return a, reply.Group, nil
}

// newAgent is an agent that writes to w, to be read from r.
func newAgent(cmd *exec.Cmd, r, w *os.File) *agent {
	cmd.Stdout = w
	return &agent{cmd: cmd, out: r, dec: json.NewDecoder(r)}
}

func (a *agent) start() (err error) {
	if a.in, err = a.cmd.StdinPipe(); err == nil {
		err = a.cmd.Start()
	}
	return err
}

// ask sends one request and waits for its answer.
func (a *agent) ask(q *unit.Request) (r unit.Reply, err error) {
	if err := json.NewEncoder(a.in).Encode(q); err != nil {
		return r, fmt.Errorf("ask systemd agent to %s: %w", q.Op, err)
	}
	if err := a.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return r, fmt.Errorf("ask systemd agent to %s: %w", q.Op, err)
	}
	if err := a.dec.Decode(&r); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended")
		}
		return r, fmt.Errorf("ask systemd agent to %s: %w", q.Op, err)
	}
	switch {
	case r.Absent:
		return r, fmt.Errorf("%w%s", ErrAbsent, r.Error[min(len(r.Error), len(ErrAbsent.Error())):])
	case r.Error != "":
		return r, errors.New(r.Error)
	}
	return r, nil
}

// close ends the agent, whatever it is at.
func (a *agent) close() {
	a.in.Close()
	a.cmd.Process.Kill()
	a.cmd.Wait()
	a.out.Close()
}
