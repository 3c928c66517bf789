package security

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// fakeStage is the test binary as a stage that has fallen into hostile hands: rt's build with
// fault points executes what RT_FAULT_STAGE names. What it is to do stands behind the
// end of its file, for a stage has no environment.
func fakeStage(args []string) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		os.Exit(3)
	}
	tail := make([]byte, 64)
	if fi, err := self.Stat(); err != nil || fi.Size() < 64 {
		os.Exit(3)
	} else if _, err := self.ReadAt(tail, fi.Size()-64); err != nil {
		os.Exit(3)
	}
	_, what, _ := strings.Cut(string(tail), stageMark)
	name, arg, _ := strings.Cut(strings.TrimRight(what, "\x00"), " ")
	sock, _ := strconv.Atoi(args[1])
	arg, at, _ := strings.Cut(arg, " ")
	number, _ := strconv.Atoi(arg)
	op, _ := strconv.Atoi(at)
	send := func(b []byte, fds ...int) error { return sendRaw(sock, b, fds) }
	null := func(n int) []int {
		fds := make([]int, n)
		for i := range fds {
			fds[i], _ = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		return fds
	}
	// The parent would see a stage that ends with something unread as a reset connection.
	unix.Read(sock, make([]byte, 1<<16))
	switch name {
	case "silent":
	case "garbage":
		b := make([]byte, 500)
		for i := range b {
			b[i] = byte(i*7 + 1)
		}
		send(b)
	case "short":
		send([]byte{1, 2, 3})
	case "empty":
		send(nil, null(5)...)
	case "large": // as much as goes into one message, again and again: 1 GiB in all
		unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
		b := make([]byte, 4<<20)
		for sent := 0; sent < 1<<30; sent += len(b) {
			if send(b) != nil {
				break
			}
		}
	case "truncated-length": // the length of the text modulo 65536 is right
		f := frame(plan.MsgError, 0, 0, "text")
		binary.LittleEndian.PutUint32(f[24:], 1<<16|4)
		send(f)
	case "253-descriptors":
		send(frame(plan.MsgChild, 0, 1, ""), null(253)...)
	case "one-descriptor":
		send(frame(plan.MsgChild, 0, 1, ""), null(1)...)
	case "type":
		send(frame(uint32(number), 0, 1, ""))
	case "operation":
		send(frame(plan.MsgError, int32(number), 0, ""))
	case "child":
		send(frame(plan.MsgChild, int32(op), uint64(number), ""))
	case "words":
		send(frame(plan.MsgError, 0, 0, strings.Repeat("\x1b[2J\r\n\u202e\xff%s", 400)[:plan.MaxText]))
	case "hang-up":
		unix.Shutdown(sock, unix.SHUT_RDWR)
	case "exit":
		os.Exit(0)
	case "killed":
		unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	time.Sleep(time.Hour)
}

// sendRaw sends a message with descriptors, also an empty one, for which unix.Sendmsg puts in a byte.
func sendRaw(sock int, b []byte, fds []int) error {
	var msg unix.Msghdr
	iov := unix.Iovec{}
	if len(b) > 0 {
		iov.Base = &b[0]
		iov.SetLen(len(b))
	}
	msg.Iov = &iov
	msg.SetIovlen(1)
	if oob := unix.UnixRights(fds...); len(fds) > 0 {
		msg.Control = &oob[0]
		msg.SetControllen(len(oob))
	}
	if _, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(sock), uintptr(unsafe.Pointer(&msg)), unix.MSG_NOSIGNAL); e != 0 {
		return e
	}
	return nil
}

const stageMark = "rt fake stage: "

// frame is one of the stage's messages.
func frame(typ uint32, op int32, value uint64, text string) []byte {
	b := make([]byte, plan.FrameSize, plan.FrameSize+len(text))
	le := binary.LittleEndian
	le.PutUint32(b, typ)
	le.PutUint32(b[4:], uint32(op))
	le.PutUint32(b[8:], uint32(unix.EPERM))
	le.PutUint64(b[16:], value)
	le.PutUint32(b[24:], uint32(len(text)))
	return append(b, text...)
}

