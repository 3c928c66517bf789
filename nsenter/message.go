package nsenter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// Message is one frame from the stage. FDs belong to the receiver.
type Message struct {
	Type  uint32
	Op    int
	Errno unix.Errno
	Step  plan.Step
	Value uint64
	Text  string
	FDs   []int
}

// parseFrame decodes a frame. The stage may be in hostile company, so nothing
// in it is taken for granted.
func parseFrame(b []byte) (Message, error) {
	if len(b) < plan.FrameSize {
		return Message{}, fmt.Errorf("read stage: frame of %d bytes, accepted are %d and more", len(b), plan.FrameSize)
	}
	le := binary.LittleEndian
	n := le.Uint32(b[24:])
	if int64(n) != int64(len(b)-plan.FrameSize) || n > plan.MaxText {
		return Message{}, fmt.Errorf("read stage: frame of %d bytes says %d bytes of text", len(b), n)
	}
	return Message{
		Type: le.Uint32(b[0:]), Op: int(int32(le.Uint32(b[4:]))), Errno: unix.Errno(le.Uint32(b[8:])),
		Step: plan.Step(le.Uint32(b[12:])), Value: le.Uint64(b[16:]), Text: string(b[plan.FrameSize:]),
	}, nil
}

func appendFrame(b []byte, typ uint32, text string) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, typ)
	b = append(b, make([]byte, plan.FrameSize-4)...)
	le.PutUint32(b[24:], uint32(len(text)))
	return append(b, text...)
}

// sequence is the order of messages that a plan leads to: every operation that
// sends one sends it once, in the plan's order. A stage that says anything
// else is not believed.
type sequence struct {
	plan *plan.Plan
	next []expected
}

type expected struct {
	op  int
	typ uint32
	fds int
}

func newSequence(p *plan.Plan) sequence {
	s := sequence{plan: p, next: make([]expected, 0, 6)}
	for i := range p.Ops {
		op := &p.Ops[i]
		e := expected{op: i}
		switch op.Kind {
		case plan.KindFork:
			e.typ = plan.MsgChild
		case plan.KindAwait:
			e.typ = uint32(op.Num[0])
		case plan.KindTimens:
			e.typ = plan.MsgTime
		case plan.KindMount:
			if op.Flags&plan.FlagCopyUp == 0 {
				continue
			}
			e.typ, e.fds = plan.MsgCopyUp, 2
		case plan.KindHome:
			e.typ, e.fds = plan.MsgHome, 1
		case plan.KindConsole:
			e.typ, e.fds = plan.MsgConsole, 1
		case plan.KindExec:
			e.typ = plan.MsgExec
		case plan.KindGate:
			// From here on the stage speaks to the result fifo.
			return s
		default:
			continue
		}
		s.next = append(s.next, e)
		if e.typ == plan.MsgReady {
			s.next = append(s.next, expected{op: i, typ: plan.MsgAck})
		}
	}
	return s
}

// accept checks that m may come now.
func (s *sequence) accept(m *Message) error {
	if m.Type == plan.MsgError {
		if m.Op < -1 || m.Op >= len(s.plan.Ops) {
			return fmt.Errorf("read stage: error of operation %d, the plan has %d", m.Op+1, len(s.plan.Ops))
		}
		return nil
	}
	if len(s.next) == 0 {
		return fmt.Errorf("read stage: message %d of operation %d, none was due", m.Type, m.Op+1)
	}
	e := s.next[0]
	if m.Type != e.typ || m.Op != e.op || len(m.FDs) != e.fds {
		return fmt.Errorf("read stage: message %d of operation %d with %d descriptors, due was %d of %d with %d",
			m.Type, m.Op+1, len(m.FDs), e.typ, e.op+1, e.fds)
	}
	s.next = s.next[1:]
	return nil
}

// ErrDied is a stage that ended without a word.
var ErrDied = errors.New("the stage died")

// ErrTimeout is a stage that said nothing until the deadline.
var ErrTimeout = errors.New("the stage did not answer in time")

// ErrInterrupted is the end of a wait for a stage because Stage.Interrupt became readable.
var ErrInterrupted = errors.New("interrupted")

// Stage is a stage, seen from the parent.
type Stage struct {
	Image Image // once it has been started
	// Interrupt is a descriptor that ends Recv when it is readable; 0 for none.
	Interrupt int

	plan     *plan.Plan
	sock     int
	peer     int // the stage's end, until that is started
	first    int // pid of the first process, 0 before the start and once reaped
	sequence sequence
}

// Recv waits for the stage's next message, at most timeout. An error that the
// stage reports is an *OpError. ErrDied, ErrTimeout and ErrInterrupted say what they say; after
// any error the stage is of no more use.
func (s *Stage) Recv(timeout time.Duration) (Message, error) {
	if err := s.waitReadable(timeout); err != nil {
		return Message{}, err
	}
	var buf [plan.FrameSize + plan.MaxText + 1]byte
	var oob [128]byte
	n, oobn, flags, err := recvmsg(s.sock, buf[:], oob[:])
	if err == unix.ECONNRESET {
		// It ended with something unread, which is told before what it has said last.
		n, oobn, flags, err = recvmsg(s.sock, buf[:], oob[:])
	}
	if err != nil {
		return Message{}, fmt.Errorf("read stage: %w", err)
	}
	fds, err := parseRights(oob[:oobn])
	if err == nil && flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		err = errors.New("read stage: message cut off")
	}
	var m Message
	if err == nil {
		if n == 0 {
			err = ErrDied // or an empty message, which no stage sends
		} else {
			m, err = parseFrame(buf[:n])
		}
	}
	if err == nil {
		m.FDs = fds
		err = s.sequence.accept(&m)
	}
	if err != nil || m.Type == plan.MsgError {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	if err != nil {
		return Message{}, err
	}
	if m.Type == plan.MsgError {
		return m, newOpError(s.plan, &m)
	}
	return m, nil
}

