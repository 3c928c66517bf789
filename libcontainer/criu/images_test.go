package criu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const canary = "nobody may read or write this"

// open opens an image directory that must be good.
func open(t *testing.T, path string) *Images {
	t.Helper()
	d, err := Open("image-path", path, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// entry is a name in a directory.
type entry struct{ name, kind, content string }

func file(name string) entry          { return entry{name, "file", "x"} }
func text(name, content string) entry { return entry{name, "file", content} }
func link(name, target string) entry  { return entry{name, "link", target} }
func subdirectory(name string) entry  { return entry{name, "directory", ""} }
func special(name, kind string) entry { return entry{name, kind, ""} }

// lay makes a directory with entries.
func lay(t *testing.T, entries ...entry) (dir string) {
	t.Helper()
	dir = t.TempDir()
	fill(t, dir, entries...)
	return dir
}

// fill makes entries in dir, and the directories that they are in.
func fill(t *testing.T, dir string, entries ...entry) {
	t.Helper()
	for _, e := range entries {
		name := filepath.Join(dir, e.name)
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if err == nil {
			switch e.kind {
			case "file":
				err = os.WriteFile(name, []byte(e.content), 0o600)
			case "link":
				err = os.Symlink(e.content, name)
			case "directory":
				err = os.Mkdir(name, 0o700)
			case "fifo":
				err = unix.Mkfifo(name, 0o600)
			case "socket":
				err = unix.Mknod(name, unix.S_IFSOCK|0o600, 0)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// expect compares an error with words that it must have; "" expects none.
func expect(t *testing.T, err error, words ...string) {
	t.Helper()
	if len(words) == 0 || words[0] == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, expected an error with %q", err, w)
		}
	}
}

// inTime runs what would wait for ever for the other end of a fifo.
func inTime(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(soon):
		t.Fatal("it does not return")
	}
}

func TestOpen(t *testing.T) { // not in parallel: the umask is the process's
	defer unix.Umask(unix.Umask(0o022))
	dir := lay(t, file("file"), subdirectory("there"), link("link", "there"), link("dangling", "missing"), link("way", "."))
	if err := os.Chmod(dir+"/there", 0o750); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path   string
		create bool
		mode   os.FileMode // of the directory then
		want   string
	}{
		{"there", false, 0o750, ""},
		{"there", true, 0o750, ""},
		{"new", true, 0o711, ""},
		{"a/b/c", true, 0o711, ""},
		// The path is the caller's.
		{"link", false, 0o750, ""},
		{"link", true, 0o750, ""},
		{"way/way/there", false, 0o750, ""},
		{"way/other", true, 0o711, ""},
		{"none", false, 0, "no such file"},
		{"file", false, 0, "not a directory"},
		{"file", true, 0, "not a directory"},
		{"file/x", true, 0, "not a directory"},
		{"dangling", false, 0, "no such file"},
		{"dangling", true, 0, "file exists"},
	} {
		t.Run(fmt.Sprintf("%s %v", row.path, row.create), func(t *testing.T) {
			path := filepath.Join(dir, row.path)
			d, err := Open("work-path", path, row.create)
			if row.want != "" {
				expect(t, err, row.want, "--work-path")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var there, opened unix.Stat_t
			if err := unix.Stat(path, &there); err != nil {
				t.Fatal(err)
			}
			if err := unix.Fstat(d.FD(), &opened); err != nil || opened.Ino != there.Ino || opened.Dev != there.Dev {
				t.Errorf("it is not %q that is open: %v", path, err)
			}
			if os.FileMode(opened.Mode&0o777) != row.mode {
				t.Errorf("mode %#o, expected %#o", opened.Mode&0o777, row.mode)
			}
			if flags, err := unix.FcntlInt(uintptr(d.FD()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Error("a program that rt starts would get it:", flags, err)
			}
		})
	}
	for _, name := range []string{"none", "missing"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%q has been made", name)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		entries []entry
		want    []string // words of the error; nil: it is good
	}{
		{"empty", nil, nil},
		{"files", []entry{file("core-1.img"), file("dump.log"), subdirectory("d"), special("lazy-pages.socket", "socket")}, nil},
		{"link for the log", []entry{file("a"), link("dump.log", "/etc/passwd")}, []string{`"dump.log"`, "symbolic link"}},
		{"link for an image", []entry{link("pages-1.img", "core-1.img"), file("core-1.img")}, []string{`"pages-1.img"`, "symbolic link"}},
		{"link for descriptors", []entry{link("descriptors.json", "nowhere")}, []string{`"descriptors.json"`, "symbolic link"}},
		{"link with another name", []entry{link("parent.img", "."), file("a")}, []string{`"parent.img"`, "symbolic link"}},
		{"hidden link", []entry{link(".x", "y")}, []string{`".x"`, "symbolic link"}},
		{"fifo", []entry{file("a"), special("pages-1.img", "fifo")}, []string{`"pages-1.img"`, "not a regular file"}},
		{"fifo for a parent", []entry{special("parent", "fifo")}, []string{`"parent"`, "not a regular file"}},

		{"parent", []entry{link("parent", "pre"), file("pre/core-1.img")}, nil},
		{"parent outside", []entry{link("images/parent", "../pre"), file("pre/core-1.img")}, nil},
		{"parent with a parent", []entry{link("images/parent", "../b"), link("b/parent", "../a/"), file("a/x")}, nil},
		{"parent, two up", []entry{link("parent", "../../x")}, []string{`"parent"`, "accepted are directories"}},
		{"parent, up again", []entry{link("parent", "a/../../../x")}, []string{`"parent"`, "accepted are directories"}},
		{"parent, absolute", []entry{link("parent", "/usr")}, []string{`"parent"`, `"/usr"`, "accepted are directories"}},
		{"parent, dangling", []entry{link("parent", "pre")}, []string{`"pre"`, "no such file"}},
		{"parent, a file", []entry{link("parent", "pre"), file("pre")}, []string{`"pre"`, "not a directory"}},
		{"parent, a fifo", []entry{link("parent", "d/pre"), special("d/pre", "fifo")}, []string{`"d/pre"`, "not a directory"}},
		{"parent, through a link", []entry{link("images/parent", "../way/pre"), link("way", "real"), file("real/pre/x")},
			[]string{`"../way/pre"`, "too many levels of symbolic links"}},
		{"parent, a link", []entry{link("images/parent", "../way"), link("way", "real"), file("real/x")},
			[]string{`"../way"`, "too many levels of symbolic links"}},
		{"parent, through proc", []entry{link("parent", strings.Repeat("../", 40)+"proc/self/cwd")},
			[]string{"proc/self/cwd", "accepted are directories"}},
		{"parent with a link", []entry{link("images/parent", "../pre"), link("pre/pages-1.img", "/etc/passwd")},
			[]string{`"pages-1.img"`, "/../pre", "symbolic link"}},
		{"parent with a fifo", []entry{link("images/parent", "../pre"), special("pre/stats", "fifo")},
			[]string{`"stats"`, "/../pre", "not a regular file"}},
		{"parent's parent with a link", []entry{link("images/parent", "../b"), link("b/parent", "../a"), link("a/x", "y")},
			[]string{`"x"`, "/../b/../a", "symbolic link"}},
		{"parent's parent, absolute", []entry{link("images/parent", "../b"), link("b/parent", "/usr")}, []string{`"parent"`, "/../b", `"/usr"`, "accepted are directories"}},

		// All of these have no end.
		{"its own parent", []entry{link("parent", ".")}, []string{"chain of more than 64"}},
		{"parents in a circle", []entry{link("images/parent", "../b"), link("b/parent", "../images")}, []string{"chain of more than 64"}},
		{"parent that is a parent", []entry{link("parent", "parent")}, []string{`"parent"`, "too many levels of symbolic links"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t, row.entries...)
			if _, err := os.Stat(dir + "/images"); err == nil {
				dir += "/images"
			}
			expect(t, open(t, dir).Check(), row.want...)
		})
	}
}

func TestCheckLogs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		entries []entry
		want    []string
	}{
		{"empty", nil, nil},
		{"logs", []entry{file("dump.log"), file("restore.log"), file("stats-dump"), file("stats-restore")}, nil},
		{"others", []entry{link("parent", "/usr"), link("latest", "elsewhere"), link("pages-1.img", "/etc/passwd"), special("queue", "fifo")}, nil},
		{"restore.log", []entry{link("restore.log", "nowhere")}, []string{`"restore.log"`, "symbolic link"}},
		{"dump.log", []entry{link("dump.log", "other"), file("other")}, []string{`"dump.log"`, "symbolic link"}},
		{"stats-dump", []entry{link("stats-dump", "nowhere")}, []string{`"stats-dump"`, "symbolic link"}},
		{"stats-restore", []entry{link("stats-restore", "nowhere")}, []string{`"stats-restore"`, "symbolic link"}},
		{"fifo", []entry{special("restore.log", "fifo")}, []string{`"restore.log"`, "not a regular file"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			expect(t, open(t, lay(t, row.entries...)).CheckLogs(), row.want...)
		})
	}
}

func expectNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("in the directory are %q, expected %q", names, want)
	}
}

