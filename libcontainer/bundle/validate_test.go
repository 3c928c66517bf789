package bundle

import (
	"strings"
	"testing"
)

// row is a config made by edits of the default one (see patch), and what Parse
// must say of it: one of err and warning, or neither if it must be accepted.
type row struct {
	name    string
	edits   []string
	err     string // the whole text without "config.json: "
	warning string // the whole text of the only warning, likewise
}

func (r row) run(t *testing.T) {
	t.Helper()
	t.Run(r.name, func(t *testing.T) {
		t.Helper()
		data := patch(t, defaultConfig(t), r.edits...)
		spec, warnings, err := Parse("config.json", data)
		if r.err != "" {
			if err == nil {
				t.Fatalf("accepted, want %q\n%s", r.err, data)
			}
			if want := "config.json: " + r.err; err.Error() != want {
				t.Fatalf("got  %s\nwant %s", err, want)
			}
			if spec != nil {
				t.Error("a specification beside the error")
			}
			return
		}
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		want := ""
		if r.warning != "" {
			want = "config.json: " + r.warning
		}
		if got := strings.Join(warnings, "\n"); got != want {
			t.Fatalf("warnings %q, want %q", got, want)
		}
	})
}

func one(name, edit, err string) row { return row{name: name, edits: []string{edit}, err: err} }
func good(name string, edits ...string) row {
	return row{name: name, edits: edits}
}

const (
	absolute = "; accepted: a path that begins with /"
	semver   = "; accepted: a semantic version 1.x.y"
)

func TestTop(t *testing.T) {
	for _, r := range []row{
		good("default"),
		one("no version", `/ociVersion -`, "/ociVersion: must be specified"+semver),
		one("empty version", `/ociVersion ""`, "/ociVersion: must be specified"+semver),
		one("null version", `/ociVersion null`, "/ociVersion: must be specified"+semver),
		one("two parts", `/ociVersion "1.0"`, `/ociVersion: "1.0": not a semantic version`+semver),
		one("leading zero", `/ociVersion "1.02.0"`, `/ociVersion: "1.02.0": not a semantic version`+semver),
		one("leading v", `/ociVersion "v1.0.0"`, `/ociVersion: "v1.0.0": not a semantic version`+semver),
		one("prerelease with leading zero", `/ociVersion "1.0.0-01"`, `/ociVersion: "1.0.0-01": not a semantic version`+semver),
		one("empty prerelease", `/ociVersion "1.0.0-"`, `/ociVersion: "1.0.0-": not a semantic version`+semver),
		one("empty build", `/ociVersion "1.0.0+"`, `/ociVersion: "1.0.0+": not a semantic version`+semver),
		one("major 2", `/ociVersion "2.0.0"`, `/ociVersion: "2.0.0": unsupported version`+semver),
		one("major 0", `/ociVersion "0.1.0"`, `/ociVersion: "0.1.0": unsupported version`+semver),
		good("later minor", `/ociVersion "1.99.0"`),
		good("prerelease and build", `/ociVersion "1.0.2-rc.1-x+a.01"`),

		one("no root", `/root -`, "/root: root must be specified"),
		one("null root", `/root null`, "/root: root must be specified"),
		one("no root path", `/root {}`, "/root/path: must not be empty"),
		one("NUL in root path", `/root/path "a\u0000b"`, `/root/path: "a\x00b": contains a NUL byte`),
		good("no process", `/process -`),
		good("no linux", `/linux -`, `/hostname -`),
		good("no mounts", `/mounts -`),
		good("unknown members", `/x-unknown {"a":[1,{"b":null}]}`, `/process/what 1.5e300`),
		good("other systems", `/windows 1`, `/solaris "x"`, `/vm []`, `/process/user/username "bob"`),
		{"case variant", []string{`/Process {"args":1}`}, "", `/Process: unknown member is ignored, its name differs from "process" in case`},

		one("hostname without uts", `/linux/namespaces [{"type":"mount"}]`, `/hostname: "rt": cannot be set without a namespace of type "uts"`),
		one("domainname without uts", `/linux/namespaces [{"type":"mount"}]`, `/hostname: "rt": cannot be set without a namespace of type "uts"`),
		{"domainname alone", []string{`/linux/namespaces [{"type":"mount"}]`, `/hostname -`, `/domainname "d"`}, `/domainname: "d": cannot be set without a namespace of type "uts"`, ""},
		good("hostname with joined uts", `/linux/namespaces/3 {"type":"uts","path":"/run/x"}`),
		one("long hostname", `/hostname "`+strings.Repeat("h", 65)+`"`, `/hostname: "`+strings.Repeat("h", 65)+`": too long; accepted: up to 64 bytes`),
		good("longest hostname", `/hostname "`+strings.Repeat("h", 64)+`"`),

		good("annotations", `/annotations {"a":"","run.oci.x":"y"}`),
		one("empty annotation name", `/annotations {"":"x"}`, `/annotations/: "": an annotation's name must not be empty`),
		one("annotation no string", `/annotations {"a/b~c":1}`, `/annotations/a~1b~0c: 1: wrong type or range; accepted: a string`),
		one("annotation null", `/annotations {"a":null}`, `/annotations/a: null: wrong type or range; accepted: a string`),

		one("relative masked path", `/linux/maskedPaths ["proc/x"]`, `/linux/maskedPaths/0: "proc/x": not an absolute path`+absolute),
		one("empty readonly path", `/linux/readonlyPaths ["/a",""]`, `/linux/readonlyPaths/1: "": not an absolute path`+absolute),
		one("root masked", `/linux/maskedPaths ["/a/.."]`, `/linux/maskedPaths/0: "/a/..": cannot be the root itself, which has root.readonly`),
		one("NUL masked", `/linux/maskedPaths ["/a\u0000"]`, `/linux/maskedPaths/0: "/a\x00": contains a NUL byte`),
		good("duplicate masked paths", `/linux/maskedPaths ["/a","/a"]`),
		{"paths without mount namespace", []string{`/linux/namespaces [{"type":"uts"}]`},
			`/linux/maskedPaths: cannot be applied without a namespace of type "mount"; /linux/readonlyPaths: cannot be applied without a namespace of type "mount"`, ""},
		good("no paths without mount namespace", `/linux/namespaces [{"type":"uts"}]`, `/linux/maskedPaths []`, `/linux/readonlyPaths null`),

		one("propagation", `/linux/rootfsPropagation "pivate"`,
			`/linux/rootfsPropagation: "pivate": unknown propagation; accepted: "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"`),
		good("rslave", `/linux/rootfsPropagation "rslave"`),
		good("cgroups path", `/linux/cgroupsPath "../../a/b"`),
		one("NUL in cgroups path", `/linux/cgroupsPath "/\u0000"`, `/linux/cgroupsPath: "/\x00": contains a NUL byte`),
	} {
		r.run(t)
	}
}

