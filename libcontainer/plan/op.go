// Package plan compiles an OCI config into a plan: the ordered list of small
// operations that the stage (nsenter/stage) carries out. It is pure: it makes
// no system call and opens no file. What it needs to know of the host arrives
// in Facts; what it needs from the host (descriptors) it names in Plan.Files.
package plan

import "encoding/binary"

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Kind is the verb of an operation. The numbers cross to the stage; the C
// header is generated from the table in wire.go.
type Kind uint16

// Operations of the first process: it still has the host's credentials and
// namespaces, and ends with KindFork.
const (
	// KindRaise raises the hard limit of resource Num[0] (RLIMIT_*) to Num[1],
	// and leaves the soft limit alone. Needs CAP_SYS_RESOURCE.
	KindRaise Kind = iota + 1
	// KindTasks writes "0" to FD, the tasks file of one cgroup v1 hierarchy or of a
	// group of resctrl, where that means the writer too.
	KindTasks
	// KindJoin enters the namespace FD with setns(2); Num[0] is its CLONE_NEW*
	// type. With FlagTry an EPERM is remembered by type and passed over; with
	// FlagAgain the operation is skipped unless that type was passed over.
	// Either process may do it: a cgroup namespace is entered by the second,
	// after the cgroup.
	KindJoin
	// KindFork is clone3(2) with CLONE_PARENT and the CLONE_NEW* flags Num[0],
	// into the cgroup v2 directory FD when it is not -1. The first process
	// sends MsgChild (Value: pid as it sees it) and, after what has FlagFirst, exits 0; all other later
	// operations are the child's, which sends nothing before that and has closed
	// the descriptors of the operations so far.
	KindFork
	// KindReceive waits for one MsgGo with the descriptors of those of Plan.Files whose
	// indices Data[0] lists (uint32, native order, at most MaxReceive): what the
	// parent makes while the stage is already at work.
	KindReceive
)

