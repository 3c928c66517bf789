package criu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenNetwork undoes what a CRIU that was killed has done to the network of the process pid: rules of the packet filter that
// drop everything. Without such rules, and in rt's own network, it does nothing.
func OpenNetwork(pid int) error {
	file := "/proc/" + strconv.Itoa(pid) + "/ns/net"
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return err
	}
	ns, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open network namespace of the container: %w", err)
	}
	defer ns.Close()
	if its, err := ns.Stat(); err != nil || os.SameFile(own, its) {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, and its namespace, ends with this function
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace of the container: %w", err)
			return
		}
		// Either of two ways has been taken, so most of these fail.
		for _, tool := range []string{"iptables-restore", "ip6tables-restore"} {
			run(openRules, tool, "-w", "--noflush")
		}
		run("", "nft", "delete", "table", "inet", "CRIU-"+strconv.Itoa(pid))
		done <- nil
	}()
	return <-done
}

// openRules is the input for iptables-restore(8) that removes CRIU's chain; if that is not there it changes nothing.
const openRules = "*filter\n:CRIU - [0:0]\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-X CRIU\nCOMMIT\n"

// run runs a tool of the host's, if it is there, in this thread.
func run(input, tool string, args ...string) {
	for _, dir := range filepath.SplitList(strings.TrimPrefix(Environment[0], "PATH=")) {
		c := exec.Cmd{Path: filepath.Join(dir, tool), Args: append([]string{tool}, args...), Env: Environment, Dir: "/", Stdin: strings.NewReader(input)}
		if c.Run() == nil {
			return
		}
	}
}
