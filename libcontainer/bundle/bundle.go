// Package bundle reads a bundle: config.json in, a validated specification out.
// All that is wrong with a document is reported at once, each problem with its
// JSON pointer. What only the host can tell, such as whether a path exists, is
// not judged here; apart from Load and ReadDocument, which read files, the package makes no
// system call.
package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const configName = "config.json"

// Bundle is a bundle as it was read.
type Bundle struct {
	// Dir is the bundle's directory: absolute, without symbolic links.
	Dir string
	// Spec is the validated config.json. Its members for other systems than
	// Linux are nil.
	Spec *specs.Spec
	// Raw is config.json as it was.
	Raw []byte
	// Warnings are a line each, for the log.
	Warnings []string
}

// Load reads the bundle in dir, or in the current directory if dir is "". A
// config.json that is refused gives an error of type Problems.
func Load(dir string) (*Bundle, error) {
	name := dir
	if name == "" {
		name = "."
	}
	// The directory is opened once: its resolved name and the file then belong
	// to each other, whatever is renamed meanwhile.
	fd, err := open(unix.AT_FDCWD, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, &fs.PathError{Op: "chdir", Path: name, Err: err}
	}
	defer unix.Close(fd)
	abs, err := pathOf(fd)
	if err != nil {
		return nil, fmt.Errorf("resolve bundle %q: %w", name, err)
	}
	raw, err := read(fd)
	if err != nil {
		return nil, err
	}
	spec, warnings, err := Parse(configName, raw)
	if err != nil {
		return nil, err
	}
	return &Bundle{Dir: abs, Spec: spec, Raw: raw, Warnings: warnings}, nil
}

func open(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// pathOf is the absolute path of the directory fd.
func pathOf(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", unix.ENAMETOOLONG
	}
	path := string(buf[:n])
	if !strings.HasPrefix(path, "/") {
		return "", errors.New("the directory is not reachable from the root directory")
	}
	return path, nil
}

// read reads config.json in the directory dirfd. It blocks on no FIFO and reads
// no more than a regular file of maxSize bytes.
func read(dirfd int) ([]byte, error) {
	fd, err := open(dirfd, configName, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY)
	if err == unix.ENOENT {
		return nil, fmt.Errorf("JSON specification file %s not found", configName)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", configName, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", configName, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("open %s: not a regular file", configName)
	}
	data, err := readDocument(fd, st.Size)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", configName, err)
	}
	return data, nil
}

// ReadDocument reads a document that a flag names: a regular file or, for a shell's
// <(...), a pipe, of as many bytes as a config.json may have.
func ReadDocument(name string) ([]byte, error) {
	fd, err := open(unix.AT_FDCWD, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", name, err)
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFREG && t != unix.S_IFIFO {
		return nil, fmt.Errorf("open %s: neither a regular file nor a pipe", name)
	}
	data, err := readDocument(fd, st.Size)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// readDocument reads all of fd, which was of the given size a moment ago.
func readDocument(fd int, expected int64) ([]byte, error) {
	// One byte more than its size, to see the end of the file in one read; it
	// may grow meanwhile.
	buf := make([]byte, min(expected, maxSize)+1)
	size := 0
	for {
		n, err := unix.Read(fd, buf[size:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		size += n
		switch {
		case size > maxSize:
			return nil, fmt.Errorf("more than the accepted %d bytes", maxSize)
		case n == 0:
			return buf[:size:size], nil
		case size == len(buf):
			buf = append(buf, make([]byte, min(size, maxSize+1-size))...)
		}
	}
}

// Parse decodes and validates a config.json. Messages call it name. It also
// returns warnings, a line each. The error is of type Problems.
func Parse(name string, data []byte) (*specs.Spec, []string, error) {
	c := checker{file: name}
	var spec *specs.Spec
	ok := c.decode(data, func(d *decoder) {
		if d.kind() == 'n' {
			d.token()
			d.bad("", "", "config cannot be null")
			return
		}
		readSpec(d, fresh(&spec))
	})
	return finish(&c, ok, spec, (*checker).spec)
}

// ParseProcess decodes and validates the document of exec --process, as Parse.
func ParseProcess(name string, data []byte) (*specs.Process, []string, error) {
	c := checker{file: name}
	var p *specs.Process
	ok := c.decode(data, func(d *decoder) { readProcess(d, fresh(&p)) })
	return finish(&c, ok, p, func(c *checker, p *specs.Process) { c.process("", p) })
}

// ParseResources decodes and validates the document of update --resources, as
// Parse.
func ParseResources(name string, data []byte) (*specs.LinuxResources, []string, error) {
	c := checker{file: name, update: true}
	var r *specs.LinuxResources
	ok := c.decode(data, func(d *decoder) { readResources(d, fresh(&r)) })
	return finish(&c, ok, r, func(c *checker, r *specs.LinuxResources) { c.resources("", r) })
}

// ValidateResources judges what an update asks for. Messages call it name. The
// error is of type Problems.
func ValidateResources(name string, r *specs.LinuxResources) (warnings []string, err error) {
	c := checker{file: name, update: true}
	c.resources("", r)
	return c.result()
}

// ValidateSchemata checks the schemata of r, a request to change limits that messages
// call name. The problems have pointers such as "/l3CacheSchema".
func ValidateSchemata(name string, r *specs.LinuxIntelRdt) error {
	c := checker{file: name, update: true}
	c.schemata("", r)
	_, err := c.result()
	return err
}

// finish validates what was decoded. A member that could not be decoded has
// its zero value, so what validation says of it, of what is below it and, at
// the top, of all is left out.
func finish[T any](c *checker, ok bool, v *T, check func(*checker, *T)) (*T, []string, error) {
	decoded := len(c.problems)
	if ok && v != nil {
		check(c, v)
		kept := c.problems[:decoded]
		for _, p := range c.problems[decoded:] {
			if !covered(p.Pointer, c.problems[:decoded]) {
				kept = append(kept, p)
			}
		}
		c.problems = kept
	}
	warnings, err := c.result()
	if err != nil {
		return nil, warnings, err
	}
	return v, warnings, nil
}

func covered(pointer string, by Problems) bool {
	for i := range by {
		if rest, ok := strings.CutPrefix(pointer, by[i].Pointer); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}
