package bundle

import (
	"fmt"
	"strings"
	"testing"
)

const userns = `/linux/namespaces/- {"type":"user"}`

func TestNamespaces(t *testing.T) {
	const size = `{"containerID":0,"hostID":1000,"size":10}`
	uids := func(m string) string { return "/linux/uidMappings [" + m + "]" }
	gids := func(m string) string { return "/linux/gidMappings [" + m + "]" }
	mapped := func(name, uid, err string) row {
		return row{name: name, edits: []string{userns, uids(uid), gids(size)}, err: err}
	}
	for _, r := range []row{
		one("unknown type", `/linux/namespaces/- {"type":"net"}`,
			`/linux/namespaces/6/type: "net": unknown namespace type; accepted: "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"`),
		one("no type", `/linux/namespaces/- {"path":"/x"}`, `/linux/namespaces/6/type: must be specified`),
		one("only problem reported", `/linux/namespaces [{"type":"Mount"}]`,
			`/linux/namespaces/0/type: "Mount": unknown namespace type; accepted: "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"`),
		one("wrong type of list", `/linux/namespaces true`, `/linux/namespaces: true: wrong type or range; accepted: an array`),
		one("duplicate", `/linux/namespaces/- {"type":"ipc","path":"/x"}`, `/linux/namespaces/6/type: "ipc": namespace is listed twice`),
		one("relative path", `/linux/namespaces/0/path "x"`, `/linux/namespaces/0/path: "x": not an absolute path`+absolute),
		one("NUL path", `/linux/namespaces/0/path "/x\u0000"`, `/linux/namespaces/0/path: "/x\x00": contains a NUL byte`),
		good("joined", `/linux/namespaces/1/path "/proc/1/ns/net"`),

		one("user namespace without maps", userns, `/linux/gidMappings: must be specified for a new user namespace; /linux/uidMappings: must be specified for a new user namespace`),
		{"only uids", []string{userns, uids(size)}, `/linux/gidMappings: must be specified for a new user namespace`, ""},
		{"only gids", []string{userns, gids(size)}, `/linux/uidMappings: must be specified for a new user namespace`, ""},
		good("maps", userns, uids(size), gids(size)),
		good("joined user namespace", `/linux/namespaces/- {"type":"user","path":"/x"}`),
		good("joined user namespace with maps", `/linux/namespaces/- {"type":"user","path":"/x"}`, uids(size), gids(size)),
		{"maps without user namespace", []string{uids(size)}, "", `/linux: uidMappings and gidMappings are ignored without a namespace of type "user"`},
		mapped("size 0", `{"containerID":0,"hostID":0,"size":0},{"containerID":0,"hostID":0,"size":1}`, `/linux/uidMappings/0/size: 0: must be positive`),
		mapped("container overlap", `{"containerID":0,"hostID":0,"size":10},{"containerID":9,"hostID":100,"size":1}`, `/linux/uidMappings/1: overlaps entry 0`),
		mapped("host overlap", `{"containerID":0,"hostID":0,"size":10},{"containerID":10,"hostID":9,"size":1}`, `/linux/uidMappings/1: overlaps entry 0`),
		mapped("neighbours", `{"containerID":0,"hostID":0,"size":10},{"containerID":10,"hostID":10,"size":1}`, ""),
		mapped("beyond", `{"containerID":0,"hostID":4294967294,"size":2}`, `/linux/uidMappings/0/size: 2: range goes beyond the largest id; accepted: up to 1`),
		mapped("all ids", `{"containerID":0,"hostID":0,"size":4294967295}`, ""),
		mapped("not mapped", `{"containerID":1,"hostID":0,"size":10}`, `/process/user/uid: 0: not mapped by /linux/uidMappings`),
		{"gid not mapped", []string{userns, uids(size), gids(size), `/process/user {"uid":9,"gid":10,"additionalGids":[1,11]}`},
			`/process/user/additionalGids/1: 11: not mapped by /linux/gidMappings; /process/user/gid: 10: not mapped by /linux/gidMappings`, ""},
		mapped("too many", many(341, func(i int) string { return fmt.Sprintf(`{"containerID":%d,"hostID":%d,"size":1}`, i, i) }),
			`/linux/uidMappings: 341 entries; accepted: up to 340`),

		{"time offsets", []string{`/linux/namespaces/- {"type":"time"}`, `/linux/timeOffsets {"monotonic":{"secs":-5,"nanosecs":999999999},"boottime":{}}`}, "", ""},
		one("time offsets without namespace", `/linux/timeOffsets {"boottime":{"secs":1}}`, `/linux/timeOffsets: cannot be set without a new namespace of type "time"`),
		{"time offsets of a joined one", []string{`/linux/namespaces/- {"type":"time","path":"/x"}`, `/linux/timeOffsets {"boottime":{"secs":1}}`}, `/linux/timeOffsets: cannot be set without a new namespace of type "time"`, ""},
		{"unknown clock", []string{`/linux/namespaces/- {"type":"time"}`, `/linux/timeOffsets {"real/time":{}}`}, `/linux/timeOffsets/real~1time: unknown clock; accepted: "monotonic", "boottime"`, ""},
		{"nanosecs", []string{`/linux/namespaces/- {"type":"time"}`, `/linux/timeOffsets {"boottime":{"nanosecs":1000000000}}`}, `/linux/timeOffsets/boottime/nanosecs: 1000000000: out of range; accepted: an integer from 0 to 999999999`, ""},
		{"secs", []string{`/linux/namespaces/- {"type":"time"}`, `/linux/timeOffsets {"boottime":{"secs":9223372037}}`}, `/linux/timeOffsets/boottime/secs: 9223372037: out of range; accepted: an integer from -9223372036 to 9223372036`, ""},
	} {
		r.run(t)
	}
}

