package nsenter

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A thread is kept on its CPU only for as long as that is wanted, and so is what it has made meanwhile.
func TestStay(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	cpus := func(tid int) int {
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(tid, &set); err != nil {
			t.Fatal(err)
		}
		return set.Count()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	leave := stay()
	if n := cpus(0); n != 1 {
		t.Errorf("it may run on %d CPUs", n)
	}
	leave()
	if n := cpus(0); n != all.Count() {
		t.Errorf("it may run on %d CPUs afterwards, before on %d", n, all.Count())
	}
	// A thread that has been left with one CPU.
	tid, done := make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread() // and it ends with the goroutine
		one := unix.CPUSet{}
		for cpu := 0; one.Count() == 0; cpu++ {
			if all.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		unix.SchedSetaffinity(0, &one)
		tid <- unix.Gettid()
		<-done
	}()
	thread := <-tid
	if n := cpus(thread); n != 1 {
		t.Fatalf("the thread may run on %d CPUs", n)
	}
	release(&all)
	if n := cpus(thread); n != all.Count() {
		t.Errorf("the thread may run on %d CPUs after its release", n)
	}
	close(done)
}
