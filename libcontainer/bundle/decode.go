package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// decoder reads one document in a single pass. The reading is written out by
// hand, a line a member in schema.go, and not left to reflection: it then costs
// a third at first use (BenchmarkFirstParse), reports every wrong member and not
// just the first, and knows which members were there.
//
// jsontext refuses malformed JSON, repeated names and invalid UTF-8. Its first
// error, or a document that is nested too deep, ends the reading: err.
type decoder struct {
	*checker
	dec *jsontext.Decoder
	err error
}

var (
	errEmpty = errors.New("the document is empty")
	errEarly = errors.New("the document ends too early")
	errAfter = errors.New("data after the end of the document")
)

// decode reads data with read, which reads one value. It returns false if the
// document is no JSON; the reason is then c's only problem.
func (c *checker) decode(data []byte, read func(*decoder)) bool {
	if len(data) > maxSize {
		c.not("", "", fmt.Sprintf("the document has %d bytes", len(data)), fmt.Sprintf("up to %d", maxSize))
		return false
	}
	d := decoder{checker: c, dec: jsontext.NewDecoder(bytes.NewBuffer(data))}
	read(&d)
	if d.err == nil {
		end := int(d.dec.InputOffset())
		rest := bytes.TrimLeft(data[end:], " \t\r\n")
		if len(rest) == 0 {
			return true
		}
		d.err = &jsontext.SyntacticError{ByteOffset: int64(len(data) - len(rest)), Err: errAfter}
	}
	c.problems = nil
	c.add(d.syntax(data))
	return false
}

// syntax words d.err, with its place as line and column (of characters).
func (d *decoder) syntax(data []byte) Problem {
	offset, cause := d.dec.InputOffset(), d.err
	var pointer string
	if serr, ok := errors.AsType[*jsontext.SyntacticError](d.err); ok {
		offset, cause, pointer = serr.ByteOffset, serr.Err, string(serr.JSONPointer)
	}
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		offset, cause = 0, errEmpty
	case cause == io.EOF || cause == io.ErrUnexpectedEOF:
		offset, cause = int64(len(data)), errEarly
	}
	before := data[:min(max(offset, 0), int64(len(data)))]
	line := 1 + bytes.Count(before, []byte{'\n'})
	column := 1 + utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:])
	return Problem{
		Pointer: cut(pointer, maxPointer),
		Message: fmt.Sprintf("line %d, column %d: %s", line, column, cut(strings.TrimPrefix(cause.Error(), "jsontext: "), maxPointer)),
	}
}