func many(n int, entry func(int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = entry(i)
	}
	return strings.Join(list, ",")
}

func TestMounts(t *testing.T) {
	mount := func(name, m, err string) row { return one(name, "/mounts ["+m+"]", err) }
	warn := func(name, m, warning string) row {
		return row{name: name, edits: []string{"/mounts [" + m + "]"}, warning: warning}
	}
	for _, r := range []row{
		mount("no destination", `{"type":"tmpfs"}`, `/mounts/0/destination: must be specified`),
		mount("root", `{"type":"tmpfs","destination":"/../."}`, `/mounts/0/destination: "/../.": cannot be the root itself`),
		warn("relative", `{"type":"tmpfs","destination":"a/../b"}`, `/mounts/0/destination: "a/../b": relative path is taken as "/b"`),
		mount("dots clamped", `{"type":"tmpfs","destination":"/../../b"}`, ""),
		mount("NUL destination", `{"type":"tmpfs","destination":"/b\u0000"}`, `/mounts/0/destination: "/b\x00": contains a NUL byte`),
		mount("NUL source", `{"type":"tmpfs","destination":"/b","source":"\u0000"}`, `/mounts/0/source: "\x00": contains a NUL byte`),
		mount("NUL type", `{"type":"\u0000","destination":"/b"}`, `/mounts/0/type: "\x00": contains a NUL byte`),
		mount("NUL option", `{"type":"tmpfs","destination":"/b","options":["\u0000"]}`, `/mounts/0/options/0: "\x00": contains a NUL byte`),
		mount("no type", `{"destination":"/b","source":"x"}`, `/mounts/0/type: must be specified; accepted: a file system type, or the option "bind" or "rbind"`),
		mount("bind without type", `{"destination":"/b","source":"x","options":["rbind"]}`, ""),
		mount("bind of type none", `{"destination":"/b","source":"x","type":"none","options":["bind"]}`, ""),
		mount("type bind", `{"destination":"/b","source":"x","type":"bind"}`, ""),
		mount("bind without source", `{"destination":"/b","options":["bind"]}`, `/mounts/0/source: must be specified for a bind mount`),
		mount("bind remount", `{"destination":"/b","options":["bind","remount","ro"]}`, ""),
		mount("unknown type", `{"destination":"/b","type":"whatfs"}`, ""),
		mount("inside proc", `{"destination":"/proc/sys","type":"tmpfs"}`, `/mounts/0/destination: "/proc/sys": cannot be mounted on, it is inside /proc`),
		mount("inside proc, hidden", `{"destination":"/x/../proc//1/..","type":"tmpfs"}`, `/mounts/0/destination: "/x/../proc//1/..": cannot hold a file system of type "tmpfs"; accepted: type "proc", or a bind mount of a procfs`),
		mount("proc file", `{"destination":"/proc/meminfo","source":"x","options":["bind"]}`, ""),
		mount("proc deep file", `{"destination":"/proc/sys/kernel/ns_last_pid","source":"x","options":["bind"]}`, ""),
		mount("bind on proc", `{"destination":"/proc","source":"/proc","options":["bind"]}`, ""),
		mount("beside proc", `{"destination":"/process","type":"tmpfs"}`, ""),
		mount("contradictory options", `{"destination":"/b","type":"tmpfs","options":["ro","rw","defaults","suid","nosuid"]}`, ""),
		mount("data", `{"destination":"/b","type":"tmpfs","options":["rww","acl","size=1","x y"]}`, ""),
		warn("data on bind", `{"destination":"/b","source":"x","type":"bind","options":["bind","mode=755","ro"]}`, `/mounts/0/options/1: "mode=755": ignored on a bind mount, which has no file system options`),
		warn("tmpcopyup", `{"destination":"/b","type":"ramfs","options":["tmpcopyup"]}`, `/mounts/0/options/0: "tmpcopyup": ignored, the mount is not of type "tmpfs"`),
		mount("tmpcopyup on tmpfs", `{"destination":"/b","type":"tmpfs","options":["tmpcopyup"]}`, ""),
		mount("most data", `{"destination":"/b","type":"x","options":["`+strings.Repeat("a", 4000)+`","`+strings.Repeat("b", 94)+`","ro"]}`, ""),
		mount("too much data", `{"destination":"/b","type":"x","options":["`+strings.Repeat("a", 4000)+`","`+strings.Repeat("b", 95)+`"]}`, `/mounts/0/options: 4096 bytes of file system options; accepted: up to 4095`),
		mount("null mount", `null`, `/mounts/0: null: wrong type or range; accepted: an object`),
		mount("third option", `{"destination":"/a","type":"x"},{"destination":"/b","type":"x","options":["a","b",3]}`, `/mounts/1/options/2: 3: wrong type or range; accepted: a string`),
		mount("too many", many(16001, func(i int) string { return `{"destination":"/b","type":"x"}` }), `/mounts: 16001 entries; accepted: up to 16000`),
		mount("as many as can be", many(16000, func(i int) string { return `{"destination":"/b","type":"x"}` }), ""),
	} {
		r.run(t)
	}
}

