// Package intelrdt puts containers into classes of service and monitoring groups of
// resctrl, the file system of Intel's Resource Director Technology
// (Documentation/filesystems/resctrl.rst of the kernel).
package intelrdt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// In resctrl the kernel fills a directory that is made, and takes the files along with one
// that is removed. Tests do so in its place.
var (
	mkdir = func(dir string) error { return os.Mkdir(dir, 0o755) }
	rmdir = unix.Rmdir

	// Of a schemata file a line that is written replaces only that of its resource.
	writeLine = func(file, text string) error {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(text)
		return errors.Join(err, f.Close())
	}
)

// DefaultRoot is where resctrl is mounted by custom.
const DefaultRoot = "/sys/fs/resctrl"

// Root finds the mount point of resctrl in this mount namespace.
func Root() (string, error) {
	var st unix.Statfs_t
	if unix.Statfs(DefaultRoot, &st) == nil && st.Type == unix.RDTGROUP_SUPER_MAGIC {
		return DefaultRoot, nil
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find resctrl: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		front, back, ok := strings.Cut(line, " - resctrl ")
		if fields := strings.Fields(front); ok && back != "" && len(fields) >= 5 {
			return fields[4], nil
		}
	}
	return "", errors.New("intel rdt is not available: no resctrl file system is mounted (mount -t resctrl resctrl /sys/fs/resctrl)")
}

// Group is what a container is put into. The zero Group is nothing.
type Group struct {
	// Clos is the directory of its class of service, Mon that of its monitoring group or "".
	Clos, Mon string
	// Own: the class is the container's alone, made and removed with it.
	Own bool
}

// New says which group the container id gets below the mount point root. It has no effect.
func New(root, id string, r *specs.LinuxIntelRdt) Group {
	g := Group{Clos: filepath.Join(root, r.ClosID)}
	if r.ClosID == "" {
		g.Clos, g.Own = filepath.Join(root, id), true
	}
	if r.EnableMonitoring {
		g.Mon = filepath.Join(g.Clos, "mon_groups", id)
	}
	return g
}

// Tasks are the files that a process writes "0" to in order to enter the group, in this order.
func (g Group) Tasks() []string {
	if g.Clos == "" {
		return nil
	}
	list := []string{filepath.Join(g.Clos, "tasks")}
	if g.Mon != "" {
		list = append(list, filepath.Join(g.Mon, "tasks"))
	}
	return list
}

// schemata are the lines to write, in the order of the specification.
func schemata(r *specs.LinuxIntelRdt) []string {
	var l []string
	for _, s := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if s != "" {
			l = append(l, s)
		}
	}
	return l
}

// Check finds out before anything is made whether Create could succeed: a class that is named
// without schemata has to exist, and one that exists has to agree with them.
func (g Group) Check(r *specs.LinuxIntelRdt) error {
	_, err := os.Stat(g.Clos)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail("closID", err)
	}
	want := schemata(r)
	switch {
	case g.Own && exists:
		return fail("closID", fmt.Errorf("a class of service with the container's id exists already: %q", g.Clos))
	case !g.Own && !exists && len(want) == 0:
		return fail("closID", fmt.Errorf("%q: there is no such class of service, and no schema to make one with: %w", r.ClosID, err))
	case !g.Own && exists:
		return g.compare(r)
	}
	return nil
}

// compare refuses a class of service that is not as the config wants it: others are in it, so
// it is not changed.
func (g Group) compare(r *specs.LinuxIntelRdt) error {
	if len(schemata(r)) == 0 {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(g.Clos, "schemata"))
	if err != nil {
		return fail("closID", err)
	}
	have := parse(strings.Split(string(data), "\n"))
	want := parse(schemata(r))
	for _, k := range want.keys {
		v, ok := have.values[k]
		if !ok || !equal(v, want.values[k]) {
			return fail("closID", fmt.Errorf("%q exists with another schema: %s is %q, the config has %q", r.ClosID, k, v, want.values[k]))
		}
	}
	return nil
}

// table is schemata by "RESOURCE:DOMAIN"; of equal ones the last counts.
type table struct {
	keys   []string
	values map[string]string
}

func parse(lines []string) table {
	t := table{values: map[string]string{}}
	for _, line := range lines {
		resource, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok {
			continue
		}
		for domain := range strings.SplitSeq(rest, ";") {
			id, value, ok := strings.Cut(domain, "=")
			if !ok {
				continue
			}
			k := strings.TrimSpace(resource) + ":" + strings.TrimSpace(id)
			if _, ok := t.values[k]; !ok {
				t.keys = append(t.keys, k)
			}
			t.values[k] = strings.TrimSpace(value)
		}
	}
	return t
}

// equal compares two values: the kernel drops and adds leading zeros of masks.
func equal(a, b string) bool {
	trim := func(s string) string { return strings.ToLower(strings.TrimLeft(strings.TrimPrefix(s, "0x"), "0")) }
	return trim(a) == trim(b)
}

// Create makes what does not exist of the group and writes its schemata. When it fails it has
// undone what it did.
func (g Group) Create(r *specs.LinuxIntelRdt) (err error) {
	made := false
	if g.Clos != "" {
		switch err := mkdir(g.Clos); {
		case err == nil:
			made = true
		case !errors.Is(err, fs.ErrExist):
			return fail("closID", explain(err))
		case g.Own:
			return fail("closID", err)
		default:
			if err := g.compare(r); err != nil {
				return err // it came into being meanwhile
			}
		}
	}
	defer func() {
		if err != nil {
			if g.Mon != "" {
				_ = rmdir(g.Mon)
			}
			if made {
				_ = rmdir(g.Clos)
			}
		}
	}()
	if made {
		for _, line := range schemata(r) {
			if err := g.write("schemata", line+"\n"); err != nil {
				return fail("schemata", fmt.Errorf("write %q: %w%s", line, err, g.lastStatus()))
			}
		}
	}
	if g.Mon != "" {
		if err := mkdir(g.Mon); err != nil {
			return fail("enableMonitoring", explain(err))
		}
	}
	return nil
}

func (g Group) write(name, text string) error {
	return writeLine(filepath.Join(g.Clos, name), text)
}

// lastStatus is what the kernel says of the last refusal, after a colon.
func (g Group) lastStatus() string {
	b, err := os.ReadFile(filepath.Join(g.root(), "info/last_cmd_status"))
	if err != nil {
		return ""
	}
	return ": " + strings.TrimSpace(string(b))
}

func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w (the processor has no more classes of service or monitoring ids)", err)
	}
	return err
}

// Remove removes what Create made for the container alone. What is gone already is no error.
// The processes that are in it fall back to the group above.
func (g Group) Remove() error {
	var errs []error
	dirs := []string{g.Mon}
	if g.Own {
		dirs = append(dirs, g.Clos)
	}
	for _, d := range slices.DeleteFunc(dirs, func(d string) bool { return d == "" }) {
		if err := rmdir(d); err != nil && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("remove resctrl group %q: %w", d, err))
		}
	}
	return errors.Join(errs...)
}

func fail(member string, err error) error {
	return fmt.Errorf("config.json: /linux/intelRdt/%s: %w", member, err)
}
