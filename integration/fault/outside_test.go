package fault

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A frozen container is refused, waited for, killed and deleted.
func TestF22FrozenBetweenCheckAndFork(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	pid := b.start()
	p := b.begin("exec.launch:sleep=1", "exec", b.id, "true")
	time.Sleep(300 * time.Millisecond)
	b.ok("pause", b.id)
	r := p.end(t)
	r.failed(t, "did not answer in time")
	if r.took > 25*time.Second {
		t.Error(r)
	}
	b.refused([]string{"paused"}, "exec", b.id, "true")
	b.refused([]string{"paused"}, "start", b.id)
	b.ok("resume", b.id)
	b.alone(pid)
	b.ok("pause", b.id)
}

// After a reboot a pid is somebody else's.
func TestF35Reboot(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.ok("create", b.id)
	pid := b.state().Pid
	// The victim is in no cgroup of the container's, as after a reboot.
	elsewhere := &box{t: t, id: b.id + "-elsewhere"}
	for _, d := range elsewhere.premade() {
		b.must(os.WriteFile(filepath.Join(d, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
	}
	file := filepath.Join(b.root, b.id, "state.json")
	data, err := os.ReadFile(file)
	b.must(err)
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	b.must(err)
	other := bytes.ReplaceAll(data, bytes.TrimSpace(boot), []byte("11111111-2222-3333-4444-555555555555"))
	if bytes.Equal(other, data) {
		t.Fatal("the record does not hold the boot id")
	}
	b.must(os.WriteFile(file, sealed(other), 0o600))
	if s := b.state(); s.Status != "stopped" || s.Pid != 0 {
		t.Errorf("state is %+v", s)
	}
	b.refused(nil, "kill", b.id, "KILL")
	b.refused(nil, "exec", b.id, "true")
	b.refused(nil, "start", b.id)
	b.ok("delete", "--force", b.id)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the process that has the pid now: %v", err)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	for _, d := range elsewhere.directories() {
		b.must(eventually(limit, func() error { return os.Remove(d) }))
	}
}

// A socket that is not what it should be fails the command before anything starts: that of the
// console, that of the pidfd, and that of the seccomp listener (F40).
func TestF39Sockets(t *testing.T) {
	for flag, terminal := range map[string]bool{"--console-socket": true, "--pidfd-socket": false, "F40 listenerPath": false} {
		for name, make := range map[string]func(b *box, path string) error{
			"missing":   func(*box, string) error { return nil },
			"file":      func(_ *box, p string) error { return os.WriteFile(p, nil, 0o600) },
			"directory": func(_ *box, p string) error { return os.Mkdir(p, 0o700) },
			"refusing": func(_ *box, p string) error {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return unix.Bind(fd, &unix.SockaddrUnix{Name: p})
			},
			"datagrams": func(b *box, p string) error {
				l, err := net.ListenPacket("unixgram", p)
				if err == nil {
					b.t.Cleanup(func() { l.Close() })
				}
				return err
			},
			"closed at once": func(b *box, p string) error {
				l, err := net.Listen("unix", p)
				if err != nil {
					return err
				}
				b.t.Cleanup(func() { l.Close() })
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						c.Close()
					}
				}()
				return nil
			},
		} {
			t.Run(flag+" "+name, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, spec{args: []string{"sh", "-c", ">/tmp/started"}, terminal: terminal})
				path := b.path("socket")
				b.must(make(b, path))
				args := []string{"create", flag, path, b.id}
				if strings.HasPrefix(flag, "F40") {
					b.write(notified(path))
					args = []string{"create", b.id}
				}
				// Time for the receiver to do what it does.
				r := b.fault("create.cgroup:sleep=1", args...)
				if strings.HasPrefix(flag, "F40") && name == "closed at once" {
					// Whether the receiver still listens is seen when the filter is loaded.
					if r.code != 0 {
						t.Fatal(r)
					}
					r = b.rt("start", b.id)
					r.failed(t, "listener")
					b.gone(2 * time.Second)
					b.ok("delete", b.id)
					b.clean()
					return
				}
				r.failed(t, "socket")
				if r.took > 15*time.Second {
					t.Error(r)
				}
				b.clean()
			})
		}
	}
}

