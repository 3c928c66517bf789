// Package nsenter launches the stage, the static C program of nsenter/stage
// that carries a plan out, and speaks with it. There is one launch function,
// one protocol, and one place where descriptors are passed, for create, run and exec alike.
package nsenter

import (
	"fmt"
	"strconv"
	"syscall"
	"unsafe"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// Launch is what a stage is started with. Start takes no ownership of any
// descriptor in it.
type Launch struct {
	// Stdio become fds 0 to 2 of the stage and of the user's program.
	Stdio [3]int
	// Preserve become fds 3 and up of both.
	Preserve []int
}

// Image is the file that a stage executes, by the numbers of stat(2). Every stage has one
// of its own. Unlike a memfd's name its numbers cannot be chosen.
type Image struct{ Dev, Ino uint64 }

// Flags of newer kernels than the floor: memfd_create(2) since Linux 6.3,
// fcntl(2) F_SEAL_EXEC since 6.3.
const (
	mfdExec      = 0x10
	mfdNoexec    = 0x8
	sealExec     = 0x20
	sealsOfImage = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
)

// Start executes the stage, which waits for its plan. The caller must end with Close, and
// reaps both processes (Stage.Reap and its own wait for the second one).
func Start(l *Launch) (*Stage, error) {
	stage, err := program()
	if err != nil {
		return nil, err
	}
	program, err := sealed("rt-stage", stage, mfdExec, sealExec)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(program) }()
	var st unix.Stat_t
	if err := unix.Fstat(program, &st); err != nil {
		return nil, fmt.Errorf("stat stage: %w", err)
	}
	socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket to the stage: %w", err)
	}
	defer unix.Close(socks[1])

	files := make([]uintptr, 0, 4+len(l.Preserve))
	for _, fd := range l.Stdio {
		files = append(files, uintptr(fd))
	}
	for _, fd := range l.Preserve {
		files = append(files, uintptr(fd))
	}
	base := len(files)
	files = append(files, uintptr(socks[1]))
	// The child fills its descriptor table from 0 up, and moves what is in the
	// way above the highest: the program must stand above all that.
	top := len(files)
	for _, fd := range files {
		top = max(top, int(fd))
	}
	high, err := unix.FcntlInt(uintptr(program), unix.F_DUPFD_CLOEXEC, top+len(files)+2)
	if err == unix.EINVAL {
		err = unix.EMFILE // it lies above RLIMIT_NOFILE
	}
	if err != nil {
		unix.Close(socks[0])
		return nil, fmt.Errorf("move descriptor of the stage above %d: %w", top+len(files), err)
	}
	unix.Close(program)
	program = high

	pid, err := syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(program),
		[]string{"rt-stage", strconv.Itoa(base)},
		&syscall.ProcAttr{Env: []string{}, Files: files})
	if err != nil {
		unix.Close(socks[0])
		if err == syscall.EACCES {
			return nil, fmt.Errorf("execute stage: %w (does the sysctl vm.memfd_noexec forbid it? accepted are 0 and 1)", err)
		}
		return nil, fmt.Errorf("execute stage: %w", err)
	}
	return &Stage{sock: socks[0], first: pid, Image: Image{st.Dev, st.Ino}}, nil
}

// SendPlan sends the plan, before anything else. fault is nil but in tests of a build
// with the tag rtfault.
func (s *Stage) SendPlan(p *plan.Plan, fault *plan.Fault) error {
	encoded, err := p.Encode(fault)
	if err != nil {
		return err
	}
	data, err := sealed("rt-plan", unsafe.String(unsafe.SliceData(encoded), len(encoded)), mfdNoexec, sealExec)
	if err != nil {
		return err
	}
	defer unix.Close(data)
	s.plan, s.sequence = p, newSequence(p)
	return s.Go("", data)
}

// sealed returns a memfd with content that nobody can change any more. kind and
// seal are what kernels from 6.3 on know besides.
func sealed(name, content string, kind, seal int) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|kind)
	if err == unix.EINVAL {
		seal = 0
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("create memfd %s: %w", name, err)
	}
	for b := unsafe.Slice(unsafe.StringData(content), len(content)); len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("write memfd %s: %w", name, err)
		}
		b = b[n:]
	}
	want := sealsOfImage
	if kind == mfdExec {
		want |= seal
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, want); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal memfd %s: %w", name, err)
	}
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || got&want != want {
		unix.Close(fd)
		return -1, fmt.Errorf("seal memfd %s: seals are %#x, wanted %#x", name, got, want)
	}
	return fd, nil
}