// expectCanary makes sure that the file beside the images is as it was, and alone there.
func expectCanary(t *testing.T, dir string) {
	t.Helper()
	if b, err := os.ReadFile(dir + "/canary"); err != nil || string(b) != canary {
		t.Errorf("the canary: %q, %v", b, err)
	}
	expectNames(t, dir, "canary", "images")
}

func TestLogErrors(t *testing.T) {
	t.Parallel()
	const name = "dump.log"
	var log bytes.Buffer
	for i := range 5 {
		fmt.Fprintf(&log, "(00.00%d) Note\n(00.00%d) Error (criu/a.c:%d): no %d\n", i, i, i, i)
	}
	log.WriteString("(00.006) Error (criu/b.c:1): cannot raise RLIMIT_NOFILE\n(00.007) pie: 1: Error (criu/c.c:2): last")
	all := []string{"(criu/a.c:0): no 0", "(criu/a.c:1): no 1", "(criu/a.c:2): no 2", "(criu/a.c:3): no 3", "(criu/a.c:4): no 4", "(criu/c.c:2): last"}
	// The first byte that is read of a long one is that of kept, which is no error without it.
	const lost, kept = "(00.001) Error (lost): x\n", "Error (kept): x\n"
	fillUp := func(n int) string { return strings.Repeat("(00.003) more\n", n/14) + strings.Repeat("\n", n%14) }
	for _, row := range []struct {
		name    string
		entries []entry
		n       int
		want    []string
	}{
		{"all", []entry{text(name, log.String())}, 10, all},
		{"as many as there are", []entry{text(name, log.String())}, 6, all},
		{"the first three", []entry{text(name, log.String())}, 3, all[:3]},
		{"none", []entry{text(name, log.String())}, 0, nil},
		{"without errors", []entry{text(name, "(00.001) Warn  (criu/a.c:1): x\n")}, 3, nil},
		{"empty", []entry{text(name, "")}, 3, nil},
		{"missing", nil, 3, nil},
		{"short enough", []entry{text(name, lost+kept+fillUp(1<<16-len(lost+kept)))}, 3, []string{"(lost): x", "(kept): x"}},
		{"long", []entry{text(name, lost+kept+fillUp(1<<16-len(kept)))}, 3, []string{"(kept): x"}},
		{"very long", []entry{text(name, lost+fillUp(1<<20)+kept)}, 3, []string{"(kept): x"}},
		{"link", []entry{link(name, "other"), text("other", log.String())}, 3, nil},
		{"fifo", []entry{special(name, "fifo")}, 3, nil},
		{"directory", []entry{subdirectory(name)}, 3, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			d := open(t, lay(t, row.entries...))
			var got []string
			inTime(t, func() { got = d.LogErrors(name, row.n) })
			if !slices.Equal(got, row.want) {
				t.Errorf("got %q, expected %q", got, row.want)
			}
		})
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	dir := lay(t, text("other/big", strings.Repeat("x", 1<<16)), subdirectory("images"))
	d := open(t, dir+"/images")
	var sizes []int64
	look := func() { sizes = append(sizes, d.Size()) }
	look()
	fill(t, dir+"/images", text("a", "12345"))
	look()
	fill(t, dir+"/images", text("b", "123"), text(".c", "12"))
	look()
	fill(t, dir+"/images", text("a", "123456"))
	look()
	fill(t, dir+"/images", link("l", "../other/big")) // what is elsewhere does not count
	look()
	if err := os.Remove(dir + "/images/b"); err != nil {
		t.Fatal(err)
	}
	look()
	if want := []int64{0, 5, 10, 11, 11 + 12, 8 + 12}; !reflect.DeepEqual(sizes, want) {
		t.Errorf("sizes %v, expected %v", sizes, want)
	}
}

