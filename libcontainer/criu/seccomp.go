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
	// maxFilters is the longest such file that is read, in bytes.
	maxFilters = 64 << 20
	// wireBytes is the wire type of what has a length.
	wireBytes = 2
)

// Filters lists the seccomp filters that the images have and that were not put on top of another one: those with which
// the processes of a container begin. It is empty if there are none at all.
func (d *Images) Filters() ([][]byte, error) {
	f, err := d.open(seccompName)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	var data []byte
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(f, maxFilters+1))
		f.Close()
	}
	var list [][]byte
	if err == nil {
		list, err = parseFilters(data)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s in %q: %w", seccompName, d.path, err)
	}
	return list, nil
}

// parseFilters reads a file of one SeccompEntry (CRIU's images/seccomp.proto):
//
//	message seccomp_filter { required bytes filter = 1; optional uint32 prev = 2; optional uint32 flags = 3; }
//	message seccomp_entry { repeated seccomp_filter seccomp_filters = 1; }
func parseFilters(data []byte) ([][]byte, error) {
	const head = 3 * 4
	le := binary.LittleEndian
	switch {
	case len(data) > maxFilters:
		return nil, fmt.Errorf("it has more than %d bytes", maxFilters)
	case len(data) < head || le.Uint32(data) != commonMagic || le.Uint32(data[4:]) != seccompMagic:
		return nil, errors.New("it is not an image of seccomp filters")
	case uint64(le.Uint32(data[8:])) != uint64(len(data)-head):
		return nil, fmt.Errorf("its entry has %d bytes, the file has %d more", le.Uint32(data[8:]), len(data)-head)
	}
	var list [][]byte
	err := fields(data[head:], func(n uint64, v []byte) error {
		if n != 1 {
			return nil
		}
		var filter []byte
		on := false // on top of another filter
		err := fields(v, func(n uint64, v []byte) error {
			switch n {
			case 1:
				filter = v
			case 2:
				on = true
			}
			return nil
		})
		if err == nil && !on {
			list = append(list, filter)
		}
		return err
	})
	return list, err
}

// fields calls each with the number and the value of every field of a message (protobuf.dev, Encoding). The value is
// nil if it is not of bytes.
func fields(b []byte, each func(uint64, []byte) error) error {
	for len(b) > 0 {
		tag, n, err := protobuf.DecodeVarint(b, 0)
		if err != nil {
			return err
		}
		var value []byte
		if tag&7 == wireBytes {
			value, n, err = protobuf.DecodeBytes(b, n, false)
		} else {
			n, err = protobuf.Skip(b)
		}
		if err != nil {
			return err
		}
		if n <= 0 || n > len(b) {
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
		if err := each(tag>>3, value); err != nil {
			return err
		}
	}
	return nil
}
