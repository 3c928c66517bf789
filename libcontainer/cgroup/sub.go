package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Below returns the record of sub-cgroups of the cgroup, which exec --cgroup
// names as "[CONTROLLER[,CONTROLLER]:]PATH". A path without controllers is the
// one in all hierarchies; in those that nothing names the cgroup itself is meant. It makes
// no system call: whether they exist shows when they are opened.
func (r Record) Below(args []string) (Record, error) {
	r.Dirs = slices.Clone(r.Dirs)
	named := map[string]string{} // by Dir.Key
	for _, arg := range args {
		refuse := func(why string) (Record, error) {
			return Record{}, fmt.Errorf("use --cgroup %q: %s", arg, why)
		}
		list, sub, listed := strings.Cut(arg, ":")
		if !listed {
			if list, sub = "", arg; len(args) > 1 {
				return refuse("several need CONTROLLER: in front of the path")
			}
		} else if r.Mode == V2 {
			return refuse("cgroup v2 has one hierarchy for all controllers; accepted: one path without controllers")
		}
		clean := ""
		if strings.Trim(sub, "/") != "" {
			var err error
			if clean, err = cleanComponents(sub); err != nil {
				return refuse(err.Error())
			}
		}
		if !listed {
			for i := range r.Dirs {
				r.Dirs[i].Path = path.Join(r.Dirs[i].Path, clean)
			}
			return r, nil
		}
		for controller := range strings.SplitSeq(list, ",") {
			i := slices.IndexFunc(r.Dirs, func(d Dir) bool { return controller != "" && d.Key != "" && hasOptions(d.Key, controller) })
			if i < 0 {
				return refuse(fmt.Sprintf("no hierarchy of the container's has the controller %q", controller))
			}
			d := &r.Dirs[i]
			switch before, again := named[d.Key]; {
			case !again:
				named[d.Key] = clean
				d.Path = path.Join(d.Path, clean)
			case before != clean:
				return refuse(fmt.Sprintf("the hierarchy of %s is given two paths", controller))
			}
		}
	}
	return r, nil
}

// Leaf returns the record of the cgroup below this one that init is in, if this
// one can hold no processes because it shares its controllers out to those below
// (cgroup2's rule of no internal processes); else it returns the record as it is.
// initCgroup is /proc/PID/cgroup of init, and is only asked for then.
func (r Record) Leaf(initCgroup func() ([]byte, error)) (Record, error) {
	if r.Mode != V2 || len(r.Dirs) != 1 {
		return r, nil
	}
	d := dir{Dir: r.Dirs[0], fd: -1}
	defer d.close()
	s, err := d.read("cgroup.subtree_control")
	if err != nil || s == "" {
		return r, nil // entering it tells what is wrong with it
	}
	text, err := initCgroup()
	if err != nil {
		return r, err
	}
	own, err := parseCgroups(text)
	if err != nil {
		return r, err
	}
	for _, h := range own {
		if h.Key != "" {
			continue
		}
		if p := strings.TrimPrefix(h.Own, "/"); !hasDotDot(p) && strings.HasPrefix(p, r.Dirs[0].Path+"/") {
			r.Dirs = []Dir{{Mount: r.Dirs[0].Mount, Path: path.Clean(p)}}
			return r, nil
		}
	}
	return r, fmt.Errorf("enter cgroup %q: %w: it has sub-cgroups with controllers, and the container's first process is in none of them", r.Dirs[0].Host(), unix.EBUSY)
}

// cleanComponents joins the components of a path by "/". One that leads up is refused.
func cleanComponents(p string) (string, error) {
	var parts []string
	for s := range strings.SplitSeq(p, "/") {
		switch {
		case s == "" || s == ".":
			continue
		case s == "..":
			return "", errors.New(`it must not contain the component ".."`)
		case strings.ContainsAny(s, "\x00\n"):
			return "", errors.New("it must not contain NUL or a newline")
		case len(s) > 255:
			return "", errors.New("its components must not be longer than 255 bytes")
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, "/"), nil
}
