package plan

import (
	"encoding/binary"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultPath is searched when the environment has no PATH, as execvp(3) does.
const defaultPath = "/usr/local/bin:/bin:/usr/bin"

// defaultUmask is what runc and crun set when the config is silent.
const defaultUmask = 0o022

// rlimitNames are the resources by RLIMIT_* number.
var rlimitNames = [...]string{
	unix.RLIMIT_CPU: "RLIMIT_CPU", unix.RLIMIT_FSIZE: "RLIMIT_FSIZE", unix.RLIMIT_DATA: "RLIMIT_DATA",
	unix.RLIMIT_STACK: "RLIMIT_STACK", unix.RLIMIT_CORE: "RLIMIT_CORE", unix.RLIMIT_RSS: "RLIMIT_RSS",
	unix.RLIMIT_NPROC: "RLIMIT_NPROC", unix.RLIMIT_NOFILE: "RLIMIT_NOFILE", unix.RLIMIT_MEMLOCK: "RLIMIT_MEMLOCK",
	unix.RLIMIT_AS: "RLIMIT_AS", unix.RLIMIT_LOCKS: "RLIMIT_LOCKS", unix.RLIMIT_SIGPENDING: "RLIMIT_SIGPENDING",
	unix.RLIMIT_MSGQUEUE: "RLIMIT_MSGQUEUE", unix.RLIMIT_NICE: "RLIMIT_NICE", unix.RLIMIT_RTPRIO: "RLIMIT_RTPRIO",
	unix.RLIMIT_RTTIME: "RLIMIT_RTTIME",
}

// Rlimits is how many resources there are: their numbers are 0 to Rlimits-1.
const Rlimits = len(rlimitNames)

// RlimitNumber returns the number of a resource, -1 for an unknown name.
func RlimitNumber(name string) int {
	for i := range rlimitNames {
		if rlimitNames[i] == name {
			return i
		}
	}
	return -1
}

// raise lifts hard limits while the host's credentials allow it.
func (c *compiler) raise() {
	p := c.spec.Process
	if p == nil || c.facts.HardLimits == nil {
		return
	}
	for i, r := range p.Rlimits {
		n := RlimitNumber(r.Type)
		if n < 0 {
			c.fail("/process/rlimits/"+strconv.Itoa(i)+"/type", "%q: unknown resource; accepted: %s", r.Type, strings.Join(rlimitNames[:], ", "))
			return
		}
		if r.Hard > c.facts.HardLimits[n] {
			c.num(KindRaise, "/process/rlimits/"+strconv.Itoa(i)+"/hard", uint64(n), r.Hard)
		}
	}
}

// process compiles the process of create and run.
func (c *compiler) process() {
	p := c.spec.Process
	if p == nil {
		// The spec lets a container without a process be created; start refuses it.
		c.ready()
		return
	}
	c.credentials(p)
	c.ready()
	c.hooks("startContainer")
	c.launch(p)
}

func (c *compiler) createContainerHooks() { c.hooks("createContainer") }

// credentials compiles what happens to the process before it waits: directory,
// user, and finding the program, so that create fails and not start.
func (c *compiler) credentials(p *specs.Process) {
	c.environment(p)
	c.tune(p)
	c.labels(p)
	c.cwd(p.Cwd, FlagTry)
	if p.Capabilities != nil && (!c.sheds || c.userNamespace()) {
		c.bounding(p.Capabilities)
	}
	if !c.facts.SetgroupsDenied {
		gids := make([]byte, 0, 4*len(p.User.AdditionalGids))
		for _, g := range p.User.AdditionalGids {
			gids = binary.NativeEndian.AppendUint32(gids, g)
		}
		op := c.data(KindGroups, "/process/user/additionalGids", string(gids))
		if len(gids) == 0 && (c.join&unix.CLONE_NEWUSER != 0 || c.facts.Nested) {
			op.Flags = FlagTry // that user namespace may deny setgroups(2)
		}
	} else if len(p.User.AdditionalGids) > 0 {
		c.fail("/process/user/additionalGids", "the user namespace does not allow setgroups(2)")
	}
	c.num(KindIds, "/process/user", uint64(p.User.UID), uint64(p.User.GID))
	c.cwd(p.Cwd, FlagAgain)
	if len(p.Args) == 0 {
		c.fail("/process/args", "args must not be empty")
		return
	}
	find := c.data(KindFind, "/process/args/0", p.Args[0])
	find.Data[1].List = candidates(p.Args[0], c.env)
}

func (c *compiler) bounding(caps *specs.LinuxCapabilities) {
	c.num(KindBounding, "/process/capabilities/bounding", c.capSet("bounding", caps.Bounding, c.held()))
}

// launch compiles the last steps, those between start and the user's program.
func (c *compiler) launch(p *specs.Process) {
	for i, r := range p.Rlimits {
		n := RlimitNumber(r.Type)
		if n < 0 {
			c.fail("/process/rlimits/"+strconv.Itoa(i)+"/type", "%q: unknown resource; accepted: %s", r.Type, strings.Join(rlimitNames[:], ", "))
			return
		}
		c.num(KindRlimit, "/process/rlimits/"+strconv.Itoa(i), uint64(n), r.Soft, r.Hard)
	}
	if p.Scheduler != nil && isDeadline(p.Scheduler) {
		// A deadline task cannot fork (sched(7)), and the hooks are forked.
		c.scheduler(p.Scheduler)
	}
	umask := uint64(defaultUmask)
	if p.User.Umask != nil {
		umask = uint64(*p.User.Umask)
	}
	c.num(KindUmask, "/process/user/umask", umask)
	c.applyLabels(p)
	if p.NoNewPrivileges {
		c.op(KindNoNewPrivs, "/process/noNewPrivileges")
	} else {
		// Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the
		// capabilities go.
		c.filter(0)
	}
	c.capabilities(p)
	if p.NoNewPrivileges {
		c.filter(1)
	}
	exec := c.op(KindExec, "/process/args")
	exec.Data[0].List = p.Args
	exec.Data[1].List = c.env
	if c.needHome() && c.facts.Home == "" {
		exec.Flags |= FlagHome
	}
}

func (c *compiler) filter(last uint64) {
	if c.facts.Filter == "" {
		return
	}
	op := c.num(KindSeccomp, "/linux/seccomp", uint64(c.facts.FilterFlags), last)
	op.Data[0].String = c.facts.Filter
	if c.facts.FilterFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		op.FD = c.file(File{Role: FileListener})
		op.Data[1].List = c.facts.ListenerState
	}
}

