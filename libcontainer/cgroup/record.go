package cgroup

import (
	"bytes"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendJSON appends the record as JSON. Like ParseRecord it does so by hand:
// the first use of reflection for a type costs more than all else that most
// commands do.
func (r Record) AppendJSON(b []byte) ([]byte, error) {
	var err error
	str := func(name, s string) {
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, '"', ':')
		var e error
		if b, e = jsontext.AppendQuote(b, s); e != nil && err == nil {
			err = fmt.Errorf("encode cgroup record: %s %q: %w", name, s, e)
		}
	}
	b = append(b, '{')
	str("mode", string(r.Mode))
	b = append(b, ',')
	str("id", r.ID)
	b = append(b, `,"dirs":[`...)
	for i, d := range r.Dirs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		str("key", d.Key)
		b = append(b, ',')
		str("mount", d.Mount)
		b = append(b, ',')
		str("path", d.Path)
		b = append(b, '}')
	}
	b = append(b, ']')
	if r.Unit != "" {
		b = append(b, ',')
		str("unit", r.Unit)
	}
	if r.User {
		b = append(b, `,"user":true`...)
	}
	return append(b, '}'), err
}

// ParseRecord is the inverse of AppendJSON. Unknown members are passed over.
func ParseRecord(b []byte) (Record, error) {
	var r Record
	d := jsontext.NewDecoder(bytes.NewReader(b))
	err := object(d, func(name string) error {
		switch name {
		case "mode":
			s, err := text(d)
			r.Mode = Mode(s)
			return err
		case "id":
			s, err := text(d)
			r.ID = s
			return err
		case "unit":
			s, err := text(d)
			r.Unit = s
			return err
		case "user":
			t, err := d.ReadToken()
			r.User = err == nil && t.Kind() == 't'
			return err
		case "dirs":
			return array(d, func() error {
				var dir Dir
				err := object(d, func(name string) (err error) {
					switch name {
					case "key":
						dir.Key, err = text(d)
					case "mount":
						dir.Mount, err = text(d)
					case "path":
						dir.Path, err = text(d)
					default:
						err = d.SkipValue()
					}
					return err
				})
				r.Dirs = append(r.Dirs, dir)
				return err
			})
		}
		return d.SkipValue()
	})
	if err == nil && (r.ID == "" || len(r.Dirs) == 0 && r.Mode != None) {
		err = fmt.Errorf("it names no cgroup")
	}
	if err != nil {
		return Record{}, fmt.Errorf("read cgroup record: %w", err)
	}
	return r, nil
}

func text(d *jsontext.Decoder) (string, error) {
	t, err := d.ReadToken()
	if err == nil && t.Kind() != '"' {
		err = fmt.Errorf("%s at byte %d is no string", t, d.InputOffset())
	}
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// object calls member for each member of the object that comes next.
func object(d *jsontext.Decoder, member func(name string) error) error {
	return each(d, '{', func() error {
		name, err := text(d)
		if err != nil {
			return err
		}
		return member(name)
	})
}

func array(d *jsontext.Decoder, entry func() error) error { return each(d, '[', entry) }

func each(d *jsontext.Decoder, open jsontext.Kind, entry func() error) error {
	t, err := d.ReadToken()
	if err == nil && t.Kind() != open {
		err = fmt.Errorf("%s at byte %d, due is %v", t, d.InputOffset(), open)
	}
	for err == nil {
		if k := d.PeekKind(); k == '}' || k == ']' {
			_, err = d.ReadToken()
			return err
		}
		err = entry()
	}
	return err
}
