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

// growth is of run, without other containers and with them, or of create, without resources
// and with them.
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
	Limits   map[string]growth           `json:"limits,omitempty"`
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
	{"events", 0, 0.6},
	{"update", 0, 0.6},
}

// On cgroup v1, where a run enters each hierarchy.
var barsV1 = []bar{
	{"run", 0, 0.35},
	{"events", 0, 0.6},
	{"update", 0, 0.6},
}

// mostLimited is the largest factor by which all resources may lengthen rt's create.
const mostLimited = 1.2

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

func (r *report) setLimits(runtime string, g growth) {
	if r.Limits == nil {
		r.Limits = map[string]growth{}
	}
	r.Limits[runtime] = g
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
			if by[rt].N == 0 { // it has no such command
				fmt.Fprintf(w, "%18s", "-")
				continue
			}
			fmt.Fprintf(w, "%9.2f (%6.2f)", by[rt].Median, by[rt].Min)
		}
		for _, peer := range []string{"crun", "runc"} {
			if by[peer].N == 0 {
				fmt.Fprintf(w, "%10s", "-")
				continue
			}
			fmt.Fprintf(w, "%10.2f", by["rt"].Median/by[peer].Median)
		}
		fmt.Fprintln(w)
	}
	if len(r.Limits) > 0 {
		fmt.Fprintf(w, "\nlane %s, %d rounds, create without resources and with all that the lane has, ms\n", r.Lane, r.Rounds)
		for _, rt := range r.Runtimes {
			g := r.Limits[rt]
			fmt.Fprintf(w, "%-8s%9.2f without %9.2f with them %+9.2f (%+.0f%%)\n", rt, g.Alone.Median, g.With.Median,
				g.With.Median-g.Alone.Median, 100*(g.With.Median/g.Alone.Median-1))
		}
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
	line := func(what string, share, most float64) {
		if first {
			fmt.Fprintf(w, "\nbars\n")
			first = false
		}
		verdict := "met"
		if !(share <= most) {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s, at most %.2f: %s\n", what, most, verdict)
	}
	list := bars
	if r.Lane == "host" {
		list = barsV1
	}
	for _, b := range list {
		by := r.Commands[b.command]
		if by == nil {
			continue
		}
		for _, peer := range []struct {
			name string
			most float64
		}{{"crun", b.crun}, {"runc", b.runc}} {
			if peer.most == 0 || !slices.Contains(r.Runtimes, peer.name) {
				continue
			}
			share := by["rt"].Median / by[peer.name].Median
			line(fmt.Sprintf("%-8s%6.2f of %s", b.command, share, peer.name), share, peer.most)
		}
	}
	if g, ok := r.Limits["rt"]; ok {
		share := g.With.Median / g.Alone.Median
		line(fmt.Sprintf("%-8s%6.2f of create without", "limits", share), share, mostLimited)
	}
}

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
