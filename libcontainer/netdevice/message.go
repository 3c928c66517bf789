// Package netdevice says how rt has network devices moved: what it tells the agent (package
// agent) that does it through netlink.
//
// The agent lives as long as the container is being made. When rt ends before it has said
// Keep, however that may be, the agent moves the devices back: most kinds would
// otherwise be destroyed with the container's network namespace.
package netdevice

// Agent is the name of the agent.
const Agent = "rt-network"

// Op is what the agent is asked to do.
type Op string

const (
	// Move moves Devices into the network namespace that is the agent's descriptor 3:
	// all of them or none.
	Move Op = "move"
	// Keep lets the devices stay when there are no more requests.
	Keep Op = "keep"
	// Back moves what Move has moved back, even after Keep, as far as that is
	// possible.
	Back Op = "move back"
)

// Request is one document on the agent's standard input.
type Request struct {
	Op      Op
	Devices []Device // Move
}

// Device is a network device of the namespace that rt is in.
type Device struct {
	Host    string // its name there
	Name    string // in the container, in which "%d" stands for a number that is free; "" for the same
	Pointer string // its place in config.json
}

// Reply is one document on the agent's standard output.
type Reply struct{ Error string }
