//go:build !amd64 && !arm64

package console

import "syscall"

// handle says that there is no handler of ours for this processor: Go's does.
func handle(syscall.Signal, bool) bool { return false }
