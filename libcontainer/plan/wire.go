package plan

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The wire format, little endian (the native order of all we run on is checked
// by the stage's magic): a header, the operations as fixed records, the
// strings. An operand is an offset into the strings and a length; a string is
// followed by a NUL that its length does not count; a list is the strings of
// its entries, each with its NUL, and its length counts them all.
//
//	header  { u32 magic; u16 version; u16 nfiles; u32 size; u32 nops; u32 strings; s32 fault_op; u32 fault_action; s32 fault_arg; }
//	op      { u16 kind; u16 flags; s32 fd; s32 slot; u32 reserved; u64 num[6]; struct { u32 off; u32 len; } data[4]; }
const (
	Magic   = 0x31507472 // "rtP1"
	Version = 1

	HeaderSize = 32
	OpSize     = 96

	MaxSize  = 32 << 20 // a whole plan, bytes
	MaxOps   = 1 << 17
	MaxSlots = 16384
	MaxFiles = 16384
	MaxList  = 1 << 16 // entries of one list
	MaxText  = 3968    // text of one message: header and text fit PIPE_BUF

	MaxReceive = 64 // descriptors of one KindReceive; the kernel's own limit is 253
)

// OperandType is what an operand must hold.
type OperandType byte

const (
	OperandNone   OperandType = iota // empty
	OperandString                    // no NUL inside, may be empty
	OperandPath                      // a string that is not empty
	OperandList
	OperandBytes // anything; for KindGroups and KindReceive a multiple of 4
)

// KindInfo describes a kind: its verb in printed plans and errors, the name of its
// enumerator in C (OP_ + upper case of Enum), and its operands.
type KindInfo struct {
	Kind Kind
	Verb string
	Enum string
	FD   bool // takes a descriptor (-1 may be allowed, see the kind)
	Slot bool
	Data [4]OperandType
}

const (
	tStr   = OperandString
	tPath  = OperandPath
	tList  = OperandList
	tBytes = OperandBytes
)

// Kinds lists every kind once.
var Kinds = [...]KindInfo{
	{Kind: KindRaise, Verb: "raise", Enum: "raise"},
	{Kind: KindTasks, Verb: "tasks", Enum: "tasks", FD: true},
	{Kind: KindJoin, Verb: "enter", Enum: "join", FD: true},
	{Kind: KindFork, Verb: "create", Enum: "fork", FD: true},
	{Kind: KindReceive, Verb: "receive", Enum: "receive", Data: [4]OperandType{tBytes}},
	{Kind: KindAwait, Verb: "await", Enum: "await"},
	{Kind: KindUnshare, Verb: "unshare", Enum: "unshare"},
	{Kind: KindTimens, Verb: "timens", Enum: "timens"},
	{Kind: KindSetroot, Verb: "setroot", Enum: "setroot"},
	{Kind: KindDumpable, Verb: "dumpable", Enum: "dumpable"},
	{Kind: KindKeyring, Verb: "keyring", Enum: "keyring", Data: [4]OperandType{tPath}},
	{Kind: KindLoopback, Verb: "loopback", Enum: "loopback"},
	{Kind: KindHostname, Verb: "hostname", Enum: "hostname", Data: [4]OperandType{tStr}},
	{Kind: KindDomainname, Verb: "domainname", Enum: "domainname", Data: [4]OperandType{tStr}},
	{Kind: KindSysctl, Verb: "sysctl", Enum: "sysctl", Data: [4]OperandType{tPath, tStr}},
	{Kind: KindPropagate, Verb: "propagate", Enum: "propagate", Data: [4]OperandType{tPath}},
	{Kind: KindClone, Verb: "clone", Enum: "clone", FD: true, Slot: true, Data: [4]OperandType{tPath}},
	{Kind: KindRoot, Verb: "root", Enum: "root", Slot: true, Data: [4]OperandType{tPath}},
	{Kind: KindMount, Verb: "mount", Enum: "mount", Slot: true, Data: [4]OperandType{tPath, tStr, tList, tPath}},
	{Kind: KindMountOld, Verb: "mount", Enum: "mount_old", Slot: true, Data: [4]OperandType{tPath, tStr, tStr, tPath}},
	{Kind: KindAttach, Verb: "bind", Enum: "attach", Slot: true, Data: [4]OperandType{tPath}},
	{Kind: KindRemount, Verb: "remount", Enum: "remount", Data: [4]OperandType{tPath, OperandNone, tList}},
	{Kind: KindSetattr, Verb: "setattr", Enum: "setattr", Slot: true},
	{Kind: KindNode, Verb: "node", Enum: "node", Data: [4]OperandType{tPath}},
	{Kind: KindSymlink, Verb: "symlink", Enum: "symlink", Data: [4]OperandType{tPath, tPath}},
	{Kind: KindReadonly, Verb: "readonly", Enum: "readonly", Data: [4]OperandType{tPath}},
	{Kind: KindMask, Verb: "mask", Enum: "mask", Slot: true, Data: [4]OperandType{tPath}},
	{Kind: KindEmptyDir, Verb: "emptydir", Enum: "empty_dir", Slot: true, Data: [4]OperandType{tStr}},
	{Kind: KindRootattr, Verb: "rootattr", Enum: "rootattr"},
	{Kind: KindPivot, Verb: "pivot", Enum: "pivot"},
	{Kind: KindMoveroot, Verb: "moveroot", Enum: "moveroot"},
	{Kind: KindChroot, Verb: "chroot", Enum: "chroot"},
	{Kind: KindHome, Verb: "home", Enum: "home"},
	{Kind: KindHook, Verb: "hook", Enum: "hook", Data: [4]OperandType{tPath, tList, tList, tBytes}},
	{Kind: KindSetsid, Verb: "setsid", Enum: "setsid"},
	{Kind: KindConsole, Verb: "console", Enum: "console"},
	{Kind: KindStdio, Verb: "stdio", Enum: "stdio"},
	{Kind: KindCwd, Verb: "cwd", Enum: "cwd", Data: [4]OperandType{tPath}},
	{Kind: KindRlimit, Verb: "rlimit", Enum: "rlimit"},
	{Kind: KindUmask, Verb: "umask", Enum: "umask"},
	{Kind: KindBounding, Verb: "bounding", Enum: "bounding"},
	{Kind: KindGroups, Verb: "groups", Enum: "groups", Data: [4]OperandType{tBytes}},
	{Kind: KindIds, Verb: "ids", Enum: "ids"},
	{Kind: KindCaps, Verb: "caps", Enum: "caps"},
	{Kind: KindNoNewPrivs, Verb: "nonewprivs", Enum: "no_new_privs"},
	{Kind: KindFind, Verb: "find", Enum: "find", Data: [4]OperandType{tPath, tList}},
	{Kind: KindGate, Verb: "gate", Enum: "gate", FD: true},
	{Kind: KindSeccomp, Verb: "filter", Enum: "seccomp", FD: true, Data: [4]OperandType{tBytes, tList}},
	{Kind: KindTune, Verb: "tune", Enum: "tune", Data: [4]OperandType{tBytes}},
	{Kind: KindLabel, Verb: "label", Enum: "label", Data: [4]OperandType{tPath, tStr}},
	{Kind: KindExec, Verb: "exec", Enum: "exec", Data: [4]OperandType{tList, tList}},
}

// Info returns the description of k; the zero KindInfo for an unknown one.
func (k Kind) Info() KindInfo {
	for i := range Kinds {
		if Kinds[i].Kind == k {
			return Kinds[i]
		}
	}
	return KindInfo{}
}

// Messages between parent and stage. A frame is
//
//	{ u32 type; u32 op; s32 errno; u32 step; u64 value; u32 len; u32 reserved; char text[len]; }
//
// sent as one packet (socket) or one write (fifo), descriptors with SCM_RIGHTS.
// op is the index of the operation that sent it.
const (
	MsgGo      = 1  // parent: go on; Text for KindHome, descriptors for KindTimens and KindReceive
	MsgChild   = 2  // the second process exists; Value is its pid
	MsgMaps    = 3  // waits for uid_map and gid_map
	MsgTime    = 4  // time namespace unshared; waits for its offsets
	MsgCopyUp  = 5  // two descriptors, from and to
	MsgMounted = 6  // all mounts are done; prestart and createRuntime hooks may run
	MsgHome    = 7  // a descriptor of the root
	MsgConsole = 8  // the ptmx
	MsgReady   = 9  // all but the gate is done
	MsgAck     = 10 // the commit has arrived
	MsgExec    = 11 // the next system calls are close_range and execve
	MsgError   = 12 // the operation failed: errno, step, text; the stage exits
	MsgNetwork = 13 // waits for network devices
	MsgBegin   = 14 // parent, before the plan: do what Ahead says, which is Value

	FrameSize = 32
)

// Undisturbed reports whether the stage needs nothing of its parent between
// MsgChild and MsgReady.
func (p *Plan) Undisturbed() bool {
	for i := range p.Ops {
		switch op := &p.Ops[i]; op.Kind {
		case KindAwait:
			if op.Num[0] != MsgReady {
				return false
			}
		case KindMount:
			if op.Flags&FlagCopyUp != 0 {
				return false
			}
		case KindTimens, KindHome, KindConsole:
			return false
		}
	}
	return true
}

// Step says at which step of an operation it failed, where the operation has
// several.
type Step uint32

const (
	StepNone    Step = iota
	StepResolve      // looking the target up in the root
	StepCreate       // creating the mount point or a parent
	StepSource       // opening or cloning the source
	StepOption       // one option; text is the option, then the kernel's words if any, NUL between
	StepFS           // creating or changing the file system; text is the kernel's words
	StepAttach       // attaching the mount
	StepAttr         // setting attributes
	StepProp         // setting the propagation
	StepVerify       // the object is not what it must be; text says what it is
	StepReply        // the parent's reply did not come as it must
	StepSpawn        // hook: fork or exec of the program; text is empty
	StepStatus       // hook: it ended badly (ECHILD); value is the wait status; text its output
	StepTimeout      // hook: it ran past its timeout (ETIMEDOUT); text its output
	StepSearch       // KindFind: no candidate found in PATH
	StepIsDir        // KindFind: a directory
	StepDeliver      // KindSeccomp: sending the listener
	StepDecode       // the plan itself is malformed (EBADMSG) or not sealed; op is -1 for its header; text says what
)

// Fault actions of a stage built with RT_FAULT; other builds refuse them.
const (
	FaultNone = iota
	FaultKill
	FaultStop
	FaultErrno
	FaultSleep // seconds
)

// Fault makes the stage misbehave just before operation Op.
type Fault struct {
	Op     int32
	Action uint32
	Arg    int32
}

// Encode returns the wire form. fault is nil but in tests.
func (p *Plan) Encode(fault *Fault) ([]byte, error) {
	if len(p.Ops) == 0 || len(p.Ops) > MaxOps {
		return nil, fmt.Errorf("encode plan: %d operations, accepted are 1 to %d", len(p.Ops), MaxOps)
	}
	if len(p.Files) > MaxFiles {
		return nil, fmt.Errorf("encode plan: %d descriptors, accepted are up to %d", len(p.Files), MaxFiles)
	}
	strs := HeaderSize + len(p.Ops)*OpSize
	size := strs
	for i := range p.Ops {
		for j := range p.Ops[i].Data {
			d := &p.Ops[i].Data[j]
			size += len(d.String) + 1
			for _, s := range d.List {
				size += len(s) + 1
			}
		}
	}
	if size > MaxSize {
		return nil, fmt.Errorf("encode plan: %d bytes, accepted are up to %d", size, MaxSize)
	}
	b := make([]byte, strs, size)
	le := binary.LittleEndian
	le.PutUint32(b[0:], Magic)
	le.PutUint16(b[4:], Version)
	le.PutUint16(b[6:], uint16(len(p.Files)))
	le.PutUint32(b[12:], uint32(len(p.Ops)))
	le.PutUint32(b[16:], uint32(strs))
	if fault != nil {
		le.PutUint32(b[20:], uint32(fault.Op))
		le.PutUint32(b[24:], fault.Action)
		le.PutUint32(b[28:], uint32(fault.Arg))
	}
	for i := range p.Ops {
		op := &p.Ops[i]
		info := op.Kind.Info()
		r := b[HeaderSize+i*OpSize:]
		le.PutUint16(r[0:], uint16(op.Kind))
		le.PutUint16(r[2:], uint16(op.Flags))
		le.PutUint32(r[4:], uint32(op.FD))
		le.PutUint32(r[8:], uint32(op.Slot))
		for j, n := range op.Num {
			le.PutUint64(r[16+8*j:], n)
		}
		for j := range op.Data {
			d := &op.Data[j]
			off := len(b) - strs
			var n int
			switch info.Data[j] {
			case OperandNone:
				if d.String != "" || d.List != nil {
					return nil, fmt.Errorf("encode plan: operation %d (%s): operand %d is not empty", i, info.Verb, j)
				}
				continue
			case OperandList:
				if len(d.List) > MaxList {
					return nil, fmt.Errorf("encode plan: operation %d (%s): %d entries, accepted are up to %d", i, info.Verb, len(d.List), MaxList)
				}
				for _, s := range d.List {
					if strings.IndexByte(s, 0) >= 0 {
						return nil, fmt.Errorf("encode plan: operation %d (%s): NUL byte in %q", i, info.Verb, s)
					}
					b = append(b, s...)
					b = append(b, 0)
				}
				n = len(b) - strs - off
			default:
				if info.Data[j] != OperandBytes && strings.IndexByte(d.String, 0) >= 0 {
					return nil, fmt.Errorf("encode plan: operation %d (%s): NUL byte in %q", i, info.Verb, d.String)
				}
				if info.Data[j] == OperandPath && d.String == "" {
					return nil, fmt.Errorf("encode plan: operation %d (%s): operand %d is empty", i, info.Verb, j)
				}
				n = len(d.String)
				b = append(b, d.String...)
				b = append(b, 0)
			}
			le.PutUint32(r[64+8*j:], uint32(off))
			le.PutUint32(r[68+8*j:], uint32(n))
		}
		// append may not move b: its capacity is the whole size.
	}
	le.PutUint32(b[8:], uint32(len(b)))
	return b, nil
}
