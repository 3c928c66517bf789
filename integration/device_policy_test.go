package integration

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What others are updated does to devices: nothing.
func TestUpdateLeavesDevices(t *testing.T) {
	t.Parallel()
	major, minor := forbiddenDevice(t)
	b := newBox(t, script(`exec 5</dev/zero
		touch /ready
		while ! [ -e /go ]; do sleep 0.02; done
		head -c 3 <&5 | od -An -tx1 >/result; sleep 60`))
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/forbidden", Type: "c", Major: major, Minor: minor, FileMode: to(os.FileMode(0o666))}}
	b.write()
	b.reach("running")
	check := func() {
		t.Helper()
		out := b.exec(`for d in null zero forbidden; do if (: </dev/$d) 2>/dev/null; then echo $d yes; else echo $d no; fi; done`)
		if out != "null yes\nzero yes\nforbidden no\n" {
			t.Errorf("%q", out)
		}
	}
	check()
	b.harmlessUpdate()
	check()
	r := b.feed(`{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":5,"access":"rwm"}]}`, "update", "-r", "-", b.id)
	if r.code != 0 {
		t.Error(r)
	}
	check()
	b.file("go", "")
	if out := b.appears("rootfs/result"); out != " 00 00 00\n" {
		t.Errorf("a device that was open gives %q", out)
	}
}

// forbiddenDevice is one that the host opens and rt's default policy does not
// allow.
func forbiddenDevice(t *testing.T) (major, minor int64) {
	t.Helper()
	node := filepath.Join(t.TempDir(), "node")
	for _, d := range [][2]uint32{{1, 11}, {1, 1}, {10, 229}, {10, 237}} { // kmsg, mem, fuse, loop-control
		os.Remove(node)
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(d[0], d[1]))); err != nil {
			t.Fatal("mknod:", err)
		}
		if f, err := os.Open(node); err == nil {
			f.Close()
			return int64(d[0]), int64(d[1])
		}
	}
	t.Fatal("this machine opens no device that rt's policy forbids; one of kmsg, mem, fuse and loop-control must be there")
	return 0, 0
}

// harmlessUpdate changes a limit that all lanes have.
func (b *box) harmlessUpdate() {
	b.t.Helper()
	if !v2 {
		b.ok("update", "--pids-limit", "300", "--cpu-share", "900", b.id)
		return
	}
	if r := b.feed(`{"unified":{"cgroup.max.depth":"7"}}`, "update", "-r", "-", b.id); r.code != 0 {
		b.t.Fatal(r)
	}
}
