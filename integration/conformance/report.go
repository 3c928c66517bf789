package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// totals counts programs over all lanes.
type totals struct{ passed, failed, skipped int }

func (t *totals) add(u totals) {
	t.passed += u.passed
	t.failed += u.failed
	t.skipped += u.skipped
}

// line is the last line of the output. When measuring, failed are those that do
// not pass; else those that differ from the list, either way, and skipped those
// that do not pass, as the list says.
func (t totals) line(measure bool) string {
	if measure {
		return fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	}
	return fmt.Sprintf("%d passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
}

// report prints a lane's table and, after it, the output of the programs that
// need a look.
func report(w io.Writer, o options, l lane, list []expectation, results []result) totals {
	var sum totals
	var show []int
	var took time.Duration
	fmt.Fprintf(w, "lane %s, runtime %s\n", l, o.runtime)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  PROGRAM\tRESULT\tEXPECTED\tCHECKS\tSECONDS\tREASON")
	for i, e := range list {
		r := results[i]
		want, mark, reason := e.in(l), " ", ""
		if o.measure {
			want, reason = "-", r.why
		}
		switch {
		case r.verdict == verdictPass && (o.measure || r.meets(want)):
			sum.passed++
		case o.measure || !r.meets(want):
			sum.failed++
			if !o.measure {
				mark, reason = "!", r.why
				show = append(show, i)
			}
		default:
			sum.skipped++
			reason = e.reason
		}
		if o.verbose && r.verdict != verdictPass && mark == " " {
			show = append(show, i)
		}
		took += r.took
		fmt.Fprintf(tw, "%s %s\t%s\t%s\t%s\t%.1f\t%s\n", mark, e.program, r.verdict, want, r.checks(), r.took.Seconds(), reason)
	}
	tw.Flush()
	fmt.Fprintf(w, "lane %s: %s (%.0f s of programs)\n", l, sum.line(o.measure), took.Seconds())
	for _, i := range show {
		out := results[i].output
		fmt.Fprintf(w, "\n--- %s in lane %s: exit status %d, its output:\n", list[i].program, l, out.status)
		if o.verbose {
			w.Write(out.stdout)
		} else {
			w.Write(abridge(out.stdout))
		}
		if len(out.stderr) > 0 {
			fmt.Fprintf(w, "--- %s: its error output:\n", list[i].program)
			w.Write(out.stderr)
		}
	}
	if len(show) > 0 {
		fmt.Fprintln(w)
	}
	return sum
}
