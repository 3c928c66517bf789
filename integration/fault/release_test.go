package fault

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

func TestS00NoFaultPointsInRelease(t *testing.T) {
	for program, want := range map[string]bool{plainBin: false, faultBin: true} {
		data, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(data, []byte("RT_FAULT")); got != want {
			t.Errorf("RT_FAULT in %s: %v, expected %v", program, got, want)
		}
	}
}

// A point that is not in the list is not tested.
func TestS00PointsListed(t *testing.T) {
	files, err := filepath.Glob("../../libcontainer/*.go")
	if err != nil || len(files) == 0 {
		t.Skip("the sources are not here")
	}
	var used []string
	call := regexp.MustCompile(`\bfault\("(.*?)"\)`)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllSubmatch(data, -1) {
			used = append(used, string(m[1]))
		}
	}
	slices.Sort(used)
	listed := slices.Sorted(slices.Values(points))
	if !slices.Equal(slices.Compact(used), listed) {
		t.Errorf("points in use %v\nand in the list %v", used, listed)
	}
}
