package bundle

import (
	"path"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The kernel's device numbers have 12 and 20 bits (MINORBITS in kdev_t.h).
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

func (c *checker) devices(devices []specs.LinuxDevice) {
	var seen map[string]int // clean path to index
	if len(devices) > 1 {
		seen = make(map[string]int, len(devices))
	}
	for i := range devices {
		v, p := &devices[i], at("/linux/devices", i)
		c.device(p, v)
		if v.Path == "" || seen == nil {
			continue
		}
		clean := path.Clean(v.Path)
		first, ok := seen[clean]
		switch {
		case !ok:
			seen[clean] = i
		case sameDevice(v, &devices[first]):
			c.warn(p+"/path", quote(v.Path), "same as device "+number(first))
		default:
			c.bad(p+"/path", quote(v.Path), "differs from device "+number(first)+" of the same path")
		}
	}
}

func sameDevice(a, b *specs.LinuxDevice) bool {
	return formatOf(a.Type) == formatOf(b.Type) && (a.Type == "p" || a.Major == b.Major && a.Minor == b.Minor)
}

func (c *checker) device(pointer string, v *specs.LinuxDevice) {
	switch {
	case v.Path == "":
		c.bad(pointer+"/path", "", "must be specified")
	case v.Path[0] != '/':
		c.not(pointer+"/path", quote(v.Path), "not an absolute path", "a path that begins with /")
	case path.Clean(v.Path) == "/":
		c.bad(pointer+"/path", quote(v.Path), "cannot be the root itself")
	default:
		c.text(pointer+"/path", v.Path)
	}
	switch {
	case v.Type == "":
		c.not(pointer+"/type", "", "must be specified", `"c", "u", "b", "p"`)
	case formatOf(v.Type) == 0:
		c.not(pointer+"/type", quote(v.Type), "unknown device type", `"c", "u", "b", "p"`)
	case v.Type != "p": // a FIFO has no numbers
		c.deviceNumber(pointer+"/major", v.Major, 0, maxMajor)
		c.deviceNumber(pointer+"/minor", v.Minor, 0, maxMinor)
	}
	if v.FileMode != nil && *v.FileMode > 0o777 {
		c.not(pointer+"/fileMode", number(uint32(*v.FileMode)), "out of range", "permission bits, 0 to 511 (0777)")
	}
	if v.UID != nil {
		c.id(pointer+"/uid", *v.UID)
	}
	if v.GID != nil {
		c.id(pointer+"/gid", *v.GID)
	}
}

func (c *checker) deviceNumber(pointer string, n, least, most int64) {
	if n < least || n > most {
		c.not(pointer, number(n), "out of range", integers(least, uint64(most)))
	}
}

// deviceRule checks a rule of the device cgroup. Number -1 is any, as the
// absent one.
func (c *checker) deviceRule(pointer string, r *specs.LinuxDeviceCgroup) {
	switch r.Type {
	case "", "a", "b", "c":
	default:
		c.not(pointer+"/type", quote(r.Type), "unknown device type", `"a", "b", "c"`)
	}
	if r.Major != nil {
		c.deviceNumber(pointer+"/major", *r.Major, -1, maxMajor)
	}
	if r.Minor != nil {
		c.deviceNumber(pointer+"/minor", *r.Minor, -1, maxMinor)
	}
	if strings.Trim(r.Access, "rwm") != "" {
		c.not(pointer+"/access", quote(r.Access), "unknown access", `letters of "rwm"`)
	} else if r.Access == "" && (r.Type == "b" || r.Type == "c") {
		c.not(pointer+"/access", "", "must be specified", `letters of "rwm"`)
	}
}
