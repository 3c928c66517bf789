package libcontainer

import (
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Version is rt's own; SpecVersion the version of the runtime specification
// that it implements, the one in every state that it prints.
const (
	Version     = "0.1.0"
	SpecVersion = "1.3.0"
)

// Status is the state of a container, derived at every look and never stored.
type Status string

const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// CreateOptions are the options of Create and Run; the zero value asks for
// nothing special.
type CreateOptions struct {
	// Bundle is the directory that holds config.json; "" is the current one.
	Bundle string
	// ConsoleSocket and PidfdSocket are paths of listening AF_UNIX stream
	// sockets that receive the ptmx and init's pidfd; "" for none.
	ConsoleSocket string
	PidfdSocket   string
	// PidFile receives init's pid in decimal, without a newline; "" for none.
	PidFile string
	// NoPivot moves the root over "/" instead of pivot_root(2).
	NoPivot bool
	// NoNewKeyring keeps the caller's session keyring.
	NoNewKeyring bool
	// ListenFDs is how many descriptors from 3 on are those of socket activation
	// (sd_listen_fds(3)): the container inherits them, with LISTEN_FDS and
	// LISTEN_PID=1 in its environment.
	ListenFDs int
	// PreserveFDs is how many descriptors from 3 on, after those of socket
	// activation, the container inherits.
	PreserveFDs int
	// NotifySocket is the path of the caller's socket for readiness messages
	// (sd_notify(3)); "" for none.
	NotifySocket string
	// Detach, Keep and NoSubreaper are for Run only: do not wait for the container, do
	// not delete it when it ends, do not become a subreaper.
	Detach      bool
	Keep        bool
	NoSubreaper bool
	// SystemdCgroup asks for the systemd cgroup driver: the cgroup is that of a
	// transient unit, and cgroupsPath has the form SLICE:PREFIX:NAME.
	SystemdCgroup bool
	// Rootless says when missing permission to make a cgroup is passed over.
	Rootless Rootless
	// CatchSignals makes SIGINT, SIGTERM, SIGHUP and SIGQUIT end Create, and Run until it has
	// started the program: what was done is undone, and the error is of type *Interrupted. They stay
	// caught, and are dropped, when Create or Run has returned. Run without
	// Detach always does so.
	CatchSignals bool
	// Warn receives what deserves a line in the log; nil discards it.
	Warn func(string)
}

// Rootless says when a container may go without a cgroup, device policy included,
// because its creator has not the permission to make one. Limits and an explicit
// cgroupsPath need one always.
type Rootless int

const (
	RootlessAuto  Rootless = iota // for others than root, and in a user namespace
	RootlessTrue                  // always
	RootlessFalse                 // never
)

// ExecOptions are the options of Container.Exec.
type ExecOptions struct {
	// Process, if not nil, is used as it is (exec --process); all fields below
	// up to Caps then do not apply. Otherwise the container's own process is the base.
	Process *specs.Process

	Args           []string // must not be empty
	Env            []string // added to the container's
	Cwd            string   // "" keeps the container's
	User           string   // "UID[:GID]"; "" keeps the container's
	AdditionalGids []uint32 // added
	Terminal       bool
	NoNewPrivs     bool
	Apparmor       string   // "" keeps the container's
	ProcessLabel   string   // "" keeps the container's
	Caps           []string // added to bounding, effective and permitted

	ConsoleSocket string
	PidfdSocket   string
	PidFile       string
	PreserveFDs   int
	Detach        bool
	IgnorePaused  bool
	Cgroup        []string // "[CTRL[,CTRL]:]PATH" below the container's cgroup
	Warn          func(string)
}

// State is what `rt state` prints and hooks read (there Rootfs, Created and
// Owner are left out).
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Status      Status            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

// DeleteOptions are the options of Delete.
type DeleteOptions struct {
	// Force kills a running container first, and makes an unknown id a success.
	Force bool
	// Warn receives failures that do not stop the deletion, such as a poststop
	// hook's; nil discards them.
	Warn func(string)
}

// Signal is a signal number.
type Signal = syscall.Signal