// Operations of the second process.
const (
	// KindAwait sends the message type Num[0] (MsgMaps, MsgNetwork, MsgMounted,
	// MsgReady) and waits for MsgGo. After the reply to MsgReady it sends MsgAck, and from
	// then on the stage outlives its parent.
	KindAwait Kind = iota + 16
	// KindUnshare is unshare(Num[0]), in either process. If MsgBegin has asked for the same it
	// is done by now, and only the result is the operation's.
	KindUnshare
	// KindTimens unshares the time namespace, sends MsgTime, receives with the
	// reply the descriptor of /proc/PID/ns/time_for_children (the parent has
	// written the offsets by then) and enters it.
	KindTimens
	// KindSetroot becomes uid 0 and gid 0 of the user namespace (setgroups to
	// none unless denied, setresgid, setresuid), keeping capabilities.
	KindSetroot
	// KindDumpable is prctl(PR_SET_DUMPABLE, Num[0]), in either process; the
	// second inherits it.
	KindDumpable
	// KindKeyring joins the session keyring called Data[0], a new one if there is
	// none that this user may find. With Num[0] it gets that permission mask
	// (keyctl_setperm(3)). ENOSYS is passed over.
	KindKeyring
	// KindLoopback brings the interface lo up. With FlagFirst, right after KindFork, the first process
	// does it when it has made the second, which goes on meanwhile: it takes the kernel a tenth of a millisecond.
	KindLoopback
	// KindHostname and KindDomainname set Data[0].
	KindHostname
	KindDomainname
	// KindSysctl writes Data[1] to /proc/sys/Data[0] through a procfs of the
	// stage's own.
	KindSysctl

	// KindPropagate sets the propagation Num[0] (MS_SHARED, MS_SLAVE,
	// MS_PRIVATE, MS_UNBINDABLE) of the mount at Data[0], a path of the
	// stage's current root, and with Num[1]=1 of all below it.
	KindPropagate
	// KindClone makes a detached copy of the mount tree at host path Data[0]
	// (open_tree OPEN_TREE_CLONE; Num[0]=1: with all mounts below it) and keeps
	// it in Slot. With FD != -1 the parent has made it: FD is taken as it is.
	// With Num[1]=1 the path is only looked up now and cloned by KindAttach,
	// before KindPivot: so that the mounts come to be in the order of the config.
	// Its propagation is left alone. With FlagNull it must be the
	// character device 1:3, with FlagProcfs the root (inode 1) of a procfs, with
	// FlagNoFollow the path's last component no symbolic link. Slots count from 0, below
	// MaxSlots, each set once.
	KindClone
	// KindRoot attaches the tree of Slot over host path Data[0], the root file
	// system. From here on "in the root" means below this tree; in a plan without
	// it, below the process's own root. Num[4] is a
	// propagation (MS_*) to set on the mount that holds the path first, or 0,
	// Num[5] one for the tree itself (recursively) after it is attached, or 0;
	// pivot_root(2) refuses a shared one. With Slot -1
	// the path is the root as it is and nothing is attached. Without this
	// operation the root is the "/" that the second process sees.
	KindRoot
	// KindMount makes a new instance of the file system type Data[0] (fsopen)
	// from the source Data[1] (may be empty) with the options Data[2] (a list
	// of "key" or "key=value"), and attaches it at Data[3] in the root, a
	// directory that is created (0755) when missing. Attr gives its attributes
	// and propagation. With FlagMode a tmpfs takes the mode of the directory it
	// covers, if it exists already (a "mode=" option is put first). With
	// FlagCopyUp the stage sends MsgCopyUp with two descriptors, the covered
	// directory (readable) and the root of the new, unattached mount, and waits
	// for MsgGo. Keeps the mount descriptor in Slot when it is not -1.
	//
	// All that attach (KindMount, KindMountOld, KindAttach): with FlagReal no
	// component of the target may be a symbolic link (ELOOP). A target that lies
	// in a procfs (magic of the resolved descriptor) is EPERM unless FlagInProc.
	// Missing parents and targets are created one component at a time, by
	// mkdirat or mknodat relative to a descriptor, never through O_CREAT.
	KindMount
	// KindMountOld is KindMount through mount(2) on ".", for options that
	// fsconfig(2) cannot carry (over 255 bytes): Data[0] type, Data[1] source,
	// Data[2] the option string (one, comma-joined), Data[3] target, Attr is
	// applied after. FlagReal, FlagInProc and Slot as in KindMount;
	// FlagIVersion adds MS_I_VERSION, which fsconfig(2) has no name for.
	KindMountOld
	// KindAttach attaches the detached tree of Slot at Data[0] in the root. A
	// missing target is created: a directory (0755) if the tree's root is one,
	// else an empty file (0644). Attr as in KindMount. The second and later uses
	// of a slot attach a recursive clone.
	KindAttach
	// KindRemount changes what is mounted at Data[0] in the root: Attr; with
	// options in Data[2] also the file system (fspick, fsconfig).
	KindRemount
	// KindSetattr applies Attr to the mount in Slot.
	KindSetattr
	// KindNode makes the device, FIFO or socket Data[0] in the root: Num[0]
	// st_mode (type and permissions), Num[1] device number (makedev), Num[2]
	// uid, Num[3] gid. Parents are created. An existing file of the same type
	// and numbers is kept and gets mode and owner; with FlagReplace any other
	// non-directory is removed first, else it is EEXIST. One that is a mount
	// point, perhaps the host's device, keeps mode and owner.
	KindNode
	// KindSymlink makes Data[0] in the root a link to Data[1]. Parents are
	// created. An existing name is kept, or with FlagReplace replaced (never a
	// directory). With FlagIfExists it is made only if Data[1], taken as absolute,
	// exists in the root.
	KindSymlink
	// KindReadonly binds Data[0] in the root on itself, recursively, and makes
	// the top mount read-only. ENOENT is passed over.
	KindReadonly
	// KindMask covers Data[0] in the root: a directory with the read-only tmpfs
	// of slot Num[0], anything else with the null device of Slot. The first use
	// of either attaches the tree itself, later ones a clone of it (a tree that
	// was never attached cannot be cloned before Linux 6.15). ENOENT of the
	// target is passed over, nothing else is.
	KindMask
	// KindEmptyDir makes the tmpfs (ro,nosuid,nodev,noexec,nr_blocks=1,nr_inodes=1)
	// of KindMask, detached, and keeps it in Slot. Data[0] is one more option, or empty.
	KindEmptyDir
	// KindRootattr applies Attr to the root mount.
	KindRootattr
	// KindPivot makes the root the process's root with pivot_root(2) and
	// detaches the old one, made recursively slave before when Num[0] is 1.
	// KindMoveroot does so by moving the mount over "/"
	// and chroot (--no-pivot); KindChroot by chroot alone.
	KindPivot
	KindMoveroot
	KindChroot

	// KindHome sends MsgHome with a descriptor of the root and takes the reply's
	// text (at most MaxText bytes) as HOME for KindExec, and for KindHook with
	// FlagHome.
	KindHome
	// KindHook runs program Data[0] with argv Data[1], environment Data[2] and
	// standard input Data[3] (the container's state as JSON, into which the
	// stage inserts its own pid in decimal at byte offset Num[1]). Num[0] is the
	// timeout in milliseconds, 0 for none. Num[2] is the hook's kind and Num[3]
	// its index, for messages. With FlagInRoot its cwd is the root. It has the
	// stage's limit of descriptors and umask as they were at the start, or as the
	// plan has set them. EPIPE on its input is no error.
	KindHook
	// KindSetsid is setsid(2).
	KindSetsid
	// KindConsole opens a pseudo terminal of the container's own devpts
	// (dev/pts/ptmx in the root: no link or mount point on the way from the
	// devpts root, magic and 5:2 checked), gives it Num[0] columns and Num[1]
	// rows (either 0: untouched) and owner uid Num[2], sends the ptmx with
	// MsgConsole and waits for MsgGo, makes the peer fds 0-2 and the controlling
	// terminal. With FlagBind the peer is bound on dev/console in the root.
	KindConsole
	// KindStdio replaces those of fds 0-2 that are the null device by the
	// container's own /dev/null when that is char 1:3, and gives pipes and
	// sockets among them to uid Num[0] (EPERM, EROFS and EINVAL ignored).
	KindStdio
	// KindCwd changes to directory Data[0] and checks that it lies below the
	// root. With FlagCreate it is made (0755) when missing. With FlagTry an
	// EACCES is passed over, and the later one with FlagAgain tries again.
	KindCwd
	// KindRlimit sets resource Num[0] to soft Num[1], hard Num[2].
	KindRlimit
	// KindUmask sets Num[0]. Until then it is 0.
	KindUmask
	// KindBounding drops all but the capabilities in mask Num[0] from the
	// bounding set. It and KindCaps may also come before KindFork.
	KindBounding
	// KindGroups sets the supplementary groups Data[0] (uint32, native order). With
	// FlagTry an EPERM is passed over.
	KindGroups
	// KindIds sets gid Num[1] then uid Num[0] under PR_SET_KEEPCAPS, and
	// verifies both. With Num[2]=1 the effective set is raised to the permitted one
	// after.
	KindIds
	// KindCaps sets the capability sets: Num[0] effective, Num[1] permitted,
	// Num[2] inheritable, Num[3] ambient, and verifies them with capget. An
	// ambient capability that cannot be raised is passed over.
	KindCaps
	// KindNoNewPrivs is prctl(PR_SET_NO_NEW_PRIVS, 1).
	KindNoNewPrivs
	// KindFind looks for the program: Data[0] is args[0], Data[1] the list of
	// candidate paths. It must be a regular file that the current user may
	// execute; the first such is what KindExec runs. If Data[0] has a slash the
	// first candidate's error counts; else it is a search, and EACCES (Text: the
	// path) if one was found but not permitted.
	KindFind
	// KindGate waits for one byte of the fifo FD, and from then on reports
	// (errors, MsgExec) to the fifo Num[0] (an index into Plan.Files) instead of
	// the socket, which it closes before it waits. While it waits, every signal
	// that would end a process ends this one with status 128+n. The stage keeps
	// FD open until the program runs.
	KindGate
	// KindExec sends MsgExec, closes every descriptor above the preserved ones
	// (but for its report channel, which is close-on-exec) and execs what
	// KindFind found with argv Data[0] and environment Data[1]. With FlagHome
	// "HOME=" and the text of KindHome is added. It is the last operation; a
	// plan without it ends with exit status 0.
	KindExec
	// KindSeccomp loads the filter Data[0] (an array of struct sock_filter)
	// with the SECCOMP_FILTER_FLAG_* Num[0]. With Num[1]=1 KindExec does so, as
	// its last step before execve, so that no other system call has to pass the
	// filter; that needs KindNoNewPrivs. Else it is done at once, with
	// CAP_SYS_ADMIN raised for it.
	//
	// With SECCOMP_FILTER_FLAG_NEW_LISTENER FD is a stream socket: the listener is
	// sent there with the text Data[1], whose pieces are joined by the second process's
	// pid as the first one sees it. The program does not run before that is done. It
	// comes after the KindAwait of MsgReady.
	KindSeccomp
	// KindTune makes the one system call that sets the attribute Num[0] (Tune*) of
	// the process. Only TuneAffinity can be the first process's.
	KindTune
	// KindLabel has to do with the labels of security modules. With Num[0] LabelWrite
	// it writes Data[1] to Data[0], a file of a procfs of the stage's own
	// (thread-self/attr/...); LabelOpen only opens Data[0], while there is privilege for
	// a procfs, and keeps it as number Num[1] (0 or 1); LabelKept writes Data[1] to that,
	// after all hooks, whose programs would else get the label. LabelFile sets the
	// SELinux label of the file Data[0] in the root to Data[1].
	KindLabel
)

