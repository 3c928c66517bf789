package oracle

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"rt/libcontainer/seccomp"
)

// What the kernel has to do with the filters.

// install loads a filter for the calling thread alone, which must be one that ends.
func install(filter []byte, flags uint32) (time.Duration, error) {
	prog := struct {
		n     uint16
		insns *byte
	}{uint16(len(filter) / 8), &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	began := time.Now()
	_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	took := time.Since(began)
	if e != 0 {
		return 0, e
	}
	return took, nil
}

// inThread runs f in a thread of its own.
func inThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so it ends with the goroutine
		f()
	}()
	<-done
}

// filters are those for Docker's profile: rt's, and what libseccomp makes as it is (the list, as
// crun has it) and when it is told to make a tree (as runc tells it).
func filters(t testing.TB) map[string][]byte {
	p := engines(t)["docker"]
	prog, _, err := seccomp.Compile(p, "")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{"rt": prog.Filter}
	for name, tree := range map[string]bool{"libseccomp list": false, "libseccomp tree": true} {
		if all[name], err = ask(&request{p, targets[0].name, tree}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

var filterNames = []string{"rt", "libseccomp list", "libseccomp tree"}

// BenchmarkLoad is how long seccomp(2) takes to load the filter.
func BenchmarkLoad(b *testing.B) {
	all := filters(b)
	for _, name := range filterNames {
		b.Run(name, func(b *testing.B) {
			var times []time.Duration
			for b.Loop() {
				inThread(func() {
					took, err := install(all[name], unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW)
					if err != nil {
						b.Error(err)
					}
					times = append(times, took)
				})
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Nanoseconds())/1000, "us/load")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkCall is how long a system call takes whose arguments the profile checks: the
// kernel keeps no verdicts for such ones.
func BenchmarkCall(b *testing.B) {
	all := filters(b)
	for _, name := range append([]string{"no filter"}, filterNames...) {
		b.Run(name, func(b *testing.B) {
			inThread(func() {
				if name != "no filter" {
					if _, err := install(all[name], unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW); err != nil {
						b.Error(err)
						return
					}
				}
				for b.Loop() {
					if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, 0xffffffff, 0, 0); e != 0 {
						b.Error(e)
						return
					}
				}
			})
		})
	}
}

const silent = "RT_ORACLE_SILENT"

// beSilent compiles Docker's profile in a thread that is ended by any system call that the
// Go runtime does not make for itself. With the word "loudly" it makes one.
func beSilent(how string) {
	t := new(testing.B) // engines only fails it
	p := engines(t)["docker"]
	if _, _, err := seccomp.Compile(p, ""); err != nil {
		panic(err)
	}
	guard, _, err := seccomp.Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActKillProcess,
		Syscalls: []specs.LinuxSyscall{{Action: specs.ActAllow, Names: strings.Fields(
			// The last one is high: what is above all of them would be ENOSYS.
			"futex rt_sigreturn rt_sigprocmask sched_yield nanosleep tgkill getpid gettid mmap munmap madvise exit_group futex_waitv")}},
	}, "")
	if err != nil {
		panic(err)
	}
	inThread(func() {
		if _, err := install(guard.Filter, 0); err != nil {
			panic(err)
		}
		if how == "loudly" {
			os.Stat("/")
		}
		for range 20 {
			if _, _, err := seccomp.Compile(p, ""); err != nil {
				panic(err)
			}
		}
		os.Exit(0)
	})
}

// Compiling Docker's profile makes no system call.
func TestNoSystemCall(t *testing.T) {
	for _, how := range []string{"silently", "loudly"} {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), silent+"="+how)
		out, err := c.CombinedOutput()
		ws, _ := c.ProcessState.Sys().(syscall.WaitStatus)
		if how == "silently" && err != nil {
			t.Errorf("it was ended: %v: %s", err, out)
		}
		if how == "loudly" && (!ws.Signaled() || ws.Signal() != syscall.SIGSYS) {
			t.Errorf("a system call did not end it: %v: %s", err, out)
		}
	}
}
