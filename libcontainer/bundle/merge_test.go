package bundle

import (
	stdjson "encoding/json"
	"testing"
)

func TestMergeResources(t *testing.T) {
	for _, tt := range []struct{ name, old, r, want string }{
		{"nothing", `{}`, `{}`, `{}`},
		{"zeros ask for nothing", `{"memory":{"limit":5},"cpu":{"cpus":"0"}}`,
			`{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"cpus":""},"pids":{"limit":0},"blockIO":{"weight":0,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":0}]},"hugepageLimits":[{"pageSize":"2MB","limit":0}],"rdma":{"x":{"hcaHandles":0}}}`,
			`{"memory":{"limit":5},"cpu":{"cpus":"0"},"pids":{},"blockIO":{}}`},
		{"others stay", `{"memory":{"limit":5,"swap":6},"pids":{"limit":7}}`, `{"memory":{"limit":6,"reservation":-1},"cpu":{"quota":-1,"mems":"0"}}`,
			`{"memory":{"limit":6,"reservation":-1,"swap":6},"cpu":{"quota":-1,"mems":"0"},"pids":{"limit":7}}`},
		{"switches", `{"memory":{"disableOOMKiller":true},"cpu":{"idle":1}}`, `{"memory":{"disableOOMKiller":false},"cpu":{"idle":0}}`,
			`{"memory":{"disableOOMKiller":false},"cpu":{"idle":0}}`},
		{"lists by key", `{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":10}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":1}]},"hugepageLimits":[{"pageSize":"2MB","limit":1}]}`,
			`{"blockIO":{"weightDevice":[{"major":8,"minor":1,"weight":20},{"major":8,"minor":0,"weight":30}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}]},"hugepageLimits":[{"pageSize":"1GB","limit":2},{"pageSize":"2MB","limit":3}],"network":{"classID":1,"priorities":[{"name":"lo","priority":4}]}}`,
			`{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":30},{"major":8,"minor":1,"weight":20}],"throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2}]},"hugepageLimits":[{"pageSize":"2MB","limit":3},{"pageSize":"1GB","limit":2}],"network":{"classID":1,"priorities":[{"name":"lo","priority":4}]}}`},
		{"maps", `{"rdma":{"a":{"hcaHandles":1}},"unified":{"a.b":"1","c.d":"2"}}`, `{"rdma":{"a":{"hcaObjects":2},"b":{"hcaHandles":3}},"unified":{"c.d":"3"}}`,
			`{"rdma":{"a":{"hcaHandles":1,"hcaObjects":2},"b":{"hcaHandles":3}},"unified":{"a.b":"1","c.d":"3"}}`},
		{"no devices", `{}`, `{"devices":[{"allow":true,"access":"r"}]}`, `{}`},
	} {
		old, _, err := ParseResources("old", []byte(tt.old))
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := ParseResources("r", []byte(tt.r))
		if err != nil {
			t.Fatal(err)
		}
		MergeResources(old, r)
		got, err := stdjson.Marshal(old)
		if err != nil {
			t.Fatal(err)
		}
		want, _, err := ParseResources("want", []byte(tt.want))
		if err != nil {
			t.Fatal(err)
		}
		if w, _ := stdjson.Marshal(want); string(w) != string(got) {
			t.Errorf("%s: got %s, want %s", tt.name, got, w)
		}
	}
}