// A stage that says what it should not, or nothing, fails its command in time, with one line;
// nothing is left, and nobody but the stage is killed. With exec the
// container does not notice.
func TestS05HostileStage(t *testing.T) {
	self, err := os.ReadFile(attacker)
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.Command("/bin/sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var ws unix.WaitStatus
		if got, err := unix.Wait4(victim.Process.Pid, &ws, unix.WNOHANG, nil); got != 0 || err != nil {
			t.Errorf("the process of another has been killed: %v, %v", ws, err)
		}
		victim.Process.Kill()
		victim.Wait()
	})
	pid := strconv.Itoa(victim.Process.Pid)
	for what, words := range map[string]string{
		"silent": "did not answer in time", "garbage": "read stage: ", "short": "frame of 3 bytes", "empty": "the stage hung up", "hang-up": "the stage hung up", "large": "read stage: ",
		"truncated-length": "read stage: ", "253-descriptors": "read stage: ", "one-descriptor": "due was", "type 0": "due was", "type 10": "due was", "type 11": "due was", "type 4000000000": "due was",
		"operation 100000": "error of operation", "operation -2": "error of operation", "child " + pid: "is not its child", "child 1": "is not its child", "child 0": "process 0", "child -1": "process -1",
		"words": "operation 1", "exit": "the stage died", "killed": "the stage died",
	} {
		t.Run(strings.ReplaceAll(what, pid, "of another"), func(t *testing.T) {
			t.Parallel()
			b := newBox(t, args("sleep", "1000"))
			stage := filepath.Join(b.top, "b/stage")
			with := func(what string, args ...string) result {
				t.Helper()
				tail := make([]byte, 64)
				copy(tail, stageMark+what)
				b.must(os.WriteFile(stage, append(self[:len(self):len(self)], tail...), 0o600))
				c := b.command(args...)
				c.Path = rtFault
				c.Env = append(os.Environ(), "RT_FAULT_STAGE="+stage, "RT_FAULT_WAIT=2")
				return c.measured().run()
			}
			try := func(args ...string) {
				t.Helper()
				what := what
				if strings.HasPrefix(what, "child ") {
					// Which operation it is of the refusal of another tells.
					var due int
					_, after, _ := strings.Cut(with("child 1 0", args...).err, "due was 2 of ")
					if _, err := fmt.Sscan(after, &due); err != nil {
						t.Fatalf("%q: %v", after, err)
					}
					what += " " + strconv.Itoa(due-1)
				}
				r := with(what, args...)
				if r.code <= 0 || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, words) || r.took > 15*time.Second {
					t.Errorf("%v; expected one line with %q", r, words)
				}
				if len(r.err) > 9000 || strings.ContainsAny(r.err, "\x1b\r\u202e") || !utf8.ValidString(r.err) {
					t.Errorf("%d bytes on stderr: %.500q", len(r.err), r.err)
				}
				if r.memory > 64<<20 {
					t.Errorf("rt took %d MiB", r.memory>>20)
				}
			}
			try("create", b.id)
			try("run", b.id)
			try("run", "--detach", b.id)
			if left, _ := os.ReadDir(b.root); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			b.launch()
			init := b.state().Pid
			try("exec", b.id, "true")
			try("exec", "--detach", b.id, "true")
			if s := b.state(); s.Pid != init || s.Status != "running" {
				t.Errorf("the container is %+v, was %d and running", s, init)
			}
			b.ok("exec", b.id, "true")
			if list := fmt.Sprint(b.ok("ps", "--format", "json", b.id)); strings.Contains(list, ",") {
				t.Errorf("the container's processes are %s, expected one", list)
			}
		})
	}
}
