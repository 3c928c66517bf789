package criu

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"
)

// fake is a CRIU whose side of the conversation a test writes down.
type fake struct {
	t    *testing.T
	fd   int
	over chan struct{} // closed at the end of the test
}

// talk gives the connection with a CRIU that says what say has it say, and hangs up after that.
func talk(t *testing.T, say func(*fake)) *Conn {
	t.Helper()
	c, peer, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	c.Wait = time.Minute // so that a test that would hang fails
	f := &fake{t, peer, make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer unix.Close(peer)
		say(f)
	}()
	t.Cleanup(func() { close(f.over); c.Close(); <-done })
	return c
}

// check ends the conversation on an error.
func (f *fake) check(err error) {
	if err != nil {
		f.t.Error("CRIU:", err)
		runtime.Goexit()
	}
}

// await waits for c, or for the end of the test.
func (f *fake) await(c <-chan struct{}) {
	select {
	case <-c:
	case <-f.over:
	}
}

// hear takes what rt sends.
func (f *fake) hear() *rpc.CriuReq {
	b := make([]byte, 1<<16)
	n, _, err := unix.Recvfrom(f.fd, b, 0)
	if err == nil && n == 0 {
		err = errors.New("hung up on")
	}
	f.check(err)
	req := new(rpc.CriuReq)
	f.check(req.UnmarshalVT(b[:n]))
	return req
}

// raw sends bytes, with descriptors of which nothing stays here.
func (f *fake) raw(b []byte, fds ...int) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	err := unix.Sendmsg(f.fd, b, oob, nil, unix.MSG_NOSIGNAL)
	for _, fd := range fds {
		unix.Close(fd)
	}
	f.check(err)
}

// tell sends an answer.
func (f *fake) tell(resp *rpc.CriuResp, fds ...int) {
	b, err := resp.MarshalVT()
	f.check(err)
	f.raw(b, fds...)
}

// notify sends an event.
func (f *fake) notify(name string, pid int32, fds ...int) {
	n := &rpc.CriuNotify{Script: &name}
	if pid != 0 {
		n.Pid = &pid
	}
	f.tell(&rpc.CriuResp{Type: rpc.CriuReqType_NOTIFY.Enum(), Success: new(true), Notify: n}, fds...)
}

// answered expects the answer to an event.
func (f *fake) answered(ok bool) {
	req := f.hear()
	if req.GetType() != rpc.CriuReqType_NOTIFY || req.NotifySuccess == nil || req.GetNotifySuccess() != ok {
		f.t.Errorf("CRIU: its event was answered %s %v, expected NOTIFY %v", req.GetType(), req.GetNotifySuccess(), ok)
	}
}

// result is the last answer to a request.
func result(typ rpc.CriuReqType, ok bool) *rpc.CriuResp {
	return &rpc.CriuResp{Type: &typ, Success: &ok}
}

func request(typ rpc.CriuReqType) *rpc.CriuReq { return &rpc.CriuReq{Type: &typ} }

var dump = request(rpc.CriuReqType_DUMP)

func dumped() *rpc.CriuResp { return result(rpc.CriuReqType_DUMP, true) }

func marshal(t *testing.T, resp *rpc.CriuResp) []byte {
	t.Helper()
	b, err := resp.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noEvent is a handler for conversations without an event.
func noEvent(t *testing.T) func(Event) error {
	return func(e Event) error {
		t.Error("an event that was not sent:", e)
		return nil
	}
}

// pipe gives the end to write to, for somebody else, and one that is to be hung up on.
func pipe(t *testing.T) (kept, given int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]) })
	return p[0], p[1]
}

// isClosed says whether nobody has the other end of a pipe any more, and waits for that as long as it may
// take. Numbers of descriptors would not do: other tests open some meanwhile.
func isClosed(kept int, wait time.Duration) bool {
	p := []unix.PollFd{{Fd: int32(kept), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, int(wait.Milliseconds()))
		if err != unix.EINTR {
			return err == nil && p[0].Revents&unix.POLLHUP != 0
		}
	}
}

// padded is a message made longer by fields that CRIU might have in years to come, of two bytes each:
// so it is one wherever it may be cut.
func padded(msg []byte, size int) []byte {
	return append(slices.Clone(msg), bytes.Repeat([]byte{15 << 3, 0}, (size-len(msg))/2)...)
}

// eventfd is a descriptor that is readable, once something has been written to it.
func eventfd(t *testing.T, initial uint) int {
	t.Helper()
	fd, err := unix.Eventfd(initial, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// silent is a CRIU that reads its request and says nothing until the test is over.
func silent(t *testing.T) *Conn {
	return talk(t, func(f *fake) { f.hear(); <-f.over })
}

func waitReadable(t *testing.T, fd int) {
	t.Helper()
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, -1)
		if n == 1 {
			return
		}
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
}
