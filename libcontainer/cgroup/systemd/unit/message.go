package unit

// Agent is the name of the agent (package agent) that speaks with systemd over D-Bus.
const Agent = "rt-systemd"

// Op is what the agent is asked to do.
type Op string

// The agent is asked Open first, and then any of the others; it answers each
// request before it reads the next, and ends when there is none.
const (
	// Open connects to systemd, and checks Properties without a use of them.
	Open Op = "open"
	// Start makes and starts the transient unit. One that failed and was left
	// under its name is reset first.
	Start Op = "start"
	// Set changes properties of the unit while it lives.
	Set Op = "set"
	// Stop stops the unit and forgets its failure. One that is not there is no error.
	Stop Op = "stop"
	// Attach moves Pid, a process of the caller's, into the unit's cgroup, or into Sub below it.
	Attach Op = "attach"
)

// Request is one document on the agent's standard input.
type Request struct {
	Op         Op
	User       bool // Open: the instance of the user, not that of the system
	Unit       string
	Properties []Property
	Pid        int    // Start: a process for the new unit; 0 for none, which only a slice may have
	Sub        string // Attach: "" or a path below the unit's cgroup
}

// Reply is one document on the agent's standard output.
type Reply struct {
	Error string
	// Absent says that there is no systemd to speak with.
	Absent bool
	// Group is what Open found to be the cgroup of the instance, "/" or a path below it.
	Group string
}
