package fault

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// sealed gives a record that was changed the trailer that belongs to it.
func sealed(data []byte) []byte {
	body, _, _ := bytes.Cut(data, []byte(`,"check":`))
	h := fnv.New64a()
	h.Write(body)
	return fmt.Appendf(body, ",\"check\":\"%08x%016x\"}\n", len(body), h.Sum64())
}

// replaced removes a file and calls make for one in its place.
func replaced(path string, make func(string) error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return make(path)
}

func TestF27DamagedState(t *testing.T) {
	change := func(edit func([]byte) []byte) func(string) error {
		return func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, edit(data), 0o600)
		}
	}
	newer := func(d []byte) []byte { return bytes.Replace(d, []byte(`"version":1`), []byte(`"version":9`), 1) }
	cases := map[string]func(path string) error{
		"empty":          change(func([]byte) []byte { return nil }),
		"half":           change(func(d []byte) []byte { return d[:len(d)/2] }),
		"NUL bytes":      change(func(d []byte) []byte { return make([]byte, len(d)) }),
		"wrong checksum": change(newer),
		"newer version":  change(func(d []byte) []byte { return sealed(newer(d)) }),
		"other id":       change(func(d []byte) []byte { return sealed(bytes.Replace(d, []byte(`"id":"`), []byte(`"id":"x`), 1)) }),
		"wrong type":     change(func(d []byte) []byte { return sealed(bytes.Replace(d, []byte(`"pid":`), []byte(`"pid":"a","x":`), 1)) }),
		"1 GiB":          func(path string) error { return os.Truncate(path, 1<<30) },
		"directory": func(path string) error {
			return replaced(path, func(p string) error { return os.Mkdir(p, 0o700) })
		},
		"full directory": func(path string) error {
			return replaced(path, func(p string) error {
				os.Mkdir(p, 0o700)
				return os.WriteFile(filepath.Join(p, "file"), nil, 0o600)
			})
		},
		"fifo": func(path string) error { return replaced(path, func(p string) error { return unix.Mkfifo(p, 0o600) }) },
		"socket": func(path string) error {
			return replaced(path, func(p string) error { return unix.Mknod(p, unix.S_IFSOCK|0o600, 0) })
		},
		"link": func(path string) error {
			if err := os.Rename(path, path+".moved"); err != nil {
				return err
			}
			return os.Symlink(path+".moved", path)
		},
	}
	for name, damage := range cases {
		for _, status := range []string{"created", "running"} {
			t.Run(name+" "+status, func(t *testing.T) {
				t.Parallel()
				b := newBox(t, sleeper)
				other := newBox(t, sleeper)
				other.root = b.root
				other.ok("create", other.id)
				b.ok("create", b.id)
				if status == "running" {
					b.ok("start", b.id)
				}
				pid := b.state().Pid
				b.must(damage(filepath.Join(b.root, b.id, "state.json")))
				b.damaged(other)
				for _, args := range [][]string{
					{"state", b.id}, {"start", b.id}, {"exec", b.id, "true"}, {"kill", b.id, "KILL"},
					{"pause", b.id}, {"ps", b.id}, {"delete", b.id},
				} {
					b.refused([]string{"damaged"}, args...)
				}
				if err := syscall.Kill(pid, 0); err != nil {
					t.Errorf("init: %v", err)
				}
				b.ok("delete", "--force", b.id)
				b.clean()
				other.is("created")
			})
		}
	}
}

// damaged checks that list tells of the damaged container and goes on to the other.
func (b *box) damaged(other *box) {
	b.t.Helper()
	out := b.ok("list")
	if !strings.Contains(out, "load container "+b.id+": ") || !strings.Contains(out, "damaged") {
		b.t.Errorf("list: %q; expected it to tell of %s", out, b.id)
	}
	if !strings.Contains(out, other.id+" ") {
		b.t.Errorf("list: %q; expected %s in it", out, other.id)
	}
}

func TestF27TruncatedState(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.ok("create", b.id)
	path := filepath.Join(b.root, b.id, "state.json")
	whole, err := os.ReadFile(path)
	b.must(err)
	step := 61
	if long() {
		step = 1
	}
	for n := len(whole) - 1; n >= 0; n -= step {
		b.must(os.WriteFile(path, whole[:n], 0o600))
		if r := b.rt("list"); r.code != 0 || !strings.Contains(r.out, "damaged") {
			t.Errorf("cut off after %d bytes: %v", n, r)
		}
	}
	b.must(os.WriteFile(path, whole, 0o600))
	b.is("created")
}

// Without an intent the record is enough.
func TestF27DamagedIntent(t *testing.T) {
	for name, content := range map[string]string{"removed": "", "damaged": "{"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, sleeper)
			b.ok("create", b.id)
			intent := filepath.Join(b.root, b.id, "intent")
			b.must(os.Remove(intent))
			if content != "" {
				b.must(os.WriteFile(intent, []byte(content), 0o600))
			}
			b.is("created")
			b.ok("start", b.id)
			b.is("running")
		})
	}
}

// A damaged intent without a record: nothing but the directory is known.
func TestF27DamagedIntentOnly(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	b.must(os.Mkdir(filepath.Join(b.root, b.id), 0o700))
	b.must(os.WriteFile(filepath.Join(b.root, b.id, "intent"), []byte("{"), 0o600))
	if out := b.ok("list"); !strings.Contains(out, "load container "+b.id+": ") {
		t.Errorf("list: %q; expected it to tell of %s", out, b.id)
	}
	b.refused(nil, "state", b.id)
}

// Everything after create works without the bundle.
func TestF29BundleReplaced(t *testing.T) {
	t.Parallel()
	b := newBox(t, sleeper)
	bundle := filepath.Join(b.dir, "bundle")
	b.must(os.Mkdir(bundle, 0o755))
	b.must(makeRootfs(filepath.Join(bundle, "rootfs")))
	config, err := os.ReadFile(filepath.Join(b.dir, "config.json"))
	b.must(err)
	config = bytes.Replace(config, []byte(filepath.Join(work, "rootfs")), []byte("rootfs"), 1)
	b.must(os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644))
	b.ok("create", "--bundle", bundle, b.id)
	b.must(os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{"), 0o644))
	b.ok("start", b.id)
	b.must(os.Rename(bundle, bundle+".moved"))
	b.is("running")
	b.ok("exec", b.id, "true")
	b.ok("kill", b.id, "KILL")
	b.is("stopped")
	b.ok("delete", b.id)
	b.clean()
}