// Go lets the stage go on. text and fd (-1: none) are the reply's.
func (s *Stage) Go(text string, fd int) error {
	if fd < 0 {
		return s.send(text, nil)
	}
	return s.send(text, unix.UnixRights(fd))
}

func (s *Stage) send(text string, oob []byte) error {
	return s.sendFrame(appendFrame(make([]byte, 0, plan.FrameSize+len(text)), plan.MsgGo, text), oob)
}

func (s *Stage) sendFrame(frame, oob []byte) error {
	for {
		err := unix.Sendmsg(s.sock, frame, oob, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
			continue
		case unix.EPIPE, unix.ECONNRESET:
			return ErrDied
		}
		return fmt.Errorf("write stage: %w", err)
	}
}

// SendFiles sends the files of one KindReceive, in the order of its list. They stay the
// caller's.
func (s *Stage) SendFiles(fds []int) error {
	return s.send("", unix.UnixRights(fds...))
}

// Close hangs up. A stage that has not been told to commit dies of it.
func (s *Stage) Close() {
	if s.sock >= 0 {
		unix.Close(s.sock)
		s.sock = -1
	}
}

// Reap waits for the first process, which ends as soon as it has made the
// second. It returns the wait status.
func (s *Stage) Reap() unix.WaitStatus {
	var ws unix.WaitStatus
	if s.first == 0 {
		return ws
	}
	for {
		_, err := unix.Wait4(s.first, &ws, 0, nil)
		if err != unix.EINTR {
			break
		}
	}
	s.first = 0
	return ws
}

// ReapWithin is Reap that gives up after a time, and tells whether it has not: killed or not, a
// process that is frozen by a v1 freezer ends only once it is thawed, and one in hostile
// hands may only have hung up.
func (s *Stage) ReapWithin(limit time.Duration) (ws unix.WaitStatus, ended bool) {
	if s.first == 0 {
		return ws, true
	}
	end := unix.PollFd{Fd: -1, Events: unix.POLLIN}
	if fd, err := unix.PidfdOpen(s.first, 0); err == nil {
		defer unix.Close(fd)
		end.Fd = int32(fd)
	}
	for deadline := time.Now().Add(limit); ; {
		got, err := unix.Wait4(s.first, &ws, unix.WNOHANG, nil)
		if got != 0 || err != nil && err != unix.EINTR {
			s.first = 0
			return ws, true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return 0, false
		}
		wait := int(left/time.Millisecond) + 1
		if end.Fd < 0 {
			wait = 1 // without a descriptor it looks again and again; time.Sleep may need some too
		}
		unix.Poll([]unix.PollFd{end}, wait)
	}
}

// First is the pid of the first process, 0 when it has been reaped.
func (s *Stage) First() int { return s.first }

// KillFirst ends the first process if it has not been reaped.
func (s *Stage) KillFirst() {
	if s.first != 0 {
		unix.Kill(s.first, unix.SIGKILL)
	}
}

func (s *Stage) waitReadable(timeout time.Duration) error {
	interrupt := s.Interrupt
	if interrupt == 0 {
		interrupt = -1 // poll(2) passes it over
	}
	deadline := time.Now().Add(timeout)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return ErrTimeout
		}
		p := [2]unix.PollFd{{Fd: int32(s.sock), Events: unix.POLLIN}, {Fd: int32(interrupt), Events: unix.POLLIN}}
		n, err := unix.Poll(p[:], int(min(left/time.Millisecond+1, math.MaxInt32)))
		if err == unix.EINTR || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for stage: %w", err)
		}
		if p[1].Revents != 0 {
			return ErrInterrupted
		}
		return nil
	}
}

// recvmsg is recvmsg(2) with MSG_CMSG_CLOEXEC. x/sys's wrapper would also
// decode a peer address that a socketpair does not have.
func recvmsg(fd int, p, oob []byte) (n, oobn, flags int, err error) {
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov, Control: &oob[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(oob))
	for reset := false; ; {
		r, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_CMSG_CLOEXEC)
		if e == unix.EINTR {
			continue
		}
		if e == unix.ECONNRESET && !reset {
			// The stage has died before it read an answer of ours. The kernel says
			// so once, ahead of the stage's last words.
			reset = true
			continue
		}
		if e != 0 {
			return 0, 0, 0, e
		}
		return int(r), int(msg.Controllen), int(msg.Flags), nil
	}
}

// parseRights returns every descriptor of the control messages. On an error all
// that came are closed.
func parseRights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("read stage: control message: %w", err)
	}
	var fds []int
	for i := range msgs {
		f, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, fmt.Errorf("read stage: control message: %w", err)
		}
		fds = append(fds, f...)
	}
	return fds, nil
}
