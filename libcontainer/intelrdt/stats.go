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
	L3CacheInfo       *L3CacheInfo `json:"l3_cache_info,omitempty"`
	L3CacheSchemaRoot string       `json:"l3_cache_schema_root,omitempty"` // of the default class
	L3CacheSchema     string       `json:"l3_cache_schema,omitempty"`
	MemBwInfo         *MemBwInfo   `json:"mem_bw_info,omitempty"`
	MemBwSchemaRoot   string       `json:"mem_bw_schema_root,omitempty"`
	MemBwSchema       string       `json:"mem_bw_schema,omitempty"`
	Schemata          []string     `json:"schemata,omitempty"`
	MBM               []MBMStats   `json:"mbm_stats,omitempty"`
	CMT               []CMTStats   `json:"cmt_stats,omitempty"`
}

// L3CacheInfo is what the processor can do about its cache.
type L3CacheInfo struct {
	CBMMask    string `json:"cbm_mask,omitempty"`
	MinCBMBits uint64 `json:"min_cbm_bits,omitempty"`
	NumClosIDs uint64 `json:"num_closids,omitempty"`
}

// MemBwInfo is what the processor can do about memory bandwidth.
type MemBwInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumClosIDs    uint64 `json:"num_closids,omitempty"`
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
	list, err := lines(g.Clos)
	if err != nil {
		return nil, err
	}
	s.Schemata = list
	s.L3CacheSchema, s.MemBwSchema = ofResources(list)
	g.info(s)
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

// lines are those of a class's schemata.
func lines(clos string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(clos, "schemata"))
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			list = append(list, line)
		}
	}
	return list, nil
}

// ofResources picks the lines of the cache, which may be two, for code and data, and of
// memory bandwidth.
func ofResources(lines []string) (l3, mb string) {
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "L3"):
			l3 = strings.TrimPrefix(l3+"\n"+line, "\n")
		case strings.HasPrefix(line, "MB:"):
			mb = line
		}
	}
	return l3, mb
}

// info tells of the default class and of what the processor can do; what cannot be read is
// left out.
func (g Group) info(s *Stats) {
	root := g.root()
	if all, err := lines(root); err == nil {
		s.L3CacheSchemaRoot, s.MemBwSchemaRoot = ofResources(all)
	}
	dir := filepath.Join(root, "info/L3")
	if mask, err := os.ReadFile(filepath.Join(dir, "cbm_mask")); err == nil {
		i := &L3CacheInfo{CBMMask: strings.TrimSpace(string(mask))}
		i.MinCBMBits, _ = count(dir, "min_cbm_bits")
		i.NumClosIDs, _ = count(dir, "num_closids")
		s.L3CacheInfo = i
	}
	dir = filepath.Join(root, "info/MB")
	if gran, ok := count(dir, "bandwidth_gran"); ok {
		i := &MemBwInfo{BandwidthGran: gran}
		i.DelayLinear, _ = count(dir, "delay_linear")
		i.MinBandwidth, _ = count(dir, "min_bandwidth")
		i.NumClosIDs, _ = count(dir, "num_closids")
		s.MemBwInfo = i
	}
}

// root is the mount point: the class itself is the default one, or lies directly below it.
func (g Group) root() string {
	if _, err := os.Stat(filepath.Join(g.Clos, "info")); err == nil {
		return g.Clos
	}
	return filepath.Dir(g.Clos)
}