// capabilities compiles the final sets.
func (c *compiler) capabilities(p *specs.Process) {
	caps := p.Capabilities
	if caps == nil {
		return
	}
	held := c.held()
	permitted := c.capSet("permitted", caps.Permitted, held)
	effective := c.capSet("effective", caps.Effective, held)
	inheritable := c.capSet("inheritable", caps.Inheritable, held)
	ambient := c.capSet("ambient", caps.Ambient, held)
	if lost := effective &^ permitted; lost != 0 {
		c.warn("config.json: /process/capabilities/effective: %s not in the permitted set, left out", strings.Join(CapNames(lost), ", "))
	}
	if lost := ambient &^ (permitted & inheritable); lost != 0 {
		c.warn("config.json: /process/capabilities/ambient: %s not in the permitted and inheritable sets, left out", strings.Join(CapNames(lost), ", "))
	}
	c.num(KindCaps, "/process/capabilities", effective&permitted, permitted, inheritable, ambient&permitted&inheritable)
}

// held is what rt can give: its own capabilities, or all of a new user namespace.
func (c *compiler) held() uint64 {
	if c.facts.Capabilities == 0 || c.userNamespace() {
		return ^uint64(0)
	}
	return c.facts.Capabilities
}

// capSet is one set of the config, less what the kernel does not know and what
// rt does not hold itself: neither may fail a create.
func (c *compiler) capSet(set string, names []string, held uint64) uint64 {
	mask, unknown := CapMask(names, c.lastCap)
	if len(unknown) > 0 {
		c.warn("config.json: /process/capabilities/%s: %s not known to this kernel, left out", set, strings.Join(unknown, ", "))
	}
	if lost := mask &^ held; lost != 0 {
		c.warn("config.json: /process/capabilities/%s: %s not held by rt, left out", set, strings.Join(CapNames(lost), ", "))
	}
	return mask & held
}

