package mounts

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
)

// A process that has a file open in a mount which is not among those that it may use.
func TestCheckFiles(t *testing.T) {
	t.Parallel()
	null, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Read(0)
	if err != nil {
		t.Fatal(err)
	}
	// Its input and output are pipes, which are in no mount; the other end closes with the test.
	c := exec.Command("/bin/cat")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout = w
	dev, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	c.ExtraFiles = []*os.File{dev}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	defer c.Wait()
	defer c.Process.Kill()
	// When it has answered it changes nothing any more.
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	id, err := id("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	without := slices.DeleteFunc(slices.Clone(tree), func(m *mountinfo.Info) bool { return uint64(m.ID) == id })
	if len(without) == len(tree) {
		t.Fatal("the mount of /dev/null is not among those of the test")
	}
	if err := tree.CheckFiles(c.Process.Pid, nil); err != nil {
		t.Error(err)
	}
	if err := without.CheckFiles(c.Process.Pid, []os.FileInfo{null}); err != nil {
		t.Error(err)
	}
	if err := without.CheckFiles(c.Process.Pid, nil); err == nil || !strings.Contains(err.Error(), `"/dev/null", which is in none of them`) {
		t.Errorf("got %v", err)
	}
	// Nor may it stand, or run, elsewhere.
	if err := (Tree{}).CheckFiles(c.Process.Pid, nil); err == nil || !strings.Contains(err.Error(), "cwd of process") {
		t.Errorf("got %v", err)
	}
}
