package main

import (
	"strings"
	"testing"
	"time"
)

func TestSummarise(t *testing.T) {
	const m = time.Millisecond
	tests := []struct {
		name  string
		times []time.Duration
		want  stats
	}{
		{"none", nil, stats{}},
		{"one", []time.Duration{3 * m}, stats{3, 3, 1}},
		{"even takes the middle", []time.Duration{4 * m, 1 * m, 2 * m, 100 * m}, stats{3, 1, 4}},
		{"odd", []time.Duration{9 * m, 1 * m, 2 * m}, stats{2, 1, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := summarise(tt.times); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestSumInits(t *testing.T) {
	tests := []struct {
		name, trace string
		want        time.Duration
		fails       bool
	}{
		{"none", "runc version 1\n", 0, false},
		{"two", "init internal/bytealg @0.01 ms, 0.5 ms clock, 0 bytes, 0 allocs\ninit time @1 ms, 0.25 ms clock, 8 bytes, 1 allocs\n",
			750 * time.Microsecond, false},
		{"cut off", "init time @1 ms\n", 0, true},
		{"no number", "init time @1 ms, x ms clock, 8 bytes, 1 allocs\n", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sumInits(tt.trace)
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("got %v and error %v, want %v and fails=%v", got, err, tt.want, tt.fails)
			}
		})
	}
}

func TestBars(t *testing.T) {
	r := report{Runtimes: []string{"rt", "crun", "runc"}}
	for name, took := range map[string]time.Duration{"rt": 65, "crun": 100, "runc": 300} {
		r.add(name, map[string]time.Duration{"run": took * time.Millisecond})
	}
	r.add("rt", map[string]time.Duration{"exec": time.Millisecond})        // without peers: NaN or infinite
	for name, took := range map[string]time.Duration{"rt": 3, "runc": 6} { // crun has no such command
		r.add(name, map[string]time.Duration{"events": took * time.Millisecond})
	}
	r.setLimits("rt", growth{Alone: stats{Median: 10}, With: stats{Median: 12.5}})
	var out strings.Builder
	r.print(&out)
	for _, want := range []string{
		"run       0.65 of crun, at most 0.65: met\n",
		"run       0.22 of runc, at most 0.20: MISSED\n",
		"exec      +Inf of crun, at most 0.65: MISSED\n",
		"events       3.00 (  3.00)                 -     6.00 (  6.00)         -      0.50\n",
		"events    0.50 of runc, at most 0.60: met\n",
		"rt          10.00 without     12.50 with them     +2.50 (+25%)\n",
		"limits    1.25 of create without, at most 1.20: MISSED\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed %q, want %q in it", out.String(), want)
		}
	}
}

// The bars of cgroup v1 are others.
func TestBarsV1(t *testing.T) {
	r := report{Runtimes: []string{"rt", "crun", "runc"}, Lane: "host"}
	for name, took := range map[string]time.Duration{"rt": 70, "crun": 100, "runc": 300} {
		r.add(name, map[string]time.Duration{"run": took * time.Millisecond})
	}
	var out strings.Builder
	r.print(&out)
	if s := out.String(); !strings.Contains(s, "0.23 of runc, at most 0.35: met") || strings.Contains(s, "of crun, at most") {
		t.Errorf("printed %q", s)
	}
}

func TestTurn(t *testing.T) {
	b := &bench{runtimes: []*runtime{{name: "a"}, {name: "b"}, {name: "c"}}}
	places, after := map[string]int{}, map[string]int{}
	for round := range 6 {
		for i := range b.runtimes {
			name := b.turn(round, i).name
			places[name+string(rune('0'+i))]++
			if i > 0 {
				after[b.turn(round, i-1).name+name]++
			}
		}
	}
	if len(places) != 9 || len(after) != 6 {
		t.Fatalf("places %v, neighbours %v", places, after)
	}
	for _, m := range []map[string]int{places, after} {
		for what, n := range m {
			if n != 2 {
				t.Errorf("%s: %d times in six rounds, expected 2", what, n)
			}
		}
	}
}
