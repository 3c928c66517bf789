package cgroup

import (
	"reflect"
	"testing"
)

func TestRecordJSON(t *testing.T) {
	for _, r := range []Record{
		{Mode: V2, ID: "a", Dirs: []Dir{{"", "/sys/fs/cgroup", "a"}}},
		{Mode: Hybrid, ID: "x+y", Dirs: []Dir{{"cpu,cpuacct", "/m \"1\"", "p/q"}, {"name=systemd", "/m2", "p"}, {"", "/u", "p"}}},
		{Mode: V2, ID: "u", Dirs: []Dir{{"", "/sys/fs/cgroup", "a.slice/b.scope"}}, Unit: `rt-u\x2b.scope`, User: true},
	} {
		b, err := r.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRecord(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, %v", b, got, err)
		}
	}
	for _, bad := range []string{
		``, `{}`, `[]`, `{"id":1}`, `{"id":"a","dirs":[]}`, `{"id":"a","dirs":[1]}`, `{"id":"a","dirs":[{"key":2}]}`,
		`{"id":"a","dirs":[{"key":"","mount":"/","path":"p"}]`, `{"id":"a"`, `{"id":"a","dirs":{}}`,
	} {
		if _, err := ParseRecord([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
	if _, err := ParseRecord([]byte(`{"new":[{"a":1}],"id":"a","dirs":[{"key":"","mount":"/","path":"p","x":{}}]}`)); err != nil {
		t.Error("unknown members:", err)
	}
	if _, err := (Record{ID: "\xff"}).AppendJSON(nil); err == nil {
		t.Error("invalid UTF-8 was encoded")
	}
}