func (c *compiler) cwd(dir string, flags Flag) {
	if dir == "" {
		dir = "/"
	}
	c.data(KindCwd, "/process/cwd", dir).Flags = flags
}

// ready compiles the end of create: report, and wait for start.
func (c *compiler) ready() {
	c.num(KindAwait, byRuntime, MsgReady)
	if !c.facts.Gate {
		return
	}
	gate := c.op(KindGate, byRuntime)
	gate.FD = c.file(File{Role: FileGate})
	gate.Num[0] = uint64(c.file(File{Role: FileResult}))
}

// environment fills c.env: the config's, of equal names the last, with what
// the runtime adds.
func (c *compiler) environment(p *specs.Process) {
	env := make([]string, 0, len(p.Env)+4)
	for _, e := range p.Env {
		env = setEnv(env, e)
	}
	if c.facts.ListenFDs > 0 {
		env = setEnv(env, "LISTEN_FDS="+strconv.Itoa(c.facts.ListenFDs))
		env = setEnv(env, "LISTEN_PID=1")
	}
	if c.facts.NotifyDir != "" {
		env = setEnv(env, "NOTIFY_SOCKET=/run/notify/notify.sock")
	}
	if c.needHome() {
		env = unsetEnv(env, "HOME")
		if c.facts.Home != "" {
			env = append(env, "HOME="+c.facts.Home)
		}
	}
	c.env = env
}

// needHome: HOME is absent or empty, so it is looked up.
func (c *compiler) needHome() bool { return NeedHome(c.spec.Process.Env) }

// NeedHome says whether HOME has to be looked up: it is absent or empty.
func NeedHome(env []string) bool { return getEnv(env, "HOME") == "" }

func getEnv(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if n, v, _ := strings.Cut(env[i], "="); n == name {
			return v
		}
	}
	return ""
}

func hasEnv(env []string, name string) bool {
	for _, e := range env {
		if n, _, _ := strings.Cut(e, "="); n == name {
			return true
		}
	}
	return false
}

func setEnv(env []string, e string) []string {
	name, _, _ := strings.Cut(e, "=")
	for i := range env {
		if len(env[i]) > len(name) && env[i][len(name)] == '=' && env[i][:len(name)] == name {
			env[i] = e
			return env
		}
	}
	return append(env, e)
}

func unsetEnv(env []string, name string) []string {
	for i := range env {
		if strings.HasPrefix(env[i], name+"=") {
			return append(env[:i:i], env[i+1:]...)
		}
	}
	return env
}

// candidates are the paths at which execvp(3) would look for a program.
func candidates(arg string, env []string) []string {
	if strings.Contains(arg, "/") {
		return []string{arg}
	}
	search := defaultPath
	if hasEnv(env, "PATH") {
		search = getEnv(env, "PATH")
	}
	var l []string
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		l = append(l, dir+"/"+arg)
	}
	return l
}

// hooks compiles the hooks that run inside the container.
func (c *compiler) hooks(kind string) {
	h := c.spec.Hooks
	if h == nil {
		return
	}
	list, num, status := h.CreateContainer, uint64(HookCreateContainer), "creating"
	if kind == "startContainer" {
		list, num, status = h.StartContainer, HookStartContainer, "created"
	}
	for i := range list {
		hook := &list[i]
		state, offset := StateJSON(c.facts.ID, status, c.facts.Bundle, c.spec.Annotations)
		op := c.num(KindHook, "/hooks/"+kind+"/"+strconv.Itoa(i), 0, uint64(offset), num, uint64(i))
		if hook.Timeout != nil {
			op.Num[0] = uint64(*hook.Timeout) * 1000
		}
		op.Data[0].String = hook.Path
		op.Data[1].List = hook.Args
		if len(hook.Args) == 0 {
			op.Data[1].List = []string{hook.Path}
		}
		op.Data[2].List = hook.Env
		if kind == "startContainer" {
			if hook.Env == nil {
				op.Data[2].List = c.env
				if c.needHome() && c.facts.Home == "" {
					op.Flags |= FlagHome
				}
			}
		} else {
			op.Flags |= FlagInRoot
		}
		op.Data[3].String = state
	}
}

// Hook kinds, Num[2] of KindHook.
const (
	HookCreateContainer = 1
	HookStartContainer  = 2
)
