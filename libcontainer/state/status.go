package state

// The statuses of a container, as the specification and its callers know them.
const (
	StatusCreating = "creating"
	StatusCreated  = "created"
	StatusRunning  = "running"
	StatusPaused   = "paused"
	StatusStopped  = "stopped"
)

// Status derives the container's status; nothing of it is stored. frozen says
// whether its cgroup is frozen, and is asked only when the process lives: a
// dead one is stopped, whatever is left in its cgroup.
func Status(r *Record, d *Dir, frozen func() (bool, error)) (string, error) {
	alive, err := r.Init.Alive()
	if err != nil {
		return "", err
	}
	if !alive {
		return StatusStopped, nil
	}
	if r.Phase == PhaseCreating {
		return StatusCreating, nil
	}
	ice, err := frozen()
	switch {
	case err != nil:
		return "", err
	case ice:
		return StatusPaused, nil
	case d.GateHasReader():
		return StatusCreated, nil
	}
	return StatusRunning, nil
}

// IntentStatus is the status of a container that has no record: creating while
// its creator lives.
func IntentStatus(in *Intent) (string, error) {
	alive, err := in.Creator.Alive()
	if err != nil {
		return "", err
	}
	if alive {
		return StatusCreating, nil
	}
	return StatusStopped, nil
}
