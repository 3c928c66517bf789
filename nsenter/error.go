package nsenter

import (
	"fmt"
	"strconv"
	"strings"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// OpError is an operation of the plan that failed inside the container. It
// unwraps to its errno.
type OpError struct {
	Kind  plan.Kind
	Line  plan.Line
	Errno unix.Errno
	Step  plan.Step
	Value uint64
	Text  string
}

func newOpError(p *plan.Plan, m *Message) *OpError {
	e := &OpError{Errno: m.Errno, Step: m.Step, Value: m.Value, Text: m.Text}
	if m.Op >= 0 {
		e.Kind, e.Line = p.Ops[m.Op].Kind, p.Line(m.Op)
	}
	return e
}

func (e *OpError) Unwrap() error { return e.Errno }

// where is the operation's number and origin.
func (e *OpError) where() string {
	if e.Line.Origin == "" {
		return ""
	}
	if e.Line.Origin[0] != '/' {
		return fmt.Sprintf(" (operation %d, %s)", e.Line.Number, e.Line.Origin)
	}
	return fmt.Sprintf(" (operation %d, config.json %s)", e.Line.Number, e.Line.Origin)
}

func (e *OpError) Error() string {
	switch e.Kind {
	case plan.KindFind:
		return e.find()
	case plan.KindExec:
		return fmt.Sprintf("exec %s: %s%s", firstWord(e.Line.Object), e.errno(), e.where())
	case plan.KindHook:
		return e.hook()
	case plan.KindCwd:
		if e.Step != plan.StepVerify {
			return fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %s%s", e.Line.Object, e.errno(), e.where())
		}
	}
	if e.Step == plan.StepDecode {
		return "stage refused its plan: " + clean(e.Text)
	}
	s := e.Line.String() + e.where() + ": "
	if w := stepName(e.Step); w != "" {
		s += w + ": "
	}
	s += e.errno()
	if d := e.detail(); d != "" {
		s += ": " + d
	}
	if c := e.cause(); c != "" {
		s += " (" + c + ")"
	}
	return s
}

func (e *OpError) errno() string {
	if e.Errno == 0 {
		return "failed"
	}
	return e.Errno.Error()
}

// find words a program that cannot be run as callers match it.
func (e *OpError) find() string {
	name := e.Line.Object
	q := "exec: " + strconv.Quote(name) + ": "
	switch {
	case e.Step == plan.StepIsDir || e.Errno == unix.EISDIR:
		return q + "is a directory" + e.where()
	case e.Errno == unix.ENOENT && !strings.Contains(name, "/"):
		return q + "executable file not found in $PATH" + e.where()
	case e.Errno == unix.EACCES:
		return q + "permission denied" + e.where()
	}
	return q + "stat " + name + ": " + e.errno() + e.where()
}

func (e *OpError) hook() string {
	kind, index, _ := strings.Cut(e.Line.Detail, " #")
	index, _, _ = strings.Cut(index, ",")
	s := fmt.Sprintf("error running %s hook #%s%s: ", kind, index, e.where())
	switch e.Step {
	case plan.StepTimeout:
		_, t, _ := strings.Cut(e.Line.Detail, "timeout ")
		s += "hook ran past specified timeout of " + t
	case plan.StepStatus:
		ws := unix.WaitStatus(e.Value)
		if ws.Signaled() {
			s += "signal: " + ws.Signal().String()
		} else {
			s += "exit status " + strconv.Itoa(ws.ExitStatus())
		}
	default:
		s += "fork/exec " + e.Line.Object + ": " + e.errno()
	}
	if e.Text != "" {
		s += ", output: " + clean(e.Text)
	}
	return s
}

// detail is what the stage or the kernel says besides the errno.
func (e *OpError) detail() string {
	switch e.Step {
	case plan.StepOption:
		option, words, _ := strings.Cut(e.Text, "\x00")
		fstype, _, _ := strings.Cut(e.Line.Object, " ")
		if strings.Contains(words, "nknown parameter") || words == "" && e.Errno == unix.EINVAL {
			return fmt.Sprintf("%s does not know the option %q", fstype, option)
		}
		if words == "" {
			return fmt.Sprintf("option %q", option)
		}
		return fmt.Sprintf("option %q: %s", option, kernelWords(words))
	case plan.StepFS:
		return kernelWords(e.Text)
	}
	return clean(e.Text)
}

// kernelWords are the lines of a file system context's log without their level
// letters.
func kernelWords(s string) string {
	var l []string
	for _, line := range strings.Split(strings.TrimSpace(s), "\n") {
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:]
		}
		if line != "" {
			l = append(l, clean(line))
		}
	}
	return strings.Join(l, "; ")
}

