//go:build rtfault

package cgroup

import (
	"os"
	"strconv"
	"syscall"
)

// limits counts the limits that this process has written.
var limits int

// written is called after each limit. RT_FAULT=limit.N:kill ends rt after the Nth.
func written() {
	limits++
	if os.Getenv("RT_FAULT") == "limit."+strconv.Itoa(limits)+":kill" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}
