// Package agent runs the program that rt embeds for what needs large libraries and is
// seldom wanted: every command of rt would pay for these at its start.
package agent

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

	"golang.org/x/sys/unix"
)

// program is built by `make` from libcontainer/agent/program.
//
//go:embed program/agent
var program string

// patience is somewhat more than that of the agent, which tells what it waits for.
const patience = 40 * time.Second

// Agent is a running agent, which answers one request after the other.
type Agent struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *os.File
	dec *json.Decoder
}

// Start executes the agent called name from a sealed memfd: unit.Agent, netdevice.Agent or criu.Guard, each
// with messages of its own. Of rt's environment it gets the variables named, and files
// as its descriptors from 3 on; they stay the caller's.
func Start(name string, variables []string, files ...*os.File) (_ *Agent, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start agent %s: %w", name, err)
		}
	}()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("create memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	if _, err := file.WriteString(program); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil, fmt.Errorf("seal memfd: %w", err)
	}
	cmd := &exec.Cmd{Path: "/proc/self/fd/" + strconv.Itoa(fd), Args: []string{name}, Dir: "/", Env: []string{}, ExtraFiles: files}
	for _, key := range variables {
		if v, ok := os.LookupEnv(key); ok {
			cmd.Env = append(cmd.Env, key+"="+v)
		}
	}
	return start(cmd)
}

func start(cmd *exec.Cmd) (*Agent, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	a := &Agent{cmd: cmd, out: r, dec: json.NewDecoder(r)}
	cmd.Stdout = w
	// A terminal's signals are rt's to answer.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.in, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return a, nil
}

// Ask sends the request q and reads the answer into r. What is asked for is called op in
// errors; after one the agent may still be at it, or out of step.
func (a *Agent) Ask(op string, q, r any) error {
	err := json.NewEncoder(a.in).Encode(q)
	if err == nil {
		err = a.out.SetReadDeadline(time.Now().Add(patience))
	}
	if err == nil {
		err = a.dec.Decode(r)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended")
	}
	if err != nil {
		return fmt.Errorf("ask agent %s to %s: %w", a.cmd.Args[0], op, err)
	}
	return nil
}

// Close ends the agent, whatever it is at.
func (a *Agent) Close() {
	a.in.Close()
	a.cmd.Process.Kill()
	a.cmd.Wait()
	a.out.Close()
}

// Leave lets the agent end by itself: it has no more requests to expect.
func (a *Agent) Leave() {
	a.in.Close()
	a.out.Close()
}