// TestOptions has every option that cli.md lists for features, as runc has
// them, and the id maps: none of them is data.
func TestOptions(t *testing.T) {
	const all = `async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev nodiratime noexec
		noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime
		remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate
		rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid
		symfollow sync tmpcopyup unbindable idmap ridmap`
	for o := range strings.FieldsSeq(all) {
		if !isOption(o) {
			t.Errorf("%s is not known", o)
		}
	}
	for _, o := range []string{"", "RO", "acl", "noacl", "mode=755", "ro,rw", "rrbind"} {
		if isOption(o) {
			t.Errorf("%q is known", o)
		}
	}
}

func TestDevices(t *testing.T) {
	device := func(name, v, err string) row { return one(name, "/linux/devices ["+v+"]", err) }
	const kinds = `; accepted: "c", "u", "b", "p"`
	for _, r := range []row{
		device("all types", `{"path":"/a","type":"c","major":0,"minor":0},{"path":"/b","type":"u","major":4095,"minor":1048575},{"path":"/c","type":"b","major":1,"minor":1,"fileMode":511,"uid":1,"gid":2},{"path":"/d","type":"p","major":-1,"minor":99999999}`, ""),
		device("fifo without numbers", `{"path":"/a","type":"p"}`, ""),
		device("no path", `{"type":"p"}`, `/linux/devices/0/path: must be specified`),
		device("relative", `{"path":"dev/a","type":"p"}`, `/linux/devices/0/path: "dev/a": not an absolute path`+absolute),
		device("root", `{"path":"/.","type":"p"}`, `/linux/devices/0/path: "/.": cannot be the root itself`),
		device("NUL", `{"path":"/\u0000","type":"p"}`, `/linux/devices/0/path: "/\x00": contains a NUL byte`),
		device("no type", `{"path":"/a","major":1,"minor":1}`, `/linux/devices/0/type: must be specified`+kinds),
		device("type", `{"path":"/a","type":"x","major":1,"minor":1}`, `/linux/devices/0/type: "x": unknown device type`+kinds),
		device("no numbers", `{"path":"/a","type":"c"}`, `/linux/devices/0/major: must be specified; /linux/devices/0/minor: must be specified`),
		device("negative", `{"path":"/a","type":"c","major":-1,"minor":1}`, `/linux/devices/0/major: -1: out of range; accepted: an integer from 0 to 4095`),
		device("large", `{"path":"/a","type":"c","major":1,"minor":1048576}`, `/linux/devices/0/minor: 1048576: out of range; accepted: an integer from 0 to 1048575`),
		device("mode", `{"path":"/a","type":"p","fileMode":512}`, `/linux/devices/0/fileMode: 512: out of range; accepted: permission bits, 0 to 511 (0777)`),
		device("st_mode", `{"path":"/a","type":"c","major":1,"minor":3,"fileMode":8630}`, ""),
		device("st_mode of another type", `{"path":"/a","type":"b","major":1,"minor":3,"fileMode":8630}`, `/linux/devices/0/fileMode: 8630: out of range; accepted: permission bits, 0 to 511 (0777)`),
		device("uid", `{"path":"/a","type":"p","uid":4294967295}`, `/linux/devices/0/uid: 4294967295: no valid id; accepted: an integer from 0 to 4294967294`),
		device("different twice", `{"path":"/a","type":"p"},{"path":"//a","type":"c","major":1,"minor":1}`, `/linux/devices/1/path: "//a": differs from device 0 of the same path`),
		{"same twice", []string{`/linux/devices [{"path":"/a","type":"c","major":1,"minor":1},{"path":"/a","type":"u","major":1,"minor":1}]`}, "", `/linux/devices/1/path: "/a": same as device 0`},
	} {
		r.run(t)
	}
	spec, _, err := Parse("config.json", patch(t, defaultConfig(t), `/linux/devices [{"path":"/a","type":"c","major":1,"minor":3,"fileMode":8630}]`))
	if err != nil {
		t.Fatal(err)
	}
	if mode := *spec.Linux.Devices[0].FileMode; mode != 0o666 {
		t.Errorf("file mode %o, want 666", mode)
	}
}

