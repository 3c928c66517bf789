package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func testRoot(t testing.TB) *Root {
	t.Helper()
	r, err := OpenRoot(filepath.Join(t.TempDir(), "root"), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestS35UmaskAndModes(t *testing.T) {
	for _, umask := range []int{0, 0o777, 0o022} {
		t.Run(fmt.Sprintf("%03o", umask), func(t *testing.T) {
			base := t.TempDir()
			defer syscall.Umask(syscall.Umask(umask))
			r, err := OpenRoot(filepath.Join(base, "a/b"), true)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			d, err := r.Reserve("c", testIntent())
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := errors.Join(d.Save(testRecord()), d.SaveConfig([]byte("x")), d.MakeFifos()); err != nil {
				t.Fatal(err)
			}
			for path, want := range map[string]fs.FileMode{
				"a": fs.ModeDir | 0o700, "a/b": fs.ModeDir | 0o700, "a/b/c": fs.ModeDir | 0o700,
				"a/b/c/intent": 0o600, "a/b/c/state.json": 0o600, "a/b/c/config.json": 0o600,
				"a/b/c/gate": fs.ModeNamedPipe | 0o600, "a/b/c/result": fs.ModeNamedPipe | 0o600,
			} {
				st, err := os.Lstat(filepath.Join(base, path))
				if err != nil || st.Mode() != want {
					t.Errorf("%s: %v, %v", path, st.Mode(), err)
				}
			}
		})
	}
}

func TestS35OpenRootRefuses(t *testing.T) {
	base := t.TempDir()
	mk := func(name string, mode fs.FileMode) string {
		p := filepath.Join(base, name)
		if err := errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	good := mk("good", 0o700)
	link := filepath.Join(base, "link")
	os.Symlink(good, link)
	dangling := filepath.Join(base, "dangling")
	os.Symlink(filepath.Join(base, "nothing"), dangling)
	file := filepath.Join(base, "file")
	os.WriteFile(file, nil, 0o600)
	cases := []struct{ name, path, text string }{
		{"group", mk("group", 0o770), "its mode is 0770"},
		{"world", mk("world", 0o707), "its mode is 0707"},
		{"link", link, "symbolic link"},
		{"link with slash", link + "/", "symbolic link"},
		{"link with dot", link + "/.", "symbolic link"},
		{"dangling", dangling, "symbolic link"},
		{"file", file, "directory"},
		{"root", "/", "it is the root directory"},
		{"root again", "//..//", "it is the root directory"},
		{"empty", "", "empty"},
	}
	if os.Geteuid() == 0 {
		p := mk("foreign", 0o700)
		if err := os.Chown(p, 1234, 0); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, struct{ name, path, text string }{"foreign", p, "belongs to uid 1234"})
	}
	for _, c := range cases {
		r, err := OpenRoot(c.path, true)
		if err == nil {
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(base, "nothing")); err == nil {
		t.Error("made the target of a dangling link")
	}
	if _, err := OpenRoot(filepath.Join(base, "missing"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	r, err := OpenRoot(good+"/", false)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestS38IDs(t *testing.T) {
	r := testRoot(t)
	outside := filepath.Join(filepath.Dir(r.Path()), "outside")
	if err := errors.Join(os.Mkdir(outside, 0o700), os.WriteFile(outside+"/canary", []byte("c"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", ".", "..", "a/b", "/etc", "../outside", strings.Repeat("a", 256), "a\n", "%s", "\u00e9", "a b", "a\x00"} {
		if _, err := r.Reserve(id, Intent{}); !errors.Is(err, ErrInvalidID) && !errors.Is(err, ErrEmptyID) {
			t.Errorf("reserve %q: %v", id, err)
		}
		if _, err := r.Open(id); !errors.Is(err, ErrInvalidID) && !errors.Is(err, ErrEmptyID) {
			t.Errorf("open %q: %v", id, err)
		}
	}
	for _, id := range []string{"a", "A-z_0+9.x", "...", "-x", strings.Repeat("a", 255)} {
		d, err := r.Reserve(id, Intent{})
		if err != nil {
			t.Errorf("%q: %v", id, err)
			continue
		}
		d.Close()
	}
	if err := os.Symlink(outside, filepath.Join(r.Path(), "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open("link"); !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		t.Errorf("open a link: %v", err)
	}
	if _, err := r.Reserve("link", Intent{}); !errors.Is(err, ErrExist) {
		t.Errorf("reserve a link: %v", err)
	}
	if _, err := r.Open("nobody"); !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "container does not exist") {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(r.Path(), "file"), nil, 0o600)
	ids, err := r.List()
	if err != nil || len(ids) != 5 || !slices.IsSorted(ids) || slices.Contains(ids, "link") {
		t.Errorf("list: %q, %v", ids, err)
	}
	if again, err := r.List(); err != nil || !slices.Equal(again, ids) {
		t.Errorf("second list: %q, %v", again, err)
	}
}
