package fault

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// injected runs rt below strace(1), which makes the call on the file at path fail with errno.
func (b *box) injected(path, call, errno string, args ...string) result {
	b.t.Helper()
	strace, err := exec.LookPath("strace")
	b.must(err)
	log := filepath.Join(b.dir, "strace")
	r := command(strace, b.dir, nil, 0, append([]string{"-f", "-qqq", "-o", log, "-P", path,
		"-e", "trace=" + call, "-e", "inject=" + call + ":error=" + errno, faultBin, "--root", b.root}, args...)...).end(b.t)
	calls, err := os.ReadFile(log)
	b.must(err)
	if !strings.Contains(string(calls), "(INJECTED)") {
		b.t.Fatalf("no %s of %s was made to fail: %q", call, path, calls)
	}
	return r
}

// create fails as a whole whatever file cannot be written, and delete writes nothing that it needs.
func TestF13WriteFails(t *testing.T) {
	t.Parallel()
	errnos := map[string]string{"EIO": "input/output error", "EDQUOT": "disk quota exceeded", "ENOSPC": "no space left on device"}
	for name, inBundle := range map[string]bool{".intent.tmp": false, ".config.json.tmp": false, ".state.json.tmp": false, ".pid": true} {
		for errno, words := range errnos {
			for _, call := range []string{"write", "close"} {
				t.Run(strings.Join([]string{name, errno, call}, " "), func(t *testing.T) {
					t.Parallel()
					b := newBox(t, everything)
					dir := filepath.Join(b.root, b.id)
					if inBundle {
						dir = b.dir
					}
					r := b.injected(filepath.Join(dir, name), call, errno, "create", "--pid-file", "pid", b.id)
					r.failed(t, words)
					b.clean()
					if _, err := os.Lstat(b.path("pid")); err == nil {
						t.Error("the pid file is there")
					}
					// Not so much as the mark that it has begun.
					b.ok("create", b.id)
					if !inBundle && name == ".state.json.tmp" {
						if r := b.injected(filepath.Join(dir, name), call, errno, "delete", "--force", b.id); r.code != 0 {
							t.Error(r)
						}
						b.clean()
					}
				})
			}
		}
	}
}
