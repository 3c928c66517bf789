// Package test runs the built stage on the kernel at hand, with plans written
// by hand. It is no part of nsenter/stage itself, for a Go package cannot lie
// beside C files without cgo.
package test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

const stageBinary = "../stage"

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if fi, err := os.Stat(stageBinary); err != nil || fi.Size() == 0 {
		t.Fatal("the stage is not built: make -C nsenter/stage stage")
	}
}

// needFault fails without the stage that provokes faults.
func needFault(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(faultBinary); err != nil {
		t.Fatal("not built: make -C nsenter/stage stage-fault")
	}
}

type frame struct {
	Type, Op uint32
	Errno    unix.Errno
	Step     plan.Step
	Value    uint64
	Text     string
	Files    []*os.File
}

// result is what a stage did until its socket ended.
type result struct {
	frames []frame
	output string
	status unix.WaitStatus // of the second process
}

func (r *result) failure() *frame {
	for i := range r.frames {
		if r.frames[i].Type == plan.MsgError {
			return &r.frames[i]
		}
	}
	return nil
}

func (r *result) types() []uint32 {
	var types []uint32
	for _, f := range r.frames {
		types = append(types, f.Type)
	}
	return types
}

type launch struct {
	binary string
	plan   *plan.Plan
	raw    []byte // instead of plan
	fault  *plan.Fault
	files  []*os.File
	stdin  *os.File
	// reply answers a frame; false ends the connection instead. nil answers all.
	reply func(f *frame) (text string, fd int, ok bool)
	extra []*os.File // preserved descriptors
	early []packet   // sent before the plan
	loose bool       // do not seal the plan
	dir   string
}