// Attributes of KindTune.
const (
	// TuneScheduler: Data[0] is a struct sched_attr. CAP_SYS_NICE is raised for it,
	// and for TuneIOPriority.
	TuneScheduler = iota + 1
	// TuneIOPriority: Num[1] is the value for ioprio_set(2).
	TuneIOPriority
	// TuneAffinity: Data[0] is the mask of CPUs, a multiple of 8 bytes.
	TuneAffinity
	// TuneMemoryPolicy: Num[1] is the mode with its flags, Data[0] the mask of nodes,
	// a multiple of 8 bytes, which may be empty.
	TuneMemoryPolicy
	// TunePersonality: Num[1] is the value for personality(2).
	TunePersonality
)

// What KindLabel does.
const (
	LabelWrite = iota
	LabelOpen
	LabelKept
	LabelFile
)

// Attr of KindMount, KindMountOld, KindAttach, KindRemount, KindSetattr and
// KindRootattr, all applied with mount_setattr(2), the first two while the
// mount is still detached where it can be (KindMount: by fsmount):
//
//	Num[0] MOUNT_ATTR_* to set   Num[2] to set recursively   Num[4] propagation, MS_SHARED ...
//	Num[1] MOUNT_ATTR_* to clear Num[3] to clear recursively Num[5] 1: propagation recursively
//
// Attributes are cleared before they are set. Propagation is set last, once attached.

