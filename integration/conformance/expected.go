package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// verdict is what comes out of a program in a lane.
type verdict string

const (
	verdictPass verdict = "pass" // exit status 0, and at least one check, all ok
	verdictFail verdict = "fail"
	verdictNone verdict = "none" // exit status 0, and not a single check
)

// expectation is one line of the list.
type expectation struct {
	program      string
	host, hostV2 string // a verdict, or "OK/ALL": fail, with just so many checks that are ok
	reason       string // why not pass; empty when both lanes pass
}

func (e expectation) in(l lane) string {
	if l == laneHostV2 {
		return e.hostV2
	}
	return e.host
}

// parseExpected reads the list: a program a line, its verdicts in the two lanes,
// and a reason unless both are pass. Lines that begin with # are comments. The
// programs are sorted, and none is there twice.
func parseExpected(r io.Reader) ([]expectation, error) {
	var list []expectation
	sc := bufio.NewScanner(r)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			return nil, fmt.Errorf("line %d: %q: want PROGRAM HOST HOST-V2 [REASON]", n, line)
		}
		e := expectation{f[0], f[1], f[2], strings.Join(f[3:], " ")}
		for _, want := range f[1:3] {
			if !isExpected(want) {
				return nil, fmt.Errorf("line %d: %q: want pass, fail, none or a count as 2/3", n, want)
			}
		}
		if passes := f[1] == string(verdictPass) && f[2] == string(verdictPass); passes != (e.reason == "") {
			return nil, fmt.Errorf("line %d: %s: want a reason where it does not pass, and only there", n, e.program)
		}
		if len(list) > 0 && list[len(list)-1].program >= e.program {
			return nil, fmt.Errorf("line %d: %s: want sorted lines, one a program", n, e.program)
		}
		list = append(list, e)
	}
	return list, sc.Err()
}

// isExpected accepts a verdict, a count, or two of them as "pass|0/1" for a
// program whose own race decides.
func isExpected(s string) bool {
	if a, b, ok := strings.Cut(s, "|"); ok {
		return isExpected(a) && isExpected(b)
	}
	switch verdict(s) {
	case verdictPass, verdictFail, verdictNone:
		return true
	}
	var ok, all int
	n, err := fmt.Sscanf(s, "%d/%d", &ok, &all)
	return n == 2 && err == nil && s == fmt.Sprintf("%d/%d", ok, all) && ok >= 0 && ok <= all
}

// meets reports whether a result is the one that the list has.
func (r result) meets(want string) bool {
	if a, b, ok := strings.Cut(want, "|"); ok {
		return r.meets(a) || r.meets(b)
	}
	return want == string(r.verdict) || r.verdict == verdictFail && want == r.checks()
}
