//go:build amd64 || arm64

package console

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onSignal is the handler that the kernel calls, in handler_*.s. It writes one byte, the
// signal's number, to pipeWrite. handlerPCs returns its address and that of what returns from a handler.
//
//lint:ignore U1000 handlerPCs has its address
func onSignal()

//lint:ignore U1000 handlerPCs has its address
func signalReturn()

func handlerPCs() (handler, restorer uintptr)

// signalNumbers are the bytes that onSignal writes: it has no memory of its own.
//
//lint:ignore U1000 onSignal has it
var signalNumbers = [65]byte{
	0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
	33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64,
}

// handle makes onSignal the handler of n, with once for one signal only: the next has its default
// effect. It runs on the signal stack that every thread of Go's has,
// with all signals blocked. What Go has forked gets the default action back before it executes, as with Go's own handler.
func handle(n syscall.Signal, once bool) bool {
	const onStack, restart, restorer, resetHand = 0x08000000, 0x10000000, 0x04000000, 0x80000000 // SA_*, sigaction(2)
	pc, back := handlerPCs()
	// struct sigaction of the kernel, not of the C library.
	action := struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}{pc, onStack | restart, 0, ^uint64(0)}
	if once {
		action.flags |= resetHand
	}
	if back != 0 {
		action.flags |= restorer
		action.restorer = back
	}
	_, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&action)), 0, unsafe.Sizeof(action.mask), 0, 0)
	return e == 0
}
