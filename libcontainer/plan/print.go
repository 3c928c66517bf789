package plan

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Line is one operation as people and tools read it.
type Line struct {
	Number int    // from 1, as in errors
	Verb   string // what is done
	Object string // to what
	Detail string // how; may be empty
	Origin string // JSON pointer into config.json, or "runtime"
}

// Line describes operation i (from 0).
func (p *Plan) Line(i int) Line {
	op := &p.Ops[i]
	l := Line{Number: i + 1, Verb: op.Kind.Info().Verb, Origin: op.Origin}
	d := func(n int) string { return op.Data[n].String }
	switch op.Kind {
	case KindRaise:
		l.Object, l.Detail = rlimitName(op.Num[0]), "hard="+limit(op.Num[1])
	case KindTasks:
		l.Object = p.Files[op.FD].Path
	case KindJoin:
		l.Object = namespaceName(op.Num[0])
		if op.FD >= 0 {
			l.Object += " " + p.Files[op.FD].Path
		}
		if op.Flags&FlagAgain != 0 {
			l.Detail = "if refused before"
		}
	case KindFork:
		l.Object = namespaceList(op.Num[0])
		if op.FD >= 0 {
			l.Detail = "in the cgroup"
		}
	case KindReceive:
		l.Object = strconv.Itoa(len(d(0))/4) + " descriptors"
	case KindAwait:
		switch op.Num[0] {
		case MsgMaps:
			l.Object = "id maps"
		case MsgNetwork:
			l.Object = "network devices"
		case MsgMounted:
			l.Object = "hooks prestart, createRuntime"
		case MsgReady:
			l.Object = "commit"
		}
	case KindUnshare:
		l.Object = namespaceList(op.Num[0])
	case KindLoopback:
		if op.Flags&FlagFirst != 0 {
			l.Detail = "by the first process"
		}
	case KindTimens:
		l.Object = "time, with offsets"
	case KindDumpable:
		l.Object = strconv.FormatUint(op.Num[0], 10)
	case KindPropagate:
		l.Object, l.Detail = d(0), propagationName(op.Num[0], op.Num[1])
	case KindClone:
		l.Object, l.Detail = d(0), fmt.Sprintf("source %d", op.Slot)
		if op.Num[0] == 1 {
			l.Detail += ", with all mounts below"
		}
		switch {
		case op.FD >= 0:
			l.Detail += ", by the parent"
			if ids := p.Files[op.FD].IDMap; ids != nil {
				l.Detail += ids.String()
			}
		case op.Num[1] == 1:
			l.Verb = "find"
		}
	case KindRoot:
		l.Object = d(0) + " -> (root)"
	case KindMount, KindMountOld:
		l.Object = d(0) + " -> " + d(3)
		o := op.Data[2].List
		if op.Kind == KindMountOld {
			o = strings.Split(d(2), ",")
		}
		l.Detail = join(attrNames(op), strings.Join(o, ","))
	case KindAttach:
		l.Object = p.source(op.Slot) + " -> " + d(0)
		l.Detail = attrNames(op)
	case KindRemount:
		l.Object = d(0)
		l.Detail = join(attrNames(op), strings.Join(op.Data[2].List, ","))
	case KindSetattr:
		l.Object, l.Detail = p.source(op.Slot), attrNames(op)
	case KindRootattr:
		l.Object, l.Detail = "(root)", attrNames(op)
	case KindNode:
		l.Object = d(0)
		l.Detail = fmt.Sprintf("%s mode=%#o uid=%d gid=%d", deviceName(op.Num[0], op.Num[1]), op.Num[0]&0o7777, op.Num[2], op.Num[3])
	case KindSymlink:
		l.Object = d(0) + " -> " + d(1)
		if op.Flags&FlagIfExists != 0 {
			l.Detail = "if that exists"
		}
	case KindPivot, KindMoveroot, KindChroot:
		l.Object = "(root)"
	case KindSysctl:
		l.Object, l.Detail = d(0), d(1)
	case KindHook:
		l.Object = d(0)
		l.Detail = hookName(op.Num[2]) + " #" + strconv.FormatUint(op.Num[3], 10)
		if op.Num[0] > 0 {
			l.Detail += ", timeout " + strconv.FormatUint(op.Num[0]/1000, 10) + " s"
		}
	case KindConsole:
		if op.Num[0] > 0 && op.Num[1] > 0 {
			l.Object = fmt.Sprintf("%dx%d", op.Num[0], op.Num[1])
		}
	case KindStdio:
		l.Object = fmt.Sprintf("owner %d", op.Num[0])
	case KindCwd:
		l.Object = d(0)
		switch {
		case op.Flags&FlagCreate != 0:
			l.Detail = "made if missing"
		case op.Flags&FlagAgain != 0:
			l.Detail = "if refused before"
		}
	case KindRlimit:
		l.Object, l.Detail = rlimitName(op.Num[0]), "soft="+limit(op.Num[1])+" hard="+limit(op.Num[2])
	case KindUmask:
		l.Object = fmt.Sprintf("%#o", op.Num[0])
	case KindBounding:
		l.Object = capText(op.Num[0])
	case KindGroups:
		var l2 []string
		for b := d(0); len(b) >= 4; b = b[4:] {
			l2 = append(l2, strconv.FormatUint(uint64(b[0])|uint64(b[1])<<8|uint64(b[2])<<16|uint64(b[3])<<24, 10))
		}
		l.Object = orNone(strings.Join(l2, ","))
		if op.Flags&FlagTry != 0 {
			l.Detail = "unless denied"
		}
	case KindIds:
		l.Object = fmt.Sprintf("uid %d gid %d", op.Num[0], op.Num[1])
	case KindCaps:
		l.Object = "effective " + capText(op.Num[0])
		l.Detail = "permitted " + capText(op.Num[1]) + ", inheritable " + capText(op.Num[2]) + ", ambient " + capText(op.Num[3])
	case KindLabel:
		l.Object = orNone(d(1)) + " -> " + d(0)
		if op.Num[0] == LabelOpen {
			l.Object, l.Detail = d(0), "opened for later"
		}
	case KindSeccomp:
		l.Object = strconv.Itoa(len(d(0))/8) + " instructions"
		if op.Num[1] == 1 {
			l.Detail = "loaded by exec"
		}
		if op.FD >= 0 {
			l.Detail = join(l.Detail, "listener sent")
		}
	case KindTune:
		l.Object, l.Detail = tuneLine(op)
	case KindExec:
		q := make([]string, len(op.Data[0].List))
		for i, a := range op.Data[0].List {
			q[i] = shellQuote(a)
		}
		l.Object = strings.Join(q, " ")
		l.Detail = strconv.Itoa(len(op.Data[1].List)) + " environment variables"
	default:
		l.Object = d(0)
	}
	return l
}

