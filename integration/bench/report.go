package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// stats are of one command of one runtime, in milliseconds.
type stats struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	N      int     `json:"n"`
}

// growth is of run, without other containers and with them.
type growth struct {
	Alone stats `json:"alone"`
	With  stats `json:"with"`
}

// memory is in KiB: the peak of the whole `run`, and the peak and present size of the
// process that waits for start.
type memory struct {
	RunPeak     int `json:"runPeak"`
	CreatedPeak int `json:"createdPeak"`
	CreatedNow  int `json:"createdNow"`
}

type report struct {
	Lane     string                      `json:"lane"`
	Rounds   int                         `json:"rounds"`
	Others   int                         `json:"others"`
	Runtimes []string                    `json:"runtimes"`
	Commands map[string]map[string]stats `json:"commands,omitempty"` // by command, then runtime
	Growth   map[string]growth           `json:"growth,omitempty"`
	Memory   map[string]memory           `json:"memory,omitempty"`
	Init     stats                       `json:"init"` // of rt's packages

	times map[[2]string][]time.Duration // by command and runtime
	inits []time.Duration
}

// bar is the largest share of a peer's median that rt may take; 0 is none.
type bar struct {
	command    string
	crun, runc float64
}

var bars = []bar{
	{"run", 0.65, 0.20},
	{"exec", 0.65, 0},
	{"state", 0.8, 0},
	{"start", 0.8, 0},
	{"kill", 0.8, 0},
	{"delete", 0.8, 0},
}

func (r *report) add(runtime string, times map[string]time.Duration) {
	if r.times == nil {
		r.times = map[[2]string][]time.Duration{}
	}
	for command, took := range times {
		key := [2]string{command, runtime}
		r.times[key] = append(r.times[key], took)
	}
}

func (r *report) setGrowth(runtime string, g growth) {
	if r.Growth == nil {
		r.Growth = map[string]growth{}
	}
	r.Growth[runtime] = g
}

func (r *report) setMemory(runtime string, m memory) {
	if r.Memory == nil {
		r.Memory = map[string]memory{}
	}
	r.Memory[runtime] = m
}

func summarise(times []time.Duration) stats {
	if len(times) == 0 {
		return stats{}
	}
	t := slices.Sorted(slices.Values(times))
	return stats{
		Median: ms(t[(len(t)-1)/2]+t[len(t)/2]) / 2,
		Min:    ms(t[0]),
		N:      len(t),
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// finish turns the times of all rounds into Commands.
func (r *report) finish() {
	r.Commands = map[string]map[string]stats{}
	for key, times := range r.times {
		if r.Commands[key[0]] == nil {
			r.Commands[key[0]] = map[string]stats{}
		}
		r.Commands[key[0]][key[1]] = summarise(times)
	}
}

func (r *report) print(w io.Writer) {
	r.finish()
	if len(r.Commands) > 0 {
		fmt.Fprintf(w, "\nlane %s, %d rounds, wall time in ms: median (minimum)\n%-8s", r.Lane, r.Rounds, "")
		for _, rt := range r.Runtimes {
			fmt.Fprintf(w, "%18s", rt)
		}
		fmt.Fprintf(w, "%10s%10s\n", "rt/crun", "rt/runc")
	}
	for _, c := range commands {
		by := r.Commands[c]
		if by == nil {
			continue
		}
		fmt.Fprintf(w, "%-8s", c)
		for _, rt := range r.Runtimes {
			fmt.Fprintf(w, "%9.2f (%6.2f)", by[rt].Median, by[rt].Min)
		}
		fmt.Fprintf(w, "%10.2f%10.2f\n", by["rt"].Median/by["crun"].Median, by["rt"].Median/by["runc"].Median)
	}
	if len(r.Growth) > 0 {
		fmt.Fprintf(w, "\nrun with %d other containers, ms\n", r.Others)
		for _, rt := range r.Runtimes {
			g := r.Growth[rt]
			fmt.Fprintf(w, "%-8s%9.2f alone %9.2f with them %+9.2f (%+.0f%%)\n", rt, g.Alone.Median, g.With.Median,
				g.With.Median-g.Alone.Median, 100*(g.With.Median/g.Alone.Median-1))
		}
	}
	if len(r.Memory) > 0 {
		fmt.Fprintf(w, "\nmemory, KiB\n")
		for _, rt := range r.Runtimes {
			m := r.Memory[rt]
			fmt.Fprintf(w, "%-8s%9d peak of run %9d peak while created %9d now\n", rt, m.RunPeak, m.CreatedPeak, m.CreatedNow)
		}
	}
	if r.Init.N > 0 {
		fmt.Fprintf(w, "\npackage initialisers of rt: %.2f ms (%.2f)\n", r.Init.Median, r.Init.Min)
	}
	r.printBars(w)
}

func (r *report) printBars(w io.Writer) {
	first := true
	for _, b := range bars {
		by := r.Commands[b.command]
		if by == nil {
			continue
		}
		if first {
			fmt.Fprintf(w, "\nbars\n")
			first = false
		}
		for _, peer := range []struct {
			name string
			most float64
		}{{"crun", b.crun}, {"runc", b.runc}} {
			if peer.most == 0 {
				continue
			}
			share, verdict := by["rt"].Median/by[peer.name].Median, "met"
			if !(share <= peer.most) {
				verdict = "MISSED"
			}
			fmt.Fprintf(w, "%-8s%6.2f of %s, at most %.2f: %s\n", b.command, share, peer.name, peer.most, verdict)
		}
	}
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
