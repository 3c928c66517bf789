package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"rt/cli"
	"rt/libcontainer"
	"rt/libcontainer/bundle"
)

func updateCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "resources", Aliases: []string{"r"}, Usage: "`FILE` with the limits as JSON, in the form of linux.resources; - is standard input. Flags about limits do not apply then"},
	}
	for _, f := range limitFlags {
		flags = append(flags, &cli.StringFlag{Name: f.name, Usage: f.usage, Hidden: f.obsolete()})
	}
	return &cli.Command{
		Name:      "update",
		Usage:     "change the limits of a container",
		ArgsUsage: "ID",
		Flags: append(flags,
			&cli.StringFlag{Name: "l3-cache-schema", Usage: "`SCHEMA` of the L3 cache for the container's class of service (Intel RDT/CAT), such as L3:0=f0"},
			&cli.StringFlag{Name: "mem-bw-schema", Usage: "`SCHEMA` of memory bandwidth for the container's class of service (Intel RDT/MBA), such as MB:0=50"},
		),
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			o := libcontainer.UpdateOptions{Warn: warn}
			if c.String("resources") != "" {
				err = limitsFromFile(c, &o)
			} else {
				err = limitsFromFlags(c, &o)
			}
			if err == nil {
				err = schemataFromFlags(c, &o)
			}
			if err != nil {
				return err
			}
			return container.Update(o)
		},
	}
}

// maxResources is the longest document that is read, in bytes.
const maxResources = 16 << 20

func limitsFromFile(c *cli.Context, o *libcontainer.UpdateOptions) error {
	for _, f := range limitFlags {
		if c.IsSet(f.name) {
			warn(fmt.Sprintf("--%s: ignored beside --resources", f.name))
		}
	}
	file := c.String("resources")
	in := os.Stdin
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return fmt.Errorf("read --resources: %w", err)
		}
		defer in.Close()
	}
	data, err := io.ReadAll(io.LimitReader(in, maxResources+1))
	if err != nil {
		return fmt.Errorf("read --resources %q: %w", file, err)
	}
	r, warnings, err := bundle.ParseResources("resources", data)
	for _, w := range warnings {
		warn(w)
	}
	if err != nil {
		return fmt.Errorf("read --resources %q: %w", file, err)
	}
	if len(r.Devices) > 0 {
		warn("resources: /devices: ignored, an update does not change the device policy")
	}
	o.Resources = r
	o.Origin = func(pointer string) string { return "resources " + pointer }
	return nil
}

type limitFlag struct{ name, pointer, usage string }

// obsolete flags are accepted, hidden, and do nothing.
func (f limitFlag) obsolete() bool {
	return f.pointer == "/memory/kernel" || f.pointer == "/memory/kernelTCP"
}

// limitFlags are the flags that set one limit each: to the member that pointer names.
var limitFlags = []limitFlag{
	{"blkio-weight", "/blockIO/weight", "block I/O `WEIGHT`, 10 to 1000"},
	{"cpu-period", "/cpu/period", "period of the CPU quota in `MICROSECONDS`"},
	{"cpu-quota", "/cpu/quota", "CPU time in each period in `MICROSECONDS`; -1 is no limit"},
	{"cpu-burst", "/cpu/burst", "unused CPU time that may be saved up, in `MICROSECONDS`"},
	{"cpu-share", "/cpu/shares", "CPU `SHARES`, in relation to other containers"},
	{"cpu-rt-period", "/cpu/realtimePeriod", "period of the realtime limit in `MICROSECONDS` (cgroup v1)"},
	{"cpu-rt-runtime", "/cpu/realtimeRuntime", "realtime CPU time in each period in `MICROSECONDS` (cgroup v1)"},
	{"cpuset-cpus", "/cpu/cpus", "`CPUS` to run on, such as 0-2,5"},
	{"cpuset-mems", "/cpu/mems", "memory `NODES` to use"},
	{"cpu-idle", "/cpu/idle", "`1` runs it only when a CPU is idle, 0 as others"},
	{"kernel-memory", "/memory/kernel", "(obsolete) ignored, in `BYTES`"},
	{"kernel-memory-tcp", "/memory/kernelTCP", "(obsolete) ignored, in `BYTES`"},
	{"memory", "/memory/limit", "memory limit in `BYTES`, or with k, m, g, t; -1 is no limit"},
	{"memory-reservation", "/memory/reservation", "memory to protect from reclaim, in `BYTES`"},
	{"memory-swap", "/memory/swap", "limit of memory and swap together, in `BYTES`; -1 is no limit of swap"},
	{"pids-limit", "/pids/limit", "`NUMBER` of processes; -1 is no limit"},
}

