package plan

// Facts is what a plan must know of the host and of the caller's options. The
// zero value compiles a plan for an unprivileged look at a bundle on a cgroup
// v2 host.
type Facts struct {
	ID string
	// Bundle and Rootfs are absolute host paths without symbolic links.
	Bundle, Rootfs string

	// Capabilities is rt's own permitted set, LastCap the kernel's highest
	// capability (0: the highest that rt knows).
	Capabilities uint64
	LastCap      int
	// HardLimits are rt's own hard limits by RLIMIT_* number; nil: all infinite.
	HardLimits []uint64
	// Unprivileged: rt cannot clone mounts in its own mount namespace, so the
	// stage has to do it in the container's.
	Unprivileged bool
	// Nested: rt is in a user namespace itself, so mknod(2) is not for it, and setgroups(2) may be denied.
	Nested bool
	// SetgroupsDenied: the user namespace does not allow setgroups(2).
	SetgroupsDenied bool

	Cgroup CgroupFacts
	// Rdt are the tasks files of the resctrl groups to enter; empty for none.
	Rdt []string

	// Home is the home directory to give the process if its environment has
	// none; "" if it must be looked up in the finished root (KindHome).
	Home string

	// Filter is the compiled seccomp profile, an array of struct sock_filter; ""
	// for none. FilterFlags are its SECCOMP_FILTER_FLAG_*.
	Filter      string
	FilterFlags uint32
	// ListenerState goes with a filter's listener: the JSON of ListenerJSON.
	ListenerState []string

	// Gate: the stage waits for `rt start` (create) rather than for nobody (run).
	Gate bool
	// NoPivot and NoNewKeyring are the flags of the same name.
	NoPivot, NoNewKeyring bool
	// ListenFDs is the number of socket activation descriptors.
	ListenFDs int
	// NotifyDir is the host directory to bind on /run/notify; "" for none.
	NotifyDir string
}

// CgroupFacts says how the container's cgroup is entered and mounted.
type CgroupFacts struct {
	// Into: there is a cgroup v2 directory (v2 and hybrid), which clone3(2)
	// enters.
	Into bool
	// Tasks names the v1 hierarchies, each entered by its tasks file; empty on
	// v2.
	Tasks []string
	// Mount is where cgroup2 is mounted on the host, Path the container's own
	// cgroup below it (v2 only).
	Mount, Path string
	// V1 lists what a mount of type cgroup holds on v1 and hybrid hosts; empty
	// on v2.
	V1 []CgroupMount
}

// CgroupMount is one v1 hierarchy inside a mount of type cgroup.
type CgroupMount struct {
	Name    string   // directory under the mount ("cpu,cpuacct")
	Options []string // what mount(2) needs to name the hierarchy
	Path    string   // host path of the container's own directory in it
	Links   []string // names linked to Name ("cpu", "cpuacct")
}
