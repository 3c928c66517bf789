package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"
)

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