// token reads the next token, and false at the end of reading.
func (d *decoder) token() (jsontext.Token, bool) {
	if d.err != nil {
		return jsontext.Token{}, false
	}
	t, err := d.dec.ReadToken()
	if err == nil && d.dec.StackDepth() > maxDepth {
		err = fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	if err != nil {
		d.err = err
		return t, false
	}
	return t, true
}

// kind is the kind of the next token, 0 at the end of reading.
func (d *decoder) kind() jsontext.Kind {
	if d.err != nil {
		return 0
	}
	return d.dec.PeekKind()
}

// skip reads a value and renders it for a message.
func (d *decoder) skip() string {
	depth := d.dec.StackDepth()
	t, ok := d.token()
	if !ok {
		return ""
	}
	var value string
	switch t.Kind() {
	case '{':
		value = "{...}"
	case '[':
		value = "[...]"
	case '"':
		value = quote(t.String())
	default:
		value = t.String()
		value = value[:min(len(value), maxValue)]
	}
	for ok && d.dec.StackDepth() > depth {
		_, ok = d.token()
	}
	return value
}

// wrong skips a value that is not what it must be.
func (d *decoder) wrong(accepted string) {
	if value := d.skip(); d.err == nil {
		d.not(string(d.dec.StackPointer()), value, "wrong type or range", accepted)
	}
}

// member is a known member of an object. Into is a pointer to where its value
// goes, or a func(*decoder) that reads it.
type member struct {
	name string
	into any
}

// object reads an object. It returns the members that were there and not null,
// as bits in the order of members, and isObject if it was one. Unknown members are
// skipped, as the specification demands; one that differs only by case
// deserves a warning.
func (d *decoder) object(members ...member) (seen uint64) {
	if d.kind() != '{' {
		d.wrong("an object")
		return 0
	}
	seen = isObject
	d.token()
	for {
		t, ok := d.token()
		if !ok || t.Kind() == '}' {
			return seen
		}
		name := t.String()
		i := find(members, name)
		switch {
		case i < 0:
			for _, m := range members {
				if strings.EqualFold(m.name, name) {
					d.warn(string(d.dec.StackPointer()), "", "unknown member is ignored, its name differs from "+strconv.Quote(m.name)+" in case")
				}
			}
			d.skip()
		case d.kind() == 'n':
			d.token()
		default:
			seen |= 1 << i
			d.value(members[i].into)
		}
	}
}

const isObject = 1 << 63

func find(members []member, name string) int {
	for i := range members {
		if members[i].name == name {
			return i
		}
	}
	return -1
}

// value reads a value into a pointer, see member.
func (d *decoder) value(into any) {
	switch p := into.(type) {
	case func(*decoder):
		p(d)
	case *string:
		d.text(p)
	case *bool:
		d.boolean(p)
	case **bool:
		d.boolean(fresh(p))
	case *int:
		*p = int(d.signed(64))
	case **int:
		*fresh(p) = int(d.signed(64))
	case *int32:
		*p = int32(d.signed(32))
	case *int64:
		*p = d.signed(64)
	case **int64:
		*fresh(p) = d.signed(64)
	case *uint:
		*p = uint(d.unsigned(64))
	case **uint:
		*fresh(p) = uint(d.unsigned(64))
	case **uint16:
		*fresh(p) = uint16(d.unsigned(16))
	case *uint32:
		*p = uint32(d.unsigned(32))
	case **uint32:
		*fresh(p) = uint32(d.unsigned(32))
	case *uint64:
		*p = d.unsigned(64)
	case **uint64:
		*fresh(p) = d.unsigned(64)
	case *[]string:
		array(d, p, maxList, func(d *decoder, s *string) { d.text(s) })
	case *[]uint32:
		array(d, p, maxList, func(d *decoder, n *uint32) { *n = uint32(d.unsigned(32)) })
	case *map[string]string:
		dictionary(d, p, func(d *decoder, s *string) { d.text(s) })
	default:
		panic(fmt.Sprintf("bundle: no reader for %T", into))
	}
}

func fresh[T any](p **T) *T {
	*p = new(T)
	return *p
}

func (d *decoder) text(p *string) {
	if d.kind() != '"' {
		d.wrong("a string")
		return
	}
	if t, ok := d.token(); ok {
		*p = t.String()
		d.nul(*p)
	}
}

// nul refuses a NUL in the string just read. None of them has a use for one,
// and to the kernel it is an end.
func (d *decoder) nul(s string) {
	if strings.IndexByte(s, 0) >= 0 {
		d.bad(string(d.dec.StackPointer()), quote(s), "contains a NUL byte")
	}
}

func (d *decoder) boolean(p *bool) {
	if k := d.kind(); k != 't' && k != 'f' {
		d.wrong("true or false")
		return
	}
	if t, ok := d.token(); ok {
		*p = t.Bool()
	}
}

// signed and unsigned read an integer that fits bits. It must be written as
// one: 1.0 and 1e2 are refused, for other readers may round what they stand for.
func (d *decoder) signed(bits int) int64 {
	least, most := int64(math.MinInt64)>>(64-bits), int64(math.MaxInt64)>>(64-bits)
	if d.kind() != '0' {
		d.wrong(integers(least, uint64(most)))
		return 0
	}
	t, ok := d.token()
	if !ok {
		return 0
	}
	raw := t.String()
	n, err := strconv.ParseInt(raw, 10, bits)
	if err != nil {
		d.outOfRange(raw, integers(least, uint64(most)))
		return 0
	}
	return n
}

func (d *decoder) unsigned(bits int) uint64 {
	most := uint64(math.MaxUint64) >> (64 - bits)
	if d.kind() != '0' {
		d.wrong(integers(0, most))
		return 0
	}
	t, ok := d.token()
	if !ok {
		return 0
	}
	raw := t.String()
	if raw == "-0" {
		return 0
	}
	n, err := strconv.ParseUint(raw, 10, bits)
	if err != nil {
		d.outOfRange(raw, integers(0, most))
		return 0
	}
	return n
}

func (d *decoder) outOfRange(raw, accepted string) {
	d.not(string(d.dec.StackPointer()), raw[:min(len(raw), maxValue)], "wrong type or range", accepted)
}

func integers(least int64, most uint64) string {
	return fmt.Sprintf("an integer from %d to %d", least, most)
}

// array reads at most limit entries with read; more are a problem.
func array[T any](d *decoder, p *[]T, limit int, read func(*decoder, *T)) {
	if d.kind() != '[' {
		d.wrong("an array")
		return
	}
	d.token()
	*p = []T{}
	excess := 0
	for {
		switch d.kind() {
		case ']':
			d.token()
			if excess > 0 {
				d.not(string(d.dec.StackPointer()), "", strconv.Itoa(limit+excess)+" entries", fmt.Sprintf("up to %d", limit))
			}
			return
		case 0:
			d.token() // for the error
			return
		}
		if len(*p) == limit {
			excess++
			d.skip()
			continue
		}
		var zero T
		*p = append(*p, zero)
		read(d, &(*p)[len(*p)-1])
	}
}

// dictionary reads an object whose names are data.
func dictionary[T any](d *decoder, p *map[string]T, read func(*decoder, *T)) {
	if d.kind() != '{' {
		d.wrong("an object")
		return
	}
	d.token()
	*p = map[string]T{}
	excess := 0
	for {
		t, ok := d.token()
		if !ok {
			return
		}
		if t.Kind() == '}' {
			break
		}
		if len(*p) == maxList {
			excess++
			d.skip()
			continue
		}
		name := t.String()
		d.nul(name)
		var v T
		read(d, &v)
		(*p)[name] = v
	}
	if excess > 0 {
		d.not(string(d.dec.StackPointer()), "", strconv.Itoa(maxList+excess)+" members", fmt.Sprintf("up to %d", maxList))
	}
}

// structure makes a member's reader of a struct's.
func structure[T any](p **T, read func(*decoder, *T)) func(*decoder) {
	return func(d *decoder) { read(d, fresh(p)) }
}

// list makes a member's reader of an entry's.
func list[T any](p *[]T, limit int, read func(*decoder, *T)) func(*decoder) {
	return func(d *decoder) { array(d, p, limit, read) }
}

// names makes a member's reader of a list of named strings.
func names[T ~string](p *[]T) func(*decoder) {
	return func(d *decoder) {
		array(d, p, maxList, func(d *decoder, name *T) {
			var s string
			d.text(&s)
			*name = T(s)
		})
	}
}

// byName makes a member's reader of an object whose names are data.
func byName[T any](p *map[string]T, read func(*decoder, *T)) func(*decoder) {
	return func(d *decoder) { dictionary(d, p, read) }
}