// notified has a seccomp filter with a listener.
func notified(path string) spec {
	return spec{args: []string{"sleep", "1000"}, edit: func(config object) {
		config["linux"].(object)["seccomp"] = object{
			"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
			"syscalls": []object{{"names": []string{"mkdirat"}, "action": "SCMP_ACT_NOTIFY"}},
		}
	}}
}

// A receiver of the listener that has stopped reading: the queue of connections is full, or only
// nobody reads.
func TestF40SilentListener(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	path := b.path("socket")
	srv := b.fullQueue(path)
	b.write(notified(path))
	r := b.rt("create", b.id)
	r.failed(t, "/linux/seccomp/listenerPath", "timed out")
	if r.took > 20*time.Second {
		t.Error(r)
	}
	b.clean()
	for { // make room
		fd, _, err := unix.Accept4(srv, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			break
		}
		defer unix.Close(fd)
	}
	// What nobody reads lies in the socket: the container runs, and is deleted.
	b.start()
	b.ok("delete", "--force", b.id)
	b.clean()
}

// fullQueue is a listening socket, non-blocking, whose queue is full.
func (b *box) fullQueue(path string) (srv int) {
	b.t.Helper()
	srv, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	b.must(err)
	b.t.Cleanup(func() { unix.Close(srv) })
	b.must(unix.Bind(srv, &unix.SockaddrUnix{Name: path}))
	b.must(unix.Listen(srv, 0))
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		b.must(err)
		b.t.Cleanup(func() { unix.Close(fd) })
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			return srv
		}
		b.must(err)
	}
}

// The log never fails a command, but for one that cannot be opened.
func TestF41Log(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	fifo, dir, link := b.path("fifo"), b.path("logdir"), b.path("link")
	b.must(unix.Mkfifo(fifo, 0o600))
	b.must(os.Mkdir(dir, 0o700))
	b.must(os.Symlink("log", link))
	for _, log := range []string{fifo, dir, b.path("none/log")} {
		r := b.rt("--log", log, "create", b.id)
		r.failed(t, "log")
		if r.took > 5*time.Second {
			t.Error(r)
		}
		b.clean()
	}
	for _, log := range []string{"/dev/full", link} {
		if r := b.rt("--log", log, "--debug", "create", b.id); r.code != 0 {
			t.Error(r)
		}
		if r := b.rt("--log", log, "create", b.id); r.code != 1 || !strings.Contains(r.out, "already exists") {
			t.Error(r)
		}
		b.ok("delete", "--force", b.id)
	}
	// One that reads nothing.
	fd, err := unix.Open(fifo, unix.O_RDWR|unix.O_CLOEXEC, 0)
	b.must(err)
	defer unix.Close(fd)
	unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 4096)
	for range 40 {
		if r := b.rt("--log", fifo, "--debug", "state", "nobody"); r.code != 1 || r.took > 5*time.Second {
			t.Error(r)
		}
	}
}

// Without its pid file no program starts.
func TestF42PidFile(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	full := b.path("full")
	b.must(os.Mkdir(full, 0o755))
	b.must(unix.Mount("full", full, "tmpfs", 0, "size=4k,nr_inodes=2"))
	defer unix.Unmount(full, unix.MNT_DETACH)
	b.must(os.WriteFile(filepath.Join(full, "file"), make([]byte, 4096), 0o600))
	for _, file := range []string{b.path("none/pid"), "/proc/pid", "/sys/pid", filepath.Join(full, "pid"), b.root} {
		for _, command := range []string{"create", "run"} {
			r := b.rt(command, "--pid-file", file, b.id)
			r.failed(t, "pid file")
			if err := eventually(2*time.Second, func() error {
				if p := b.processes(); len(p) > 0 {
					return fmt.Errorf("processes %v", p)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
	}
}

// The caller's own descriptors 0 to 2 may be closed, or lead to nobody.
func TestF43StandardDescriptors(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	for _, redirect := range []string{"<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"} {
		for _, command := range []string{"create $ID", "start $ID", "exec $ID true", "delete --force $ID"} {
			if r := b.shell("exec $RT " + command + " " + redirect); r.code != 0 {
				t.Errorf("%s %s: %v", command, redirect, r)
			}
		}
		b.clean()
	}
	// An error message that nobody reads does not keep it from rolling back.
	b.write(spec{args: []string{"no-such-program"}})
	b.shell("(sleep 0.2; $RT create $ID) 2>&1 | true; sleep 0.6")
	b.clean()
}