// String is the map as a printed plan shows it, with a comma before.
func (m *IDMap) String() string {
	s := ", ids mapped"
	if m.Recursive {
		s = ", ids mapped recursively"
	}
	if m.Path != "" {
		return s + " by " + m.Path
	}
	return s + " " + ranges(m.UID) + " groups " + ranges(m.GID)
}

// ranges are the lines of an id map, CONTAINER:HOST:SIZE.
func ranges(m []specs.LinuxIDMapping) string {
	var l []string
	for _, e := range m {
		l = append(l, fmt.Sprintf("%d:%d:%d", e.ContainerID, e.HostID, e.Size))
	}
	return strings.Join(l, "+")
}

// String is the line as an error names it: "mount tmpfs on /dev/shm".
func (l Line) String() string {
	s := l.Verb
	if l.Object != "" {
		s += " " + strings.Replace(l.Object, " -> ", " on ", 1)
	}
	return s
}

// WriteText writes the plan for people, an operation a line.
func (p *Plan) WriteText(w io.Writer) error {
	var b strings.Builder
	for i := range p.Ops {
		l := p.Line(i)
		what := l.Object
		if l.Detail != "" {
			what += "  " + l.Detail
		}
		fmt.Fprintf(&b, "%3d  %-10s %-60s  %s\n", l.Number, l.Verb, oneLine(what), l.Origin)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the plan as a JSON array, an operation a line, with the
// fields of Line.
func (p *Plan) WriteJSON(w io.Writer) error {
	b := []byte("[")
	for i := range p.Ops {
		l := p.Line(i)
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, "\n  {\"number\":"...)
		b = strconv.AppendInt(b, int64(l.Number), 10)
		for _, f := range [...][2]string{{"verb", l.Verb}, {"object", l.Object}, {"detail", l.Detail}, {"origin", l.Origin}} {
			b = append(b, ',', '"')
			b = append(b, f[0]...)
			b = append(b, '"', ':')
			b = quote(b, f[1])
		}
		b = append(b, '}')
	}
	b = append(b, "\n]\n"...)
	_, err := w.Write(b)
	return err
}

// source names what waits in a slot: the path it was cloned from, or the mount
// point of the file system made there.
func (p *Plan) source(slot int32) string {
	for i := range p.Ops {
		op := &p.Ops[i]
		if op.Slot != slot {
			continue
		}
		switch op.Kind {
		case KindClone:
			return op.Data[0].String
		case KindMount, KindMountOld:
			return op.Data[3].String
		}
	}
	return "?"
}

// oneLine keeps control characters of a config out of a terminal.
func oneLine(s string) string {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			q := strconv.QuoteToASCII(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

func shellQuote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n\"'\\$`|&;<>()*?[]{}#~!") {
		return s
	}
	return strconv.Quote(s)
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + " " + b
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func limit(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func rlimitName(n uint64) string {
	if n < uint64(len(rlimitNames)) {
		return rlimitNames[n]
	}
	return strconv.FormatUint(n, 10)
}

func hookName(n uint64) string {
	if n == HookStartContainer {
		return "startContainer"
	}
	return "createContainer"
}

func namespaceList(flags uint64) string {
	var l []string
	for i := range nsTypes {
		if flags&nsTypes[i].flag != 0 {
			l = append(l, string(nsTypes[i].name))
		}
	}
	if l == nil {
		return "process"
	}
	return strings.Join(l, ",")
}

func propagationName(flag, recursive uint64) string {
	for i := range propagationOptions {
		if p := &propagationOptions[i]; p.flag == flag {
			if recursive == 1 {
				return "r" + p.name
			}
			return p.name
		}
	}
	return ""
}

// attrNames are the mount options that an operation's attributes came from.
func attrNames(op *Op) string {
	var l []string
	add := func(set, clear uint64, prefix string) {
		for i := range attrOptions {
			a := &attrOptions[i]
			var on bool
			switch {
			case a.attr == unix.MOUNT_ATTR_RELATIME:
				on = !a.clear && clear&unix.MOUNT_ATTR__ATIME != 0 && set&unix.MOUNT_ATTR__ATIME == 0
			case a.attr&unix.MOUNT_ATTR__ATIME != 0:
				on = !a.clear && set&unix.MOUNT_ATTR__ATIME == a.attr
			case a.clear:
				on = clear&a.attr != 0
			default:
				on = set&a.attr != 0
			}
			if on {
				l = append(l, prefix+a.name)
			}
		}
	}
	add(op.Num[0], op.Num[1], "")
	add(op.Num[2], op.Num[3], "r")
	if op.Num[4] != 0 {
		l = append(l, propagationName(op.Num[4], op.Num[5]))
	}
	return strings.Join(l, ",")
}

func deviceName(mode, dev uint64) string {
	t := "c"
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		t = "b"
	case unix.S_IFIFO:
		return "p"
	}
	return fmt.Sprintf("%s %d:%d", t, unix.Major(dev), unix.Minor(dev))
}

// capText is a set of capabilities, short where it is all or nothing.
func capText(mask uint64) string {
	l := CapNames(mask)
	switch len(l) {
	case 0:
		return "none"
	case len(capNames):
		return "all"
	}
	for i := range l {
		l[i] = strings.ToLower(strings.TrimPrefix(l[i], "CAP_"))
	}
	return strings.Join(l, ",")
}
