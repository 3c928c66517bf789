package state

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Intent and state.json are each one JSON object. Its first member is
// "version", its last "check": the length and the FNV-1a hash of all bytes
// before the comma in front of it, as 8 and 16 hexadecimal digits. That the
// member is the very end of the file shows every truncation. (A CRC-32 would
// do as well, but hash/crc32 builds its tables in every process that imports it.)
const (
	version      = 1
	trailerStart = `,"check":"`
	trailerEnd   = "\"}\n"
	trailerSize  = len(trailerStart) + 24 + len(trailerEnd)
)

// member ties the name of a JSON member to the variable that holds its value.
// The tables of members serve both directions; encoding by reflection would
// cost more than all the rest of a load, for every process pays for the first
// use of a type.
type member struct {
	name string
	ptr  any
}

// encode returns the file's content for the members.
func encode(ms []member) ([]byte, error) {
	var buf bytes.Buffer
	e := jsontext.NewEncoder(&buf)
	v := version
	if err := writeObject(e, append([]member{{"version", &v}}, ms...)); err != nil {
		return nil, err
	}
	body := bytes.TrimSuffix(bytes.TrimSuffix(buf.Bytes(), []byte("\n")), []byte("}"))
	if len(body)+trailerSize > maxFile {
		return nil, fmt.Errorf("encode state: %d bytes, accepted are up to %d", len(body), maxFile-trailerSize)
	}
	return append(body, trailer(body)...), nil
}

func trailer(body []byte) string {
	h := fnv.New64a()
	h.Write(body)
	return fmt.Sprintf("%s%08x%016x%s", trailerStart, len(body), h.Sum64(), trailerEnd)
}

// decode fills the members from a file's content. Unknown members are passed
// over; all errors are ErrDamaged.
func decode(data []byte, ms []member) error {
	n := len(data) - trailerSize
	if n < 0 || string(data[n:]) != trailer(data[:n]) {
		return fmt.Errorf("%w: length or checksum does not match", ErrDamaged)
	}
	v := 0
	d := jsontext.NewDecoder(bytes.NewBuffer(data))
	if err := readObject(d, append([]member{{"version", &v}}, ms...)); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if v != version {
		return fmt.Errorf("%w: it is of version %d, this rt knows version %d", ErrDamaged, v, version)
	}
	return nil
}

