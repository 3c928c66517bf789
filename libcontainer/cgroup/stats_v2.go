package cgroup

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

func (m *v2) Stats() (*Stats, error) {
	s := &Stats{Hugetlb: map[string]Amount{}}
	r := &reader{d: m.dir}
	if r.err = m.dir.open(); r.err == nil {
		cpuV2(r, s)
		memoryV2(r, s)
		pidsStats(r, s)
		s.BlockIO.ServiceBytes, s.BlockIO.Serviced = parseIOStat(r.text("io.stat"))
		hugetlbV2(r, s)
		pressures(r, s)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read statistics of cgroup %q: %w", m.dir.Host(), r.err)
	}
	return s, nil
}

func cpuV2(r *reader, s *Stats) {
	stat := parseKeyed(r.text("cpu.stat"))
	const micro = 1000
	u, t := &s.CPU.Usage, &s.CPU.Throttling
	u.Total, u.User, u.Kernel = times(stat["usage_usec"], micro), times(stat["user_usec"], micro), times(stat["system_usec"], micro)
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = stat["nr_periods"], stat["nr_throttled"], times(stat["throttled_usec"], micro)
}

func memoryV2(r *reader, s *Stats) {
	m := &s.Memory
	text := r.text("memory.stat")
	if text == "" {
		return // no memory controller
	}
	m.Raw = parseKeyed(text)
	m.Cache = m.Raw["file"]
	events := parseKeyed(r.text("memory.events"))
	m.Raw["oom_kill"] = events["oom_kill"]
	m.Usage = Amount{Limit: r.number("memory.max"), Usage: r.number("memory.current"), Max: r.number("memory.peak"), Failcnt: events["max"]}
	swap := r.text("memory.swap.current")
	if swap == "" {
		return // the kernel accounts no swap
	}
	// As on v1: memory and swap together.
	m.Swap = Amount{Limit: r.number("memory.swap.max"), Usage: parseNumber(swap) + m.Usage.Usage, Failcnt: parseKeyed(r.text("memory.swap.events"))["max"]}
	if sum := m.Swap.Limit + m.Usage.Limit; sum >= m.Swap.Limit && m.Usage.Limit != none {
		m.Swap.Limit = sum
	} else {
		m.Swap.Limit = none
	}
}

// parseIOStat reads lines of "MAJOR:MINOR KEY=NUMBER...".
func parseIOStat(text string) (bytes, count []BlockIOEntry) {
	for line := range strings.SplitSeq(text, "\n") {
		name, rest, _ := strings.Cut(line, " ")
		major, minor, ok := parseDevice(name)
		if !ok {
			continue
		}
		for word := range strings.FieldsSeq(rest) {
			key, v, _ := strings.Cut(word, "=")
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				continue
			}
			e := BlockIOEntry{Major: major, Minor: minor, Op: "Read", Value: n}
			list := &bytes
			switch key {
			case "rbytes":
			case "wbytes":
				e.Op = "Write"
			case "rios":
				list = &count
			case "wios":
				list, e.Op = &count, "Write"
			default:
				continue // v1 has no word for it
			}
			*list = append(*list, e)
		}
	}
	return bytes, count
}

// hugetlbV2 tells what is reserved, where the kernel counts that, as that is
// what its limit refuses first.
func hugetlbV2(r *reader, s *Stats) {
	if !slices.Contains(strings.Fields(r.text("cgroup.controllers")), "hugetlb") {
		return
	}
	for _, size := range pageSizes() {
		file := "hugetlb." + size
		usage := r.text(file + ".rsvd.current")
		if usage == "" {
			usage = r.text(file + ".current")
		}
		s.Hugetlb[size] = Amount{Usage: parseNumber(usage), Failcnt: parseKeyed(r.text(file + ".events"))["max"]}
	}
}

// pressures reads what cgroup2 tells with or without controllers.
func pressures(r *reader, s *Stats) {
	s.CPU.PSI, s.Memory.PSI, s.BlockIO.PSI = r.psi("cpu.pressure"), r.psi("memory.pressure"), r.psi("io.pressure")
}
