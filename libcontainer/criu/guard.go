package criu

// Guard is the name of the agent that watches over a restore. CRIU lets the processes go on that it has made when rt
// dies at the wrong moment, and nobody has looked at them then. So the agent kills the container's cgroup
// when there are no more requests and none has said Done.
const Guard = "rt-guard"

// GuardRequest is one document on the agent's standard input.
type GuardRequest struct {
	Cgroup []byte // the record of the container's cgroup
	Done   bool   // the processes have been looked at, or are gone
}

// GuardReply is one document on the agent's standard output.
type GuardReply struct{ Error string }
