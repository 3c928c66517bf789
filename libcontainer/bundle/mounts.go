package bundle

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (c *checker) mounts(mounts []specs.Mount, n namespaceSet) {
	for i := range mounts {
		c.mount(at("/mounts", i), &mounts[i], n)
	}
}

func (c *checker) mount(pointer string, m *specs.Mount, n namespaceSet) {
	bind, remount := isBind(m), slices.Contains(m.Options, "remount")
	c.destination(pointer, m, bind)
	switch {
	case !bind && !remount && m.Type == "":
		c.not(pointer+"/type", "", "must be specified", `a file system type, or the option "bind" or "rbind"`)
	case bind && !remount && m.Source == "":
		c.bad(pointer+"/source", "", "must be specified for a bind mount")
	}
	c.text(pointer+"/type", m.Type)
	c.text(pointer+"/source", m.Source)
	c.options(pointer, m, bind)
	c.mountMappings(pointer, m, bind && !remount, n)
}

// mountMappings checks the id map of a mount (config.md, Mounts).
func (c *checker) mountMappings(pointer string, m *specs.Mount, bind bool, n namespaceSet) {
	uids, gids := len(m.UIDMappings) > 0, len(m.GIDMappings) > 0
	option := slices.IndexFunc(m.Options, func(o string) bool { return o == "idmap" || o == "ridmap" })
	if !uids && !gids && option < 0 {
		return
	}
	c.idMap(pointer+"/uidMappings", m.UIDMappings)
	c.idMap(pointer+"/gidMappings", m.GIDMappings)
	switch {
	case !bind:
		c.not(pointer, "", "ids cannot be mapped", `a bind mount, without the option "remount"`)
	case uids != gids && uids:
		c.bad(pointer+"/gidMappings", "", "must be specified with uidMappings")
	case uids != gids:
		c.bad(pointer+"/uidMappings", "", "must be specified with gidMappings")
	case !uids && !n.listed(specs.UserNamespace):
		c.bad(at(pointer, "options", option), quote(m.Options[option]), `there are no mappings, neither the mount's own nor those of a namespace of type "user"`)
	}
}

// isBind tells whether m is a bind mount; the last of contradictory options
// does not matter here, since nothing undoes "bind".
func isBind(m *specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// destination accepts any path below the root, but in /proc only what runc
// allows: a mount there could hide from the runtime what it checks by /proc.
func (c *checker) destination(pointer string, m *specs.Mount, bind bool) {
	pointer += "/destination"
	clean := path.Clean("/" + m.Destination)
	switch {
	case m.Destination == "":
		c.bad(pointer, "", "must be specified")
		return
	case strings.IndexByte(m.Destination, 0) >= 0:
		c.text(pointer, m.Destination)
		return
	case clean == "/":
		c.bad(pointer, quote(m.Destination), "cannot be the root itself")
		return
	case m.Destination[0] != '/':
		c.warn(pointer, quote(m.Destination), "relative path is taken as "+quote(clean))
	}
	if clean == "/proc" && m.Type != "proc" && !bind {
		c.not(pointer, quote(m.Destination), "cannot hold a file system of type "+quote(m.Type), `type "proc", or a bind mount of a procfs`)
	}
	if below, ok := strings.CutPrefix(clean, "/proc/"); ok && !isProcFile(below) {
		c.bad(pointer, quote(m.Destination), "cannot be mounted on, it is inside /proc")
	}
}

// isProcFile tells which files of /proc may be mounted on. They are those that
// an LXCFS or the like provides.
func isProcFile(name string) bool {
	switch name {
	case "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
		"sys/kernel/ns_last_pid", "sys/crypto/fips_enabled":
		return true
	}
	return false
}

// options checks what is not a known option and so is data for the file
// system. A bind mount has none to give it to: it is ignored.
func (c *checker) options(pointer string, m *specs.Mount, bind bool) {
	data := 0
	for i, o := range m.Options {
		if strings.IndexByte(o, 0) >= 0 {
			c.text(at(pointer, "options", i), o)
		}
		if o == "tmpcopyup" && (bind || m.Type != "tmpfs") {
			c.warn(at(pointer, "options", i), quote(o), `ignored, the mount is not of type "tmpfs"`)
		}
		if isOption(o) {
			continue
		}
		if bind {
			c.warn(at(pointer, "options", i), quote(o), "ignored on a bind mount, which has no file system options")
			continue
		}
		data += len(o) + 1
	}
	if data > maxData+1 {
		c.not(pointer+"/options", "", number(data-1)+" bytes of file system options", "up to "+number(maxData))
	}
}

// isOption tells whether rt knows the mount option o; all others are data of
// the file system.
func isOption(o string) bool {
	switch o {
	case "defaults", "bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap",
		"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync",
		"mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime",
		"strictatime", "nostrictatime", "lazytime", "nolazytime", "iversion", "noiversion",
		"silent", "loud", "symfollow", "nosymfollow",
		"shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable",
		"rro", "rrw", "rsuid", "rnosuid", "rdev", "rnodev", "rexec", "rnoexec", "ratime", "rnoatime",
		"rdiratime", "rnodiratime", "rrelatime", "rnorelatime", "rstrictatime", "rnostrictatime",
		"rsymfollow", "rnosymfollow":
		return true
	}
	return false
}
