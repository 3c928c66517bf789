package criu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	protobuf "github.com/aperturerobotics/protobuf-go-lite"
	"golang.org/x/sys/unix"
)

const (
	seccompName = "seccomp.img"
	// The two words with which such a file begins (criu.org/Images).
	commonMagic  = 0x54564319
	seccompMagic = 0x64413049
	// maxImage is the longest image that is read, in bytes.
	maxImage = 64 << 20
	// Wire types: a number, and what has a length.
	wireVarint, wireBytes = 0, 2
)

// Filters lists the seccomp filters that the images have and that were not put on top of another one: those with which
// the processes of a container begin. It is empty if there are none at all.
func (d *Images) Filters() ([][]byte, error) {
	data, err := d.read(seccompName)
	var list [][]byte
	if err == nil && data != nil {
		list, err = parseFilters(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s in %q: %w", seccompName, d.path, err)
	}
	return list, nil
}

// read reads an image; nil if there is none.
func (d *Images) read(name string) ([]byte, error) {
	f, err := d.open(name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxImage+1))
	if err == nil && len(data) > maxImage {
		err = fmt.Errorf("it has more than %d bytes", maxImage)
	}
	return data, err
}

// payload is the one entry of an image with that magic.
func payload(data []byte, magic uint32) ([]byte, error) {
	const head = 3 * 4
	le := binary.LittleEndian
	switch {
	case len(data) < head || le.Uint32(data) != commonMagic || le.Uint32(data[4:]) != magic:
		return nil, errors.New("it is not an image of this kind")
	case uint64(le.Uint32(data[8:])) != uint64(len(data)-head):
		return nil, fmt.Errorf("its entry has %d bytes, the file has %d more", le.Uint32(data[8:]), len(data)-head)
	}
	return data[head:], nil
}

// parseFilters reads a file of one SeccompEntry (CRIU's images/seccomp.proto):
//
//	message seccomp_filter { required bytes filter = 1; optional uint32 prev = 2; optional uint32 flags = 3; }
//	message seccomp_entry { repeated seccomp_filter seccomp_filters = 1; }
func parseFilters(data []byte) ([][]byte, error) {
	entry, err := payload(data, seccompMagic)
	if err != nil {
		return nil, err
	}
	var list [][]byte
	var prev []uint64 // of each filter the one below it
	err = fields(entry, func(n, _ uint64, v []byte) error {
		if n != 1 {
			return nil
		}
		var filter []byte
		on, below := false, uint64(0) // on top of another filter, and of which
		err := fields(v, func(n, number uint64, v []byte) error {
			switch n {
			case 1:
				filter = v
			case 2:
				on, below = true, number
			}
			return nil
		})
		if err == nil && !on {
			list, below = append(list, filter), base
		}
		prev = append(prev, below)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, checkChains(prev)
}

// base is what a filter is on top of that is on top of none.
const base = ^uint64(0)

// checkChains checks that below every filter there is one that is on top of none: CRIU would look for it for ever.
func checkChains(prev []uint64) error {
	seen := make([]int, len(prev)) // from which filter it has been reached, plus one
	for i := range prev {
		for at := uint64(i); at != base && (seen[at] == 0 || seen[at] == i+1); at = prev[at] {
			if seen[at] != 0 || prev[at] != base && prev[at] >= uint64(len(prev)) {
				return fmt.Errorf("filter %d is on top of no first one", i)
			}
			seen[at] = i + 1
		}
	}
	return nil
}

// fields calls each with the number and the value of every field of a message (protobuf.dev, Encoding): a number, or
// bytes, of which the other one is zero; both are if it is neither.
func fields(b []byte, each func(n, number uint64, bytes []byte) error) error {
	for len(b) > 0 {
		tag, n, err := protobuf.DecodeVarint(b, 0)
		if err != nil {
			return err
		}
		var value []byte
		var number uint64
		switch tag & 7 {
		case wireBytes:
			value, n, err = protobuf.DecodeBytes(b, n, false)
		case wireVarint:
			number, n, err = protobuf.DecodeVarint(b, n)
		default:
			n, err = protobuf.Skip(b)
		}
		if err != nil {
			return err
		}
		if n <= 0 || n > len(b) {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
		if err := each(tag>>3, number, value); err != nil {
			return err
		}
	}
	return nil
}
