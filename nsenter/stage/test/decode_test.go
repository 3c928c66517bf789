package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rt/libcontainer/plan"
)

// seedPlans are valid plans that together use every kind and operand type.
func seedPlans() []*plan.Plan {
	every := (&builder{}).add(
		num(op(plan.KindRaise), unix.RLIMIT_NOFILE, 1000),
		op(plan.KindReceive, groups(0, 2)),
		file(op(plan.KindTasks), 0),
		file(num(op(plan.KindJoin), unix.CLONE_NEWNET), 1),
		file(fork(newAll), 2),
	)
	var last []plan.Op
	slots := int32(0)
	for _, info := range plan.Kinds {
		o := op(info.Kind)
		for i, t := range info.Data {
			switch t {
			case plan.OperandString, plan.OperandPath:
				o.Data[i] = s("/some/path")
			case plan.OperandList:
				o.Data[i] = l("one", "", "two=2")
			case plan.OperandBytes:
				o.Data[i] = groups(1, 2, 3)
			}
		}
		switch info.Kind {
		case plan.KindRaise, plan.KindTasks, plan.KindReceive, plan.KindJoin, plan.KindFork:
			continue
		case plan.KindSeccomp:
			o.Data[0] = s("\x06\x00\x00\x00\x00\x00\xff\x7f") // BPF_RET, allow
		case plan.KindAwait:
			o.Num[0] = plan.MsgMounted
		case plan.KindClone, plan.KindEmptyDir, plan.KindMount, plan.KindMountOld:
			o.Slot = slots
			slots++
		case plan.KindRoot, plan.KindAttach, plan.KindSetattr, plan.KindMask:
			o.Slot = 0
		case plan.KindHook:
			o.Num[1] = 3
		case plan.KindTune:
			o.Num[0], o.Data[0] = plan.TuneAffinity, groups(1, 2, 3, 4)
		case plan.KindGate:
			o.FD, o.Num[0] = 3, 2
			last = append(last, o)
			continue
		case plan.KindExec:
			last = append(last, o)
			continue
		}
		every.add(o)
	}
	listener := num(op(plan.KindSeccomp, groups(1, 2), l("a", "b")), unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	every.add(num(op(plan.KindAwait), plan.MsgReady), file(listener, 1)).add(last...)
	small := (&builder{}).add(fork(0)).add(shell("exit 0")...)
	mounts := inRoot("/root")
	for i := range 40 {
		mounts.add(slot(flag(mount("tmpfs", fmt.Sprintf("/m/%d", i), "size=1m", "mode=755"), plan.FlagElse), int32(i)+1),
			slot(op(plan.KindAttach, s("/x")), 0))
	}
	return []*plan.Plan{every.plan(4), small.plan(0), mounts.plan(0)}
}

// The decoder, built with sanitizers, over mutated plans: RT_FUZZ_SECONDS of them, else 5, with CI=true 60.
func TestDecoderFuzz(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	seconds := 5
	if os.Getenv("CI") == "true" {
		seconds = 60
	}
	if v := os.Getenv("RT_FUZZ_SECONDS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("RT_FUZZ_SECONDS %q: want a number of seconds", v)
		}
		seconds = n
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "decode_test")
	build := exec.Command("gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", binary, "../decode_test.c", "../decode.c")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build.Args, err, out)
	}
	seed := time.Now().UnixNano()
	args := []string{strconv.Itoa(seconds), strconv.FormatInt(seed, 10)}
	for i, p := range seedPlans() {
		b, err := p.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.Command(binary, args...).CombinedOutput()
	t.Logf("seed %d: %s", seed, out)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}