func memfd(t *testing.T, content []byte, seal bool) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("plan", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "plan")
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if seal {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func receive(sock int) (*frame, error) {
	buf := make([]byte, plan.FrameSize+plan.MaxText+1)
	oob := make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR {
		n, oobn, _, _, err = unix.Recvmsg(sock, buf, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	return decodeFrame(buf[:n], oob[:oobn])
}

func decodeFrame(b, oob []byte) (*frame, error) {
	if len(b) < plan.FrameSize {
		return nil, fmt.Errorf("frame of %d bytes", len(b))
	}
	le := binary.LittleEndian
	f := &frame{
		Type: le.Uint32(b), Op: le.Uint32(b[4:]), Errno: unix.Errno(le.Uint32(b[8:])),
		Step: plan.Step(le.Uint32(b[12:])), Value: le.Uint64(b[16:]), Text: string(b[plan.FrameSize:]),
	}
	if int(le.Uint32(b[24:])) != len(f.Text) {
		return nil, fmt.Errorf("frame with text of %d bytes says %d", len(f.Text), le.Uint32(b[24:]))
	}
	if len(oob) > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob)
		if err != nil {
			return nil, err
		}
		for i := range msgs {
			fds, err := unix.ParseUnixRights(&msgs[i])
			if err != nil {
				return nil, err
			}
			for _, fd := range fds {
				f.Files = append(f.Files, os.NewFile(uintptr(fd), "passed"))
			}
		}
	}
	return f, nil
}

func sendGo(sock int, text string, fds ...int) error {
	b := make([]byte, plan.FrameSize+len(text))
	binary.LittleEndian.PutUint32(b, plan.MsgGo)
	binary.LittleEndian.PutUint32(b[24:], uint32(len(text)))
	copy(b[plan.FrameSize:], text)
	var oob []byte
	if len(fds) > 0 && fds[0] >= 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(sock, b, oob, nil, unix.MSG_NOSIGNAL)
}

type packet struct{ data, oob []byte }

// session is a stage that has been started.
type session struct {
	t      *testing.T
	sock   int
	cmd    *exec.Cmd
	output *os.File
	result result
	child  int
}

func (l launch) start(t *testing.T) *session {
	t.Helper()
	raw := l.raw
	if raw == nil {
		var err error
		if raw, err = l.plan.Encode(l.fault); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "stage")
	defer theirs.Close()
	p := memfd(t, raw, !l.loose)
	defer p.Close()
	out, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	if l.binary == "" {
		l.binary = stageBinary
	}
	cmd := &exec.Cmd{
		Path: l.binary, Args: []string{"rt-stage", strconv.Itoa(3 + len(l.extra))}, Env: []string{},
		Stdout: out, Stderr: out, Dir: l.dir,
	}
	if l.dir != "" {
		if cmd.Path, err = filepath.Abs(l.binary); err != nil {
			t.Fatal(err)
		}
	}
	if l.stdin != nil {
		cmd.Stdin = l.stdin
	}
	cmd.ExtraFiles = append(append([]*os.File{}, l.extra...), theirs)
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.early {
		if err := unix.Sendmsg(pair[0], p.data, p.oob, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, files := range [][]*os.File{{p}, l.files} {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		if len(fds) == 0 {
			continue
		}
		// The stage may have refused the plan, and be gone.
		if err := sendGo(pair[0], "", fds...); err != nil && err != unix.EPIPE {
			t.Fatal(err)
		}
	}
	s := &session{t: t, sock: pair[0], cmd: cmd, output: out}
	t.Cleanup(func() {
		s.close()
		if s.child > 0 {
			unix.Kill(s.child, unix.SIGKILL)
			unix.Wait4(s.child, nil, 0, nil)
		}
		out.Close()
	})
	return s
}

func (s *session) close() {
	if s.sock >= 0 {
		unix.Close(s.sock)
		s.sock = -1
	}
}

// next receives a frame; nil at the end.
func (s *session) next() *frame {
	s.t.Helper()
	f, err := receive(s.sock)
	if errors.Is(err, unix.ECONNRESET) {
		// It ended with something unread, which is told before what it has said last.
		f, err = receive(s.sock)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	if err != nil {
		s.t.Fatalf("receive: %v", err)
	}
	if f.Type == plan.MsgChild {
		s.child = int(f.Value)
	}
	s.result.frames = append(s.result.frames, *f)
	return f
}

// until receives, and answers MsgGo to, frames up to the first of type want.
func (s *session) until(want uint32) *frame {
	s.t.Helper()
	for {
		f := s.next()
		if f == nil {
			s.t.Fatalf("the stage ended before message %d: %+v", want, s.result.frames)
		}
		if f.Type == want {
			return f
		}
		if f.Type == plan.MsgError {
			s.t.Fatalf("the stage failed before message %d: %+v", want, *f)
		}
		if waits(f.Type) {
			if err := sendGo(s.sock, "", -1); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func waits(msg uint32) bool {
	return msg != plan.MsgChild && msg != plan.MsgAck && msg != plan.MsgExec && msg != plan.MsgError
}

// wait reaps both processes.
func (s *session) wait() *result {
	s.t.Helper()
	late := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	s.cmd.Wait()
	if !late.Stop() {
		s.t.Errorf("the first process did not end by itself: %+v", s.result.frames)
	}
	if s.child > 0 {
		done := time.AfterFunc(20*time.Second, func() { unix.Kill(s.child, unix.SIGKILL) })
		_, err := unix.Wait4(s.child, &s.result.status, 0, nil)
		for err == unix.EINTR {
			_, err = unix.Wait4(s.child, &s.result.status, 0, nil)
		}
		if err != nil {
			s.t.Errorf("wait for %d: %v", s.child, err)
		}
		done.Stop()
		s.child = 0
	}
	b, err := os.ReadFile(s.output.Name())
	if err != nil {
		s.t.Fatal(err)
	}
	s.result.output = string(b)
	return &s.result
}

// run carries the plan out to its end.
func (l launch) run(t *testing.T) *result {
	t.Helper()
	s := l.start(t)
	for {
		f := s.next()
		if f == nil {
			break
		}
		if !waits(f.Type) {
			continue
		}
		text, fd, ok := "", -1, true
		if l.reply != nil {
			text, fd, ok = l.reply(f)
		}
		if !ok {
			break
		}
		if err := sendGo(s.sock, text, fd); err != nil {
			t.Fatalf("send: %v", err)
		}
	}
	s.close()
	return s.wait()
}

func must(t *testing.T, r *result) *result {
	t.Helper()
	if f := r.failure(); f != nil {
		t.Fatalf("operation %d: %v, step %d, value %d, text %q", f.Op, f.Errno, f.Step, f.Value, f.Text)
	}
	return r
}

// Shorthand for operations.

func op(kind plan.Kind, data ...plan.Operand) plan.Op {
	o := plan.Op{Kind: kind, FD: -1, Slot: -1}
	copy(o.Data[:], data)
	return o
}

func (b *builder) add(ops ...plan.Op) *builder {
	b.ops = append(b.ops, ops...)
	return b
}

type builder struct{ ops []plan.Op }

// plan is the plan, which receives its files first of all.
func (b *builder) plan(files int) *plan.Plan {
	ops := b.ops
	if files > 0 {
		all := make([]uint32, files)
		for i := range all {
			all[i] = uint32(i)
		}
		ops = append([]plan.Op{op(plan.KindReceive, groups(all...))}, ops...)
	}
	return &plan.Plan{Ops: ops, Files: make([]plan.File, files)}
}

func s(v string) plan.Operand             { return plan.Operand{String: v} }
func l(v ...string) plan.Operand          { return plan.Operand{List: v} }
func flag(o plan.Op, f plan.Flag) plan.Op { o.Flags |= f; return o }
func slot(o plan.Op, n int32) plan.Op     { o.Slot = n; return o }
func file(o plan.Op, n int32) plan.Op     { o.FD = n; return o }
func num(o plan.Op, n ...uint64) plan.Op  { copy(o.Num[:], n); return o }

func fork(flags uint64) plan.Op { return num(op(plan.KindFork), flags) }

func mount(fstype, target string, options ...string) plan.Op {
	return op(plan.KindMount, s(fstype), s(fstype), l(options...), s(target))
}

// program ends a plan: find and exec of a shell command.
func program(args ...string) []plan.Op {
	return []plan.Op{
		op(plan.KindFind, s(args[0]), l("/bin/"+args[0])),
		op(plan.KindExec, l(args...), l("PATH=/bin", "A=b")),
	}
}

func shell(script string) []plan.Op { return program("sh", "-c", script) }

// rootfs makes a root file system with busybox.
func rootfs(t *testing.T) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("needs a static busybox: %v", err)
	}
	for _, d := range []string{"bin", "etc", "dev", "proc", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("sh cat ls id hostname stat grep env true sleep pwd echo wc tty readlink mkdir touch umask test head kill") {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const newAll = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET

// inRoot starts a plan: namespaces, private root, clone of dir as slot 0, root.
func inRoot(dir string) *builder {
	b := &builder{}
	return b.add(
		fork(newAll),
		num(op(plan.KindPropagate, s("/")), unix.MS_SLAVE, 1),
		slot(num(op(plan.KindClone, s(dir)), 1), 0),
		slot(op(plan.KindRoot, s(dir)), 0),
	)
}

func contains(t *testing.T, output string, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if !strings.Contains("\n"+output, "\n"+want+"\n") {
			t.Errorf("output has no line %q:\n%s", want, output)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func mountinfo(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b))
}
