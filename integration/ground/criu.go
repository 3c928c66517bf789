package ground

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// CRIU is a directory with a program criu that runs here; why it is "" is said instead where there can be none. lanes is the
// path of the directory integration/lanes.
func CRIU(lanes string) (dir, why string, err error) {
	switch os.Getenv("RT_LANE") {
	case "uml":
		return "", "CRIU needs netlink sockets that user-mode Linux does not have; it runs in the other lanes", nil
	case "vm":
		return "/usr/sbin", "", nil // that of the machine
	}
	out, err := exec.Command(lanes + "/criu").Output()
	return strings.TrimSpace(string(out)), "", err
}

// NeedCRIU is CRIU for a test, which is skipped where there can be none.
func NeedCRIU(t testing.TB, lanes string) (dir string) {
	t.Helper()
	dir, why, err := CRIU(lanes)
	if err != nil {
		t.Fatal(err)
	}
	if why != "" {
		t.Skip(why)
	}
	return dir
}
