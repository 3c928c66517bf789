package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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

func testIntent() Intent {
	return Intent{
		Bundle:  "/b",
		Creator: Identity{Pid: 7, Start: 99, BootID: "boot"},
		Created: time.Date(2025, 3, 4, 5, 6, 7, 8, time.UTC),
		Cgroup:  jsontext.Value(`{"path":"/x"}`),
	}
}

func reserve(t testing.TB, r *Root, id string) *Dir {
	t.Helper()
	d, err := r.Reserve(id, testIntent())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func testRecord() *Record {
	return &Record{
		Init:        Identity{Pid: 12, Start: 1 << 63, BootID: "b-o-o-t"},
		Phase:       PhaseCreated,
		Bundle:      "/bundle \"quoted\" \u00e9\x7f",
		Rootfs:      "/bundle/rootfs",
		Created:     time.Date(2025, 1, 2, 3, 4, 5, 678901234, time.UTC),
		Owner:       4294967295,
		Annotations: map[string]string{"": "empty", "a=b": "c\nd", "z": ""},
		Rootless:    true,
		OwnPidNS:    true,
		Namespaces:  []Namespace{{"mnt", 4, 4026531841}, {"pid", 4, 1 << 60}},
		Operations:  []Operation{{31, 47, "filter", "", "412 instructions", "/linux/seccomp"}, {32, 48, "exec", "\"x\"", "", "/process/args"}},
		Cgroup:      jsontext.Value(`{"path":"/a","v1":[1,2,{"x":null}]}`),
		Poststart:   jsontext.Value(`[{"path":"/h"}]`),
		Poststop:    jsontext.Value(`[]`),
		Extra:       map[string]jsontext.Value{"criu": jsontext.Value(`true`)},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	r := testRoot(t)
	d := reserve(t, r, "c")
	for _, c := range []struct {
		name string
		rec  *Record
	}{
		{"full", testRecord()},
		{"zero", &Record{}},
		{"no pivot", &Record{NoPivot: true, Phase: PhaseDeleting}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := d.Save(c.rec); err != nil {
				t.Fatal(err)
			}
			got, err := d.Load()
			if err != nil {
				t.Fatal(err)
			}
			if c.rec.ID != "c" || !reflect.DeepEqual(got, c.rec) {
				t.Fatalf("got  %+v\nwant %+v", got, c.rec)
			}
		})
	}
	in, err := d.LoadIntent()
	want := testIntent()
	want.ID = "c"
	if err != nil || !reflect.DeepEqual(*in, want) {
		t.Fatalf("intent %+v, %v", in, err)
	}
	// What jq needs: plain JSON.
	raw, err := os.ReadFile(filepath.Join(d.Path(), recordName))
	var any map[string]any
	if err != nil || json.Unmarshal(raw, &any) != nil || any["version"] != 1.0 || any["check"] == "" {
		t.Fatalf("%v %s", err, raw)
	}
}

// Every exported field must be in the tables of members: one that is forgotten
// would be lost in silence.
func TestMembersAreComplete(t *testing.T) {
	for _, c := range []struct {
		v     any
		names int
	}{
		{Record{}, len((&Record{}).members()) - 2}, // Init is three members
		{Intent{}, len((&Intent{}).members()) - 2},
		{Namespace{}, len((&Namespace{}).members())},
		{Operation{}, len((&Operation{}).members())},
	} {
		if n := reflect.TypeOf(c.v).NumField(); n != c.names {
			t.Errorf("%T has %d fields, its table %d", c.v, n, c.names)
		}
	}
}

func TestSaveRefusesInvalidText(t *testing.T) {
	d := reserve(t, testRoot(t), "c")
	if err := d.Save(&Record{Bundle: "\xff"}); err == nil {
		t.Fatal("invalid UTF-8 was saved")
	}
	if err := d.Save(&Record{Cgroup: jsontext.Value("{")}); err == nil {
		t.Fatal("malformed JSON was saved")
	}
	if _, err := d.Load(); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
}

func TestF27DamagedState(t *testing.T) {
	r := testRoot(t)
	d := reserve(t, r, "c")
	if err := d.Save(testRecord()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path(), recordName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if rec, err := d.Load(); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%s: %v, %v", what, rec, err)
		}
	}
	for i := range good {
		check(fmt.Sprintf("truncated at %d", i), good[:i])
		nul := slices.Clone(good)
		clear(nul[i:])
		check(fmt.Sprintf("zero from %d", i), nul)
		bad := slices.Clone(good)
		bad[i] ^= 1
		check(fmt.Sprintf("bit at %d", i), bad)
	}
	check("doubled", append(slices.Clone(good), good...))
	check("a byte more", append(slices.Clone(good), '\n'))
	sealed := func(body string) []byte { return []byte(body + trailer([]byte(body))) }
	for _, body := range []string{
		`{"version":2,"id":"c"`,
		`{"id":"c"`,
		`{"version":1,"id":"other"`,
		`{"version":1,"id":"c","pid":"7"`,
		`{"version":1,"id":"c","pid":7,"pid":7`,
		`{"version":1,"id":"c","rootless":1`,
		`{"version":1,"id":"c","owner":-1`,
		`{"version":1,"id":"c","created":"x"`,
		`{"version":1,"id":"c","namespaces":{}`,
		`{"version":1,"id":"c","namespaces":[1]`,
		`{"version":1,"id":"c","annotations":{"a":1}`,
		`[`,
		``,
	} {
		check(body, sealed(body))
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func() error
	}{
		{"1 GiB", func() error { os.WriteFile(path, nil, 0o600); return os.Truncate(path, 1<<30) }},
		{"directory", func() error { return os.Mkdir(path, 0o700) }},
		{"fifo", func() error { return syscall.Mkfifo(path, 0o600) }},
		{"link", func() error { return os.Symlink("intent", path) }},
	} {
		os.RemoveAll(path)
		if err := c.make(); err != nil {
			t.Fatal(c.name, err)
		}
		begin := time.Now()
		if _, err := d.Load(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c.name, err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: took %v", c.name, took)
		}
	}
	// Still removable.
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(d.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestF30ParallelReserve(t *testing.T) {
	r := testRoot(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			d, err := r.Reserve("one", testIntent())
			if err == nil {
				won.Add(1)
				time.Sleep(time.Millisecond)
				d.Close()
			} else if !errors.Is(err, ErrExist) || !strings.Contains(err.Error(), "container with given ID already exists") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d successes", won.Load())
	}
	d, err := r.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.LoadIntent(); err != nil {
		t.Fatal(err)
	}
}

// F31: never two owners, and no error but the expected ones.
func TestF31ReserveRacesRemove(t *testing.T) {
	r := testRoot(t)
	var owners, reserved, removed atomic.Int32
	end := time.Now().Add(20 * time.Second)
	going := func() bool {
		return (reserved.Load() < 300 || removed.Load() < 300) && !t.Failed() && time.Now().Before(end)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for going() {
				d, err := r.Reserve("x", testIntent())
				if errors.Is(err, ErrExist) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if owners.Add(1) != 1 {
					t.Error("two owners")
				}
				if _, err := d.LoadIntent(); err != nil {
					t.Error(err)
				}
				reserved.Add(1)
				owners.Add(-1)
				d.Close()
			}
		})
		wg.Go(func() {
			for going() {
				// Between no pause at all and one that lets a create through.
				time.Sleep(time.Duration(removed.Load()%100) * time.Microsecond)
				d, err := r.Open("x")
				if errors.Is(err, ErrNotExist) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				err = d.Lock(time.Now().Add(5 * time.Second))
				if err == nil {
					if err = d.Remove(); err == nil {
						removed.Add(1)
						err = d.Remove()
					}
				}
				if err != nil && !errors.Is(err, ErrNotExist) {
					t.Error(err)
				}
				d.Close()
			}
		})
	}
	wg.Wait()
	if reserved.Load() < 300 || removed.Load() < 300 {
		t.Errorf("inconclusive: reserved %d, removed %d", reserved.Load(), removed.Load())
	}
}

