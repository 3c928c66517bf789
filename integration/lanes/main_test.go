package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	const failOutput = `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: want 1, got 2\n"}
`
	tests := []struct {
		name   string
		events string
		want   string // last line
		prints string
	}{
		{"nothing ran", "", "0 passed, 0 failed, 0 skipped", ""},
		{"subtests count", `{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`, "2 passed, 0 failed, 0 skipped", ""},
		{"failed test counts once", failOutput + `{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, "0 passed, 1 failed, 0 skipped", "want 1, got 2"},
		{"build failure", `{"ImportPath":"p","Action":"build-output","Output":"a.go:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p"}`, "0 passed, 1 failed, 0 skipped", "a.go:1: syntax error"},
		{"died in a test", failOutput + `{"Action":"fail","Package":"p"}`,
			"0 passed, 1 failed, 0 skipped", "unfinished: p TestA\n    a_test.go:1"},
		{"skip names its reason", `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:1: no swap\n"}
{"Action":"skip","Package":"p","Test":"TestA"}`, "0 passed, 0 failed, 1 skipped", "TestA: a_test.go:1: no swap"},
		{"package without tests", `{"Action":"skip","Package":"p"}`, "0 passed, 0 failed, 0 skipped", ""},
		{"slow tests are named", `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1.5}
{"Action":"pass","Package":"p","Test":"TestB/x","Elapsed":9}
{"Action":"fail","Package":"p","Test":"TestC","Elapsed":12.25}`, "2 passed, 1 failed, 0 skipped",
			"slowest:\n   12.2 s  p TestC\n    1.5 s  p TestA\n\n"},
		{"line that is no event", "panic: x\n", "0 passed, 0 failed, 0 skipped", "panic: x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			tally := newTally(&out)
			tally.read(strings.NewReader(tt.events))
			tally.summary()
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if last := lines[len(lines)-1]; last != tt.want {
				t.Errorf("last line %q, want %q", last, tt.want)
			}
			if !strings.Contains(out.String(), tt.prints) {
				t.Errorf("printed %q, want %q in it", out.String(), tt.prints)
			}
		})
	}
}
