// Package unit says what a container is to systemd: the name of its unit, the
// unit's properties, and the messages in which rt and its agent, the program
// that speaks D-Bus, tell each other of them. It makes no system call.
package unit

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Name is a container's unit.
type Name struct {
	Slice string // above it, "a-b.slice"
	Unit  string // "PREFIX-NAME.scope", or "NAME.slice"
	Path  string // of its cgroup, below that of the systemd instance, without a leading slash
}

// Scope tells a scope, which is what a unit is unless its name ends in .slice.
func (n Name) Scope() bool { return strings.HasSuffix(n.Unit, scope) }

const (
	slice = ".slice"
	scope = ".scope"
)

// Parse reads a cgroupsPath of the form SLICE:PREFIX:NAME, in which an empty slice
// is system.slice, or user.slice with user. "" means ":rt:ID".
func Parse(cgroupsPath, id string, user bool) (Name, error) {
	bad := func(format string, args ...any) (Name, error) {
		return Name{}, fmt.Errorf("use cgroupsPath %q (config.json /linux/cgroupsPath): %s", cgroupsPath, fmt.Sprintf(format, args...))
	}
	parts := []string{"", "rt", id}
	if cgroupsPath != "" {
		parts = strings.Split(cgroupsPath, ":")
	}
	if len(parts) != 3 {
		return bad(`expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups`)
	}
	n := Name{Slice: parts[0]}
	if n.Slice == "" {
		n.Slice = "system.slice"
		if user {
			n.Slice = "user.slice"
		}
	}
	above, err := expand(n.Slice)
	if err != nil {
		return bad("%v", err)
	}
	prefix, name := escape(parts[1]), escape(parts[2])
	switch {
	case name == "":
		return bad("the name is empty")
	case strings.HasSuffix(name, slice):
		n.Unit = name
		if n.Path, err = expand(name); err != nil {
			return bad("%v", err)
		}
		if n.Path == "" || path.Dir("/"+n.Path) != path.Join("/", above) {
			return bad("a slice lies where its own name says, %q is not in %q", name, n.Slice)
		}
		return n, checkLength(n.Unit)
	case prefix == "":
		n.Unit = name + scope
	default:
		n.Unit = prefix + "-" + name + scope
	}
	if err := checkLength(n.Unit); err != nil {
		return bad("%v", err)
	}
	n.Path = path.Join(above, directory(n.Unit))
	return n, nil
}

func checkLength(unit string) error {
	if len(unit) > 255 {
		return fmt.Errorf("the unit name %q is longer than 255 bytes", unit)
	}
	return nil
}

// expand returns the cgroup of a slice: a-b.slice lies in a.slice, and
// -.slice is the root (systemd.slice(5)).
func expand(name string) (string, error) {
	stem, ok := strings.CutSuffix(name, slice)
	switch {
	case !ok || stem == "":
		return "", fmt.Errorf("invalid slice name %q: it does not end in .slice", name)
	case stem == "-":
		return "", nil
	case len(name) > 255:
		return "", fmt.Errorf("invalid slice name %q: longer than 255 bytes", name)
	case strings.HasPrefix(stem, "-") || strings.HasSuffix(stem, "-") || strings.Contains(stem, "--"):
		return "", fmt.Errorf("invalid slice name %q: an empty part between dashes", name)
	case escape(stem) != stem:
		return "", fmt.Errorf("invalid slice name %q: accepted are letters, digits and the characters :_.@\\-", name)
	}
	var dirs []string
	for i, c := range stem {
		if c == '-' {
			dirs = append(dirs, directory(stem[:i]+slice))
		}
	}
	return strings.Join(append(dirs, directory(name)), "/"), nil
}

// escape replaces what no unit name may hold by \xNN, as systemd-escape(1) does,
// but leaves dashes, which are what engines put into names, alone.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(`:_.-@\`, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// directory is the name of a unit's directory: systemd puts "_" before what could
// be mistaken for a file of cgroupfs (cg_escape of its sources).
func directory(unit string) string {
	first, _, _ := strings.Cut(unit, ".")
	switch {
	case strings.HasPrefix(unit, "_") || strings.HasPrefix(unit, "."):
		return "_" + unit
	case first == "cgroup" || slices.Contains(controllers[:], first):
		return "_" + unit
	}
	return unit
}

// controllers are those that systemd knows.
var controllers = [...]string{
	"cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids",
	"bpf-firewall", "bpf-devices", "bpf-foreign", "bpf-socket-bind", "bpf-restrict-network-interfaces",
}