func limitsFromFlags(c *cli.Context, o *libcontainer.UpdateOptions) error {
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{}, Memory: &specs.LinuxMemory{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}
	for _, f := range limitFlags {
		text := c.String(f.name)
		if text == "" {
			continue
		}
		if err := setLimit(r, f.pointer, text); err != nil {
			return fmt.Errorf("invalid value for %s: %w", f.name, err)
		}
		if f.obsolete() {
			warn(fmt.Sprintf("--%s: ignored, kernels have no such limit any more", f.name))
		}
	}
	o.Resources = r
	o.Origin = func(pointer string) string {
		for _, f := range limitFlags {
			if f.pointer == pointer {
				return "--" + f.name
			}
		}
		return pointer
	}
	_, err := bundle.ValidateResources("update", r)
	if problems, ok := errors.AsType[bundle.Problems](err); ok {
		for i := range problems {
			problems[i].Pointer = o.Origin(problems[i].Pointer)
		}
	}
	return err
}

// schemataFlag is the flag for a member of linux.intelRdt.
func schemataFlag(member string) string {
	switch member {
	case "l3CacheSchema":
		return "--l3-cache-schema"
	case "memBwSchema":
		return "--mem-bw-schema"
	}
	return ""
}

// schemataFromFlags reads the flags that apply beside --resources too.
func schemataFromFlags(c *cli.Context, o *libcontainer.UpdateOptions) error {
	o.IntelRdt = &specs.LinuxIntelRdt{L3CacheSchema: c.String("l3-cache-schema"), MemBwSchema: c.String("mem-bw-schema")}
	o.IntelRdtOrigin = schemataFlag
	err := bundle.ValidateSchemata("update", o.IntelRdt)
	if problems, ok := errors.AsType[bundle.Problems](err); ok {
		for i := range problems {
			problems[i].Pointer = schemataFlag(strings.TrimPrefix(problems[i].Pointer, "/"))
		}
	}
	return err
}

func setLimit(r *specs.LinuxResources, pointer, text string) (err error) {
	switch pointer {
	case "/blockIO/weight":
		var n uint64
		n, err = strconv.ParseUint(text, 10, 16)
		r.BlockIO.Weight = new(uint16)
		*r.BlockIO.Weight = uint16(n)
	case "/cpu/period":
		r.CPU.Period, err = unsigned(text)
	case "/cpu/quota":
		r.CPU.Quota, err = signed(text)
	case "/cpu/burst":
		r.CPU.Burst, err = unsigned(text)
	case "/cpu/shares":
		r.CPU.Shares, err = unsigned(text)
	case "/cpu/realtimePeriod":
		r.CPU.RealtimePeriod, err = unsigned(text)
	case "/cpu/realtimeRuntime":
		r.CPU.RealtimeRuntime, err = signed(text)
	case "/cpu/cpus":
		r.CPU.Cpus = text
	case "/cpu/mems":
		r.CPU.Mems = text
	case "/cpu/idle":
		r.CPU.Idle, err = signed(text)
	case "/memory/kernel", "/memory/kernelTCP":
		_, err = size(text)
	case "/memory/limit":
		r.Memory.Limit, err = size(text)
	case "/memory/reservation":
		r.Memory.Reservation, err = size(text)
	case "/memory/swap":
		r.Memory.Swap, err = size(text)
	case "/pids/limit":
		r.Pids.Limit, err = signed(text)
	}
	return err
}

func unsigned(s string) (*uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	return &n, err
}

func signed(s string) (*int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return &n, err
}

// size is an amount of bytes with a binary unit, or -1.
func size(s string) (*int64, error) {
	if s == "-1" {
		n := int64(-1)
		return &n, nil
	}
	n, err := units.RAMInBytes(s)
	return &n, err
}
