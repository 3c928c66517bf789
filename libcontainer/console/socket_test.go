package console

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func soon() time.Time { return time.Now().Add(2 * time.Second) }

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSendFD(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	long := filepath.Join(dir, strings.Repeat("d", 100), strings.Repeat("e", 100))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, listen, dial string }{
		{"plain", dir + "/s", dir + "/s"},
		{"relative", dir + "/r", "r"},
		{"not abstract", dir + "/@a", "@a"},
		{"longest of sockaddr_un", dir + "/" + strings.Repeat("x", maxPath-1-len(dir)), dir + "/" + strings.Repeat("x", maxPath-1-len(dir))},
		{"F39 over 107 bytes", dir + "/l", filepath.Join(long, "sock")},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, c.listen)
			if c.name == "F39 over 107 bytes" {
				if err := os.Rename(c.listen, c.dial); err != nil {
					t.Fatal(err)
				}
			}
			f, err := os.CreateTemp(dir, "payload")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := SendFD(c.dial, "/dev/pts/ptmx", int(f.Fd()), soon()); err != nil {
				t.Fatal(err)
			}
			conn, err := l.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// As the callers have it: less than 4096 bytes, and room for one descriptor.
			buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4)+64)
			n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
			if err != nil || string(buf[:n]) != "/dev/pts/ptmx" || oobn != unix.CmsgSpace(4) || flags&unix.MSG_CTRUNC != 0 {
				t.Fatalf("%q, %d bytes of control data, %v", buf[:n], oobn, err)
			}
			msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(msgs) != 1 {
				t.Fatal(msgs, err)
			}
			fds, err := unix.ParseUnixRights(&msgs[0])
			if err != nil || len(fds) != 1 {
				t.Fatal(fds, err)
			}
			defer unix.Close(fds[0])
			var a, b unix.Stat_t
			if unix.Fstat(fds[0], &a) != nil || unix.Fstat(int(f.Fd()), &b) != nil || a.Ino != b.Ino || a.Dev != b.Dev {
				t.Fatal("another file came")
			}
			if n, err := conn.Read(buf); n != 0 || err == nil {
				t.Fatal("the connection is not closed", n, err)
			}
		})
	}
}

func TestF39Failures(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "dead")
	l := listen(t, dead)
	l.SetUnlinkOnClose(false)
	l.Close()
	dgram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/dgram", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer dgram.Close()
	for _, c := range []struct {
		name, path string
		want       error
	}{
		{"missing", dir + "/none", unix.ENOENT},
		{"missing long", dir + "/" + strings.Repeat("n", 200), unix.ENOENT},
		{"file", file, unix.ECONNREFUSED},
		{"refusing", dead, unix.ECONNREFUSED},
		{"datagram", dir + "/dgram", unix.EPROTOTYPE},
		{"directory", dir, unix.ECONNREFUSED},
		{"empty", "", nil},
		{"NUL", "a\x00b", nil},
	} {
		err := SendFD(c.path, "x", 0, soon())
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), "connect to socket") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestF39SilentReceivers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	// Never accepts, queue of one: the first connections fit, later ones must
	// give up at the deadline.
	srv, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(srv)
	if err := errors.Join(unix.Bind(srv, &unix.SockaddrUnix{Name: path}), unix.Listen(srv, 0)); err != nil {
		t.Fatal(err)
	}
	full := false
	for range 10 {
		begin := time.Now()
		s, err := Dial(path, begin.Add(100*time.Millisecond))
		if err == nil {
			defer s.Close()
			// Nobody reads, the message waits in the socket.
			if err := s.Send("x", 0, soon()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		took := time.Since(begin)
		if !errors.Is(err, unix.ETIMEDOUT) || took < 100*time.Millisecond || took > 2*time.Second {
			t.Fatal(took, err)
		}
		full = true
		break
	}
	if !full {
		t.Fatal("the queue never filled")
	}
	// Room in time: the waiting Dial gets it.
	time.AfterFunc(50*time.Millisecond, func() {
		fd, _, err := unix.Accept4(srv, unix.SOCK_CLOEXEC)
		if err == nil {
			unix.Close(fd)
		}
	})
	s, err := Dial(path, soon())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
}

func TestF39SendFailures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := listen(t, path)
	s, err := Dial(path, soon())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send("", 0, soon()); err == nil {
		t.Error("sent an empty name")
	}
	if err := s.Send("x", 987654, soon()); !errors.Is(err, unix.EBADF) {
		t.Error("closed descriptor:", err)
	}
	// A receiver that stops reading fills the socket: the deadline holds.
	begin := time.Now()
	for err = error(nil); err == nil; {
		err = s.Send(strings.Repeat("x", 4000), 0, begin.Add(300*time.Millisecond))
	}
	if took := time.Since(begin); !errors.Is(err, unix.ETIMEDOUT) && !errors.Is(err, unix.ETOOMANYREFS) || took > 5*time.Second {
		t.Error(took, err)
	}
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := s.Send("x", 0, soon()); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Error("closed by the receiver:", err)
	}
}

func TestNoDescriptorLeak(t *testing.T) {
	dir := t.TempDir()
	listen(t, dir+"/s")
	count := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	run := func() {
		SendFD(dir+"/s", "x", 0, soon())
		SendFD(dir+"/s", "x", -1, soon())
		SendFD(dir+"/none", "x", 0, soon())
		SendFD(dir+"/"+strings.Repeat("n", 200), "x", 0, soon())
		SendFD(dir+strings.Repeat("/.", 100)+"/s", "x", 0, soon())
		SendFD(dir+strings.Repeat("/.", 100), "x", 0, soon())
	}
	run()
	before := count()
	for range 10 {
		run()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