func TestResources(t *testing.T) {
	rule := func(name, v, err string) row { return one(name, "/linux/resources/devices ["+v+"]", err) }
	memory := func(name, v, err string) row { return one(name, "/linux/resources/memory {"+v+"}", err) }
	cpu := func(name, v, err string) row { return one(name, "/linux/resources/cpu {"+v+"}", err) }
	const m, u = "/linux/resources/memory/", "/linux/resources/cpu/"
	const list = `: malformed list; accepted: numbers and ranges, such as "0-3,7"`
	member := func(member string) func(name, v, err string) row {
		return func(name, v, err string) row {
			if err != "" {
				err = "/linux/resources/" + member + "/" + err
			}
			return one(name, "/linux/resources/"+member+" {"+v+"}", err)
		}
	}
	block, network, rdma := member("blockIO"), member("network"), member("rdma")
	pages := func(size string) string {
		return `/linux/resources/hugepageLimits/0/pageSize: ` + size + `: malformed page size; accepted: a number with KB, MB or GB, such as "2MB"`
	}
	huge := func(size, err string) row {
		return one("page size "+size, `/linux/resources/hugepageLimits [{"pageSize":"`+size+`","limit":1}]`, err)
	}
	const file = `; accepted: a file of cgroup v2, such as "memory.high"`
	malformed := func(name string) string {
		return fmt.Sprintf("/linux/resources/unified%s: %q: malformed file name", escaped(name), name) + file
	}
	own := func(name string) string {
		return fmt.Sprintf("/linux/resources/unified/%s: %q: cannot be set, rt itself uses this file", name, name) + file
	}
	unified := func(name, err string) row {
		return one("unified "+name, `/linux/resources/unified {"`+name+`":"1"}`, err)
	}
	for _, r := range []row{
		rule("rules", `{"allow":false},{"allow":true,"type":"a","access":"rwm"},{"allow":true,"type":"c","major":-1,"minor":3,"access":"r"},{"allow":true,"type":"b","access":"mw"}`, ""),
		rule("no allow", `{"type":"a"}`, `/linux/resources/devices/0/allow: must be specified`),
		rule("empty", `{}`, `/linux/resources/devices/0/allow: must be specified`),
		rule("type", `{"allow":true,"type":"u","access":"r"}`, `/linux/resources/devices/0/type: "u": unknown device type; accepted: "a", "b", "c"`),
		rule("no access", `{"allow":true,"type":"c"}`, `/linux/resources/devices/0/access: must be specified; accepted: letters of "rwm"`),
		rule("access", `{"allow":true,"access":"rx"}`, `/linux/resources/devices/0/access: "rx": unknown access; accepted: letters of "rwm"`),
		rule("access inside", `{"allow":true,"access":"rxw"}`, `/linux/resources/devices/0/access: "rxw": unknown access; accepted: letters of "rwm"`),
		rule("major", `{"allow":true,"type":"c","access":"r","major":-2}`, `/linux/resources/devices/0/major: -2: out of range; accepted: an integer from -1 to 4095`),

		memory("limits", `"limit":100,"reservation":50,"swap":100`, ""),
		memory("none", `"limit":-1,"reservation":-1,"swap":-1`, ""),
		memory("zeros", `"limit":0,"reservation":0,"swap":0,"kernel":0,"kernelTCP":0,"swappiness":0,"disableOOMKiller":false,"useHierarchy":true,"checkBeforeUpdate":true`, ""),
		memory("limit", `"limit":-2`, m+`limit: -2: out of range; accepted: bytes, or -1 for no limit`),
		memory("swap below limit", `"limit":100,"swap":99`, m+`swap: 99: below the memory limit; accepted: -1, or from 100 on`),
		memory("swap alone", `"swap":99`, m+`swap: 99: cannot be set without a memory limit`),
		memory("swap with no limit", `"limit":-1,"swap":99`, m+`swap: 99: below the memory limit, which is none; accepted: -1`),
		memory("unlimited swap alone", `"swap":-1`, ""),
		{"kernel", []string{`/linux/resources/memory {"kernel":5}`}, "", m + `kernel: 5: ignored, kernels have no such limit any more`},
		{"kernelTCP", []string{`/linux/resources/memory {"kernelTCP":-1}`}, "", m + `kernelTCP: -1: ignored, kernels have no such limit any more`},

		cpu("all", `"shares":1024,"quota":50000,"period":100000,"burst":1000`, ""),
		cpu("zeros", `"shares":0,"quota":0,"period":0,"burst":0,"realtimeRuntime":0,"realtimePeriod":0,"idle":0,"cpus":"","mems":""`, ""),
		cpu("no quota", `"quota":-1`, ""),
		cpu("quota", `"quota":-2`, u+`quota: -2: out of range; accepted: microseconds from 1000 on, or -1 for no limit`),
		cpu("small quota", `"quota":999`, u+`quota: 999: out of range; accepted: microseconds from 1000 on, or -1 for no limit`),
		cpu("period", `"period":999`, u+`period: 999: out of range; accepted: microseconds from 1000 to 1000000`),
		cpu("shares", `"shares":-1`, u+`shares: -1: wrong type or range; accepted: an integer from 0 to 18446744073709551615`),
		cpu("burst", `"quota":1000,"burst":1001`, u+`burst: 1001: above the quota; accepted: microseconds up to 1000`),
		cpu("burst without quota", `"quota":-1,"burst":1001`, ""),
		cpu("realtime", `"realtimeRuntime":-1,"realtimePeriod":18446744073709551615`, ""),
		cpu("realtime runtime", `"realtimeRuntime":-2`, u+`realtimeRuntime: -2: out of range; accepted: microseconds, or -1 for no limit`),
		cpu("idle", `"idle":1`, ""),
		cpu("idle 2", `"idle":2`, u+`idle: 2: out of range; accepted: 0 or 1`),
		cpu("lists", `"cpus":"0,2-3, 5-6:1/2","mems":"0"`, ""),
		cpu("word", `"cpus":"all of them"`, u+`cpus: "all of them"`+list),
		cpu("open range", `"mems":"0-"`, u+`mems: "0-"`+list),
		cpu("negative", `"cpus":"-1"`, u+`cpus: "-1"`+list),
		cpu("empty part", `"cpus":"0,"`, u+`cpus: "0,"`+list),
		cpu("stride", `"cpus":"0-3:2"`, u+`cpus: "0-3:2"`+list),
		cpu("reversed", `"cpus":"3-2"`, u+`cpus: "3-2": range 3-2 ends before it begins; accepted: numbers and ranges, such as "0-3,7"`),
		cpu("huge number", `"cpus":"99999999999999999999"`, u+`cpus: "99999999999999999999"`+list),
		memory("swappiness", `"swappiness":100`, ""),
		memory("swappiness 101", `"swappiness":101`, m+`swappiness: 101: out of range; accepted: an integer from 0 to 100`),
		memory("rest", `"disableOOMKiller":true,"checkBeforeUpdate":true,"useHierarchy":false`, ""),
		good("pids", `/linux/resources/pids {"limit":-1}`),

		block("weights", `"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":1000}]`, ""),
		block("weight 9", `"weight":9`, "weight: 9: out of range; accepted: an integer from 10 to 1000"),
		block("weight 1001", `"weight":1001`, "weight: 1001: out of range; accepted: an integer from 10 to 1000"),
		block("weight 65536", `"weight":65536`, "weight: 65536: wrong type or range; accepted: an integer from 0 to 65535"),
		block("leaf weight", `"leafWeight":10`, "leafWeight: 10: kernels have no leaf weights since 5.0"),
		block("leaf weight of a device", `"weightDevice":[{"major":8,"minor":0,"leafWeight":10}]`, "weightDevice/0/leafWeight: 10: kernels have no leaf weights since 5.0"),
		block("no weight", `"weightDevice":[{"major":8,"minor":0}]`, "weightDevice/0/weight: must be specified"),
		block("major", `"weightDevice":[{"major":4096,"minor":0,"weight":10}]`, "weightDevice/0/major: 4096: out of range; accepted: an integer from 0 to 4095"),
		block("throttles", `"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":18446744073709551615}]`, ""),
		block("minor", `"throttleWriteIOPSDevice":[{"major":8,"minor":-1,"rate":1}]`, "throttleWriteIOPSDevice/0/minor: -1: out of range; accepted: an integer from 0 to 1048575"),
		block("rate", `"throttleReadIOPSDevice":[{"major":8,"minor":1,"rate":-1}]`, "throttleReadIOPSDevice/0/rate: -1: wrong type or range; accepted: an integer from 0 to 18446744073709551615"),

		huge("2MB", ""), huge("64KB", ""), huge("1GB", ""),
		huge("", pages(`""`)), huge("MB", pages(`"MB"`)), huge("02MB", pages(`"02MB"`)), huge("2MiB", pages(`"2MiB"`)), huge("2", pages(`"2"`)), huge("2MBB", pages(`"2MBB"`)), huge("2MB/../x", pages(`"2MB/../x"`)),

		network("all", `"classID":4294967295,"priorities":[{"name":"eth0","priority":4294967295}]`, ""),
		network("class", `"classID":4294967296`, "classID: 4294967296: wrong type or range; accepted: an integer from 0 to 4294967295"),
		network("no name", `"priorities":[{"priority":1}]`, "priorities/0/name: must be specified"),
		network("blank", `"priorities":[{"name":"a b","priority":1}]`, `priorities/0/name: "a b": no name of a network interface; accepted: up to 15 bytes without blanks, / and :`),

		rdma("all", `"mlx5_1":{"hcaHandles":1,"hcaObjects":4294967295},"b":{"hcaObjects":0}`, ""),
		rdma("nothing", `"mlx5_1":{}`, `mlx5_1: must be specified; accepted: "hcaHandles", "hcaObjects" or both`),
		rdma("name", `"a b":{"hcaHandles":1}`, `a b: "a b": no name of an RDMA device; accepted: up to 63 bytes without blanks and /`),

		unified("memory.high", ""), unified("hugetlb.2MB.rsvd.max", ""), unified("cgroup.max.depth", ""), unified("cpu.pressure", ""), unified("foo.bar_2", ""),
		unified("memory", malformed("memory")), unified("", malformed("")), unified(".", malformed(".")), unified("a..b", malformed("a..b")), unified(".a", malformed(".a")), unified("a.", malformed("a.")),
		unified("../cgroup.procs", malformed("../cgroup.procs")), unified("a/b.c", malformed("a/b.c")), unified("memory.high ", malformed("memory.high ")),
		unified("cgroup.procs", own("cgroup.procs")), unified("cgroup.kill", own("cgroup.kill")), unified("cgroup.freeze", own("cgroup.freeze")), unified("cgroup.subtree_control", own("cgroup.subtree_control")),
	} {
		r.run(t)
	}
}

