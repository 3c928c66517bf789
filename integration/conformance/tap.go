package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// result is the verdict on one run of a program.
type result struct {
	verdict    verdict // pass, fail or none
	ok, failed int     // checks
	why        string  // what is wrong; empty unless the verdict is fail
	took       time.Duration
	output     output
}

// checks returns how many checks are ok, and how many there are, as "2/3".
func (r result) checks() string { return fmt.Sprintf("%d/%d", r.ok, r.ok+r.failed) }

// judge reads the TAP that a program wrote. Their streams are loose: plans
// follow each other or lack, YAML blocks hold whatever a container printed, some
// print nothing at all. So what counts is the lines that begin with "ok" or "not
// ok" and the exit status. A check marked TODO or SKIP is none, and a program
// without any check does not pass.
func judge(out output) result {
	res := result{verdict: verdictFail, output: out}
	for line := range bytes.Lines(out.stdout) {
		text := strings.TrimRight(string(line), " \r\n")
		rest, notOK := strings.CutPrefix(text, "not ")
		rest, isCheck := strings.CutPrefix(rest, "ok")
		// "okay" and the like are no checks.
		if !isCheck || (rest != "" && rest[0] != ' ') {
			continue
		}
		if _, directive, _ := strings.Cut(rest, "#"); isDirective(directive) {
			continue
		}
		if !notOK {
			res.ok++
			continue
		}
		res.failed++
		if res.why == "" {
			res.why = strings.TrimSpace(rest)
		}
	}
	switch {
	case out.status == -1:
		res.why = "time is up"
	case res.failed > 0:
		res.why = fmt.Sprintf("%d of %d checks fail, first: %s", res.failed, res.ok+res.failed, res.why)
	case out.status != 0:
		res.why = fmt.Sprintf("exit status %d: %s", out.status, firstLine(out.stderr))
	case res.ok == 0:
		res.verdict = verdictNone
	default:
		res.verdict = verdictPass
	}
	return res
}

func isDirective(s string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return strings.EqualFold(word, "todo") || strings.EqualFold(word, "skip")
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line)
}

// abridge returns what is worth reading of a program's output: all but the
// checks that are ok and their YAML blocks. Output of a container that is quoted in
// a block is unfolded first.
func abridge(stdout []byte) []byte {
	var b bytes.Buffer
	skipping := false
	for line := range bytes.Lines(bytes.ReplaceAll(stdout, []byte(`\n`), []byte("\n"))) {
		if line[0] != ' ' && line[0] != '\n' {
			skipping = bytes.HasPrefix(line, []byte("ok "))
		}
		if !skipping {
			b.Write(line)
		}
	}
	return b.Bytes()
}
