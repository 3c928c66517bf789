package main

import (
	"bytes"
	"os"
	"testing"

	"rt/libcontainer/plan"
)

func TestHeaderIsCurrent(t *testing.T) {
	var want bytes.Buffer
	generate(&want)
	have, err := os.ReadFile("../plan.h")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Fatal("nsenter/stage/plan.h is stale; run: go generate ./nsenter/stage/gen")
	}
}

// The lists of flags, messages and steps here are written by hand; package
// plan numbers each without gaps, so a missing last one shows as a gap.
func TestListsHaveNoGaps(t *testing.T) {
	for i, c := range flags() {
		if c.value != 1<<i {
			t.Errorf("flag %s is %#x, want %#x", c.name, c.value, 1<<i)
		}
	}
	if n := len(messages()); n != plan.MsgBegin {
		t.Errorf("%d messages, want %d", n, plan.MsgBegin)
	}
	for i, c := range steps() {
		if c.value != uint64(i) {
			t.Errorf("step %s is %d, want %d", c.name, c.value, i)
		}
	}
}