// cause is the likely cause, where the errno alone misleads.
func (e *OpError) cause() string {
	switch {
	case e.Kind == plan.KindRaise && e.Errno == unix.EPERM:
		return "raising a hard limit needs CAP_SYS_RESOURCE"
	case e.Kind == plan.KindFork && e.Errno == unix.EAGAIN:
		return "pids.max, RLIMIT_NPROC or kernel.threads-max is reached"
	case e.Kind == plan.KindFork && e.Errno == unix.ENOSPC:
		return "a limit of user.max_*_namespaces, or of nested namespaces, is reached"
	case e.Kind == plan.KindFork && e.Errno == unix.EBUSY:
		return "the cgroup has sub-cgroups with controllers, so it cannot hold processes"
	case e.Kind == plan.KindFork && (e.Errno == unix.ENOENT || e.Errno == unix.ENODEV):
		return "the cgroup is gone, or lies outside of the cgroup namespace that rt is in"
	case e.Kind == plan.KindFork && e.Errno == unix.EACCES:
		return "to enter the cgroup from where rt runs needs permission to write cgroup.procs of a cgroup above both"
	case e.Kind == plan.KindFork && e.Errno == unix.EOPNOTSUPP:
		return "the cgroup is a threaded one of others, or below such a one"
	case e.Kind == plan.KindJoin && e.Errno == unix.EINVAL:
		return "not a namespace of this type, or the caller is already in it"
	case e.Kind == plan.KindIds && e.Errno == unix.EINVAL:
		return "the id is not mapped in the user namespace"
	case e.Kind == plan.KindGroups && e.Errno == unix.EINVAL:
		return "a group is not mapped in the user namespace"
	case e.Kind == plan.KindSeccomp && e.Errno == unix.EINVAL:
		return "this kernel does not have one of the filter's flags or actions"
	case e.Kind == plan.KindLabel:
		return e.labelCause()
	case e.Kind == plan.KindKeyring && e.Errno == unix.EDQUOT:
		return "the key quota is used up, see kernel.keys.maxkeys"
	case e.Kind == plan.KindTune:
		return e.tuneCause()
	case e.Kind == plan.KindSeccomp && e.Step == plan.StepSpawn && e.Errno == unix.EAGAIN:
		return "pids.max or RLIMIT_NPROC is reached, or SCHED_DEADLINE goes without SCHED_FLAG_RESET_ON_FORK"
	case e.Kind == plan.KindSeccomp && e.Step == plan.StepDeliver:
		return "the receiver at listenerPath is gone or does not read"
	case e.Kind == plan.KindSeccomp && e.Errno == unix.EBUSY:
		return "rt itself runs under a filter with a listener"
	case e.Kind == plan.KindClone && e.Errno == unix.ENOENT:
		return "the source does not exist"
	case e.Errno == unix.ELOOP && e.Step == plan.StepResolve:
		return "a symbolic link on the way to this mount point, or too many of them"
	case e.Errno == unix.ENOSYS:
		return "rt needs Linux 5.14 or newer"
	case e.Errno == unix.EPERM && e.Step == plan.StepResolve:
		return "the mount point lies in a procfs"
	case e.Errno == unix.EROFS && e.Step == plan.StepCreate:
		return "the mount point is missing and the file system that should hold it is read-only"
	case e.Errno == unix.EMFILE:
		return "RLIMIT_NOFILE is reached"
	}
	return ""
}

// tuneCause is the likely cause why an attribute cannot be set.
func (e *OpError) tuneCause() string {
	attribute, _, _ := strings.Cut(e.Line.Object, " ")
	switch {
	case attribute == "scheduler" && e.Errno == unix.EPERM:
		return "it needs CAP_SYS_NICE; real-time policies a real-time budget of the cgroup on v1; SCHED_DEADLINE no restriction of CPUs"
	case attribute == "scheduler" && e.Errno == unix.EINVAL:
		return "this kernel does not have the policy, the flag, or that combination of numbers"
	case attribute == "scheduler" && e.Errno == unix.EBUSY:
		return "the CPUs have not that much bandwidth left"
	case attribute == "I/O" && e.Errno == unix.EPERM:
		return "IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE"
	case attribute == "CPU" && e.Errno == unix.EINVAL:
		return "none of these CPUs is there, or none is in the cpuset"
	case attribute == "memory" && e.Errno == unix.EINVAL:
		return "the nodes are not there or not in the cpuset, or this kernel does not have the mode or flag"
	case attribute == "memory" && e.Errno == unix.ENOSYS:
		return "this kernel is built without NUMA"
	}
	return ""
}

// labelCause words what a security module says of a label.
func (e *OpError) labelCause() string {
	apparmor := strings.HasSuffix(e.Line.Origin, "apparmorProfile")
	switch {
	case e.Step == plan.StepSource && e.Errno == unix.ENOENT:
		return "this kernel has no such security module"
	case apparmor && e.Errno == unix.ENOENT:
		return "no profile of this name is loaded"
	case apparmor && e.Errno == unix.EACCES:
		return "the profile that rt runs under does not permit the change"
	case e.Errno == unix.EINVAL:
		return "the security module is not enabled, or does not know the label"
	case e.Errno == unix.EACCES:
		return "the security policy does not permit the label"
	}
	return ""
}

func stepName(s plan.Step) string {
	switch s {
	case plan.StepDeliver:
		return "send the listener"
	case plan.StepResolve:
		return "look up mount point"
	case plan.StepCreate:
		return "create mount point"
	case plan.StepSource:
		return "open source"
	case plan.StepAttr:
		return "set attributes"
	case plan.StepProp:
		return "set propagation"
	case plan.StepVerify:
		return "verify"
	case plan.StepReply:
		return "reply of the parent"
	}
	return ""
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

// clean makes text from inside the container fit for one line of a terminal.
func clean(s string) string {
	s = strings.TrimRight(s, "\n\x00 ")
	q := strconv.QuoteToGraphic(s)
	q = q[1 : len(q)-1]
	return strings.ReplaceAll(q, `\"`, `"`)
}
