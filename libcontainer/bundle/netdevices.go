package bundle

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxDeviceName is the length of the longest name of a network device (IFNAMSIZ, with a NUL).
const maxDeviceName = 15

// netDevices checks the names of network devices as the kernel would (dev_valid_name): it would
// only say "invalid argument".
func (c *checker) netDevices(devices map[string]specs.LinuxNetDevice, n namespaceSet) {
	const pointer = "/linux/netDevices"
	if len(devices) > 0 && !n.listed(specs.NetworkNamespace) {
		c.bad(pointer, "", `cannot be moved without a namespace of type "network"`)
		return
	}
	names := map[string]int{}
	for host, d := range devices {
		if d.Name == "" {
			d.Name = host
		}
		names[d.Name]++
	}
	for host, d := range devices {
		c.deviceName(at(pointer, host), host, false)
		if d.Name == "" {
			continue
		}
		c.deviceName(at(pointer, host, "name"), d.Name, true)
		// A pattern gives each its own.
		if names[d.Name] > 1 && !strings.Contains(d.Name, "%") {
			c.bad(at(pointer, host, "name"), quote(d.Name), "is the name of another device, too")
		}
	}
}

func (c *checker) deviceName(pointer, name string, pattern bool) {
	accepted := "1 to 15 bytes without \"/\", \":\", \"%\" and blanks, but not \".\" and \"..\""
	fixed := name
	if pattern {
		accepted = "1 to 15 bytes without \"/\", \":\" and blanks, but not \".\" and \"..\"; \"%d\" for a number that is free"
		fixed = strings.Replace(name, "%d", "", 1)
	}
	wrong := name == "" || len(name) > maxDeviceName || name == "." || name == ".."
	for i := range len(fixed) {
		switch fixed[i] {
		case '/', ':', '%', 0, ' ', '\t', '\n', '\v', '\f', '\r', 0xa0: // the kernel takes bytes for Latin-1
			wrong = true
		}
	}
	if wrong {
		c.not(pointer, quote(name), "cannot be the name of a network device", accepted)
	}
}