// writeObject leaves out empty strings, lists, maps and values.
func writeObject(e *jsontext.Encoder, ms []member) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, m := range ms {
		if isEmpty(m.ptr) {
			continue
		}
		if err := e.WriteToken(jsontext.String(m.name)); err != nil {
			return err
		}
		if err := writeValue(e, m.ptr); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

func isEmpty(ptr any) bool {
	switch p := ptr.(type) {
	case *string:
		return *p == ""
	case *jsontext.Value:
		return len(*p) == 0
	case *map[string]string:
		return len(*p) == 0
	case *map[string]jsontext.Value:
		return len(*p) == 0
	case *[]Namespace:
		return len(*p) == 0
	case *[]Operation:
		return len(*p) == 0
	}
	return false
}

func writeValue(e *jsontext.Encoder, ptr any) error {
	switch p := ptr.(type) {
	case *string:
		return e.WriteToken(jsontext.String(*p))
	case *bool:
		return e.WriteToken(jsontext.Bool(*p))
	case *int:
		return e.WriteToken(jsontext.Int(int64(*p)))
	case *uint32:
		return e.WriteToken(jsontext.Uint(uint64(*p)))
	case *uint64:
		return e.WriteToken(jsontext.Uint(*p))
	case *time.Time:
		return e.WriteToken(jsontext.String(p.UTC().Format(time.RFC3339Nano)))
	case *jsontext.Value:
		return e.WriteValue(*p)
	case *map[string]string:
		return writeMap(e, *p)
	case *map[string]jsontext.Value:
		return writeMap(e, *p)
	case *[]Namespace:
		return writeList(e, len(*p), func(i int) []member { return (*p)[i].members() })
	case *[]Operation:
		return writeList(e, len(*p), func(i int) []member { return (*p)[i].members() })
	}
	panic(fmt.Sprintf("no encoding for %T", ptr))
}

// writeMap writes the keys sorted, so that equal records are equal bytes.
func writeMap[V any](e *jsontext.Encoder, m map[string]V) error {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, k := range keys {
		if err := e.WriteToken(jsontext.String(k)); err != nil {
			return err
		}
		v := m[k]
		if err := writeValue(e, &v); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

func writeList(e *jsontext.Encoder, n int, members func(int) []member) error {
	if err := e.WriteToken(jsontext.BeginArray); err != nil {
		return err
	}
	for i := range n {
		if err := writeObject(e, members(i)); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndArray)
}

func readObject(d *jsontext.Decoder, ms []member) error {
	return readMembers(d, func(name string) error {
		for _, m := range ms {
			if m.name == name {
				if err := readValue(d, m.ptr); err != nil {
					return fmt.Errorf("%q: %w", name, err)
				}
				return nil
			}
		}
		return d.SkipValue()
	})
}

// readMembers reads an object and calls value for each of its members, with
// the decoder at the member's value.
func readMembers(d *jsontext.Decoder, value func(name string) error) error {
	if err := expect(d, '{'); err != nil {
		return err
	}
	for d.PeekKind() != '}' {
		t, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := value(t.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// expect reads a token of kind k.
func expect(d *jsontext.Decoder, k jsontext.Kind) error {
	t, err := d.ReadToken()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && t.Kind() != k {
		err = fmt.Errorf("%v in the place of %v", t.Kind(), k)
	}
	return err
}

func readValue(d *jsontext.Decoder, ptr any) error {
	switch p := ptr.(type) {
	case *jsontext.Value:
		v, err := d.ReadValue()
		*p = v.Clone()
		return err
	case *map[string]string:
		return readMap(d, p)
	case *map[string]jsontext.Value:
		return readMap(d, p)
	case *[]Namespace:
		return readList(d, func() []member { *p = append(*p, Namespace{}); return (*p)[len(*p)-1].members() })
	case *[]Operation:
		return readList(d, func() []member { *p = append(*p, Operation{}); return (*p)[len(*p)-1].members() })
	}
	t, err := d.ReadToken()
	if err != nil {
		return err
	}
	return readScalar(t, ptr)
}

func readScalar(t jsontext.Token, ptr any) error {
	ok := true
	switch ptr.(type) {
	case *string, *time.Time:
		ok = t.Kind() == '"'
	case *int, *uint32, *uint64:
		ok = t.Kind() == '0'
	case *bool:
		ok = t.Kind() == 't' || t.Kind() == 'f'
	}
	if !ok {
		return fmt.Errorf("%v in the place of a %T", t.Kind(), ptr)
	}
	var err error
	switch p := ptr.(type) {
	case *string:
		*p = t.String()
	case *bool:
		*p = t.Bool()
	case *time.Time:
		*p, err = time.Parse(time.RFC3339Nano, t.String())
	case *int:
		var n int64
		n, err = t.Int()
		*p = int(n)
	case *uint32:
		var n uint64
		n, err = t.Uint()
		*p = uint32(n)
	case *uint64:
		*p, err = t.Uint()
	}
	return err
}

func readMap[V any](d *jsontext.Decoder, m *map[string]V) error {
	*m = map[string]V{}
	return readMembers(d, func(name string) error {
		var v V
		err := readValue(d, &v)
		(*m)[name] = v
		return err
	})
}

func readList(d *jsontext.Decoder, next func() []member) error {
	if err := expect(d, '['); err != nil {
		return err
	}
	for d.PeekKind() == '{' {
		if err := readObject(d, next()); err != nil {
			return err
		}
	}
	return expect(d, ']')
}
