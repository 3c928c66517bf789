package nsenter

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// GateOp is an operation that a created container has still to carry out. It
// is stored with the container, so that start can word its failure.
type GateOp struct {
	Op   int       `json:"op"`
	Kind plan.Kind `json:"kind"`
	Line plan.Line `json:"line"`
}

// GateOps returns the operations of p behind its gate.
func GateOps(p *plan.Plan) []GateOp {
	for i := range p.Ops {
		if p.Ops[i].Kind != plan.KindGate {
			continue
		}
		ops := make([]GateOp, 0, len(p.Ops)-i)
		for j := i; j < len(p.Ops); j++ {
			ops = append(ops, GateOp{Op: j, Kind: p.Ops[j].Kind, Line: p.Line(j)})
		}
		return ops
	}
	return nil
}

// ReadResult reads from the result fifo fd (non-blocking) what became of the stage after
// its gate was opened: nil once the user's program runs, an *OpError if the
// stage failed, ErrDied if it ended without a word, ErrTimeout if neither happens
// in time. Init is held by pidfd.
func ReadResult(fd, pidfd int, ops []GateOp, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	var buf []byte
	started := false
	for {
		chunk := make([]byte, plan.FrameSize+plan.MaxText)
		n, err := unix.Read(fd, chunk)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
			left := time.Until(deadline)
			if left <= 0 {
				return ErrTimeout
			}
			if _, err := unix.Poll(p, int(min(left/time.Millisecond+1, math.MaxInt32))); err != nil && err != unix.EINTR {
				return fmt.Errorf("wait for init: %w", err)
			}
			if p[0].Revents == 0 && p[1].Revents != 0 {
				// Dead, but an inherited descriptor keeps the fifo open.
				if started {
					return nil
				}
				return ErrDied
			}
			continue
		case err != nil:
			return fmt.Errorf("read result of start: %w", err)
		case n == 0:
			if started {
				return nil
			}
			return ErrDied
		}
		buf = append(buf, chunk[:n]...)
		for len(buf) >= plan.FrameSize {
			size := plan.FrameSize + int(binary.LittleEndian.Uint32(buf[24:]))
			if size > plan.FrameSize+plan.MaxText {
				return fmt.Errorf("read result of start: frame of %d bytes", size)
			}
			if len(buf) < size {
				break
			}
			m, err := parseFrame(buf[:size])
			if err != nil {
				return err
			}
			buf = buf[size:]
			switch m.Type {
			case plan.MsgExec:
				started = true
			case plan.MsgError:
				return gateError(ops, &m)
			default:
				return fmt.Errorf("read result of start: message %d was not due", m.Type)
			}
		}
	}
}

func gateError(ops []GateOp, m *Message) *OpError {
	e := &OpError{Errno: m.Errno, Step: m.Step, Value: m.Value, Text: m.Text}
	for i := range ops {
		if ops[i].Op == m.Op {
			e.Kind, e.Line = ops[i].Kind, ops[i].Line
		}
	}
	return e
}
