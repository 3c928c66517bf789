package plan

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RestoreSpec is what the plan of a restore needs besides the container's config.
type RestoreSpec struct {
	// Program is the absolute path of CRIU, Args its argv, Env its environment.
	Program   string
	Args, Env []string
	// CgroupNamespace says that the container's new cgroup namespace, if it has one, is not CRIU's to make.
	CgroupNamespace bool
}

// CompileRestore compiles the plan that makes a container's processes again from a checkpoint: CRIU
// does that, and this plan prepares the ground for it. It runs as host's root with the host's
// root file system, in the container's cgroup and in a mount namespace of its own, in which the
// container's root file system is mounted on itself and all mount points of spec have been
// made. The mounts on it serve only to have those points made where they belong: CRIU takes the
// root file system alone, and brings the container's mounts with it.
//
// The spec must be one that Compile accepts with the same facts. Linux 5.14.
func CompileRestore(spec *specs.Spec, facts *Facts, r *RestoreSpec) (*Plan, error) {
	linux := specs.Linux{}
	if spec.Linux != nil {
		linux = *spec.Linux
	}
	linux.RootfsPropagation = "" // CRIU's to set
	c := &compiler{spec: spec, linux: &linux, facts: facts, lastCap: facts.LastCap}
	c.plan.Ops = make([]Op, 0, 64)
	if c.namespaces(); c.err != nil {
		return nil, c.err
	}
	wanted := c.create
	if wanted&unix.CLONE_NEWNS == 0 {
		c.fail("/linux/namespaces", "a container without a new mount namespace can be neither checkpointed nor restored")
		return nil, c.err
	}
	c.create, c.join = unix.CLONE_NEWNS, 0
	c.receive = len(c.plan.Ops)
	c.op(KindReceive, byRuntime)
	c.enter()
	c.create = wanted // it says whether device nodes can be made
	c.rootfs()
	from := len(c.plan.Ops)
	if c.err == nil {
		c.mounts()
	}
	if c.err != nil {
		return nil, c.err
	}
	c.plan.Ops = append(c.plan.Ops[:from], mountPoints(c.plan.Ops[from:])...)
	if r.CgroupNamespace && wanted&unix.CLONE_NEWCGROUP != 0 {
		c.num(KindUnshare, "/linux/namespaces", unix.CLONE_NEWCGROUP)
	}
	// CRIU knows no keyrings: the container's processes would have that of rt's caller.
	c.keyring(keyringPermissions)
	if spec.Root != nil && spec.Root.Readonly {
		// CRIU binds it as it finds it.
		c.num(KindRootattr, "/root/readonly", unix.MOUNT_ATTR_RDONLY)
	}
	if p := spec.Process; p != nil && p.NoNewPrivileges && p.SelinuxLabel == "" {
		// Before version 3.18 CRIU does not give it back. SELinux may forbid the change of label after it.
		c.op(KindNoNewPrivs, "/process/noNewPrivileges")
	}
	c.num(KindUmask, byRuntime, defaultUmask)
	c.ready()
	find := c.data(KindFind, byRuntime, r.Program)
	find.Data[1].List = []string{r.Program}
	exec := c.op(KindExec, byRuntime)
	exec.Data[0].List, exec.Data[1].List = r.Args, r.Env
	if c.late(); c.err != nil {
		return nil, c.err
	}
	return &c.plan, nil
}

// mountPoints turns the operations of mounts into those that make the mount points. A new instance of a
// file system becomes an empty tmpfs: one of a kernel's would show, or even change, the host's.
func mountPoints(ops []Op) []Op {
	kept := ops[:0]
	for _, op := range ops {
		switch op.Kind {
		case KindMount, KindMountOld:
			target := op.Data[3].String
			op = Op{Kind: KindMount, Flags: op.Flags & (FlagReal | FlagInProc), FD: -1, Slot: -1, Origin: op.Origin}
			op.Data[0].String, op.Data[1].String, op.Data[3].String = "tmpfs", "tmpfs", target
		case KindAttach:
			op.Num = [6]uint64{}
		case KindNode, KindSymlink:
		default:
			continue
		}
		kept = append(kept, op)
	}
	return kept
}

// Bind is a mount of the container's that shows something of the host's.
type Bind struct {
	Target string // in the container
	Source string // host path
	// Recursive: with all mounts below the source.
	Recursive bool
	Origin    string
}

// Binds lists what of the host's the plan mounts in the container, but for its root file system.
// Not all of them need be there: the target of a mask may be missing, and an operation
// that stands in for another one may not have been needed.
func (p *Plan) Binds() []Bind {
	var list []Bind
	sources := map[int32]*Op{}
	for i := range p.Ops {
		op := &p.Ops[i]
		switch op.Kind {
		case KindClone:
			sources[op.Slot] = op
		case KindAttach, KindMask:
			if s := sources[op.Slot]; s != nil {
				list = append(list, Bind{
					Target: cleanDest(op.Data[0].String), Source: s.Data[0].String,
					Recursive: s.Num[0] == 1 && op.Kind == KindAttach, Origin: op.Origin,
				})
			}
		}
	}
	return list
}
