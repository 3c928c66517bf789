package criu

import (
	"bytes"
	"encoding/binary"
	"os"
	"reflect"
	"slices"
	"testing"
)

// image is a file of filters with that entry.
func image(entry []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, commonMagic)
	b = binary.LittleEndian.AppendUint32(b, seccompMagic)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(entry))), entry...)
}

// field is a field of bytes.
func field(number byte, value ...byte) []byte {
	return append(binary.AppendUvarint([]byte{number<<3 | 2}, uint64(len(value))), value...)
}

// twoFilters was written by hand, after the description of the format. The second filter is on top of the first.
var twoFilters = []byte{
	0x19, 0x43, 0x56, 0x54, 0x49, 0x30, 0x41, 0x64, // IMG_COMMON_MAGIC, SECCOMP_MAGIC
	28, 0, 0, 0, // what follows
	0x0a, 10, // seccomp_filters
	0x0a, 8, 6, 0, 0, 0, 0, 0, 0xff, 0x7f, // filter
	0x0a, 14, // seccomp_filters
	0x0a, 8, 6, 0, 0, 0, 1, 0, 5, 0, // filter
	0x10, 0, // prev
	0x18, 2, // flags
}

func TestFilters(t *testing.T) {
	t.Parallel()
	base := []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}
	other := []byte{6, 0, 0, 0, 2, 0, 5, 0}
	on := []byte{2 << 3, 0}
	long := bytes.Repeat(base, 4096) // BPF_MAXINSNS, a length of more than one byte
	join := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	for _, row := range []struct {
		name string
		data []byte
		want [][]byte
		err  string
	}{
		{"two", twoFilters, [][]byte{base}, ""},
		{"no filters", image(nil), nil, ""},
		{"one", image(field(1, field(1, base...)...)), [][]byte{base}, ""},
		{"two that begin", image(join(field(1, field(1, base...)...), field(1, field(1, other...)...))), [][]byte{base, other}, ""},
		{"prev before the filter", image(join(field(1, field(1, base...)...), field(1, join(on, field(1, other...))...))), [][]byte{base}, ""},
		{"below it in the file", image(join(field(1, join(field(1, other...), []byte{2 << 3, 1})...), field(1, field(1, base...)...))), [][]byte{base}, ""},
		{"on top of itself", image(field(1, join(field(1, base...), on)...)), nil, "on top of no first one"},
		{"each on the other", image(join(field(1, join(field(1, base...), []byte{2 << 3, 1})...), field(1, join(field(1, base...), on)...))), nil, "on top of no first one"},
		{"on top of none that is there", image(field(1, join(field(1, base...), []byte{2 << 3, 9})...)), nil, "on top of no first one"},
		{"flags are no prev", image(field(1, join(field(1, base...), []byte{3 << 3, 1})...)), [][]byte{base}, ""},
		{"long", image(field(1, field(1, long...)...)), [][]byte{long}, ""},
		{"the last of two", image(field(1, join(field(1, other...), field(1, base...))...)), [][]byte{base}, ""},
		{"empty filter", image(field(1, field(1)...)), [][]byte{{}}, ""},
		{"fields of a newer CRIU", image(join(
			field(9, field(1, other...)...), []byte{10 << 3, 0x80, 1, 11<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 12<<3 | 5, 1, 2, 3, 4},
			field(1, join(field(9, 1, 2), field(1, base...), field(11, 3), []byte{10 << 3, 7})...))), [][]byte{base}, ""},

		{"nothing", nil, nil, "not an image"},
		{"half a head", twoFilters[:11], nil, "not an image"},
		{"another file's magic", change(twoFilters, 4, 0x48), nil, "not an image"},
		{"no magic", change(twoFilters, 0, 0), nil, "not an image"},
		{"magic of an older CRIU", join(twoFilters[4:8], twoFilters[8:]), nil, "not an image"},
		{"size too small", change(twoFilters, 8, 27), nil, "27 bytes, the file has 28 more"},
		{"size too large", change(twoFilters, 8, 29), nil, "29 bytes, the file has 28 more"},
		{"size far too large", change(twoFilters, 11, 0x80), nil, "2147483676 bytes, the file has 28 more"},
		{"cut", twoFilters[:len(twoFilters)-1], nil, "28 bytes, the file has 27 more"},
		{"more than one entry", join(twoFilters, twoFilters[8:]), nil, "28 bytes, the file has 60 more"},

		// The size is right, but what follows is not what it says.
		{"cut in a filter", image(twoFilters[12:30]), nil, "EOF"},
		{"cut in a length", image([]byte{0x0a, 0x80}), nil, "EOF"},
		{"cut in a tag", image([]byte{0x80}), nil, "EOF"},
		{"cut in a number", image([]byte{2 << 3, 0x80}), nil, "EOF"},
		{"cut in 64 bits", image([]byte{2<<3 | 1, 0}), nil, "EOF"},
		{"cut in 32 bits", image([]byte{2<<3 | 5, 0}), nil, "EOF"},
		{"filter longer than its entry", image(join(field(1, 0x0a, 9, 1, 2), []byte{0, 0, 0, 0, 0, 0, 0})), nil, "EOF"},
		{"length beyond all", image([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f")), nil, "EOF"},
		{"negative length", image([]byte("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")), nil, "negative"},
		{"endless number", image(bytes.Repeat([]byte{0xff}, 20)), nil, "overflow"},
		{"wire type 7", image([]byte{1<<3 | 7, 0}), nil, "wireType"},
		{"garbage in a filter", image(field(1, 0xff, 0xff)), nil, "EOF"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseFilters(row.data)
			expect(t, err, row.err)
			if err == nil && !slices.EqualFunc(got, row.want, bytes.Equal) {
				t.Errorf("got %v, expected %v", got, row.want)
			}
		})
	}
}

// No more is read of a file than an image may have.
func TestFiltersSize(t *testing.T) {
	t.Parallel()
	dir := lay(t, text(seccompName, string(twoFilters)))
	for size, says := range map[int64]string{maxImage: "the file has", maxImage + 1: "more than 67108864 bytes"} {
		if err := os.Truncate(dir+"/"+seccompName, size); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, dir).Filters()
		expect(t, err, says)
	}
}

// change is data with another byte at index i.
func change(data []byte, i int, to byte) []byte {
	data = slices.Clone(data)
	data[i] = to
	return data
}

func TestFiltersOfImages(t *testing.T) {
	t.Parallel()
	good := string(twoFilters)
	for _, row := range []struct {
		name    string
		entries []entry
		want    [][]byte
		err     string
	}{
		{"none", []entry{file("core-1.img")}, nil, ""},
		{"two", []entry{text(seccompName, good)}, [][]byte{twoFilters[16:24]}, ""},
		{"empty", []entry{text(seccompName, "")}, nil, "not an image"},
		{"cut", []entry{text(seccompName, good[:30])}, nil, "the file has 18 more"},
		{"link", []entry{link(seccompName, "other"), text("other", good)}, nil, "too many levels of symbolic links"},
		{"dangling link", []entry{link(seccompName, "other")}, nil, "too many levels of symbolic links"},
		{"fifo", []entry{special(seccompName, "fifo")}, nil, "not a regular file"},
		{"directory", []entry{subdirectory(seccompName)}, nil, "not a regular file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t, row.entries...)
			d := open(t, dir)
			var got [][]byte
			var err error
			inTime(t, func() { got, err = d.Filters() })
			if row.err != "" {
				expect(t, err, row.err, `read seccomp.img in "`+dir+`"`)
			} else if err != nil {
				t.Error(err)
			}
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %v, expected %v", got, row.want)
			}
		})
	}
}
