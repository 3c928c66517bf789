package integration

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// probe is the program /probe inside containers, for what busybox cannot do.
func probe(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: probe COMMAND")
		return 2
	}
	var err error
	switch args[0] {
	case "notify": // MESSAGE: sends a datagram to $NOTIFY_SOCKET
		err = probeNotify(args[1])
	case "status": // prints its own /proc/self/status
		var data []byte
		if data, err = os.ReadFile("/proc/self/status"); err == nil {
			os.Stdout.Write(data)
		}
	case "time": // prints CLOCK_MONOTONIC and CLOCK_BOOTTIME in seconds
		err = probeTime()
	case "fdinfo": // FD...: prints what the descriptors refer to
		err = probeFDs(args[1:])
	case "adopt": // CMD...: runs it, and then is the parent of what it left until stdin ends
		err = probeAdopt(args[1:])
	case "tuned": // prints scheduler, I/O priority, CPUs, memory policy and personality
		err = probeTuned()
	case "key": // add|find NAME: in the session keyring
		err = probeKey(args[1], args[2])
	case "call": // NAME...: makes system calls and prints what comes of each
		err = probeCalls(args[1:])
	case "eat": // MEGABYTES: uses as much memory
		err = probeEat(args[1])
	case "bomb": // starts as many processes as it can, for ever
		for {
			if exec.Command("/bin/sleep", "60").Start() != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	case "hugemap": // MEGABYTES: maps huge pages
		err = probeHuge(args[1])
	case "fifo": // asks for realtime scheduling
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
		err = unix.SchedSetAttr(0, &attr, 0)
	case "direct": // FILE: reads it past the page cache, prints how many milliseconds that took
		err = probeDirect(args[1])
	case "read": // FILE: waits for /go, and until /stop is there counts reads past the page cache
		err = probeRead(args[1])
	default:
		err = fmt.Errorf("unknown command %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		return 1
	}
	return 0
}

func probeNotify(message string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, []byte(message), 0, &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")})
}

func probeTime() error {
	for _, clock := range []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME} {
		var ts unix.Timespec
		if err := unix.ClockGettime(clock, &ts); err != nil {
			return err
		}
		fmt.Println(ts.Sec)
	}
	return nil
}

func probeFDs(args []string) error {
	for _, a := range args {
		fd, err := strconv.Atoi(a)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			fmt.Println(a, err)
			continue
		}
		fmt.Printf("%d mode %o rdev %d:%d\n", fd, st.Mode, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return nil
}

func probeAdopt(args []string) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	c := exec.Command(args[0], args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
func probeEat(megabytes string) error {
	n, err := strconv.Atoi(megabytes)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println("eaten")
	return nil
}

func probeHuge(megabytes string) error {
	n, err := strconv.Atoi(megabytes)
	if err != nil {
		return err
	}
	_, err = unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB|unix.MAP_HUGE_2MB)
	return err
}

func probeDirect(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	b, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	began := time.Now()
	for {
		n, err := unix.Read(fd, b)
		if err != nil {
			return err
		}
		if n == 0 {
			fmt.Println(time.Since(began).Milliseconds())
			return nil
		}
	}
}

// readers is how many requests probeRead keeps under way: so many that the scheduler always has one
// to choose, however long the machine takes from one to the next.
const readers = 4

func probeRead(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	const size = 4096
	mem, err := unix.Mmap(-1, 0, readers*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	there := func(name string) bool { return unix.Access(name, unix.F_OK) == nil }
	for !there("/go") {
		time.Sleep(10 * time.Millisecond)
	}
	var n atomic.Int64
	ended := make(chan error)
	for i := range readers {
		go func() {
			var err error
			for at := i; err == nil && !there("/stop"); at = (at + readers) % 1024 {
				if _, err = unix.Pread(fd, mem[i*size:][:size], int64(at*size)); err == nil {
					n.Add(1)
				}
			}
			ended <- err
		}()
	}
	for range readers {
		if e := <-ended; e != nil {
			err = e
		}
	}
	fmt.Println(n.Load())
	return err
}