// Flag modifies an operation; the kinds above say which they take.
type Flag uint16

const (
	FlagTry      Flag = 1 << iota // pass over EPERM (KindJoin, KindGroups), EACCES (KindCwd)
	FlagAgain                     // only if the one with FlagTry was passed over
	FlagMode                      // KindMount: mode of the covered directory
	FlagCopyUp                    // KindMount: fill from the covered directory
	FlagReal                      // no symbolic link on the way to the target
	FlagInProc                    // the target may lie in a procfs
	FlagReplace                   // replace an existing name
	FlagIfExists                  // only if the link's target exists
	FlagInRoot                    // KindHook: cwd is the root
	FlagBind                      // KindConsole: bind on /dev/console
	FlagCreate                    // KindCwd: make it
	FlagNull                      // KindClone: must be char 1:3
	FlagProcfs                    // KindClone: must be the root of a procfs
	FlagNoFollow                  // KindClone: last component is no link
	FlagHome                      // KindHook, KindExec: with the HOME of KindHome
	// FlagElse: if the operation fails with EPERM, EBUSY or EACCES the next one is
	// carried out in its place; if it succeeds the next one is skipped, and if
	// that has the flag too, its next. Both may set the same slot.
	FlagElse

	// FlagIVersion shares the bit of FlagMode, which KindMountOld does not take.
	FlagIVersion = FlagMode // KindMountOld: MS_I_VERSION
	// FlagFirst shares the bit of FlagTry.
	FlagFirst = FlagTry // KindLoopback: by the first process
)

