package criu

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzFilters: any bytes give filters that are parts of them, one after the other, or an error; never a
// panic.
func FuzzFilters(f *testing.F) {
	entry := twoFilters[12:]
	f.Add(twoFilters)
	f.Add(twoFilters[:20])
	f.Add(entry)
	f.Add(entry[:len(entry)-1])
	f.Add(slices.Concat(entry, entry))
	f.Add([]byte("\x0a\x00\x0a\x02\x0a\x00"))                     // filters without a filter
	f.Add([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))     // a length beyond all
	f.Add([]byte("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")) // and a negative one
	f.Add([]byte("\x0b\x0b\x0a\x01\x00\x0c\x0c\x0a\x02\x0a\x00")) // groups
	f.Add([]byte("\x08\x80\x01\x09abcdefgh\x0dabcd\x0f"))         // other types
	f.Add([]byte("\x8a\x80\x00\x04\x8a\x00\x81\x00a"))            // numbers longer than need be
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(data []byte) {
			list, err := parseFilters(data)
			if err != nil {
				return
			}
			rest := data
			var again []byte
			for _, filter := range list {
				at := bytes.Index(rest, filter)
				if at < 0 {
					t.Fatalf("filter %v is not in what follows the one before, %v", filter, rest)
				}
				rest = rest[at+len(filter):]
				again = append(again, field(1, field(1, filter...)...)...)
			}
			if got, err := parseFilters(image(again)); err != nil || !slices.EqualFunc(got, list, bytes.Equal) {
				t.Fatalf("of %v comes %v, %v", list, got, err)
			}
		}
		check(data)
		// So that what is tried is more than the size of the entry.
		check(image(data))
	})
}
