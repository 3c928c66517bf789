package bundle

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// intelRdt checks that closID is one name, or "/" for the default class, and that each
// schema is one line.
func (c *checker) intelRdt(r *specs.LinuxIntelRdt) {
	if r == nil {
		return
	}
	const pointer = "/linux/intelRdt"
	id := r.ClosID
	switch {
	case id == "" || id == "/":
	case strings.Contains(id, "/"), id == ".", id == "..", id == "info", id == "mon_groups", id == "mon_data", len(id) > maxID:
		c.not(pointer+"/closID", quote(id), "cannot name a class of service", `"/", or one name of a directory`)
	default:
		c.schema(pointer+"/closID", id, "")
	}
	c.schemata(pointer, r)
}

func (c *checker) schemata(pointer string, r *specs.LinuxIntelRdt) {
	c.schema(pointer+"/l3CacheSchema", r.L3CacheSchema, "")
	c.schema(pointer+"/memBwSchema", r.MemBwSchema, "MB:")
	for i, s := range r.Schemata {
		c.schema(at(pointer, "schemata", i), s, "")
	}
}

func (c *checker) schema(pointer, s, prefix string) {
	c.text(pointer, s)
	switch {
	case strings.Contains(s, "\n"):
		c.bad(pointer, quote(s), "must not contain a newline")
	case s != "" && !strings.HasPrefix(s, prefix):
		c.not(pointer, quote(s), "not a schema of memory bandwidth", "one that begins with "+quote(prefix))
	}
}