func TestSysctl(t *testing.T) {
	const malformed = `: malformed name; accepted: components of letters, digits, "_" and "-", separated by "." or by "/"`
	const hosts = `: belongs to no namespace, so it would be the host's; accepted: net.*, user.*, fs.mqueue.*, kernel.domainname and those of System V IPC`
	set := func(key, err string) row {
		p := "/linux/sysctl" + escaped(key)
		if err != "" {
			err = p + err
		}
		return one(key, p+` "1"`, err)
	}
	for _, r := range []row{
		set("net.ipv4.ip_forward", ""),
		set("net/ipv4/conf/eth0.100/forwarding", ""),
		set("net.ipv4.conf.eth0/100.forwarding", ""),
		set("kernel.shm_rmid_forced", ""),
		set("kernel.msgmax", ""),
		set("fs.mqueue.msg_max", ""),
		set("kernel.domainname", ""),
		set("kernel.hostname", `: cannot be set here, config.json has hostname for it`),
		set("kernel/hostname", `: cannot be set here, config.json has hostname for it`),
		set("kernel.core_pattern", hosts),
		set("net", hosts),
		set("netx.a", hosts),
		set("vm.swappiness", hosts),
		set("kernel.shm_rmid_forced.x", hosts),
		set("user.max_user_namespaces", `: cannot be set without a namespace of type "user"`),
		set("net/../kernel/core_pattern", malformed),
		set("net/./x", malformed),
		set("net..x", malformed),
		set("net.ipv4.conf.//.x", malformed),
		set("/net/x", malformed),
		set("net.", malformed),
		set("net.x$y", malformed),
		set("net.é", malformed),
		{"no ipc namespace", []string{`/linux/namespaces [{"type":"mount"},{"type":"uts"}]`, `/linux/sysctl {"kernel.sem":"1"}`}, `/linux/sysctl/kernel.sem: cannot be set without a namespace of type "ipc"`, ""},
		{"no net namespace", []string{`/linux/namespaces [{"type":"mount"},{"type":"uts"}]`, `/linux/sysctl {"net.a":"1"}`}, `/linux/sysctl/net.a: cannot be set without a namespace of type "network"`, ""},
		one("newline", `/linux/sysctl {"net.a":"1\n2"}`, `/linux/sysctl/net.a: "1\n2": contains a NUL byte or a newline`),
		one("twice", `/linux/sysctl {"net.a":"1","net/a":"2"}`, `/linux/sysctl: "net/a": is set twice`),
		one("empty", `/linux/sysctl {"":"1"}`, `/linux/sysctl/`+malformed),
	} {
		r.run(t)
	}
}

