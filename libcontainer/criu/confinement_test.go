package criu

import (
	"strings"
	"testing"
)

// What a thread may have, in the words of its status file.
func TestConfinementCheck(t *testing.T) {
	w := Confinement{capabilities: 1<<5 | 1<<10, bounded: true, noNewPrivs: true, Filter: "f", UID: "7", GID: "8", Groups: []string{"8", "9"}}
	good := "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t9 8 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000420\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000420\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
	for _, c := range []struct{ was, is, says string }{
		{"", "", ""},
		{"Uid:\t7\t7", "Uid:\t7\t0", "/process/user/uid: process 7 has 0"},
		{"Gid:\t8", "Gid:\t0", "/process/user/gid: process 7 has 0"},
		{"Groups:\t9 8", "Groups:\t9 8 42", "/process/user/additionalGids: process 7 has 42"},
		{"Groups:\t9 8", "Groups:\t", ""},
		{"CapInh:\t0000000000000000", "CapInh:\t0000000000000001", "/process/capabilities: process 7 has CAP_CHOWN in CapInh"},
		{"CapPrm:\t0000000000000420", "CapPrm:\t0000000000000428", "CAP_FOWNER in CapPrm"},
		{"CapEff:\t0000000000000020", "CapEff:\tffffffffffffffff", "in CapEff"},
		{"CapBnd:\t0000000000000420", "CapBnd:\t0000000000200420", "CAP_SYS_ADMIN in CapBnd"},
		{"CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001", "in CapAmb"},
		{"CapEff:\t0000000000000020", "CapEff:\tx", "read CapEff"},
		{"NoNewPrivs:\t1", "NoNewPrivs:\t0", "/process/noNewPrivileges: process 7"},
		{"Seccomp:\t2", "Seccomp:\t0", "/linux/seccomp: process 7"},
		{"Seccomp:\t2", "Seccomp:\t1", "/linux/seccomp"},
	} {
		err := w.Check(7, strings.Replace(good, c.was, c.is, 1))
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, expected %q", c.is, err, c.says)
		}
	}
	// A config that takes nothing away.
	if err := new(Confinement).Check(7, strings.NewReplacer("0000000000000420", "ffffffffffffffff", "NoNewPrivs:\t1", "NoNewPrivs:\t0", "Seccomp:\t2", "Seccomp:\t0").Replace(good)); err != nil {
		t.Error(err)
	}
}

func TestInherited(t *testing.T) {
	list := Inherited([]string{"pipe:[7]", "pipe:[8]", "pipe:[7]"})
	if len(list) != 2 || list[0].GetKey() != "pipe:[7]" || list[0].GetFd() != 0 || list[1].GetKey() != "pipe:[8]" || list[1].GetFd() != 1 {
		t.Errorf("%v", list)
	}
	if list := Inherited([]string{"/dev/null", "", "socket:[9]"}); len(list) != 0 {
		t.Errorf("%v", list)
	}
	if list := Inherited([]string{"/dev/null", "file[1b:2c]", "/dev/pts/0"}); len(list) != 1 || list[0].GetKey() != "file[1b:2c]" || list[0].GetFd() != 1 {
		t.Errorf("%v", list)
	}
}
