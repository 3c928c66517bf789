package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Origin says what messages call a limit: a place in a document, or a flag.
// The limit is given by its JSON pointer below linux.resources, such as
// "/memory/limit". Nil is its place in config.json.
type Origin func(pointer string) string

func (o Origin) of(pointer string) string {
	if o == nil {
		return "config.json /linux/resources" + pointer
	}
	return o(pointer)
}

// knob is one value to write to one file. What to write is decided by pure
// functions (v1Knobs, v2Knobs); the managers only write.
type knob struct {
	controller string
	file       string
	value      string
	pointer    string // JSON pointer below linux.resources
	optional   bool   // a missing file is passed over
	readBack   bool   // the kernel may clamp it: compare after
	unified    bool   // on a hybrid host: in the cgroup2 directory
	or         *knob  // what to write where there is no such file
	// What cannot be asked for of this version of cgroups, and why: refused
	// is an error, ignored a warning. Neither has a file.
	refused, ignored string
}

// Two ways in which a request to change limits differs from the first one: it
// can turn a switch off again, and must be undone if it fails halfway.
const (
	first  = false
	update = true
)

// check tells what of knobs would be refused before anything is written.
// missing says why a controller cannot be had, "" if it can.
func check(knobs []knob, o Origin, missing func(knob) string) (warnings []string, err error) {
	var problems []string
	for _, k := range knobs {
		why := k.refused
		if why == "" && k.ignored == "" && !k.optional {
			why = missing(k)
		}
		switch {
		case why != "":
			problems = append(problems, fmt.Sprintf("set limit (%s): %s", o.of(k.pointer), why))
		case k.ignored != "":
			warnings = append(warnings, fmt.Sprintf("set limit (%s): ignored: %s", o.of(k.pointer), k.ignored))
		}
	}
	if len(problems) > 0 {
		err = errors.New(strings.Join(slices.Compact(problems), "; "))
	}
	return warnings, err
}

// files is where knobs are written.
type files interface {
	readKnob(k knob) (string, error)
	writeKnob(k knob) error
}

// apply writes knobs in order. With update a failure puts the old values back.
func apply(knobs []knob, o Origin, f files, update bool) error {
	if !update {
		return writeKnobs(knobs, o, f)
	}
	j := journal{files: f}
	err := writeKnobs(knobs, o, &j)
	if err == nil {
		return nil
	}
	if e := j.restore(o); e != nil {
		return fmt.Errorf("%w; restore the old values: %w", err, e)
	}
	return fmt.Errorf("%w; no limit was changed", err)
}

// journal remembers what was in the files before they were written.
type journal struct {
	files
	old []knob // in the order of writing
}

func (j *journal) writeKnob(k knob) error {
	text, unread := j.files.readKnob(k)
	err := j.files.writeKnob(k)
	// What was not written needs no restoring, but what was clamped does (ERANGE).
	if unread == nil && (err == nil || errors.Is(err, unix.ERANGE)) {
		k.readBack = false
		if k.value = previous(k.file, k.value, text); k.value != "" {
			j.old = append(j.old, k)
		}
	}
	return err
}

// restore writes the old values, in reverse, as many as can be written. Like
// writeKnobs it tries again what is invalid beside a value that is not restored yet.
func (j *journal) restore(o Origin) error {
	var errs []error
	left := slices.Clone(j.old)
	slices.Reverse(left)
	for round := range 2 {
		var again []knob
		for _, k := range left {
			switch err := j.files.writeKnob(k); {
			case err == nil:
			case round == 0 && errors.Is(err, unix.EINVAL):
				again = append(again, k)
			default:
				errs = append(errs, fmt.Errorf("set %s to %q (%s): %w", k.file, k.value, o.of(k.pointer), err))
			}
		}
		left = again
	}
	return errors.Join(errs...)
}