func TestNetDevices(t *testing.T) {
	const (
		p     = "/linux/netDevices"
		wrong = `: cannot be the name of a network device; accepted: 1 to 15 bytes without "/", ":", "%" and blanks, but not "." and ".."`
		to    = `: cannot be the name of a network device; accepted: 1 to 15 bytes without "/", ":" and blanks, but not "." and ".."; "%d" for a number that is free`
	)
	host := func(name, value string) row { return one(name, p+` {"`+name+`":{}}`, p+"/"+value+wrong) }
	target := func(name, quoted string) row {
		return one(name, p+` {"e":{"name":"`+name+`"}}`, p+`/e/name: `+quoted+to)
	}
	for _, r := range []row{
		good("none", p+" {}"),
		good("names", p+` {"e-1.x~":{},"b":{"name":"eth0"},"c":{"name":"0123456789abcde"}}`),
		good("patterns", p+` {"a":{"name":"eth%d"},"b":{"name":"eth%d"},"c":{"name":"%d"},"d":{"name":"a%db"}}`),
		good("swapped", p+` {"a":{"name":"b"},"b":{"name":"a"}}`),
		{"joined", []string{`/linux/namespaces/1/path "/run/netns/x"`, p + ` {"a":{}}`}, "", ""},
		host("", `: ""`), host(".", `.: "."`), host("..", `..: ".."`), host("a/b", `a~1b: "a/b"`), host("a:1", `a:1: "a:1"`), host("a b", `a b: "a b"`),
		host("a%d", `a%d: "a%d"`), host("0123456789abcdef", `0123456789abcdef: "0123456789abcdef"`), host("à", `à: "à"`),
		target(".", `"."`), target("..", `".."`), target("a/b", `"a/b"`), target("a:1", `"a:1"`), target(" ", `" "`), target(`a\n`, `"a\n"`),
		target("%", `"%"`), target("%s", `"%s"`), target("%d%d", `"%d%d"`), target("0123456789abc%dx", `"0123456789abc%dx"`),
		one("twice", p+` {"a":{"name":"x"},"b":{"name":"x"}}`, p+`/a/name: "x": is the name of another device, too; `+p+`/b/name: "x": is the name of another device, too`),
		one("as one that keeps its name", p+` {"a":{"name":"b"},"b":{}}`, p+`/a/name: "b": is the name of another device, too`),
		{"no network namespace", []string{`/linux/namespaces [{"type":"mount"},{"type":"uts"}]`, p + ` {"a":{}}`}, p + `: cannot be moved without a namespace of type "network"`, ""},
	} {
		r.run(t)
	}
}

