package intelrdt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Update writes the schemata of r to the group, whoever else is in it, and returns what
// undoes that. Other members of r are passed over. After an error the group is as it was.
// origin says what messages call a member of r, given by its name.
func (g Group) Update(r *specs.LinuxIntelRdt, origin func(member string) string) (undo func() error, err error) {
	var done []string // what was in force before, in the order of writing
	undo = func() error {
		var errs []error
		for i := range done {
			line := done[len(done)-1-i]
			if err := g.write("schemata", line+"\n"); err != nil {
				errs = append(errs, fmt.Errorf("restore schema %q of resctrl group %q: %w%s", line, g.Clos, err, g.lastStatus()))
			}
		}
		return errors.Join(errs...)
	}
	for _, s := range []struct{ member, line, missing string }{
		{"l3CacheSchema", r.L3CacheSchema, "Intel RDT/CAT: l3 cache schema is not enabled"},
		{"memBwSchema", r.MemBwSchema, "Intel RDT/MBA: memory bandwidth schema is not enabled"},
	} {
		if s.line == "" {
			continue
		}
		old, err := g.present(s.line)
		if err == nil && old == "" {
			resource, _, _ := strings.Cut(s.line, ":")
			err = fmt.Errorf("%s: resctrl group %q has no resource %q", s.missing, g.Clos, resource)
		}
		if err == nil {
			if err = g.write("schemata", s.line+"\n"); err != nil {
				err = fmt.Errorf("write %q to the schemata of resctrl group %q: %w%s", s.line, g.Clos, err, g.lastStatus())
			}
		}
		if err != nil {
			err = fmt.Errorf("set schema (%s): %w", origin(s.member), err)
			if e := undo(); e != nil {
				err = fmt.Errorf("%w; %w", err, e)
			}
			return nil, err
		}
		done = append(done, old)
	}
	return undo, nil
}

// present is the line in force of the resource that a schema is for, "" if the
// group has none of it.
func (g Group) present(schema string) (string, error) {
	if g.Clos == "" {
		return "", errors.New("the container has no resctrl group: it was created without linux.intelRdt")
	}
	data, err := os.ReadFile(filepath.Join(g.Clos, "schemata"))
	if err != nil {
		return "", fmt.Errorf("read schemata of resctrl group: %w", err)
	}
	want, _, ok := strings.Cut(schema, ":")
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if resource, _, some := strings.Cut(line, ":"); ok && some && resource == strings.TrimSpace(want) {
			return line, nil
		}
	}
	return "", nil
}