// writeKnobs writes in order. A value that is invalid (EINVAL) may be so only
// beside the old value of another, quota beside period or memory limit beside
// swap limit: so it is tried once more after the rest.
func writeKnobs(knobs []knob, o Origin, f files) error {
	var again []knob
	for round := range 2 {
		for _, k := range knobs {
			if k.refused != "" {
				return fmt.Errorf("set limit (%s): %s", o.of(k.pointer), k.refused)
			}
			if k.ignored != "" {
				continue
			}
			err := f.writeKnob(k)
			if k.or != nil && errors.Is(err, unix.ENOENT) {
				if e := f.writeKnob(*k.or); !errors.Is(e, unix.ENOENT) {
					k, err = *k.or, e
				}
			}
			switch {
			case err == nil, k.optional && errors.Is(err, unix.ENOENT):
				written()
			case round == 0 && errors.Is(err, unix.EINVAL):
				again = append(again, k)
			default:
				return fmt.Errorf("set %s to %q (%s): %w", k.file, k.value, o.of(k.pointer), err)
			}
		}
		knobs = again
	}
	return nil
}

// previous returns what to write to file so that it says again what it said,
// text, before value was written to it; "" if there is nothing to restore.
func previous(file, value, text string) string {
	lines := strings.Split(text, "\n")
	first := lines[0]
	reset, keyed := keyedReset(file)
	switch {
	case file == "memory.oom_control":
		return field(text, "oom_kill_disable")
	case strings.HasPrefix(file, "cgroup.") && !strings.HasPrefix(file, "cgroup.max.") && file != "cgroup.pressure":
		return "" // what these files say is not what is written to them
	case !keyed:
		if len(lines) > 1 {
			return "" // a list or a report of events
		}
		if first == "" {
			return "\n" // cpuset.cpus; nothing at all would be no write
		}
		return first
	}
	key, _, some := strings.Cut(value, " ")
	if !some || key == "default" { // a weight for all devices
		if d := field(text, "default"); d != "" {
			return "default " + d
		}
		return first
	}
	for _, line := range lines {
		if k, _, _ := strings.Cut(line, " "); k == key {
			return line
		}
	}
	return key + " " + reset
}

// keyedReset is the value that stands for a line that is not there, of a file that holds a
// line for each device or interface; false for every other file.
func keyedReset(file string) (string, bool) {
	switch file {
	case "io.max":
		return "rbps=max wbps=max riops=max wiops=max", true
	case "io.latency":
		return "target=0", true
	case "io.weight", "io.bfq.weight", "blkio.weight_device", "blkio.bfq.weight_device":
		return "default", true
	case "rdma.max":
		return "hca_handle=max hca_object=max", true
	case "misc.max", "dmem.max":
		return "max", true
	case "dmem.min", "dmem.low", "net_prio.ifpriomap", "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
		"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device":
		return "0", true
	}
	return "", false
}

// usageError adds to EBUSY how much memory is in use: the kernel refuses a limit
// below that (v1).
func usageError(err error, k knob, read func(file string) (string, error)) error {
	if !errors.Is(err, unix.EBUSY) || k.controller != "memory" {
		return err
	}
	file := "memory.usage_in_bytes"
	if strings.HasPrefix(k.file, "memory.memsw.") {
		file = "memory.memsw.usage_in_bytes"
	}
	usage, e := read(file)
	if e != nil {
		return err
	}
	return fmt.Errorf("%w: %s bytes are in use, the limit is to be %s", err, usage, k.value)
}

// checkUsage refuses a limit that is not above what is in use, for
// checkBeforeUpdate on cgroup2, whose kernel would kill processes. What cannot
// be read is not compared.
func checkUsage(knobs []knob, o Origin, read func(file string) (string, error)) error {
	for _, k := range knobs {
		var file string
		switch k.file {
		case "memory.max":
			file = "memory.current"
		case "memory.swap.max":
			file = "memory.swap.current"
		default:
			continue
		}
		limit, err := strconv.ParseUint(k.value, 10, 64)
		if err != nil {
			continue // no limit
		}
		text, err := read(file)
		if err != nil {
			continue
		}
		usage, err := strconv.ParseUint(text, 10, 64)
		if err == nil && limit <= usage && usage > 0 {
			return fmt.Errorf("set %s to %q (%s): %d bytes are in use, the limit is to be %d, and checkBeforeUpdate forbids one that is not above: %w",
				k.file, k.value, o.of(k.pointer), usage, limit, unix.EBUSY)
		}
	}
	return nil
}

// checksUsage says whether r asks for checkUsage.
func checksUsage(r *specs.LinuxResources) bool {
	return r != nil && r.Memory != nil && r.Memory.CheckBeforeUpdate != nil && *r.Memory.CheckBeforeUpdate
}
