package bundle

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestDefault(t *testing.T) {
	types := func(s *specs.Spec) (list []specs.LinuxNamespaceType) {
		for _, n := range s.Linux.Namespaces {
			list = append(list, n.Type)
		}
		return list
	}
	s := Default(false)
	if warnings, err := Validate(s); err != nil || warnings != nil {
		t.Error(warnings, err)
	}
	if got := types(s); !slices.Equal(got, []specs.LinuxNamespaceType{"pid", "network", "ipc", "uts", "mount"}) {
		t.Error(got)
	}
	s = Default(true)
	if got := types(s); !slices.Equal(got, []specs.LinuxNamespaceType{"pid", "network", "ipc", "uts", "mount", "cgroup"}) {
		t.Error(got)
	}
	var destinations []string
	for _, m := range s.Mounts {
		destinations = append(destinations, m.Destination)
	}
	if !slices.Equal(destinations, []string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}) {
		t.Error(destinations)
	}

	Rootless(s, 1000, 1001)
	if warnings, err := Validate(s); err != nil || warnings != nil {
		t.Error(warnings, err)
	}
	if got := types(s); !slices.Equal(got, []specs.LinuxNamespaceType{"pid", "ipc", "uts", "mount", "cgroup", "user"}) {
		t.Error(got)
	}
	l := s.Linux
	if l.Resources != nil || l.UIDMappings[0] != (specs.LinuxIDMapping{HostID: 1000, Size: 1}) || l.GIDMappings[0] != (specs.LinuxIDMapping{HostID: 1001, Size: 1}) {
		t.Errorf("%+v", l)
	}
	for _, m := range s.Mounts {
		switch m.Destination {
		case "/sys":
			if m.Type != "none" || m.Source != "/sys" || !slices.Equal(m.Options, []string{"rbind", "nosuid", "noexec", "nodev", "ro"}) {
				t.Errorf("%+v", m)
			}
		case "/dev/pts":
			if !slices.Equal(m.Options, []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}) {
				t.Errorf("%+v", m)
			}
		}
	}
}