func TestAsksForNothing(t *testing.T) {
	for _, e := range []string{
		"/linux/seccomp {}",
		`/linux/seccomp {"syscalls":[],"flags":[]}`,
		`/linux/mountLabel ""`,
		`/process/apparmorProfile ""`,
		`/process/selinuxLabel ""`,
		"/process/execCPUAffinity {}",
		"/mounts/1/uidMappings []",
		`/linux/resources/blockIO {"weight":0,"leafWeight":0,"weightDevice":[],"throttleReadBpsDevice":null}`,
		`/linux/resources/hugepageLimits [{"pageSize":"2MB","limit":0}]`,
		`/linux/resources/network {"classID":0,"priorities":[]}`,
		"/linux/resources/rdma {}",
		"/linux/resources/unified {}",
	} {
		good(e, e).run(t)
	}
	one("rules without an action", `/linux/seccomp {"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, "/linux/seccomp/defaultAction: must be specified").run(t)
}

func TestMountMappings(t *testing.T) {
	const (
		bind = `/mounts/- {"destination":"/x","source":"/y","options":["rbind"`
		ids  = `[{"containerID":0,"hostID":1000,"size":10}]`
		user = `/linux/namespaces/- {"type":"user","path":"/proc/1/ns/user"}`
	)
	for _, c := range []struct {
		name, edit string
		more       []string
		want       string // part of the error; "" for none
	}{
		{"both", bind + `],"uidMappings":` + ids + `,"gidMappings":` + ids + `}`, nil, ""},
		{"both with option", bind + `,"idmap"],"uidMappings":` + ids + `,"gidMappings":` + ids + `}`, nil, ""},
		{"option with user namespace", bind + `,"ridmap"]}`, []string{user}, ""},
		{"option alone", bind + `,"ridmap"]}`, nil, `/mounts/7/options/1: "ridmap": there are no mappings`},
		{"uids alone", bind + `],"uidMappings":` + ids + `}`, nil, "/mounts/7/gidMappings: must be specified with uidMappings"},
		{"gids alone", bind + `],"gidMappings":` + ids + `}`, nil, "/mounts/7/uidMappings: must be specified with gidMappings"},
		{"remount", bind + `,"remount","idmap"],"uidMappings":` + ids + `,"gidMappings":` + ids + `}`, nil, "/mounts/7: ids cannot be mapped"},
		{"no bind", `/mounts/- {"destination":"/x","type":"tmpfs","source":"y","options":["idmap"]}`, []string{user}, "/mounts/7: ids cannot be mapped"},
		{"empty range", bind + `],"uidMappings":` + ids + `,"gidMappings":[{"size":0}]}`, nil, "/mounts/7/gidMappings/0/size: 0: must be positive"},
		{"too far", bind + `],"uidMappings":[{"hostID":4294967290,"size":9}],"gidMappings":` + ids + `}`, nil, "/mounts/7/uidMappings/0/size: 9: range goes beyond"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Parse("config.json", patch(t, defaultConfig(t), append(c.more, c.edit)...))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, expected %q", err, c.want)
			}
		})
	}
}

func TestIntelRdt(t *testing.T) {
	const r = "/linux/intelRdt"
	for _, c := range []row{
		good("empty", r+" {}"),
		good("all", r+` {"closID":"gold","l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20","schemata":["L2:0=f"],"enableMonitoring":true}`),
		good("default class", r+` {"closID":"/"}`),
		one("two levels", r+` {"closID":"a/b"}`, r+`/closID: "a/b": cannot name a class of service; accepted: "/", or one name of a directory`),
		one("up", r+` {"closID":".."}`, r+`/closID: "..": cannot name a class of service; accepted: "/", or one name of a directory`),
		one("resctrl's own", r+` {"closID":"info"}`, r+`/closID: "info": cannot name a class of service; accepted: "/", or one name of a directory`),
		one("two lines", r+` {"l3CacheSchema":"L3:0=f\nMB:0=1"}`, r+`/l3CacheSchema: "L3:0=f\nMB:0=1": must not contain a newline`),
		one("two lines in one of many", r+` {"schemata":["L3:0=f","a\nb"]}`, r+`/schemata/1: "a\nb": must not contain a newline`),
		one("not bandwidth", r+` {"memBwSchema":"L3:0=f"}`, r+`/memBwSchema: "L3:0=f": not a schema of memory bandwidth; accepted: one that begins with "MB:"`),
	} {
		c.run(t)
	}
}