func TestProcess(t *testing.T) {
	const ids = "; accepted: an integer from 0 to 4294967294"
	for _, r := range []row{
		one("no args", `/process/args -`, "/process/args: args must not be empty"),
		one("empty args", `/process/args []`, "/process/args: args must not be empty"),
		one("empty program", `/process/args [""]`, `/process/args/0: "": the program's name must not be empty`),
		good("empty argument", `/process/args ["a",""]`),
		one("null argument", `/process/args ["a",null]`, `/process/args/1: null: wrong type or range; accepted: a string`),
		one("NUL in argument", `/process/args ["a","b\u0000c"]`, `/process/args/1: "b\x00c": contains a NUL byte`),
		one("no cwd", `/process/cwd -`, "/process/cwd: Cwd property must not be empty"),
		one("relative cwd", `/process/cwd "tmp"`, `/process/cwd: "tmp": Cwd must be an absolute path`),
		one("env without =", `/process/env ["A=1","B"]`, `/process/env/1: "B": not a variable; accepted: NAME=VALUE`),
		one("env without name", `/process/env ["=x"]`, `/process/env/0: "=x": not a variable; accepted: NAME=VALUE`),
		good("env value empty, with =, twice", `/process/env ["A=","A=b=c"]`),
		one("long argument", `/process/args ["a","`+strings.Repeat("x", 131072)+`"]`, `/process/args/1: 131072 bytes; accepted: up to 131071`),
		good("longest argument", `/process/args ["a","`+strings.Repeat("x", 131071)+`"]`),

		one("uid -1", `/process/user/uid -1`, `/process/user/uid: -1: wrong type or range; accepted: an integer from 0 to 4294967295`),
		one("uid 2^32-1", `/process/user/uid 4294967295`, `/process/user/uid: 4294967295: no valid id`+ids),
		one("uid 2^32", `/process/user/uid 4294967296`, `/process/user/uid: 4294967296: wrong type or range; accepted: an integer from 0 to 4294967295`),
		one("uid string", `/process/user/uid "5"`, `/process/user/uid: "5": wrong type or range; accepted: an integer from 0 to 4294967295`),
		one("gid 2^32-1", `/process/user/gid 4294967295`, `/process/user/gid: 4294967295: no valid id`+ids),
		one("additional gid", `/process/user/additionalGids [1,4294967295]`, `/process/user/additionalGids/1: 4294967295: no valid id`+ids),
		one("umask", `/process/user/umask 512`, `/process/user/umask: 512: out of range; accepted: permission bits, 0 to 511 (0777)`),
		good("largest ids", `/process/user {"uid":4294967294,"gid":4294967294,"umask":511,"additionalGids":[0]}`),
		good("no user", `/process/user -`),

		one("console size", `/process/consoleSize {"height":65536,"width":1}`, `/process/consoleSize/height: 65536: out of range; accepted: an integer from 0 to 65535`),
		good("console size without terminal", `/process/terminal false`, `/process/consoleSize {"height":65536,"width":70000}`),
		one("negative console size", `/process/consoleSize {"height":1,"width":-1}`, `/process/consoleSize/width: -1: wrong type or range; accepted: an integer from 0 to 18446744073709551615`),

		{"unknown capability", []string{`/process/capabilities/bounding ["CAP_CHOWN","CAP_NEW"]`}, "", `/process/capabilities/bounding/1: "CAP_NEW": unknown capability is ignored`},
		{"lower case capability", []string{`/process/capabilities/effective ["cap_chown"]`}, "", `/process/capabilities/effective/0: "cap_chown": unknown capability is ignored`},
		{"ALL", []string{`/process/capabilities/permitted ["ALL"]`}, "", `/process/capabilities/permitted/0: "ALL": unknown capability is ignored`},
		{"ambient not inheritable", []string{`/process/capabilities/ambient ["CAP_KILL"]`}, "", `/process/capabilities/ambient/0: "CAP_KILL": ignored, it is not both permitted and inheritable`},
		good("ambient", `/process/capabilities/ambient ["CAP_KILL"]`, `/process/capabilities/inheritable ["CAP_KILL"]`),
		good("capabilities absent", `/process/capabilities null`),

		one("unknown rlimit", `/process/rlimits/0/type "RLIMIT_NOFILES"`,
			`/process/rlimits/0/type: "RLIMIT_NOFILES": unknown resource; accepted: "RLIMIT_NOFILE", "RLIMIT_NICE", "RLIMIT_CORE" and others, see rt features`),
		one("no rlimit type", `/process/rlimits [{"hard":1,"soft":1}]`,
			`/process/rlimits/0/type: "": unknown resource; accepted: "RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_RSS" and others, see rt features`),
		one("duplicate rlimit", `/process/rlimits/- {"type":"RLIMIT_NOFILE","hard":2,"soft":2}`, `/process/rlimits/1/type: "RLIMIT_NOFILE": resource is listed twice`),
		one("soft over hard", `/process/rlimits/0/soft 1025`, `/process/rlimits/0/soft: 1025: above the hard limit; accepted: up to 1024`),
		one("no hard", `/process/rlimits/0 {"type":"RLIMIT_CORE","soft":0}`, `/process/rlimits/0/hard: must be specified`),
		one("no soft", `/process/rlimits/0 {"type":"RLIMIT_CORE","hard":0}`, `/process/rlimits/0/soft: must be specified`),
		good("infinite", `/process/rlimits/0 {"type":"RLIMIT_CORE","hard":18446744073709551615,"soft":18446744073709551615}`),

		one("oom score", `/process/oomScoreAdj 1001`, `/process/oomScoreAdj: 1001: out of range; accepted: an integer from -1000 to 1000`),
		good("lowest oom score", `/process/oomScoreAdj -1000`),
	} {
		r.run(t)
	}
}

