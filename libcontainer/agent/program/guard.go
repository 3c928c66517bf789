package main

import (
	"rt/libcontainer/cgroup"
	"rt/libcontainer/criu"
)

// guard kills the processes of a restore whose rt is gone.
type guard struct {
	cgroup cgroup.Manager
	done   bool
}

func (g *guard) do(q *criu.GuardRequest) (r criu.GuardReply) {
	g.done = q.Done
	if q.Cgroup == nil {
		return r
	}
	rec, err := cgroup.ParseRecord(q.Cgroup)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	g.cgroup = cgroup.Load(rec)
	return r
}

// end is called when there are no more requests.
func (g *guard) end() {
	if g.cgroup != nil && !g.done {
		g.cgroup.Kill() // nobody is there to be told of what goes wrong
	}
}
