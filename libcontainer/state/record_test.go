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
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"
)

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