// Two creates that come to the same directory, because a delete removed that of
// one of them: the first intent stays.
func TestF31FirstIntentWins(t *testing.T) {
	r := testRoot(t)
	d := reserve(t, r, "c")
	if err := d.Unlock(); err != nil {
		t.Fatal(err)
	}
	other := Intent{ID: "c", Bundle: "/other"}
	data, err := encode(other.members())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.complete("c", data, time.Now().Add(time.Second)); !errors.Is(err, ErrExist) {
		t.Fatal(err)
	}
	if in, err := d.LoadIntent(); err != nil || in.Bundle != "/b" {
		t.Fatal(in, err)
	}
	if err := d.Lock(time.Time{}); err != nil {
		t.Fatal("the loser holds the lock:", err)
	}
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

func TestRemove(t *testing.T) {
	r := testRoot(t)
	outside := filepath.Join(filepath.Dir(r.Path()), "outside")
	if err := errors.Join(os.Mkdir(outside, 0o700), os.WriteFile(outside+"/canary", []byte("c"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d := reserve(t, r, "c")
	path := d.Path()
	err := errors.Join(d.Save(testRecord()), d.SaveConfig([]byte("x")), d.MakeFifos(),
		os.WriteFile(path+"/.state.json.tmp", []byte("half"), 0o600),
		os.Mkdir(path+"/notify", 0o700),
		os.WriteFile(path+"/notify/notify.sock", nil, 0o600),
		os.Symlink(outside, path+"/notify/link"),
		os.Symlink(outside, path+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(); err != nil {
		t.Fatal(err)
	}
	if d.Remove() == nil {
		t.Fatal("removed without lock")
	}
	if err := d.Lock(time.Now()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(outside + "/canary"); err != nil || string(b) != "c" {
		t.Fatal("canary:", err)
	}
	// The id is another container's now: the old Dir must not touch it.
	e := reserve(t, r, "c")
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := d.Lock(time.Now()); !errors.Is(err, ErrNotExist) {
		t.Fatal("locked a removed container:", err)
	}
	if _, err := e.LoadIntent(); err != nil {
		t.Fatal(err)
	}
}

// A killed writer leaves a temporary file; the next one must get past it, and a
// reader in between sees whole records only.
func TestSaveReplaces(t *testing.T) {
	r := testRoot(t)
	d := reserve(t, r, "c")
	if err := os.WriteFile(d.Path()+"/.state.json.tmp", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(&Record{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 300 {
			if err := d.Save(&Record{Init: Identity{Pid: i}, Bundle: strings.Repeat("x", i*10)}); err != nil {
				t.Error(err)
			}
		}
	}()
	e, err := r.Open("c")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		rec, err := e.Load()
		if err != nil || len(rec.Bundle) != rec.Init.Pid*10 {
			t.Fatal(err)
		}
	}
	if err := d.Unlock(); err != nil {
		t.Fatal(err)
	}
	if d.Save(&Record{}) == nil {
		t.Fatal("saved without lock")
	}
}

func TestLock(t *testing.T) {
	r := testRoot(t)
	d := reserve(t, r, "c")
	e, err := r.Open("c")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	begin := time.Now()
	if err := e.Lock(begin.Add(60 * time.Millisecond)); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 60*time.Millisecond || took > 2*time.Second {
		t.Fatal("waited", took)
	}
	if err := d.Lock(time.Time{}); err != nil {
		t.Fatal("second lock by its holder:", err)
	}
	time.AfterFunc(30*time.Millisecond, func() { d.Unlock() })
	if err := e.Lock(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// Closing gives it back.
	e.Close()
	if err := d.Lock(time.Time{}); err != nil {
		t.Fatal(err)
	}
	e.fd = -1
}

func TestConfigSnapshot(t *testing.T) {
	d := reserve(t, testRoot(t), "c")
	if _, err := d.LoadConfig(); !errors.Is(err, ErrIncomplete) {
		t.Fatal(err)
	}
	for _, want := range [][]byte{[]byte(" {\n}\t"), {}, bytes.Repeat([]byte{0, 255}, 1<<20)} {
		if err := d.SaveConfig(want); err != nil {
			t.Fatal(err)
		}
		if got, err := d.LoadConfig(); err != nil || !bytes.Equal(got, want) {
			t.Fatal(len(got), err)
		}
	}
}

func TestF33Gate(t *testing.T) {
	d := reserve(t, testRoot(t), "c")
	if d.GateHasReader() {
		t.Fatal("reader without a gate")
	}
	if err := d.MakeFifos(); err != nil {
		t.Fatal(err)
	}
	if d.GateHasReader() {
		t.Fatal("reader without a process")
	}
	if _, err := d.OpenGate(unix.O_WRONLY); !errors.Is(err, unix.ENXIO) {
		t.Fatal(err)
	}
	fd, err := d.OpenGate(unix.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	cloexec, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if flags&unix.O_NONBLOCK != 0 || cloexec&unix.FD_CLOEXEC == 0 {
		t.Fatalf("flags %#x, %#x", flags, cloexec)
	}
	for range 3 {
		if !d.GateHasReader() {
			t.Fatal("no reader")
		}
	}
	w, err := d.OpenGate(unix.O_WRONLY | unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	unix.Write(w, []byte{1})
	var b [2]byte
	if n, err := unix.Read(fd, b[:]); n != 1 || err != nil {
		t.Fatal("probing left something in the gate:", n, err)
	}
	unix.Close(w)
	unix.Close(fd)
	if d.GateHasReader() {
		t.Fatal("reader after close")
	}
	gate := filepath.Join(d.Path(), GateName)
	for _, c := range []struct {
		name string
		make func() error
	}{
		{"file", func() error { return os.WriteFile(gate, nil, 0o600) }},
		{"link", func() error { return os.Symlink(ResultName, gate) }},
		{"missing", func() error { return nil }},
	} {
		os.Remove(gate)
		if err := c.make(); err != nil {
			t.Fatal(err)
		}
		if d.GateHasReader() {
			t.Errorf("%s: has a reader", c.name)
		}
		if _, err := d.OpenGate(unix.O_RDWR); err == nil {
			t.Errorf("%s: opened", c.name)
		}
	}
	res, err := d.OpenResult(unix.O_RDONLY | unix.O_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(res)
}

// F13: no space; delete needs none.
func TestF13NoSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs a mount")
	}
	base := t.TempDir()
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Skip("mount tmpfs:", err)
	}
	defer unix.Unmount(base, unix.MNT_DETACH)
	r, err := OpenRoot(base, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := reserve(t, r, "c")
	if err := d.Save(testRecord()); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(base+"/fill", make([]byte, 1<<20), 0o600)
	if err := d.Save(&Record{Bundle: strings.Repeat("x", 8192)}); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if rec, err := d.Load(); err != nil || rec.Init.Pid != 12 {
		t.Fatal("the old record is gone:", err)
	}
	if _, err := r.Reserve("other", testIntent()); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if ids, err := r.List(); err != nil || len(ids) != 0 {
		t.Fatal(ids, err)
	}
}

func TestNoDescriptorLeak(t *testing.T) {
	count := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	run := func() {
		r := testRoot(t)
		d, err := r.Reserve("c", testIntent())
		if err != nil {
			t.Fatal(err)
		}
		d.Save(testRecord())
		d.Load()
		d.MakeFifos()
		d.GateHasReader()
		d.OpenGate(unix.O_WRONLY)
		r.Reserve("c", testIntent())
		r.Open("none")
		r.List()
		OpenPidfd(Identity{Pid: os.Getpid()})
		OpenRoot("/", false)
		d.Remove()
		d.Close()
		r.Close()
		r.fd = -1
	}
	run()
	before := count()
	for range 10 {
		run()
	}
	if after := count(); after != before {
		t.Fatalf("%d descriptors before, %d after", before, after)
	}
}

func BenchmarkLoad(b *testing.B) {
	r := testRoot(b)
	d := reserve(b, r, "c")
	if err := d.Save(testRecord()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.Load(); err != nil {
			b.Fatal(err)
		}
	}
}
