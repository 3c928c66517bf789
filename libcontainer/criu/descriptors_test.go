package criu

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestDescriptors(t *testing.T) {
	t.Parallel()
	dir := lay(t)
	d := open(t, dir)
	for _, list := range [][]string{
		{"/dev/null", "pipe:[123]", "socket:[4]"},
		{"", "/a b\n\"c\"\\", "/ünï"},
		{"file[1f:2a]", "file[1f:2a]", "/dev/pts/0 (deleted)"},
	} {
		if err := d.SaveDescriptors(list); err != nil {
			t.Fatal(err)
		}
		if got, err := d.LoadDescriptors(); err != nil || !slices.Equal(got, list) {
			t.Errorf("got %q, %v, expected %q", got, err, list)
		}
		expectNames(t, dir, "descriptors.json")
	}
	st, err := os.Stat(dir + "/descriptors.json")
	if err != nil || st.Mode() != 0o600 {
		t.Error("mode", st.Mode(), err)
	}
	for range 2 {
		if err := d.DropDescriptors(); err != nil {
			t.Error(err)
		}
		expectNames(t, dir)
	}
	if _, err := d.LoadDescriptors(); err == nil {
		t.Error("loaded what has been dropped")
	}
}

func TestLoadDescriptors(t *testing.T) {
	t.Parallel()
	const name = "descriptors.json"
	const good = `["/dev/null","pipe:[1]","pipe:[2]"]`
	// Cut at the limit it would be good.
	long := func(n int) string { return good + strings.Repeat("\n", n-len(good)) }
	for _, row := range []struct {
		name    string
		entries []entry
		want    []string
	}{
		{"runc's", []entry{text(name, good)}, nil},
		{"missing", nil, []string{"not a complete checkpoint"}},
		{"missing, with its temporary file", []entry{text("."+name, good)}, []string{"not a complete checkpoint"}},
		{"link", []entry{link(name, "other"), text("other", good)}, []string{"too many levels of symbolic links"}},
		{"dangling link", []entry{link(name, "other")}, []string{"too many levels of symbolic links"}},
		{"directory", []entry{subdirectory(name)}, []string{"not a regular file"}},
		{"fifo", []entry{special(name, "fifo")}, []string{"not a regular file"}},
		{"empty", []entry{text(name, "")}, []string{"expected is a list of three strings"}},
		{"cut", []entry{text(name, good[:len(good)-1])}, []string{"expected is a list of three strings"}},
		{"not JSON", []entry{text(name, "root:x:0:0\n")}, []string{"expected is a list of three strings"}},
		{"more than JSON", []entry{text(name, good+good)}, []string{"expected is a list of three strings"}},
		{"another shape", []entry{text(name, `{"0":"/dev/null"}`)}, []string{"expected is a list of three strings"}},
		{"another type", []entry{text(name, `[0,1,2]`)}, []string{"expected is a list of three strings"}},
		{"null", []entry{text(name, `null`)}, []string{"expected is a list of three strings"}},
		{"two", []entry{text(name, `["a","b"]`)}, []string{"expected is a list of three strings"}},
		{"four", []entry{text(name, `["a","b","c","d"]`)}, []string{"expected is a list of three strings"}},
		{"as long as may be", []entry{text(name, long(1<<16))}, nil},
		{"too long", []entry{text(name, long(1<<16+1))}, []string{"more than 65536 bytes"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dir := lay(t, row.entries...)
			d := open(t, dir)
			var got []string
			var err error
			inTime(t, func() { got, err = d.LoadDescriptors() })
			if row.want == nil {
				if want := []string{"/dev/null", "pipe:[1]", "pipe:[2]"}; err != nil || !slices.Equal(got, want) {
					t.Errorf("got %q, %v, expected %q", got, err, want)
				}
				return
			}
			expect(t, err, append(row.want, `read descriptors.json in "`+dir+`"`)...)
			if got != nil {
				t.Errorf("got %q too", got)
			}
		})
	}
}

// What stands in the place of descriptors.json, or of its temporary file, is replaced, not written to.
func TestSaveDescriptorsInPlace(t *testing.T) {
	t.Parallel()
	list := []string{"/dev/null", "pipe:[1]", "pipe:[2]"}
	for _, name := range []string{"descriptors.json", ".descriptors.json"} {
		for _, row := range []struct {
			what  string
			entry entry
		}{
			{"link", link("images/"+name, "../canary")},
			{"dangling link", link("images/"+name, "../missing")},
			{"file of a checkpoint that was killed", text("images/"+name, strings.Repeat("half", 100))},
			{"fifo", special("images/"+name, "fifo")},
		} {
			t.Run(name+" "+row.what, func(t *testing.T) {
				t.Parallel()
				dir := lay(t, text("canary", canary), row.entry)
				d := open(t, dir+"/images")
				var err error
				inTime(t, func() { err = d.SaveDescriptors(list) })
				if err != nil {
					t.Fatal(err)
				}
				if got, err := d.LoadDescriptors(); err != nil || !slices.Equal(got, list) {
					t.Errorf("got %q, %v", got, err)
				}
				expectCanary(t, dir)
				expectNames(t, dir+"/images", "descriptors.json")
			})
		}
		// It is in nobody's interest to remove what is in a directory.
		t.Run(name+" directory", func(t *testing.T) {
			t.Parallel()
			dir := lay(t, text("canary", canary), file("images/"+name+"/x"))
			expect(t, open(t, dir+"/images").SaveDescriptors(list), "descriptors.json in")
			if _, err := os.Stat(dir + "/images/" + name + "/x"); err != nil {
				t.Error(err)
			}
			expectNames(t, dir+"/images", name)
		})
	}
	t.Run("dropped link", func(t *testing.T) {
		t.Parallel()
		dir := lay(t, text("canary", canary), link("images/descriptors.json", "../canary"))
		if err := open(t, dir+"/images").DropDescriptors(); err != nil {
			t.Error(err)
		}
		expectCanary(t, dir)
		expectNames(t, dir+"/images")
	})
}
