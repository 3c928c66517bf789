package fault

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stuck is a FUSE file system with one file, "file". Whoever reads it waits, and cannot even
// be killed, for the kernel waits for the answer to a request that the server has taken, until
// answer is called (Documentation/filesystems/fuse). It has nothing but what
// that needs of the protocol, <linux/fuse.h>.
type stuck struct {
	fd    int
	mu    sync.Mutex
	held  []uint64 // requests that are not answered
	given bool
}

// mountStuck mounts one on a directory, until the test ends. Then the end of its server ends
// all that wait.
func (b *box) mountStuck() (s *stuck, dir string) {
	b.t.Helper()
	dir = b.dir + "-fuse" // what is mounted in the bundle is taken for a leak
	b.must(os.Mkdir(dir, 0o755))
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT || err == unix.ENODEV || err == unix.EPERM {
		b.t.Skipf("open /dev/fuse: %v", err)
	}
	b.must(err)
	s = &stuck{fd: fd}
	if err := unix.Mount("rt-test", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)); err != nil {
		unix.Close(fd)
		b.t.Skipf("mount a FUSE file system: %v", err)
	}
	go s.serve()
	b.t.Cleanup(func() {
		s.answer()
		unix.Unmount(dir, unix.MNT_DETACH|unix.MNT_FORCE)
	})
	return s, dir
}

const (
	fuseLookup, fuseForget, fuseGetattr, fuseOpen, fuseRead = 1, 2, 3, 14, 15
	fuseStatfs, fuseInit, fuseOpendir                       = 17, 26, 27
	fuseInterrupt, fuseBatchForget                          = 36, 42

	fuseFile = 2 // its node; the root is 1
)

// serve answers until the file system is unmounted everywhere.
func (s *stuck) serve() {
	defer unix.Close(s.fd)
	buf := make([]byte, 1<<20)
	for {
		n, err := unix.Read(s.fd, buf)
		if err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT {
			continue
		}
		if err != nil || n < 40 {
			return // ENODEV: unmounted
		}
		// struct fuse_in_header: u32 len, opcode; u64 unique, nodeid; ...
		le := binary.LittleEndian
		opcode, unique, node := le.Uint32(buf[4:]), le.Uint64(buf[8:]), le.Uint64(buf[16:])
		var out []byte
		switch opcode {
		case fuseForget, fuseBatchForget, fuseInterrupt:
			continue
		case fuseInit:
			out = make([]byte, 64)
			le.PutUint32(out, 7)
			le.PutUint32(out[4:], 31)
			le.PutUint32(out[20:], 1<<16) // max_write
		case fuseLookup:
			if name, _, _ := strings.Cut(string(buf[40:n]), "\x00"); name != "file" {
				s.reply(unique, unix.ENOENT, nil)
				continue
			}
			out = make([]byte, 40, 128)
			le.PutUint64(out, fuseFile)
			out = append(out, attributes(fuseFile)...)
		case fuseGetattr:
			out = append(make([]byte, 16, 104), attributes(node)...)
		case fuseOpen, fuseOpendir:
			out = make([]byte, 16)
			out[8] = 1 // FOPEN_DIRECT_IO: each read is a request
		case fuseStatfs:
			out = make([]byte, 80)
		case fuseRead:
			s.mu.Lock()
			if !s.given {
				s.held = append(s.held, unique)
				s.mu.Unlock()
				continue
			}
			s.mu.Unlock()
		default:
			s.reply(unique, unix.ENOSYS, nil)
			continue
		}
		s.reply(unique, 0, out)
	}
}

// attributes is struct fuse_attr.
func attributes(node uint64) []byte {
	a := make([]byte, 88)
	le := binary.LittleEndian
	mode := uint32(unix.S_IFDIR | 0o755)
	if node == fuseFile {
		mode = unix.S_IFREG | 0o644
		le.PutUint64(a[8:], 1) // size
	}
	le.PutUint64(a, node)
	le.PutUint32(a[60:], mode)
	le.PutUint32(a[64:], 1) // nlink
	return a
}

func (s *stuck) reply(unique uint64, errno unix.Errno, out []byte) {
	b := make([]byte, 16, 16+len(out))
	le := binary.LittleEndian
	le.PutUint32(b, uint32(16+len(out)))
	le.PutUint32(b[4:], uint32(-int32(errno)))
	le.PutUint64(b[8:], unique)
	unix.Write(s.fd, append(b, out...)) // whoever asked may have gone
}

// waiting tells how many readers wait.
func (s *stuck) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// answer lets all readers go on.
func (s *stuck) answer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = true
	for _, unique := range s.held {
		s.reply(unique, 0, nil)
	}
	s.held = nil
}

// A process that not even SIGKILL ends, whoever it is: delete gives up after a while, names those
// that are left, and keeps the state, so that a later one succeeds.
func TestF26UnkillableProcess(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		edit   func(config object)
	}{
		"init":                   {"exec cat /tmp/file", nil},
		"its child":              {"cat /tmp/file & wait", nil},
		"F21 in the host's pids": {"cat /tmp/file & exec sleep 1000", ownPids},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			s, dir := b.mountStuck()
			b.write(spec{args: []string{"sh", "-c", c.script}, edit: func(config object) {
				config["mounts"] = append(config["mounts"].([]object), object{"destination": "/tmp", "type": "bind", "source": dir, "options": []string{"bind"}})
				if c.edit != nil {
					c.edit(config)
				}
			}})
			b.start()
			b.must(eventually(limit, func() error {
				if s.waiting() == 0 {
					return fmt.Errorf("nobody reads the file yet")
				}
				return nil
			}))
			left := ""
			for _, p := range b.processes() {
				if pid, _, _ := strings.Cut(p, " "); strings.Contains(p, " cat ") {
					left = pid
				}
			}
			for range rounds(1, 2) {
				r := b.rt("delete", "--force", b.id)
				r.failed(t, "SIGKILL has not ended", left)
				if r.took < 5*time.Second || r.took > 25*time.Second {
					t.Error(r)
				}
				if _, err := os.Stat(filepath.Join(b.root, b.id, "state.json")); err != nil {
					t.Errorf("the state is gone: %v", err)
				}
				if out := b.ok("list"); !strings.Contains(out, b.id) {
					t.Errorf("list: %q", out)
				}
			}
			b.refused([]string{"already exists"}, "create", b.id)
			s.answer()
			b.gone(limit)
			b.is("stopped")
			b.ok("delete", b.id)
			b.clean()
		})
	}
}
