// Package nsenter launches the stage, the static C program of nsenter/stage
// that carries a plan out, and speaks with it. There is one launch function,
// one protocol, and one place where descriptors are passed, for create, run and exec alike.
package nsenter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
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

// New makes a stage that is still to be started. The caller must end with Close.
func New() (*Stage, error) {
	socks, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create socket to the stage: %w", err)
	}
	return &Stage{sock: socks[0], peer: socks[1]}, nil
}

// Start executes the stage, once. The caller reaps both processes (Stage.Reap and its own wait
// for the second one). What has been sent by then is waiting for the stage, and
// while Start is at it the other methods that send may be called.
func (s *Stage) Start(l *Launch) error {
	defer unix.Close(s.peer)
	stage, err := program()
	if err != nil {
		return err
	}
	program, err := sealed("rt-stage", stage, mfdExec, sealExec)
	if err != nil {
		return forbidden(err)
	}
	defer func() { unix.Close(program) }()
	var st unix.Stat_t
	if err := unix.Fstat(program, &st); err != nil {
		return fmt.Errorf("stat stage: %w", err)
	}
	s.Image = Image{st.Dev, st.Ino}

	files := make([]uintptr, 0, 4+len(l.Preserve))
	for _, fd := range l.Stdio {
		files = append(files, uintptr(fd))
	}
	for _, fd := range l.Preserve {
		files = append(files, uintptr(fd))
	}
	base := len(files)
	files = append(files, uintptr(s.peer))
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
		return fmt.Errorf("move descriptor of the stage above %d: %w", top+len(files), err)
	}
	unix.Close(program)
	program = high

	defer stay()()
	s.first, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(program),
		[]string{"rt-stage", strconv.Itoa(base)},
		&syscall.ProcAttr{Env: []string{}, Files: files})
	if err != nil {
		return forbidden(fmt.Errorf("execute stage: %w", err))
	}
	return nil
}

// forbidden adds to an EACCES where it may come from.
func forbidden(err error) error {
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w (does the sysctl vm.memfd_noexec forbid it? accepted are 0 and 1)", err)
	}
	return err
}

// stay keeps the calling thread on the CPU where it is, until the function that it returns is called. So
// its next child begins there at once, as vfork(2) makes the thread wait for it. The
// scheduler would as often put the child beside the thread that compiles the plan, where it waits: with two CPUs
// a twentieth of what a run takes. The stage allows itself all CPUs again.
func stay() (leave func()) {
	var all, one unix.CPUSet
	var cpu uint32
	before, _ := runtime.ThreadCreateProfile(nil)
	// A goroutine may go on in another thread, so the thread is named.
	thread := unix.Gettid()
	if unix.SchedGetaffinity(thread, &all) != nil {
		return func() {}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); e != 0 {
		return func() {}
	}
	one.Set(int(cpu))
	if unix.SchedSetaffinity(thread, &one) != nil {
		return func() {}
	}
	return func() {
		unix.SchedSetaffinity(thread, &all)
		// A thread that the Go runtime has made from this one has its CPU, and so
		// would have whom that executes.
		if after, _ := runtime.ThreadCreateProfile(nil); after != before {
			release(&all)
		}
	}
}

// release allows all threads the CPUs.
func release(cpus *unix.CPUSet) {
	for range 10 {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		all := true
		for _, t := range threads {
			var now unix.CPUSet
			tid, _ := strconv.Atoi(t.Name())
			if unix.SchedGetaffinity(tid, &now) == nil && now != *cpus {
				unix.SchedSetaffinity(tid, cpus)
				all = false // it may have made another one meanwhile
			}
		}
		if all {
			return
		}
	}
}

// Begin lets the stage do what plan.Ahead says, while its plan is still being made.
func (s *Stage) Begin(flags uint64) error {
	frame := appendFrame(make([]byte, 0, plan.FrameSize), plan.MsgBegin, "")
	binary.LittleEndian.PutUint64(frame[16:], flags)
	return s.sendFrame(frame, nil)
}

// SendPlan sends the plan, before anything else but Begin. fault is nil but in tests of a build
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
