package intelrdt

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Stats is what resctrl counts of a group and allows it; the JSON is that of runc's events.
type Stats struct {
	L3CacheSchema string     `json:"l3_cache_schema,omitempty"`
	MemBwSchema   string     `json:"mem_bw_schema,omitempty"`
	Schemata      []string   `json:"schemata,omitempty"`
	MBM           []MBMStats `json:"mbm_stats,omitempty"`
	CMT           []CMTStats `json:"cmt_stats,omitempty"`
}

// MBMStats are bytes of memory traffic, of one domain (NUMA node).
type MBMStats struct {
	Total uint64 `json:"mbm_total_bytes,omitempty"`
	Local uint64 `json:"mbm_local_bytes,omitempty"`
}

// CMTStats are bytes of the last-level cache, of one domain.
type CMTStats struct {
	LLCOccupancy uint64 `json:"llc_occupancy,omitempty"`
}

// Stats reads the counters of the monitoring group, or of the class if there is none. What the
// processor does not count is left out.
func (g Group) Stats() (*Stats, error) {
	s := &Stats{}
	data, err := os.ReadFile(filepath.Join(g.Clos, "schemata"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		s.Schemata = append(s.Schemata, line)
		switch {
		case strings.HasPrefix(line, "L3"):
			s.L3CacheSchema = strings.TrimPrefix(s.L3CacheSchema+"\n"+line, "\n")
		case strings.HasPrefix(line, "MB:"):
			s.MemBwSchema = line
		}
	}
	dir := g.Mon
	if dir == "" {
		dir = g.Clos
	}
	domains, _ := filepath.Glob(filepath.Join(dir, "mon_data/mon_L3_*"))
	slices.Sort(domains)
	for _, d := range domains {
		total, ok1 := count(d, "mbm_total_bytes")
		local, ok2 := count(d, "mbm_local_bytes")
		if ok1 || ok2 {
			s.MBM = append(s.MBM, MBMStats{total, local})
		}
		if n, ok := count(d, "llc_occupancy"); ok {
			s.CMT = append(s.CMT, CMTStats{n})
		}
	}
	return s, nil
}

// count reads a counter; a domain that is offline reads as "Unavailable".
func count(dir, name string) (uint64, bool) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}