func TestAs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		change func(dir string) error // between Open and As
		want   string
	}{
		{"same", func(string) error { return nil }, ""},
		{"other content", func(dir string) error { return os.WriteFile(dir+"/x", nil, 0o600) }, ""},
		// It is the directory that has been opened, wherever that is now.
		{"moved", func(dir string) error { return os.Rename(dir, dir+"2") }, ""},
		{"another one in its place", func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Mkdir(dir, 0o700))
		}, ""},
		{"a link in its place", func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"2"), os.Mkdir(dir+"3", 0o700), os.Symlink(dir+"3", dir))
		}, ""},
		{"removed", os.Remove, "no such file"},
		{"removed, and made again", func(dir string) error {
			return errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700))
		}, "no such file"},
		// What the kernel calls a directory that is gone may be the name of one.
		{"removed, and its name taken", func(dir string) error {
			return errors.Join(os.Remove(dir), os.Mkdir(dir+" (deleted)", 0o700))
		}, "another directory by now"},
		{"removed, and its name a link's", func(dir string) error {
			return errors.Join(os.Remove(dir), os.Symlink(".", dir+" (deleted)"))
		}, "not a directory"},
		{"removed, and its name a file's", func(dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir+" (deleted)", nil, 0o600))
		}, "not a directory"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t, subdirectory("images")) + "/images"
			d := open(t, dir)
			if err := row.change(dir); err != nil {
				t.Fatal(err)
			}
			as, err := d.As(os.Getpid())
			if row.want != "" {
				expect(t, err, row.want, dir)
				if as != nil {
					t.Error("a directory came with the error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			expectSame(t, d, as)
			// Each is its owner's to close.
			as.Close()
			if _, err := d.LoadDescriptors(); err == nil || !strings.Contains(err.Error(), "not a complete checkpoint") {
				t.Error(err)
			}
		})
	}
	t.Run("through a link", func(t *testing.T) {
		t.Parallel()
		dir := lay(t, subdirectory("images"), link("link", "images"), link("absolute", "/"))
		for _, path := range []string{dir + "/link", dir + "/absolute" + dir + "/images"} {
			d := open(t, path)
			as, err := d.As(os.Getpid())
			if err != nil {
				t.Fatal(err)
			}
			expectSame(t, d, as)
			as.Close()
		}
	})
	t.Run("no such process", func(t *testing.T) {
		t.Parallel()
		d := open(t, t.TempDir())
		if as, err := d.As(-1); as != nil || err == nil {
			t.Error(as, err)
		}
	})
}

