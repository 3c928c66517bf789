package mounts

import "testing"

func TestOriginHolds(t *testing.T) {
	a := Origin{8, 1, "/srv/data"}
	for b, want := range map[Origin]bool{
		{8, 1, "/srv/data"}:       true,
		{8, 1, "/srv/data/below"}: true,
		{8, 1, "/srv/database"}:   false,
		{8, 1, "/srv"}:            false,
		{8, 2, "/srv/data"}:       false,
	} {
		if a.Holds(b) != want {
			t.Errorf("%v holds %v: expected %v", a, b, want)
		}
	}
	if !(Origin{8, 1, "/"}).Holds(Origin{8, 1, "/any"}) {
		t.Error("the root of a file system does not hold what is in it")
	}
}
