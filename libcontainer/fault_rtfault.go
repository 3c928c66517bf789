//go:build rtfault

package libcontainer

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rt/libcontainer/plan"

	"golang.org/x/sys/unix"
)

// faultPoints lists the parent's fault points. RT_FAULT=POINT:ACTION makes rt
// misbehave there: kill, stop, or sleep=SECONDS. The stage's points are
// stage.N for operation N of the plan (from 1), as `rt plan` prints it, with
// errno=NUMBER as one more action. limit.N:kill is for package cgroup. RT_FAULT_WAIT is how
// many seconds the parent waits for a stage that says nothing.
var faultPoints = []string{
	"create.launch", "create.claim", "create.cgroup", "create.limits", "create.devices", "create.fifos", "create.files", "create.config",
	"parent.child", "parent.maps", "create.hooks", "create.hooked", "create.state", "create.pidfile", "parent.commit", "parent.committed",
	"create.done", "network.open", "network.moved",
	"run.exit", "run.cgroup", "run.state",
	"start.gate", "start.result", "start.poststart",
	"exec.launch", "exec.pidfile",
	"update.schemata", "update.limits", "update.record",
	"checkpoint.criu", "checkpoint.dumped", "checkpoint.done", "restore.criu", "restore.verified", "restore.done",
	"delete.mark", "delete.kill", "delete.cgroup", "delete.poststop", "delete.state",
}

// RT_FAULT=list prints the points. This is the one build that may do something
// before main.
func init() {
	if os.Getenv("RT_FAULT") == "list" {
		fmt.Println(strings.Join(faultPoints, "\n"))
		os.Exit(0)
	}
}

func faultWish() (point, action, arg string) {
	point, rest, _ := strings.Cut(os.Getenv("RT_FAULT"), ":")
	action, arg, _ = strings.Cut(rest, "=")
	return point, action, arg
}

func fault(point string) {
	p, action, arg := faultWish()
	if p != point {
		return
	}
	switch action {
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "stop":
		// To this thread: a signal to the process may stop it a moment later.
		runtime.LockOSThread()
		unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
		runtime.UnlockOSThread()
		time.Sleep(20 * time.Millisecond) // for signals that other threads take
	case "sleep":
		n, _ := strconv.Atoi(arg)
		time.Sleep(time.Duration(n) * time.Second)
	}
}

// patience is the number of seconds in RT_FAULT_WAIT, if that is set.
func patience(wait time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("RT_FAULT_WAIT")); err == nil {
		return time.Duration(n) * time.Second
	}
	return wait
}

func stageFault(*plan.Plan) *plan.Fault {
	p, action, arg := faultWish()
	n, ok := strings.CutPrefix(p, "stage.")
	if !ok {
		return nil
	}
	op, err := strconv.Atoi(n)
	if err != nil {
		return nil
	}
	f := &plan.Fault{Op: int32(op - 1)}
	a, _ := strconv.Atoi(arg)
	f.Arg = int32(a)
	switch action {
	case "kill":
		f.Action = plan.FaultKill
	case "stop":
		f.Action = plan.FaultStop
	case "errno":
		f.Action = plan.FaultErrno
	case "sleep":
		f.Action = plan.FaultSleep
	}
	return f
}
