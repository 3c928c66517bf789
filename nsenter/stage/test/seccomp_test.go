package test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

// notifyFilter asks the listener about uname(2), and allows all else.
func notifyFilter() plan.Operand {
	b := []byte{}
	for _, in := range [][4]uint32{
		{unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, 0, 0, 0},
		{unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, 0, 1, unix.SYS_UNAME},
		{unix.BPF_RET | unix.BPF_K, 0, 0, unix.SECCOMP_RET_USER_NOTIF},
		{unix.BPF_RET | unix.BPF_K, 0, 0, unix.SECCOMP_RET_ALLOW},
	} {
		b = binary.NativeEndian.AppendUint16(b, uint16(in[0]))
		b = append(b, byte(in[1]), byte(in[2]))
		b = binary.NativeEndian.AppendUint32(b, in[3])
	}
	return s(string(b))
}

func listening(state ...string) plan.Op {
	o := op(plan.KindSeccomp, notifyFilter(), l(state...))
	return file(num(o, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, 1), 0)
}

// The listener goes to the socket with the state in one message, and nothing of
// it to the program.
func TestListener(t *testing.T) {
	dir := rootfs(t)
	for _, deferred := range []uint64{0, 1} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(pair[1]), "receiver")
		filter := listening(`{"pid":`, `,"init":`, `,"end":"`+strings.Repeat("x", 100_000)+`"}`)
		filter.Num[1] = deferred
		script := shell("ls -l /proc/self/fd | grep -c -e anon_inode -e socket; ls /proc/self/task | wc -l; uname; ls /proc/self/fd | wc -l")
		b := inRoot(dir).add(mount("proc", "/proc"), op(plan.KindPivot), num(op(plan.KindAwait), plan.MsgReady), op(plan.KindNoNewPrivs), filter).add(script...)
		p := b.plan(1)
		go func() {
			// What asks is told that there is no such call when the listener is closed.
			buf, oob := make([]byte, 200_000), make([]byte, 64)
			n, oobn, _, _, err := unix.Recvmsg(pair[0], buf, oob, unix.MSG_CMSG_CLOEXEC)
			if err != nil {
				t.Error(err)
				return
			}
			msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(msgs) != 1 {
				t.Errorf("control messages %v, %v", msgs, err)
				return
			}
			fds, err := unix.ParseUnixRights(&msgs[0])
			if err != nil || len(fds) != 1 {
				t.Errorf("descriptors %v, %v", fds, err)
				return
			}
			var got struct {
				Pid, Init int
				End       string
			}
			for json.Unmarshal(buf[:n], &got) != nil {
				m, err := unix.Read(pair[0], buf[n:])
				if err != nil || m == 0 {
					t.Errorf("state of %d bytes %.60q: %v", n, buf[:n], err)
					break
				}
				n += m
			}
			if got.Pid != got.Init || got.Pid < 2 || len(got.End) != 100_000 {
				t.Errorf("state %.60q", buf[:n])
			}
			unix.Close(fds[0])
			unix.Close(pair[0])
		}()
		r := must(t, launch{plan: p, files: []*os.File{theirs}}.run(t))
		theirs.Close()
		contains(t, r.output, "0", "1", "4")
		if !strings.Contains(r.output, "1\n\n4\n") {
			t.Errorf("deferred %d: uname was not asked about: %q", deferred, r.output)
		}
	}
}

func TestListenerErrors(t *testing.T) {
	dir := rootfs(t)
	for _, c := range []struct {
		name  string
		op    plan.Op
		gone  bool
		errno unix.Errno
		step  plan.Step
	}{
		{"receiver is gone", listening("x", "y"), true, unix.EPIPE, plan.StepDeliver},
		{"receiver does not read", listening(strings.Repeat("x", 4<<20), "y"), false, unix.ETIMEDOUT, plan.StepDeliver},
		{"unknown flag", num(listening("x", "y"), unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|1<<20, 1), false, unix.EINVAL, plan.StepNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			theirs := os.NewFile(uintptr(pair[1]), "receiver")
			defer theirs.Close()
			if c.gone {
				unix.Close(pair[0])
			} else {
				defer unix.Close(pair[0])
			}
			tv := unix.NsecToTimeval(int64(200 * time.Millisecond))
			if err := unix.SetsockoptTimeval(pair[1], unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
				t.Fatal(err)
			}
			mark := filepath.Join(dir, "tmp/ran")
			b := inRoot(dir).add(op(plan.KindPivot), num(op(plan.KindAwait), plan.MsgReady), op(plan.KindNoNewPrivs), c.op).add(shell("touch /tmp/ran")...)
			p := b.plan(1)
			r := launch{plan: p, files: []*os.File{theirs}}.run(t)
			f := r.failure()
			if f == nil || f.Errno != c.errno || f.Step != c.step || p.Ops[f.Op].Kind != plan.KindSeccomp {
				t.Errorf("got %+v, want %v at step %d of the filter", f, c.errno, c.step)
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("the program has run")
			}
		})
	}
}

func TestTune(t *testing.T) {
	attr := make([]byte, 56)
	binary.NativeEndian.PutUint32(attr, 56)
	binary.NativeEndian.PutUint32(attr[4:], 3) // SCHED_BATCH
	binary.NativeEndian.PutUint32(attr[16:], 5)
	one := string([]byte{1, 0, 0, 0, 0, 0, 0, 0})
	tune := func(attribute, value uint64, data string) plan.Op {
		return num(op(plan.KindTune, s(data)), attribute, value)
	}
	b := (&builder{}).add(
		tune(plan.TuneAffinity, 0, one), fork(0),
		tune(plan.TuneScheduler, 0, string(attr)), tune(plan.TuneIOPriority, 3<<13, ""),
		tune(plan.TunePersonality, 8, ""),
	).add(shell("uname -m; cut -d' ' -f19,41 /proc/self/stat; grep Cpus_allowed_list /proc/self/status; ionice")...)
	r := must(t, launch{plan: b.plan(0)}.run(t))
	contains(t, r.output, "5 3", "Cpus_allowed_list:\t0", "idle")
	if strings.Contains(r.output, "x86_64") {
		t.Errorf("personality is not set: %q", r.output)
	}
}
