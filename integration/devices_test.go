package integration

import (
	"os"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// device is an entry of linux.devices.
func device(path, kind string, major, minor int64, mode uint32, uid, gid uint32) specs.LinuxDevice {
	m := os.FileMode(mode)
	return specs.LinuxDevice{Path: path, Type: kind, Major: major, Minor: minor, FileMode: &m, UID: &uid, GID: &gid}
}

// Devices of every type are there with their numbers, modes and owners, and those of a default
// configuration beside them; what the policy allows of them works.
func TestDevices(t *testing.T) {
	t.Parallel()
	b := newBox(t, script(`
		stat -c '%n %F %t:%T %a %u:%g' /dev/c /dev/dir/u /b /dev/p /etc/default
		for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a %u:%g' /dev/$d; done
		for l in ptmx fd stdin stdout stderr; do readlink /dev/$l; done
		head -c 3 /dev/c | od -An -c; (echo x >/etc/default) 2>/dev/null; echo $?
		(: </b) 2>/dev/null || echo denied
		echo through >/dev/p & cat /dev/p
	`), func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{
			device("/dev/c", "c", 1, 5, 0o640, 5, 6), device("/dev/dir/u", "u", 10, 229, 0o600, 0, 7), device("/b", "b", 7, 7, 0o660, 1, 0),
			device("/dev/p", "p", 9, 9, 0o622, 8, 9), {Path: "/etc/default", Type: "c", Major: 1, Minor: 7},
		}
		// Root without the capability that outdoes modes must be able to read and write.
		s.Process.User.AdditionalGids = []uint32{6}
		caps := []string{"CAP_DAC_OVERRIDE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
	})
	want := `/dev/c character special file 1:5 640 5:6
/dev/dir/u character special file a:e5 600 0:7
/b block special file 7:7 660 1:0
/dev/p fifo 0:0 622 8:9
/etc/default character special file 1:7 666 0:0
/dev/null character special file 1:3 666 0:0
/dev/zero character special file 1:5 666 0:0
/dev/full character special file 1:7 666 0:0
/dev/random character special file 1:8 666 0:0
/dev/urandom character special file 1:9 666 0:0
/dev/tty character special file 5:0 666 0:0
pts/ptmx
/proc/self/fd
/proc/self/fd/0
/proc/self/fd/1
/proc/self/fd/2
  \0  \0  \0
1
denied
through
`
	r := b.rt("run", b.id)
	if r.code != 0 || r.out != want {
		t.Errorf("%v; expected %q", r, want)
	}
	for _, d := range []specs.LinuxDevice{device("/dev/x", "s", 1, 3, 0o666, 0, 0), device("/dev/x", "", 1, 3, 0o666, 0, 0)} {
		b.spec.Linux.Devices = []specs.LinuxDevice{d}
		b.write()
		b.refused([]string{"/linux/devices/0/type"}, "create", b.id)
	}
}

// In a user namespace nobody may make devices: they are the host's, bound. A FIFO can be made.
func TestDevicesInUserNamespace(t *testing.T) {
	t.Parallel()
	b := newBox(t, mapped(100000), script("stat -c '%n %F %t:%T' /dev/kmsg /dev/p"), func(s *specs.Spec) {
		s.Linux.Devices = []specs.LinuxDevice{device("/dev/p", "p", 0, 0, 0o600, 0, 0)}
		if exists("/dev/kmsg") {
			s.Linux.Devices = append(s.Linux.Devices, device("/dev/kmsg", "c", 1, 11, 0o600, 0, 0))
		}
	})
	b.must(os.Chown(b.rootfs, 100000, 100000))
	if !exists("/dev/kmsg") {
		script("stat -c '%n %F %t:%T' /dev/p")(b.spec)
		b.write()
		if out := b.run(); out != "/dev/p fifo 0:0\n" {
			t.Errorf("inside there are %q", out)
		}
		return
	}
	if out := b.run(); out != "/dev/kmsg character special file 1:b\n/dev/p fifo 0:0\n" {
		t.Errorf("inside there are %q", out)
	}
}

// In a cgroup namespace of its own the container's cgroup is the root of each hierarchy, by name and in what
// a mount of type cgroup, or of cgroup2, shows; without one it is what it is called outside.
func TestCgroupNamespace(t *testing.T) {
	t.Parallel()
	// A directory that has the first process in it, and what else is there.
	const look = `
		while IFS=: read n c p; do echo "name $n $c $p"; done </proc/self/cgroup
		for d in /sys/fs/cgroup /sys/fs/cgroup/* /cg2; do
			f=$d/cgroup.procs; [ ! -L $d ] && [ -e $f ] || continue
			grep -qx 1 $f && echo "root ${d##*/}"
			[ -e $d/TOP ] && echo "host ${d##*/}"
		done; true`
	text := strings.ReplaceAll(look, "TOP", top)
	for _, own := range []bool{true, false} {
		b := newBox(t, noNS("cgroup"), script(text))
		if own {
			ns("cgroup", "")(b.spec)
		}
		both := own && cgroup2() != ""
		if both {
			mnt("cgroup2", "cgroup", "/cg2", "ro")(b.spec)
		}
		b.write()
		out := b.run()
		names, roots := 0, 0
		for l := range strings.Lines(out) {
			f := strings.Fields(l)
			switch f[0] {
			case "name":
				if v2 && f[1] != "0" {
					continue // of the cgroup v1 that host-v2 hides
				}
				names++
				path := f[len(f)-1]
				if own && path != "/" || !own && path != "/"+top+"/"+b.id {
					t.Errorf("own %v: the cgroup is called %s", own, l)
				}
			case "root":
				roots++
			case "host":
				// The host's whole tree, with a host's view of names.
				if own || !v2 {
					t.Errorf("own %v: the host's cgroups are seen: %s", own, l)
				}
			}
		}
		want := names // each hierarchy once; cgroup2 is not among those of a hybrid host
		if v2 {
			want = 1
		} else if cgroup2() != "" {
			want--
		}
		if both {
			want++
		}
		if !own && v2 {
			want = 0
		}
		if names == 0 || roots != want {
			t.Errorf("own %v: the container's cgroup is the root of %d mounts, expected %d: %s", own, roots, want, out)
		}
	}
}
