package plan

import (
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// SpecVersion is the version of the runtime specification that rt implements,
// and the one it puts into every state.
const SpecVersion = "1.3.0"

// StateJSON returns the state of a container as hooks read it, but for the
// pid's number: the caller inserts its decimal digits at byte offset.
func StateJSON(id, status, bundle string, annotations map[string]string) (text string, offset int) {
	b := append([]byte(nil), `{"ociVersion":"`+SpecVersion+`","id":`...)
	b = quote(b, id)
	b = append(b, `,"status":`...)
	b = quote(b, status)
	b = append(b, `,"pid":`...)
	offset = len(b)
	b = append(b, `,"bundle":`...)
	b = quote(b, bundle)
	if len(annotations) > 0 {
		b = append(b, `,"annotations":{`...)
		for i, k := range sortedKeys(annotations) {
			if i > 0 {
				b = append(b, ',')
			}
			b = quote(b, k)
			b = append(b, ':')
			b = quote(b, annotations[k])
		}
		b = append(b, '}')
	}
	b = append(b, '}')
	return string(b), offset
}

// ListenerJSON returns the container process state that goes with a seccomp
// listener, in pieces that the process's pid joins. initPid is the pid in the
// container's state, 0 if that is the process itself.
func ListenerJSON(id, status, bundle string, annotations map[string]string, metadata string, initPid int) []string {
	state, offset := StateJSON(id, status, bundle, annotations)
	end := []byte{}
	if metadata != "" {
		end = quote(append(end, `,"metadata":`...), metadata)
	}
	end = append(end, `,"state":`...)
	end = append(end, state[:offset]...)
	pieces := []string{`{"ociVersion":"` + SpecVersion + `","fds":["seccompFd"],"pid":`}
	if initPid != 0 {
		end = strconv.AppendInt(end, int64(initPid), 10)
	} else {
		pieces = append(pieces, string(end))
		end = nil
	}
	return append(pieces, string(end)+state[offset:]+"}")
}

// quote appends s as a JSON string; invalid UTF-8 becomes U+FFFD.
func quote(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

func sortedKeys(m map[string]string) []string {
	l := make([]string, 0, len(m))
	for k := range m {
		l = append(l, k)
	}
	sortStrings(l)
	return l
}

// escapePointer escapes a member name for a JSON pointer (RFC 6901).
func escapePointer(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}
