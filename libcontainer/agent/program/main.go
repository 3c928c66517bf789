// Command program is what rt embeds and executes to speak D-Bus and netlink, and to have an eye on a restore. It is a program
// of its own because every command of rt would pay for the libraries of both, and for
// Go's net below them, at its start: 0.2 ms and 0.04 ms of 1.5.
//
// It reads requests as JSON from its standard input, answers each on its standard
// output, and ends with its input: so it outlives rt by no more than what it is at.
package main

import (
	"encoding/json"
	"os"
	"os/signal"
	"syscall"

	"rt/libcontainer/cgroup/systemd/unit"
	"rt/libcontainer/criu"
	"rt/libcontainer/netdevice"
)

func main() {
	// An answer that nobody waits for is no reason to end halfway.
	signal.Ignore(syscall.SIGPIPE)
	switch os.Args[0] {
	case unit.Agent:
		serve(new(units).do)
	case netdevice.Agent:
		n := new(network)
		serve(n.do)
		n.end()
	case criu.Guard:
		g := new(guard)
		serve(g.do)
		g.end()
	}
}

// serve answers requests until there are none.
func serve[Q, R any](do func(*Q) R) {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var q Q
		if in.Decode(&q) != nil {
			return
		}
		if out.Encode(do(&q)) != nil {
			return
		}
	}
}
