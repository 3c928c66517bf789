package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Stats is what a cgroup uses, in the form in which `runc events` prints it. What
// a controller that is not there, or a kernel that does not have it, would tell is zero.
type Stats struct {
	CPU     CPUStats          `json:"cpu"`
	CPUSet  CPUSetStats       `json:"cpuset"` // cgroup v1 only
	Memory  MemoryStats       `json:"memory"`
	Pids    PidsStats         `json:"pids"`
	BlockIO BlockIOStats      `json:"blkio"`
	Hugetlb map[string]Amount `json:"hugetlb"` // by page size, "2MB"
}

// CPUStats is in nanoseconds.
type CPUStats struct {
	Usage struct {
		Total        uint64   `json:"total,omitempty"`
		PerCPU       []uint64 `json:"percpu,omitempty"` // these three: cgroup v1 only
		PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
		PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
		Kernel       uint64   `json:"kernel"`
		User         uint64   `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods,omitempty"`
		ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
		ThrottledTime    uint64 `json:"throttledTime,omitempty"`
	} `json:"throttling"`
	PSI *PSI `json:"psi,omitempty"`
}

// CPUSetStats is the setting of the cpuset (cpuset(7)).
type CPUSetStats struct {
	CPUs                  []uint16 `json:"cpus,omitempty"`
	CPUExclusive          uint64   `json:"cpu_exclusive"`
	Mems                  []uint16 `json:"mems,omitempty"`
	MemHardwall           uint64   `json:"mem_hardwall"`
	MemExclusive          uint64   `json:"mem_exclusive"`
	MemoryMigrate         uint64   `json:"memory_migrate"`
	MemorySpreadPage      uint64   `json:"memory_spread_page"`
	MemorySpreadSlab      uint64   `json:"memory_spread_slab"`
	MemoryPressure        uint64   `json:"memory_pressure"`
	SchedLoadBalance      uint64   `json:"sched_load_balance"`
	SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
}

// Amount is what is used of something, in bytes but for Failcnt, which is how often the
// limit was hit. A limit that is none is the largest number.
type Amount struct {
	Limit   uint64 `json:"limit,omitempty"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// MemoryStats is in bytes. Swap is memory and swap together.
type MemoryStats struct {
	Cache     uint64 `json:"cache,omitempty"`
	Usage     Amount `json:"usage"`
	Swap      Amount `json:"swap"`
	Kernel    Amount `json:"kernel"`
	KernelTCP Amount `json:"kernelTCP"`
	// Raw is memory.stat, and oom_kill: how often the kernel has killed a
	// process for want of memory.
	Raw map[string]uint64 `json:"raw,omitempty"`
	PSI *PSI              `json:"psi,omitempty"`
}

// PidsStats counts processes and threads. A limit that is none is 0.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// BlockIOStats lists transfers by device. Kernels in use tell of the first two and PSI.
type BlockIOStats struct {
	ServiceBytes []BlockIOEntry `json:"ioServiceBytesRecursive,omitempty"`
	Serviced     []BlockIOEntry `json:"ioServicedRecursive,omitempty"`
	PSI          *PSI           `json:"psi,omitempty"`
}

// BlockIOEntry is one number of one device. Op is "Read", "Write", on v1 others too.
type BlockIOEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"`
	Value uint64 `json:"value,omitempty"`
}

// PSI is how long processes had to wait for a resource
// (Documentation/accounting/psi.rst); Total is in µs, the others are percentages.
type PSI struct {
	Some PSIData `json:"some"`
	Full PSIData `json:"full"`
}

// PSIData is one line of a pressure file.
type PSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"`
}

// reader reads the files of one directory for Stats and keeps the first error
// that is not a missing file.
type reader struct {
	d   *dir
	err error
}

func (r *reader) text(file string) string {
	s, err := r.d.read(file)
	if err != nil {
		// EOPNOTSUPP: a pressure file of a kernel that does not keep count.
		if r.err == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			r.err = err
		}
		return ""
	}
	return s
}

func (r *reader) number(file string) uint64 { return parseNumber(r.text(file)) }

func (r *reader) psi(file string) *PSI { return parsePSI(r.text(file)) }

// none is the amount that stands for no limit.
const none = 1<<64 - 1

// times multiplies a time by the nanoseconds of its unit; the largest number stands for what is
// more.
func times(n, unit uint64) uint64 {
	if n > none/unit {
		return none
	}
	return n * unit
}

// parseNumber reads a number or "max"; anything else is 0.
func parseNumber(s string) uint64 {
	if s == "max" {
		return none
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// parseKeyed reads lines of "KEY NUMBER" and passes over others.
func parseKeyed(s string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.SplitSeq(s, "\n") {
		key, v, ok := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(v, 10, 64); ok && err == nil {
			m[key] = n
		}
	}
	return m
}

// parsePSI returns nil if there is nothing to read.
func parsePSI(s string) *PSI {
	p := new(PSI)
	found := false
	for line := range strings.SplitSeq(s, "\n") {
		kind, rest, _ := strings.Cut(line, " ")
		d := &p.Some
		switch kind {
		case "some":
		case "full":
			d = &p.Full
		default:
			continue
		}
		found = true
		for word := range strings.FieldsSeq(rest) {
			name, v, _ := strings.Cut(word, "=")
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || !(f >= 0 && f <= 1e18) {
				continue // NaN too, which JSON does not have
			}
			switch name {
			case "avg10":
				d.Avg10 = f
			case "avg60":
				d.Avg60 = f
			case "avg300":
				d.Avg300 = f
			case "total":
				d.Total = parseNumber(v)
			}
		}
	}
	if !found {
		return nil
	}
	return p
}

// parseList reads a list such as "0-3,5" (cpuset(7), "List format").
func parseList(s string) []uint16 {
	var out []uint16
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil {
			continue
		}
		for n := a; n <= b && len(out) < 1<<16; n++ {
			out = append(out, uint16(n))
		}
	}
	return out
}

// parseDevice reads "MAJOR:MINOR".
func parseDevice(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, ok && err1 == nil && err2 == nil
}

// pageSizes are the sizes of huge pages that the kernel has, as its files call
// them: "2MB".
func pageSizes() []string {
	entries, err := os.ReadDir("/sys/kernel/mm/hugepages")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if s := pageSize(e.Name()); s != "" {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// pageSize reads "hugepages-2048kB".
func pageSize(name string) string {
	text, ok1 := strings.CutPrefix(name, "hugepages-")
	text, ok2 := strings.CutSuffix(text, "kB")
	n, err := strconv.ParseUint(text, 10, 64)
	if !ok1 || !ok2 || err != nil || n == 0 {
		return ""
	}
	unit := 0
	for unit < 2 && n%1024 == 0 {
		n /= 1024
		unit++
	}
	return strconv.FormatUint(n, 10) + [...]string{"KB", "MB", "GB"}[unit]
}