func TestNumbers(t *testing.T) {
	const pointer, want = `/linux/resources/memory/reservation`, ": wrong type or range; accepted: an integer from -9223372036854775808 to 9223372036854775807"
	for _, n := range []string{"1e2", "1.0", "1.5", "9223372036854775808", "18446744073709551616", "1e999", "-9223372036854775809"} {
		one(n, pointer+" "+n, pointer+": "+n+want).run(t)
	}
	for _, n := range []string{"-0", "0", "9007199254740993", "9223372036854775807"} {
		data := patch(t, defaultConfig(t), pointer+" "+n)
		spec, _, err := Parse("config.json", data)
		if err != nil {
			t.Fatal(err)
		}
		if got := number(*spec.Linux.Resources.Memory.Reservation); got != strings.TrimPrefix(n, "-") {
			t.Errorf("read %s as %s", n, got)
		}
	}
	good("unsigned -0", `/process/user/uid -0`).run(t)
	long := strings.Repeat("1", 4000)
	one("long number", pointer+" "+long, pointer+": "+long[:128]+want).run(t)
}

func TestHooks(t *testing.T) {
	for _, r := range []row{
		good("hooks", `/hooks {"prestart":[{"path":"/a","args":["a","b"],"env":["A=b"],"timeout":1}],"poststop":[]}`),
		one("relative", `/hooks {"poststop":[{"path":"/a"},{"path":"b"}]}`, `/hooks/poststop/1/path: "b": not an absolute path`+absolute),
		one("no path", `/hooks {"createRuntime":[{}]}`, `/hooks/createRuntime/0/path: must be specified`),
		one("timeout 0", `/hooks {"createContainer":[{"path":"/a","timeout":0}]}`, `/hooks/createContainer/0/timeout: 0: must be positive; accepted: seconds from 1 on, or no timeout`),
		one("timeout negative", `/hooks {"startContainer":[{"path":"/a","timeout":-5}]}`, `/hooks/startContainer/0/timeout: -5: must be positive; accepted: seconds from 1 on, or no timeout`),
		one("env", `/hooks {"poststart":[{"path":"/a","env":["x"]}]}`, `/hooks/poststart/0/env/0: "x": not a variable; accepted: NAME=VALUE`),
		one("null hook", `/hooks {"poststart":[null]}`, `/hooks/poststart/0: null: wrong type or range; accepted: an object`),
	} {
		r.run(t)
	}
}
