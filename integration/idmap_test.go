package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idMount is an edit that binds source on /tmp with an id map from first on, or with
// none if first is 0.
func idMount(source string, first uint32, options ...string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		m := specs.Mount{Source: source, Destination: "/tmp", Options: options}
		if first != 0 {
			m.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: 1000}}
			m.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: first + 50, Size: 1000}}
		}
		s.Mounts = append(s.Mounts, m)
	}
}

// mappable makes a mount that can have mapped ids at b's src, with another one
// below it, and in each a file of user 7 and group 8.
func mappable(b *box) string {
	b.t.Helper()
	src := b.path("src")
	for _, dir := range []string{src, filepath.Join(src, "sub")} {
		b.must(os.Mkdir(dir, 0o755))
		if lane == "vm" { // where tmpfs cannot, and the disk is ext4
			b.must(unix.Mount(dir, dir, "", unix.MS_BIND, ""))
		} else {
			b.must(unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		}
		b.must(os.Chmod(dir, 0o777))
		b.must(os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
		b.must(os.Chown(filepath.Join(dir, "f"), 7, 8))
	}
	b.t.Cleanup(func() { unix.Unmount(src, unix.MNT_DETACH) })
	return src
}

// A tmpfs can have mapped ids since Linux 6.3, and a host file system under uml never.
func needMappable(t *testing.T) {
	t.Helper()
	if lane == "uml" {
		t.Skip("Linux 6.1 cannot map the ids of tmpfs or hostfs")
	}
}

func TestIDMappedMounts(t *testing.T) {
	t.Parallel()
	needMappable(t)
	const show = "cd /tmp && stat -c '%u:%g' f sub/f"
	for _, c := range []struct {
		name    string
		first   uint32
		options []string
		edits   []func(*specs.Spec)
		want    string
	}{
		{"mappings without an option", 3000, []string{"rbind"}, nil, "3007:3058 7:8"},
		{"idmap leaves what is mounted below", 3000, []string{"rbind", "idmap"}, nil, "3007:3058 7:8"},
		{"ridmap maps it too", 3000, []string{"rbind", "ridmap"}, nil, "3007:3058 3007:3058"},
		{"the last of both counts", 3000, []string{"rbind", "ridmap", "idmap"}, nil, "3007:3058 7:8"},
		{"by the container's user namespace", 0, []string{"rbind", "ridmap"}, []func(*specs.Spec){mapped(100000)}, "7:8 7:8"},
		{"not mapped in a user namespace", 0, []string{"rbind"}, []func(*specs.Spec){mapped(100000)}, "65534:65534 65534:65534"},
		{"own mappings in a user namespace", 100500, []string{"rbind", "ridmap"}, []func(*specs.Spec){mapped(100000)}, "507:558 507:558"},
		{"by a user namespace that is joined", 0, []string{"rbind", "ridmap"}, []func(*specs.Spec){func(s *specs.Spec) {
			ns("user", fmt.Sprintf("/proc/%d/ns/user", holder(t, unix.CLONE_NEWUSER)))(s)
		}}, "7:8 7:8"},
	} {
		b := newBox(t, append(c.edits, script(show))...)
		idMount(mappable(b), c.first, c.options...)(b.spec)
		b.write()
		if got := strings.Join(strings.Fields(b.run()), " "); got != c.want {
			t.Errorf("%s: owners are %q, expected %q", c.name, got, c.want)
		}
	}
}

// What the container writes belongs on disk to the unmapped user.
func TestIDMappedMountWrites(t *testing.T) {
	t.Parallel()
	needMappable(t)
	b := newBox(t, mapped(100000), script("touch /tmp/new"))
	b.spec.Process.User = specs.User{UID: 5, GID: 6}
	src := mappable(b)
	idMount(src, 0, "bind", "idmap")(b.spec)
	b.write()
	b.run()
	var st unix.Stat_t
	b.must(unix.Stat(filepath.Join(src, "new"), &st))
	if st.Uid != 5 || st.Gid != 6 {
		t.Errorf("owner on disk is %d:%d, expected 5:6", st.Uid, st.Gid)
	}
	// The host's own view of the source is what it was.
	b.must(unix.Stat(filepath.Join(src, "f"), &st))
	if st.Uid != 7 {
		t.Errorf("owner of the source is now %d", st.Uid)
	}
}

func TestIDMappedMountRefused(t *testing.T) {
	t.Parallel()
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 10}}
	for _, c := range []struct {
		words []string
		mount specs.Mount
		edits []func(*specs.Spec)
	}{
		{[]string{"file system proc at /proc cannot have mapped ids", "/mounts/7"},
			specs.Mount{Source: "/proc", Options: []string{"rbind"}, UIDMappings: ids, GIDMappings: ids}, nil},
		{[]string{"/mounts/7/gidMappings", "must be specified"},
			specs.Mount{Source: "/etc", Options: []string{"rbind"}, UIDMappings: ids}, nil},
		{[]string{"/mounts/7/uidMappings", "must be specified"},
			specs.Mount{Source: "/etc", Options: []string{"rbind", "idmap"}, GIDMappings: ids}, nil},
		{[]string{"/mounts/7/options/1", `"idmap"`, "no mappings"},
			specs.Mount{Source: "/etc", Options: []string{"rbind", "idmap"}}, nil},
		{[]string{"/mounts/7:", "a bind mount"},
			specs.Mount{Type: "tmpfs", Source: "tmpfs", UIDMappings: ids, GIDMappings: ids}, nil},
		{[]string{"/mounts/7/uidMappings/0/size", "must be positive"},
			specs.Mount{Source: "/etc", Options: []string{"rbind"}, UIDMappings: []specs.LinuxIDMapping{{}}, GIDMappings: ids}, nil},
		{[]string{"/mounts/7/uidMappings/1", "overlaps entry 0"},
			specs.Mount{Source: "/etc", Options: []string{"rbind"}, UIDMappings: append(ids, ids...), GIDMappings: ids}, nil},
		{[]string{"/mounts/7", "nosuch", "no such file or directory"},
			specs.Mount{Source: "/nosuch", Options: []string{"rbind"}, UIDMappings: ids, GIDMappings: ids}, nil},
	} {
		b := newBox(t, c.edits...)
		c.mount.Destination = "/mnt"
		b.spec.Mounts = append(b.spec.Mounts, c.mount)
		b.write()
		b.refused(c.words, "create", b.id)
		b.clean()
	}
}

// The file system that refuses may lie below the source.
func TestIDMappedMountNamesSubmount(t *testing.T) {
	t.Parallel()
	needMappable(t)
	b := newBox(t)
	src := mappable(b)
	b.must(os.Mkdir(filepath.Join(src, "proc"), 0o755))
	b.must(unix.Mount("proc", filepath.Join(src, "proc"), "proc", 0, ""))
	idMount(src, 3000, "rbind", "ridmap")(b.spec)
	b.write()
	b.refused([]string{"file system proc at " + src + "/proc cannot have mapped ids", "/mounts/7"}, "create", b.id)
}
