package security

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// describe is all that can be told of a file: identity, owner, mode, times,
// attributes, and what is in it.
func describe(path string) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("%d:%d mode %o owner %d:%d links %d rdev %#x size %d mtime %d.%09d ctime %d.%09d", st.Dev, st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink,
		st.Rdev, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec)
	names := make([]byte, 4096)
	if n, err := unix.Llistxattr(path, names); err == nil && n > 0 {
		for _, name := range strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
			value := make([]byte, 4096)
			n, _ := unix.Lgetxattr(path, name, value)
			text += fmt.Sprintf(" %s=%q", name, value[:max(n, 0)])
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, _ := os.Readlink(path)
		text += " -> " + target
	case unix.S_IFREG:
		data, _ := os.ReadFile(path)
		text += fmt.Sprintf(" %x", sha256.Sum256(data))
	}
	return text
}

// look describes everything outside, and what is beside the bundle.
func (b *box) look() map[string]string {
	b.t.Helper()
	seen := map[string]string{b.top: describe(b.top)}
	entries, err := os.ReadDir(b.top)
	b.must(err)
	for _, e := range entries {
		seen[filepath.Join(b.top, e.Name())] = ""
	}
	b.must(filepath.WalkDir(b.outside, func(path string, _ fs.DirEntry, err error) error {
		seen[path] = describe(path)
		return err
	}))
	return seen
}

// untouched compares outside with what it was.
func (b *box) untouched() {
	b.t.Helper()
	if b.canary == nil {
		return
	}
	now := b.look()
	for path, was := range b.canary {
		if is, ok := now[path]; !ok {
			b.t.Errorf("outside the container: %s has vanished", path)
		} else if is != was {
			b.t.Errorf("outside the container: %s was %s, now is %s", path, was, is)
		}
	}
	for path, is := range now {
		if _, ok := b.canary[path]; !ok {
			b.t.Errorf("outside the container: %s has come to be: %s", path, is)
		}
	}
}

// The canary itself can fail.
func TestS00Canary(t *testing.T) {
	for name, change := range map[string]func(b *box) error{
		"content": func(b *box) error {
			return os.WriteFile(filepath.Join(b.outside, "secret"), []byte("The Host's\n"), 0o644)
		},
		"mode":     func(b *box) error { return os.Chmod(filepath.Join(b.outside, "secret"), 0o600) },
		"owner":    func(b *box) error { return os.Chown(filepath.Join(b.outside, "secret"), 1, 1) },
		"new file": func(b *box) error { return os.WriteFile(filepath.Join(b.outside, "new"), nil, 0o644) },
		"removed":  func(b *box) error { return os.Remove(filepath.Join(b.outside, "secret")) },
		"beside":   func(b *box) error { return os.Mkdir(filepath.Join(b.top, "new"), 0o755) },
		"attribute": func(b *box) error {
			return unix.Setxattr(filepath.Join(b.outside, "secret"), "trusted.x", []byte("y"), 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.canary = b.look()
			b.must(change(b))
			probe := *b
			probe.t = &testing.T{}
			probe.untouched()
			if !probe.t.Failed() {
				t.Error("the canary has not noticed")
			}
			b.canary = nil
		})
	}
}