// A relative path is one of rt's, not of CRIU's.
func TestAsRelative(t *testing.T) {
	t.Chdir(lay(t, subdirectory("d/images")))
	d := open(t, "d/images")
	as, err := d.As(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer as.Close()
	expectSame(t, d, as)
}

func expectSame(t *testing.T, a, b *Images) {
	t.Helper()
	var s [2]unix.Stat_t
	for i, d := range []*Images{a, b} {
		if err := unix.Fstat(d.FD(), &s[i]); err != nil {
			t.Fatal(err)
		}
	}
	if a.FD() == b.FD() || s[0].Ino != s[1].Ino || s[0].Dev != s[1].Dev {
		t.Errorf("descriptors %d and %d are of files %d and %d", a.FD(), b.FD(), s[0].Ino, s[1].Ino)
	}
}

// A directory in the place of the link would do for CRIU too.
func TestParentDirectory(t *testing.T) {
	t.Parallel()
	d := open(t, lay(t, link("parent/pages-1.img", "/etc/passwd")))
	expect(t, d.Check(), `"parent"`, "not a link")
}

// As many pre-dumps as may be.
func TestLongestChain(t *testing.T) {
	t.Parallel()
	var entries []entry
	for i := range 64 {
		entries = append(entries, link(fmt.Sprintf("%d/parent", i), fmt.Sprintf("../%d", i+1)))
	}
	entries = append(entries, file("64/x"))
	if err := open(t, lay(t, entries...)+"/0").Check(); err != nil {
		t.Error("64 pre-dumps:", err)
	}
	if err := open(t, lay(t, entries...)+"/1").Check(); err != nil {
		t.Error("63 pre-dumps:", err)
	}
}

// A log that is written to a file with another name is written to what that names.
func TestHardLinks(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"restore.log", "pages-1.img"} {
		dir := lay(t, file("images/"+name), file("images/other"))
		if err := os.Link(dir+"/images/"+name, dir+"/canary"); err != nil {
			t.Fatal(err)
		}
		expect(t, open(t, dir+"/images").Check(), `"`+name+`"`, "hard links")
		if name == "restore.log" {
			expect(t, open(t, dir+"/images").CheckLogs(), `"`+name+`"`, "hard links")
		}
	}
}

// What a CRIU that was killed has left is removed, and nothing else.
func TestSweep(t *testing.T) {
	t.Parallel()
	name := "/tmp/.criu.mntns.Te" + strings.Repeat("0", 4)
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(name)
	gone := func() bool { _, err := os.Lstat(name); return os.IsNotExist(err) }
	for _, log := range []string{"", "nothing\n", "/tmp/.criu.mntns.", "/tmp/.criu.mntns.Te00/0", "/tmp/.criu.mntns.../../"} {
		open(t, lay(t, text("restore.log", log))).Sweep("restore.log")
		if gone() {
			t.Fatalf("removed for the log %q", log)
		}
	}
	used := name + "/used"
	if err := os.Mkdir(used, 0o700); err != nil {
		t.Fatal(err)
	}
	d := open(t, lay(t, text("restore.log", "(00.1) mnt: Move the root to /tmp/.criu.mntns.aaaaaa\n(00.2) mnt: Move the root to "+name+"/13-0000000000\n")))
	d.Sweep("restore.log")
	if gone() {
		t.Fatal("removed while in use")
	}
	os.Remove(used)
	d.Sweep("restore.log")
	if !gone() {
		t.Error("it is there still")
	}
}
