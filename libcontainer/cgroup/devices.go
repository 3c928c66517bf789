package cgroup

import (
	"fmt"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// deviceRule is a checked device rule. Of the rules that match a device, the
// last one that names an access decides that access.
type deviceRule struct {
	allow        bool
	kind         byte   // 'c', 'b'; 'a' is all devices whatever the other fields say
	major, minor uint32 // anyNumber for all
	access       uint8
	origin       string
}

// anyNumber is no device number: the kernel takes it for a wildcard itself.
const anyNumber = ^uint32(0)

// Access bits, as the kernel gives them to a device program (BPF_DEVCG_ACC_*).
const (
	accessMknod = 1 << iota
	accessRead
	accessWrite
	accessAll = accessMknod | accessRead | accessWrite
)

// defaultDevices are allowed after all rules of the config, those of one major number
// beside each other: making any node, the spec's default devices, pseudo
// terminals, and tun for compatibility with runc.
var defaultDevices = [...]deviceRule{
	{true, 'c', anyNumber, anyNumber, accessMknod, "default"},
	{true, 'b', anyNumber, anyNumber, accessMknod, "default"},
	{true, 'c', 10, 200, accessAll, "default"},        // net/tun
	{true, 'c', 136, anyNumber, accessAll, "default"}, // pts/*
	{true, 'c', 5, 2, accessAll, "default"},           // ptmx
	{true, 'c', 5, 0, accessAll, "default"},           // tty
	{true, 'c', 1, 9, accessAll, "default"},           // urandom
	{true, 'c', 1, 8, accessAll, "default"},           // random
	{true, 'c', 1, 7, accessAll, "default"},           // full
	{true, 'c', 1, 5, accessAll, "default"},           // zero
	{true, 'c', 1, 3, accessAll, "default"},           // null
}

// deviceRules returns the whole policy: everything denied, the rules of the
// config, the default rules. Rules that a later one for all devices overrides
// are left out.
func deviceRules(config []specs.LinuxDeviceCgroup) ([]deviceRule, error) {
	rules := make([]deviceRule, 1, 1+len(config)+len(defaultDevices))
	rules[0] = deviceRule{kind: 'a', access: accessAll, major: anyNumber, minor: anyNumber, origin: "default"}
	for i := range config {
		r, err := checkDevice(&config[i])
		r.origin = "config.json /linux/resources/devices/" + strconv.Itoa(i)
		if err != nil {
			return nil, fmt.Errorf("set device policy (%s): %w", r.origin, err)
		}
		if r.kind == 'a' {
			rules = rules[:0]
		}
		rules = append(rules, r)
	}
	return append(rules, defaultDevices[:]...), nil
}

func checkDevice(c *specs.LinuxDeviceCgroup) (deviceRule, error) {
	r := deviceRule{allow: c.Allow, kind: 'a', major: anyNumber, minor: anyNumber, access: accessAll}
	switch c.Type {
	case "", "a":
		return r, nil
	case "b", "c":
		r.kind = c.Type[0]
	default:
		return r, fmt.Errorf(`type %q: accepted are "a", "b" and "c"`, c.Type)
	}
	for _, n := range [...]struct {
		name string
		from *int64
		to   *uint32
	}{{"major", c.Major, &r.major}, {"minor", c.Minor, &r.minor}} {
		if n.from == nil || *n.from == -1 {
			continue // -1 is how engines write a wildcard
		}
		if *n.from < 0 || *n.from >= int64(anyNumber) {
			return r, fmt.Errorf("%s %d: accepted are 0 to %d, and -1 for all", n.name, *n.from, anyNumber-1)
		}
		*n.to = uint32(*n.from)
	}
	r.access = 0
	for _, a := range []byte(c.Access) {
		switch a {
		case 'm':
			r.access |= accessMknod
		case 'r':
			r.access |= accessRead
		case 'w':
			r.access |= accessWrite
		default:
			return r, fmt.Errorf(`access %q: accepted are the letters "r", "w" and "m"`, c.Access)
		}
	}
	if r.access == 0 {
		return r, fmt.Errorf(`access "" allows and denies nothing: accepted are the letters "r", "w" and "m"`)
	}
	return r, nil
}

// within reports whether all devices of r are devices of o.
func (r *deviceRule) within(o *deviceRule) bool {
	return (o.kind == 'a' || r.kind == o.kind) &&
		(o.major == anyNumber || r.major == o.major) &&
		(o.minor == anyNumber || r.minor == o.minor)
}

// overlaps reports whether r and o have a device in common.
func (r *deviceRule) overlaps(o *deviceRule) bool {
	same := func(a, b uint32) bool { return a == b || a == anyNumber || b == anyNumber }
	return r.kind == o.kind && same(r.major, o.major) && same(r.minor, o.minor)
}

// String is the rule as devices.allow and devices.deny take it.
func (r *deviceRule) String() string {
	if r.kind == 'a' {
		return "a"
	}
	number := func(n uint32) string {
		if n == anyNumber {
			return "*"
		}
		return strconv.FormatUint(uint64(n), 10)
	}
	return string(r.kind) + " " + number(r.major) + ":" + number(r.minor) + " " + r.letters()
}

// letters is the access as devices.allow and systemd take it.
func (r *deviceRule) letters() string {
	s := ""
	for i, c := range []byte("mrw") {
		if r.access>>i&1 != 0 {
			s += string(c)
		}
	}
	return s
}

// deviceWrite is one write to devices.allow or devices.deny.
type deviceWrite struct {
	allow  bool
	value  string
	origin string
}

// v1Devices returns the writes that make the policy on cgroup v1. The kernel
// keeps a default and a list of exceptions to it; a rule against the default adds
// one, and one for the default only takes access away from the exception with the
// very same numbers. So it is written once for each exception that it covers; where it
// would have to cut a part out of a wildcard, the policy cannot be expressed: that is
// an error for a rule of the config, as ignoring it would leave a device open. A
// default rule that cannot be expressed is left out: the device stays closed.
func v1Devices(rules []deviceRule) (writes []deviceWrite, err error) {
	writes, _, _, err = v1Policy(rules)
	return writes, err
}

// v1Policy returns with the writes what they lead to: the default, and the exceptions to it.
func v1Policy(rules []deviceRule) (writes []deviceWrite, allowed bool, exceptions []deviceRule, err error) {
	for i := range rules {
		r := &rules[i]
		if r.kind == 'a' {
			allowed, exceptions = r.allow, nil
			writes = append(writes, deviceWrite{r.allow, r.String(), r.origin})
			continue
		}
		if r.allow != allowed {
			exceptions = append(exceptions, *r)
			writes = append(writes, deviceWrite{r.allow, r.String(), r.origin})
			continue
		}
		for j := range exceptions {
			e := &exceptions[j]
			if e.access&r.access == 0 || !r.overlaps(e) {
				continue
			}
			if !e.within(r) {
				if r.origin == "default" {
					continue
				}
				return nil, false, nil, fmt.Errorf("set device policy (%s): cgroup v1 cannot make %q an exception to %q (%s): accepted are rules that cover all of it", r.origin, r, e, e.origin)
			}
			less := *e
			less.access = r.access
			e.access &^= r.access
			writes = append(writes, deviceWrite{r.allow, less.String(), r.origin})
		}
	}
	return writes, allowed, exceptions, nil
}