// Op is one operation.
type Op struct {
	Kind  Kind
	Flags Flag
	// FD is an index into Plan.Files, or -1.
	FD int32
	// Slot is where a detached or attached mount is kept, or -1.
	Slot int32
	Num  [6]uint64
	// Data holds strings, lists or bytes; wire.go has the type of each.
	Data [4]Operand

	// Origin is a JSON pointer into config.json ("/mounts/3"), or a word
	// for what the runtime itself adds ("runtime"). It does not cross to the
	// stage.
	Origin string
}

// Received lists the indices of Plan.Files that a KindReceive takes.
func (op *Op) Received() []int {
	b := []byte(op.Data[0].String)
	list := make([]int, 0, len(b)/4)
	for ; len(b) >= 4; b = b[4:] {
		list = append(list, int(binary.NativeEndian.Uint32(b)))
	}
	return list
}

// Operand is a string (List nil), a list of strings, or bytes (as String).
type Operand struct {
	String string
	List   []string
}

// File names a descriptor that the stage gets by KindReceive; Op.FD indexes Plan.Files.
type File struct {
	Role FileRole
	// Path is the namespace's path, the source to clone, or the v1 hierarchy.
	Path string
	// Type is the CLONE_NEW* type of a namespace; for FileClone 1 means with all mounts below it.
	Type uint64
	// Late: it does not exist yet when the plan is sent, but only once the container's
	// directory and cgroup are made.
	Late bool
	// IDMap maps the ids of the mounts of a FileClone; nil for none.
	IDMap *IDMap
	// Origin is that of the operation, for errors of opening it.
	Origin string
}

// IDMap says by which ids the files of a mount are seen
// (mount_setattr(2), MOUNT_ATTR_IDMAP).
type IDMap struct {
	// UID and GID are the maps. If they are empty it is those of the user namespace at Path.
	UID, GID []specs.LinuxIDMapping
	Path     string
	// Recursive maps the mounts below as well.
	Recursive bool
}

// FileRole says what the launcher opens for a File.
type FileRole int

const (
	FileNamespace FileRole = iota + 1 // namespace at Path of type Type
	FileCgroup                        // cgroup v2 directory of the container, O_PATH
	FileTasks                         // tasks file, in v1 hierarchy Path, O_WRONLY
	FileRdt                           // tasks file at Path of a resctrl group, O_WRONLY
	FileClone                         // detached clone of host path Path, no peer of the host's mounts
	FileGate                          // the gate fifo, O_RDWR
	FileResult                        // the result fifo, O_RDWR
	FileListener                      // the socket for the seccomp listener
)

// Plan is the compiled container.
type Plan struct {
	Ops   []Op
	Files []File
}
