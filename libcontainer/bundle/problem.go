package bundle

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one reason why a document is refused.
type Problem struct {
	// File names the document, such as "config.json".
	File string
	// Pointer is the JSON pointer (RFC 6901) of the member that is wrong or
	// missing, relative to the document; "" is the document itself.
	Pointer string
	// Value is the offending value as it is printed: strings quoted, long ones
	// cut. Empty if there is none to show.
	Value string
	// Message says what is wrong with it.
	Message string
	// Accepted says what would be right, "" if the message does.
	Accepted string
}

// Error is the problem with its document's name.
func (p Problem) Error() string {
	return p.File + ": " + p.text()
}

func (p Problem) text() string {
	var b strings.Builder
	for _, s := range [...]string{cut(p.Pointer, maxPointer), p.Value} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	b.WriteString(p.Message)
	if p.Accepted != "" {
		b.WriteString("; accepted: ")
		b.WriteString(p.Accepted)
	}
	return b.String()
}

// Problems is why a document is refused, ordered by pointer. It is never empty
// when it is returned as an error.
type Problems []Problem

// Error joins the first 20 problems with "; ". The document's name stands once,
// in front.
func (p Problems) Error() string {
	var b strings.Builder
	for i := range p {
		switch {
		case i == maxShown:
			b.WriteString("; and ")
			b.WriteString(strconv.Itoa(len(p) - maxShown))
			b.WriteString(" more")
			return b.String()
		case i == 0:
			b.WriteString(p[i].File)
			b.WriteString(": ")
		default:
			b.WriteString("; ")
		}
		b.WriteString(p[i].text())
	}
	return b.String()
}

// sort orders by pointer, array indices as numbers, and drops all but the first
// problem of a member.
func (p Problems) sort() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int { return comparePointers(a.Pointer, b.Pointer) })
	return slices.CompactFunc(p, func(a, b Problem) bool { return a.Pointer == b.Pointer })
}

func comparePointers(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a = firstToken(a)
		y, b = firstToken(b)
		if x == y {
			continue
		}
		m, errX := strconv.ParseUint(x, 10, 64)
		n, errY := strconv.ParseUint(y, 10, 64)
		if errX == nil && errY == nil {
			if c := cmp.Compare(m, n); c != 0 {
				return c
			}
		}
		return cmp.Compare(x, y)
	}
	return cmp.Compare(len(a), len(b))
}

// firstToken splits "/a/b" into "a" and "/b".
func firstToken(pointer string) (token, rest string) {
	pointer = pointer[1:]
	if i := strings.IndexByte(pointer, '/'); i >= 0 {
		return pointer[:i], pointer[i:]
	}
	return pointer, ""
}

// at extends a JSON pointer by tokens, which are strings or ints.
func at(pointer string, tokens ...any) string {
	for _, t := range tokens {
		switch t := t.(type) {
		case int:
			pointer += "/" + strconv.Itoa(t)
		case string:
			t = strings.ReplaceAll(t, "~", "~0")
			pointer += "/" + strings.ReplaceAll(t, "/", "~1")
		}
	}
	return pointer
}

// quote renders a string for Problem.Value.
func quote(s string) string {
	h := head(s, maxValue)
	if len(h) < len(s) {
		return strconv.Quote(h) + "..."
	}
	return strconv.Quote(s)
}

// cut shortens s for a message.
func cut(s string, n int) string {
	if h := head(s, n); len(h) < len(s) {
		return h + "..."
	}
	return s
}

// head is at most n bytes of s, up to the end of a character.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func number[T int | int32 | int64 | uint | uint32 | uint64](n T) string {
	if n < 0 {
		return strconv.FormatInt(int64(n), 10)
	}
	return strconv.FormatUint(uint64(n), 10)
}

// choices renders the accepted values of got: all, or the three nearest when
// they are many.
func choices(got string, accepted []string) string {
	tail := ""
	if len(accepted) > maxAccepted {
		got = got[:min(len(got), maxValue)]
		accepted = slices.Clone(accepted)
		slices.SortStableFunc(accepted, func(a, b string) int { return cmp.Compare(distance(got, a), distance(got, b)) })
		accepted = accepted[:3]
		tail = " and others, see rt features"
	}
	var b strings.Builder
	for i, a := range accepted {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(a))
	}
	return b.String() + tail
}

// distance is the number of single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// checker collects what is wrong with one document.
type checker struct {
	file     string
	problems Problems
	warnings []string
	// update is set for the resources of an update: they add to what the
	// container already has.
	update bool
}

func (c *checker) add(p Problem) {
	if len(c.problems) < maxProblems {
		p.File = c.file
		c.problems = append(c.problems, p)
	}
}

// bad records a problem; value is "" or as rendered by quote or number.
func (c *checker) bad(pointer, value, message string) {
	c.add(Problem{Pointer: pointer, Value: value, Message: message})
}

// not records a value outside of what is accepted.
func (c *checker) not(pointer, value, message, accepted string) {
	c.add(Problem{Pointer: pointer, Value: value, Message: message, Accepted: accepted})
}

func (c *checker) warn(pointer, value, message string) {
	if len(c.warnings) < maxProblems {
		c.warnings = append(c.warnings, Problem{File: c.file, Pointer: pointer, Value: value, Message: message}.Error())
	}
}

// result ends the collection.
func (c *checker) result() ([]string, error) {
	if len(c.problems) == 0 {
		return c.warnings, nil
	}
	return c.warnings, c.problems.sort()
}
