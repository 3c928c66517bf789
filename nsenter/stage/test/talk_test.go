package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

// The stage, and with it a hook, ends with its parent until the commit.
func TestLifeline(t *testing.T) {
	dir := rootfs(t)
	pid := filepath.Join(t.TempDir(), "pid")
	for _, c := range []struct {
		name string
		op   plan.Op
		msg  uint32
	}{
		{"await", num(op(plan.KindAwait), plan.MsgReady), plan.MsgReady},
		{"hook", hook("echo 1 >"+pid+"; exec sleep 1000", 0, 0, ""), plan.MsgMounted},
	} {
		t.Run(c.name, func(t *testing.T) {
			sess := launch{plan: inRoot(dir).add(num(op(plan.KindAwait), plan.MsgMounted), c.op).add(shell("exit 0")...).plan(0)}.start(t)
			sess.until(c.msg)
			if c.msg == plan.MsgMounted {
				if err := sendGo(sess.sock, "", -1); err != nil {
					t.Fatal(err)
				}
				for range 500 {
					if _, err := os.Stat(pid); err == nil {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			sess.close()
			if r := sess.wait(); !r.status.Exited() || r.status.ExitStatus() != 1 {
				t.Errorf("status %#x, want exit 1", r.status)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	dir := rootfs(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		name string
		send func(sock int) error
		op   plan.Op
	}{
		{"text where none belongs", func(sock int) error { return sendGo(sock, "x", -1) }, num(op(plan.KindAwait), plan.MsgMounted)},
		{"descriptor where none belongs", func(sock int) error { return sendGo(sock, "", int(null.Fd())) }, num(op(plan.KindAwait), plan.MsgMounted)},
		{"no descriptor", func(sock int) error { return sendGo(sock, "", -1) }, op(plan.KindTimens)},
		{"three descriptors", func(sock int) error {
			n := int(null.Fd())
			return unix.Sendmsg(sock, goFrame(plan.MsgGo, 0), unix.UnixRights(n, n, n), nil, 0)
		}, op(plan.KindTimens)},
		{"many descriptors", func(sock int) error {
			n := int(null.Fd())
			return unix.Sendmsg(sock, goFrame(plan.MsgGo, 0), unix.UnixRights(slices.Repeat([]int{n}, 200)...), nil, 0)
		}, op(plan.KindTimens)},
		{"other type", func(sock int) error { return unix.Sendmsg(sock, goFrame(plan.MsgAck, 0), nil, nil, 0) }, op(plan.KindHome)},
		{"short", func(sock int) error { return unix.Sendmsg(sock, []byte("x"), nil, nil, 0) }, op(plan.KindHome)},
		{"wrong length", func(sock int) error { return unix.Sendmsg(sock, goFrame(plan.MsgGo, 5), nil, nil, 0) }, op(plan.KindHome)},
		{"too long", func(sock int) error { return sendGo(sock, strings.Repeat("h", plan.MaxText+1), -1) }, op(plan.KindHome)},
		{"NUL", func(sock int) error { return sendGo(sock, "/a\x00b", -1) }, op(plan.KindHome)},
	} {
		t.Run(c.name, func(t *testing.T) {
			sess := launch{plan: inRoot(dir).add(c.op).plan(0)}.start(t)
			for f := sess.next(); f != nil && !waits(f.Type); f = sess.next() {
			}
			if err := c.send(sess.sock); err != nil {
				t.Fatal(err)
			}
			f := sess.next()
			if f == nil || f.Type != plan.MsgError || f.Step != plan.StepReply || f.Errno != unix.EPROTO {
				t.Errorf("got %+v, want EPROTO", f)
			}
			sess.close()
			sess.wait()
		})
	}
}

// MsgBegin has the stage begin with namespaces before it has the plan, which must want them.
func TestBegin(t *testing.T) {
	dir := rootfs(t)
	begin := func(flags uint64) packet {
		b := goFrame(plan.MsgBegin, 0)
		binary.LittleEndian.PutUint64(b[16:], flags)
		return packet{data: b}
	}
	plans := func(first plan.Op, after ...plan.Op) *plan.Plan {
		b := (&builder{}).add(first, fork(newAll&^unix.CLONE_NEWNET)).add(after...)
		return b.add(inRoot(dir).ops[1:]...).add(mount("proc", "/proc")).
			add(shell("readlink /proc/self/ns/net; busybox ping -c 1 -W 1 127.0.0.1 >/dev/null && echo up")...).plan(0)
	}
	net := num(op(plan.KindUnshare), unix.CLONE_NEWNET)
	host, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for name, early := range map[string][]packet{"begun": {begin(unix.CLONE_NEWNET)}, "not begun": nil} {
		t.Run(name, func(t *testing.T) {
			r := launch{early: early, plan: plans(net, flag(op(plan.KindLoopback), plan.FlagFirst))}.run(t)
			if f := r.failure(); f != nil {
				t.Fatalf("%+v", f)
			}
			first, _, _ := strings.Cut(r.output, "\n")
			if !strings.HasPrefix(first, "net:[") || first == host {
				t.Errorf("in %q, the host's is %q", first, host)
			}
			contains(t, r.output, "up")
		})
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	with := begin(unix.CLONE_NEWNET)
	with.oob = unix.UnixRights(int(null.Fd()))
	text := begin(unix.CLONE_NEWNET)
	text.data[24] = 1
	text.data = append(text.data, 'x')
	for _, c := range []struct {
		name  string
		early []packet
		plan  *plan.Plan
		op    int // the plan's, -1 for none
		errno unix.Errno
	}{
		{"fails", []packet{begin(1)}, plans(num(op(plan.KindUnshare), 1)), 0, unix.EINVAL},
		{"other namespaces", []packet{begin(unix.CLONE_NEWUTS)}, plans(net), 1, unix.EPROTO},
		{"twice", []packet{begin(unix.CLONE_NEWNET), begin(unix.CLONE_NEWNET)}, plans(net), -1, unix.EPROTO},
		{"nothing", []packet{begin(0)}, plans(net), -1, unix.EPROTO},
		{"a descriptor", []packet{with}, plans(net), -1, unix.EPROTO},
		{"text", []packet{text}, plans(net), -1, unix.EPROTO},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := launch{early: c.early, plan: c.plan}.run(t).failure()
			if f == nil || int(int32(f.Op)) != c.op || f.Errno != c.errno {
				t.Errorf("got %+v, want operation %d and %v", f, c.op, c.errno)
			}
		})
	}
}

// What the first process does beside the second fails as an operation does.
func TestFirstFails(t *testing.T) {
	dir := rootfs(t)
	needFault(t)
	b := (&builder{}).add(fork(newAll), flag(op(plan.KindLoopback), plan.FlagFirst)).add(inRoot(dir).ops[1:]...)
	p := b.add(num(op(plan.KindAwait), plan.MsgReady)).add(shell("echo ran")...).plan(0)
	r := launch{binary: faultBinary, plan: p, fault: &plan.Fault{Op: 1, Action: plan.FaultErrno, Arg: int32(unix.ENOBUFS)}}.run(t)
	if f := r.failure(); f == nil || f.Op != 1 || f.Errno != unix.ENOBUFS {
		t.Errorf("got %+v", f)
	}
	if strings.Contains(r.output, "ran") || !r.status.Exited() || r.status.ExitStatus() != 1 {
		t.Errorf("the second went on: %q, status %#x", r.output, r.status)
	}
	p = (&builder{}).add(fork(newAll), op(plan.KindSetsid), flag(op(plan.KindLoopback), plan.FlagFirst)).add(shell("exit 0")...).plan(0)
	if f := (launch{plan: p}.run(t).failure()); f == nil || f.Op != 2 || f.Errno != unix.EBADMSG {
		t.Errorf("not right after the fork: %+v", f)
	}
}

func goFrame(msg byte, length byte) []byte {
	b := make([]byte, plan.FrameSize)
	b[0], b[24] = msg, length
	return b
}

func fifo(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func gated(t *testing.T, dir string, after ...plan.Op) (sess *session, gate, result *os.File) {
	t.Helper()
	gate, result = fifo(t), fifo(t)
	b := inRoot(dir).add(
		op(plan.KindPivot),
		op(plan.KindFind, s("echo"), l("/bin/echo")),
		num(op(plan.KindAwait), plan.MsgReady),
		file(num(op(plan.KindGate), 1), 0),
	).add(after...)
	sess = launch{plan: b.plan(2), files: []*os.File{gate, result}}.start(t)
	for sess.next() != nil {
		if f := sess.result.frames[len(sess.result.frames)-1]; f.Type == plan.MsgReady {
			if err := sendGo(sess.sock, "", -1); err != nil {
				t.Fatal(err)
			}
		}
	}
	sess.close()
	return sess, gate, result
}

func TestGate(t *testing.T) {
	dir := rootfs(t)
	read := func(t *testing.T, result *os.File) *frame {
		t.Helper()
		b := make([]byte, 4096)
		n, err := result.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		f, err := decodeFrame(b[:n], nil)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	exec := op(plan.KindExec, l("echo", "through"), l())
	t.Run("start", func(t *testing.T) {
		sess, gate, result := gated(t, dir, exec)
		if want := []uint32{plan.MsgChild, plan.MsgReady, plan.MsgAck}; !slices.Equal(sess.result.types(), want) {
			t.Errorf("messages %v, want %v", sess.result.types(), want)
		}
		gate.Write([]byte{0})
		if f := read(t, result); f.Type != plan.MsgExec || f.Op != 9 {
			t.Errorf("got %+v, want MsgExec of operation 8", f)
		}
		if r := sess.wait(); r.output != "through\n" {
			t.Errorf("output %q", r.output)
		}
	})
	t.Run("error", func(t *testing.T) {
		sess, gate, result := gated(t, dir, hook("echo no; exit 1", 0, 0, ""), exec)
		gate.Write([]byte{0})
		if f := read(t, result); f.Type != plan.MsgError || f.Step != plan.StepStatus || f.Text != "no\n" {
			t.Errorf("got %+v, want the hook's status", f)
		}
		sess.wait()
	})
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGPIPE, unix.Signal(33), unix.Signal(64)} {
		t.Run("signal "+sig.String(), func(t *testing.T) {
			sess, _, _ := gated(t, dir, exec)
			// The handlers are set once the stage sleeps in read.
			waitAsleep(t, sess.child)
			if err := unix.Kill(sess.child, sig); err != nil {
				t.Fatal(err)
			}
			if r := sess.wait(); r.status.ExitStatus() != 128+int(sig) {
				t.Errorf("status %#x, want exit %d", r.status, 128+int(sig))
			}
		})
	}
	t.Run("other signals", func(t *testing.T) {
		sess, gate, _ := gated(t, dir, exec)
		waitAsleep(t, sess.child)
		// A container that waits for its start is to be small.
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", sess.child)); err == nil {
			for _, line := range strings.Split(string(b), "\n") {
				if strings.HasPrefix(line, "Private_Dirty:") {
					t.Log(line)
					if n, err := strconv.Atoi(strings.Fields(line)[1]); err != nil || n > 128 {
						t.Errorf("%s, at most 128 kB", line)
					}
				}
			}
		}
		for _, sig := range []unix.Signal{unix.SIGCHLD, unix.SIGCONT, unix.SIGWINCH, unix.SIGURG, unix.SIGTSTP} {
			if err := unix.Kill(sess.child, sig); err != nil {
				t.Fatal(err)
			}
		}
		gate.Write([]byte{0})
		if r := sess.wait(); r.output != "through\n" {
			t.Errorf("output %q, status %#x", r.output, r.status)
		}
	})
}

func waitAsleep(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if bytes.HasPrefix(b, []byte(strconv.Itoa(unix.SYS_READ)+" ")) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the stage does not wait at the gate")
}
