package nsenter

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// hostilePlan has an operation for each message that is due one time or another.
func hostilePlan() *plan.Plan {
	op := func(k plan.Kind, num ...uint64) plan.Op {
		o := plan.Op{Kind: k, FD: -1, Slot: -1}
		copy(o.Num[:], num)
		return o
	}
	copyUp := op(plan.KindMount)
	copyUp.Flags = plan.FlagCopyUp
	ops := []plan.Op{
		op(plan.KindFork), op(plan.KindAwait, plan.MsgMaps), op(plan.KindTimens), copyUp, op(plan.KindAwait, plan.MsgMounted),
		op(plan.KindHome), op(plan.KindConsole), op(plan.KindAwait, plan.MsgReady), op(plan.KindExec),
	}
	return &plan.Plan{Ops: ops}
}

func frameOf(typ uint32, op int32, text string) []byte {
	b := appendFrame(nil, typ, text)
	binary.LittleEndian.PutUint32(b[4:], uint32(op))
	return b
}

func openFDs(t testing.TB) int {
	t.Helper()
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// FuzzRecv lets a stage say anything, with any number of descriptors: the parent takes what is
// due and nothing else, keeps no descriptor that it does not return, and words errors without raw bytes.
func FuzzRecv(f *testing.F) {
	p := hostilePlan()
	for i := range p.Ops {
		for _, typ := range []uint32{plan.MsgChild, plan.MsgMaps, plan.MsgHome, plan.MsgReady, plan.MsgExec, plan.MsgError} {
			f.Add(frameOf(typ, int32(i), "text\x1b[2J"), byte(i%3), byte(i))
		}
	}
	f.Add([]byte{}, byte(0), byte(0))
	f.Add([]byte{}, byte(3), byte(0))
	f.Add(make([]byte, plan.FrameSize-1), byte(0), byte(0))
	f.Add(frameOf(plan.MsgError, -1, strings.Repeat("x", plan.MaxText)), byte(0), byte(0))
	f.Add(frameOf(plan.MsgError, -1, strings.Repeat("x", plan.MaxText+1)), byte(0), byte(0))
	f.Add(frameOf(plan.MsgError, 1<<30, ""), byte(253), byte(0))
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, fds, passed byte) {
		if len(data) > 100<<10 {
			return // more than one message holds
		}
		socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(socks[1])
		s := &Stage{plan: p, sock: socks[0], sequence: newSequence(p)}
		defer s.Close()
		// Somewhere in the conversation.
		s.sequence.next = s.sequence.next[min(int(passed), len(s.sequence.next)):]
		due := append([]expected{{op: -2}}, s.sequence.next...)[min(1, len(s.sequence.next))]
		list := make([]int, min(int(fds), 253))
		for i := range list {
			list[i] = null
		}
		var oob []byte
		if len(list) > 0 {
			oob = unix.UnixRights(list...)
		}
		before := openFDs(t)
		if _, err := unix.SendmsgN(socks[1], data, oob, nil, unix.MSG_NOSIGNAL); err != nil {
			t.Skip(err)
		}
		m, err := s.Recv(10 * time.Second)
		var op *OpError
		switch {
		case err == nil:
			if m.Type != due.typ || m.Op != due.op || len(m.FDs) != due.fds || len(m.FDs) != len(list) || len(m.Text) > plan.MaxText {
				t.Errorf("took %+v; due was %+v", m, due)
			}
			for _, fd := range m.FDs {
				unix.Close(fd)
			}
		case errors.As(err, &op):
			if m.Type != plan.MsgError {
				t.Errorf("%v of %+v", err, m)
			}
			fallthrough
		default:
			text := err.Error()
			if !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x1b\r\n\x7f") || len(text) > 8*plan.MaxText {
				t.Errorf("error %q", text)
			}
		}
		if after := openFDs(t); after != before {
			t.Errorf("%d descriptors before, %d after: %v", before, after, err)
		}
	})
}

// FuzzResult lets whoever has got hold of the fifo "result" write anything to it.
func FuzzResult(f *testing.F) {
	exec := frameOf(plan.MsgExec, 3, "")
	f.Add(exec)
	f.Add(frameOf(plan.MsgError, 2, "text\x1b"))
	f.Add(append(exec[:len(exec):len(exec)], exec...))
	f.Add(exec[:7])
	f.Add(frameOf(plan.MsgChild, 0, ""))
	long := frameOf(plan.MsgExec, 0, "")
	binary.LittleEndian.PutUint32(long[24:], 1<<32-1)
	f.Add(long)
	ops := GateOps(&plan.Plan{Ops: []plan.Op{{Kind: plan.KindGate}, {Kind: plan.KindExec}}})
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		f.Skip(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 60<<10 {
			return // more than the pipe holds
		}
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(ends[0])
		if len(data) > 0 {
			if n, err := unix.Write(ends[1], data); n != len(data) || err != nil {
				t.Fatal(n, err)
			}
		}
		unix.Close(ends[1])
		err := ReadResult(ends[0], self, ops, 10*time.Second)
		if err == nil {
			if len(data) < plan.FrameSize || binary.LittleEndian.Uint32(data) != plan.MsgExec {
				t.Errorf("%q means success", data)
			}
			return
		}
		if text := err.Error(); errors.Is(err, ErrTimeout) || !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x1b\r\n\x7f") || len(text) > 8*plan.MaxText {
			t.Errorf("error %q", text)
		}
	})
}

// A stage that says nothing, or that hangs up.
func TestS05SilentStage(t *testing.T) {
	p := hostilePlan()
	for _, end := range []bool{false, true} {
		socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		s := &Stage{plan: p, sock: socks[0], sequence: newSequence(p)}
		want := ErrTimeout
		if end {
			unix.Shutdown(socks[1], unix.SHUT_RDWR)
			want = ErrDied
		}
		begin := time.Now()
		if _, err := s.Recv(50 * time.Millisecond); !errors.Is(err, want) || time.Since(begin) > 5*time.Second {
			t.Errorf("%v after %v, expected %v", err, time.Since(begin), want)
		}
		s.Close()
		unix.Close(socks[1])
	}
}
