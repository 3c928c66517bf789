package cgroup

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Manager is the cgroup of one container: one directory on v2, one in each
// hierarchy on v1 and hybrid. It is not for concurrent use.
//
// A cgroup that is gone (removed behind rt's back) is no error: it has no
// processes, is not frozen, and is killed and removed already. Only Apply, Update,
// Devices, OpenDir, OpenTasks, Freeze, Thaw, Stats and WatchOOM need it to be there. All errors wrap that of
// the system call.
type Manager interface {
	// Record returns what Load needs to find the cgroup again.
	Record() Record
	// Paths returns the directory of each controller, of "name=NAME" for a
	// named v1 hierarchy, and of cgroup2 under "".
	Paths() map[string]string

	// Create makes the directories, and on v2 enables all available controllers down to
	// them. A directory that an earlier rt left (it carries rt's xattr) and that is empty is
	// made anew; any other is used as it is, but must hold no process.
	// A frozen one is refused. It never signals a process. When it fails it
	// has undone what it did.
	Create() error
	// Undo removes exactly the directories that Create made, parents too
	// unless they are in use by now. Controllers stay enabled.
	Undo(deadline time.Time) error
	// Check finds what Apply or Update would refuse because this version of
	// cgroups does not have it or no controller for it is available, all of it in one
	// error, and warns of what they pass over. It changes nothing, and reads
	// one file at most. The cgroup need not exist.
	Check(r *specs.LinuxResources, o Origin) (warnings []string, err error)
	// Apply sets all limits in r but for the device policy. Nil, zero
	// and absent values change nothing. After an error some are set.
	Apply(r *specs.LinuxResources) error
	// Update is Apply for a cgroup in use: after an error the old limits are in
	// force again. An explicit zero turns off what is either on or off (cpu.idle,
	// memory.disableOOMKiller), and memory.checkBeforeUpdate is obeyed.
	Update(r *specs.LinuxResources, o Origin) error
	// Devices sets the device policy, once, before the first process enters:
	// nothing is allowed but what rules and the default rules allow, of which the last
	// that matches decides.
	Devices(rules []specs.LinuxDeviceCgroup) error

	// OpenDir opens the cgroup2 directory for CLONE_INTO_CGROUP. The caller
	// owns the descriptor; it is -1 without an error on V1.
	OpenDir() (int, error)
	// OpenTasks opens the file of each v1 hierarchy to which the thread that
	// enters writes "0", in the order in which to do so. It is empty on V2. The
	// caller owns the descriptors.
	OpenTasks() ([]Task, error)

	// Pids returns the processes of the cgroup and all below it, sorted. Those
	// that rt's pid namespace does not show are left out.
	Pids() ([]int, error)
	// Populated reports whether there is any process, shown or not.
	Populated() (bool, error)
	// Freeze stops all processes and returns when they are stopped; after
	// 10 s it gives up, thaws and fails. Thaw is the reverse.
	Freeze() error
	Thaw() error
	// Frozen reports whether the processes are stopped, by this cgroup's
	// freezer or that of one above it.
	Frozen() (bool, error)
	// Kill sends SIGKILL to every process, frozen or not, and thaws. It does not wait
	// for them to exit.
	Kill() error
	// WaitEmpty waits until no process is left; os.ErrDeadlineExceeded if that
	// takes longer than deadline.
	WaitEmpty(deadline time.Time) error
	// Remove removes the cgroup and all below it. While processes exit it
	// waits, until deadline, and then fails with EBUSY, naming them. It does
	// not check whose cgroup it is: that is what Part is for.
	Remove(deadline time.Time) error

	// OOMKills returns how often the kernel killed a process of the cgroup for
	// want of memory; 0 without a memory controller.
	OOMKills() (uint64, error)
	// Stats returns what the cgroup uses.
	Stats() (*Stats, error)
	// WatchOOM watches for processes that get no more memory; nil without a memory
	// controller. The watch is the caller's to close.
	WatchOOM() (*OOMWatch, error)
	// Part returns the Manager of those directories that keep wants, of mode None if it
	// wants none. It asks it with the mark of each; that of one which has none, is
	// gone, or is of a kernel, mount or user that cannot have marks is empty. The
	// descriptors that it checked are those that the part works with: what takes the
	// place of a directory afterwards is not touched.
	Part(keep func(Mark) bool) Manager

	// Close closes the descriptors that the Manager holds. It can be used
	// again after that.
	Close()
}

// Task is a file through which a thread enters a v1 hierarchy.
type Task struct {
	Dir string // the container's directory in it
	FD  int    // O_WRONLY, close-on-exec
}

// Record is a container's cgroup as the state directory stores it.
type Record struct {
	Mode Mode
	ID   string
	Dirs []Dir
	// Unit is the systemd unit that the cgroup is, "" if systemd does not manage
	// it; User says that the unit is one of the user's systemd, not of the system's.
	Unit string
	User bool
}

// Dir is a container's directory in one hierarchy.
type Dir struct {
	Key   string // as in Hierarchy
	Mount string // mount point
	Path  string // below Mount, without a leading slash
}

// Host is the directory's path on the host.
func (d Dir) Host() string { return path.Join(d.Mount, d.Path) }

// New returns the Manager for a cgroup that may not exist yet; it makes no
// system call. cgroupsPath is that of config.json (spec, config-linux.md): an absolute one lies below
// the mount point, a relative one below rt's own cgroup (v1) or the parent of
// that (v2, where a cgroup with processes can give its children no
// controllers). "" means id. A component ".." is refused.
func New(l *Layout, cgroupsPath, id string) (Manager, error) {
	rel, abs, err := cleanPath(cgroupsPath, id)
	if err != nil {
		return nil, err
	}
	rec := Record{Mode: l.Mode, ID: id}
	for _, h := range l.Hierarchies {
		p := rel
		if !abs {
			own := h.own()
			if l.Mode == V2 {
				own, _ = path.Split(own)
			}
			p = path.Join(own, rel)
		}
		rec.Dirs = append(rec.Dirs, Dir{Key: h.Key, Mount: h.Mountpoint, Path: p})
	}
	if len(rec.Dirs) == 0 {
		return nil, errors.New("choose cgroup: no hierarchy is mounted")
	}
	return Load(rec), nil
}

// Load returns the Manager for a recorded cgroup; it makes no system call.
func Load(rec Record) Manager {
	dirs := make([]dir, len(rec.Dirs))
	for i, d := range rec.Dirs {
		dirs[i] = dir{Dir: d, id: rec.ID, fd: -1}
	}
	if rec.Mode == None {
		return NewNone(rec.ID)
	}
	if rec.Mode == V2 && len(dirs) == 1 {
		return &v2{rec: rec, dir: &dirs[0]}
	}
	m := &v1{rec: rec}
	for i := range dirs {
		if dirs[i].Key == "" {
			m.unified = &dirs[i]
		} else {
			m.dirs = append(m.dirs, &dirs[i])
		}
	}
	return m
}

// cleanPath returns the components of cgroupsPath, or id, joined by "/", and
// whether it was absolute.
func cleanPath(cgroupsPath, id string) (rel string, abs bool, err error) {
	p := cgroupsPath
	if p == "" {
		p = id
	}
	rel, err = cleanComponents(p)
	if err == nil && rel == "" {
		err = errors.New("it names no cgroup below the root")
	}
	if err != nil {
		return "", false, fmt.Errorf("use cgroupsPath %q (config.json /linux/cgroupsPath): %w", p, err)
	}
	return rel, strings.HasPrefix(p, "/"), nil
}
