package criu

import (
	"os"
	"testing"
)

// Names in the images of cgroups become paths that CRIU writes to, as root of the host.
func TestCheckCgroups(t *testing.T) {
	t.Parallel()
	text := func(n byte, s string) []byte { return field(n, []byte(s)...) }
	set := func(path string) []byte { return field(1, field(2, append(text(1, "cpu"), text(2, path)...)...)...) }
	controller := func(dir ...byte) []byte { return field(2, append(text(1, "cpu"), field(2, dir...)...)...) }
	dir := func(name string, more ...byte) []byte { return append(text(1, name), more...) }
	property := func(name string) []byte { return field(3, append(text(1, name), text(2, "1")...)...) }
	for _, row := range []struct {
		name  string
		entry []byte
		says  string
	}{
		{"nothing", nil, ""},
		{"set", set("/top/c1"), ""},
		{"set above", set("/top/../.."), `"/top/../.."`},
		{"directory", controller(dir("/top/c1")...), ""},
		{"directory above", controller(dir("../x")...), `"../x"`},
		{"directory in a directory", controller(dir("c1", field(2, dir("below")...)...)...), ""},
		{"directory above in a directory", controller(dir("c1", field(2, dir("..")...)...)...), `".."`},
		{"property", controller(dir("c1", property("cpu.shares")...)...), ""},
		{"property in another directory", controller(dir("c1", property("x/../../y")...)...), `"x/../../y"`},
		{"absolute property", controller(dir("c1", property("/etc/passwd")...)...), `"/etc/passwd"`},
		{"property in a directory below", controller(dir("c1", field(2, dir("below", property("../x")...)...)...)...), `"../x"`},
		{"controller", field(2, text(1, "../x")...), `"../x"`},
		{"cut", []byte{0x0a, 9}, "EOF"},
	} {
		expect(t, checkCgroups(row.entry), row.says)
	}
	deep := dir("x")
	for range 100 {
		deep = dir("x", field(2, deep...)...)
	}
	expect(t, checkCgroups(controller(deep...)), "levels")
}

func TestCgroups(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/cgroup"
	if err := os.WriteFile(file, []byte("2:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/c:d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := ReadCgroups(file)
	if err != nil || len(list) != 3 || list[0] != (Cgroup{"cpu,cpuacct", "/a/b"}) || list[1] != (Cgroup{"name=systemd", "/"}) || list[2] != (Cgroup{"", "/c:d"}) {
		t.Errorf("got %v, %v", list, err)
	}
	for path, want := range map[string]bool{"/a/b": true, "/a/b/c": true, "/a/bc": false, "/a": false, "/": false} {
		if (Cgroup{"cpu", path}).Below(Cgroup{"cpu", "/a/b"}) != want {
			t.Errorf("%s below /a/b: expected %v", path, want)
		}
	}
	if !(Cgroup{"", "/x"}).Below(Cgroup{"", "/"}) {
		t.Error("/x is not below /")
	}
}
