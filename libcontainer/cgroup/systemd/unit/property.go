package unit

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Property is a property of a unit: its D-Bus signature, and its value as
// GVariant text (https://docs.gtk.org/glib/gvariant-text-format.html). The agent parses it.
type Property struct {
	Name, Type, Value string
}

// Bool, Number, Text, Texts, Bytes and Pairs make properties of the types b, t, s, as, ay and
// a(ss).
func Bool(name string, v bool) Property { return Property{name, "b", strconv.FormatBool(v)} }

func Number(name string, v uint64) Property {
	return Property{name, "t", strconv.FormatUint(v, 10)}
}

func Text(name, v string) Property { return Property{name, "s", quote(v)} }

func Texts(name string, v ...string) Property {
	q := make([]string, len(v))
	for i, s := range v {
		q[i] = quote(s)
	}
	return Property{name, "as", "[" + strings.Join(q, ", ") + "]"}
}

func Bytes(name string, v []byte) Property {
	q := make([]string, len(v))
	for i, b := range v {
		q[i] = strconv.Itoa(int(b))
	}
	return Property{name, "ay", "[" + strings.Join(q, ", ") + "]"}
}

func Pairs(name string, v [][2]string) Property {
	q := make([]string, len(v))
	for i, p := range v {
		q[i] = "(" + quote(p[0]) + ", " + quote(p[1]) + ")"
	}
	return Property{name, "a(ss)", "[" + strings.Join(q, ", ") + "]"}
}

// Pair is an entry of a value of the type a(ss) or a(st): Text or Number is the second.
type Pair struct {
	Name   string
	Text   string
	Number uint64
}

// ParsePairs parses a value of the type a(ss), or with numbers a(st), as GVariant text: such as
// [("/dev/sda", 5), ("/dev/sdb", uint64 6)]. The D-Bus library cannot.
func ParsePairs(text string, numbers bool) ([]Pair, error) {
	p := pairs{rest: text}
	p.word("[")
	var list []Pair
	for p.err == nil && !p.next("]") {
		if len(list) > 0 {
			p.word(",")
		}
		var e Pair
		p.word("(")
		e.Name = p.text()
		p.word(",")
		if numbers {
			e.Number = p.number()
		} else {
			e.Text = p.text()
		}
		p.word(")")
		list = append(list, e)
	}
	p.word("]")
	if p.err == nil && p.blank() != "" {
		p.fail("the end")
	}
	return list, p.err
}

// pairs is what is left to parse, and the first error.
type pairs struct {
	rest string
	err  error
}

func (p *pairs) blank() string {
	p.rest = strings.TrimLeft(p.rest, " \t\n")
	return p.rest
}

func (p *pairs) fail(due string) {
	if p.err == nil {
		p.err = fmt.Errorf("expected %s at %q", due, p.rest[:min(len(p.rest), 20)])
	}
}

func (p *pairs) next(word string) bool { return strings.HasPrefix(p.blank(), word) }

func (p *pairs) word(word string) {
	if p.err != nil || !p.next(word) {
		p.fail(word)
		return
	}
	p.rest = p.rest[len(word):]
}

func (p *pairs) text() string {
	if p.err != nil || !p.next(`"`) && !p.next("'") {
		p.fail("a string")
		return ""
	}
	quote := p.rest[0]
	rest, s := p.rest[1:], []rune{}
	for rest != "" && rest[0] != quote {
		r, _, after, err := strconv.UnquoteChar(rest, quote)
		if err != nil {
			p.fail("a string")
			return ""
		}
		s, rest = append(s, r), after
	}
	if rest == "" {
		p.fail("a string that ends")
		return ""
	}
	p.rest = rest[1:]
	return string(s)
}

func (p *pairs) number() uint64 {
	for _, t := range []string{"uint64", "@t"} {
		if rest, ok := strings.CutPrefix(p.blank(), t); ok {
			p.rest = rest
		}
	}
	n := strings.IndexFunc(p.blank(), func(r rune) bool { return r < '0' || r > '9' })
	if n < 0 {
		n = len(p.rest)
	}
	v, err := strconv.ParseUint(p.rest[:n], 10, 64)
	if p.err != nil || err != nil {
		p.fail("a number from 0 to 18446744073709551615")
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// quote writes a string as GVariant text; what is no printable ASCII becomes "?",
// as it only ever stands in descriptions.
func quote(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '?')
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// AnnotationPrefix begins the annotations that set properties.
const AnnotationPrefix = "org.systemd.property."

// accepted are the properties that annotations may set, with their types: what
// shapes the life and the limits of a unit (systemd.unit(5), systemd.kill(5),
// systemd.scope(5), systemd.resource-control(5)). What rt decides itself, which
// processes are in the unit and where it lies, is not among them. A function, for a
// variable would be made at every start of rt.
func accepted() map[string]string {
	return map[string]string{
		"Description": "s", "Documentation": "as", "CollectMode": "s", "DefaultDependencies": "b",
		"After": "as", "Before": "as", "Wants": "as", "Requires": "as", "Requisite": "as", "BindsTo": "as", "PartOf": "as", "Conflicts": "as",
		"TimeoutStopUSec": "t", "RuntimeMaxUSec": "t", "RuntimeRandomizedExtraUSec": "t", "OOMPolicy": "s",
		"KillMode": "s", "KillSignal": "i", "SendSIGKILL": "b", "SendSIGHUP": "b", "FinalKillSignal": "i",
		"CPUAccounting": "b", "MemoryAccounting": "b", "IOAccounting": "b", "BlockIOAccounting": "b", "TasksAccounting": "b", "IPAccounting": "b",
		"CPUWeight": "t", "StartupCPUWeight": "t", "CPUShares": "t", "CPUQuotaPerSecUSec": "t", "CPUQuotaPeriodUSec": "t",
		"AllowedCPUs": "ay", "StartupAllowedCPUs": "ay", "AllowedMemoryNodes": "ay", "StartupAllowedMemoryNodes": "ay",
		"MemoryMin": "t", "MemoryLow": "t", "MemoryHigh": "t", "MemoryMax": "t", "MemorySwapMax": "t", "MemoryZSwapMax": "t", "MemoryLimit": "t",
		"IOWeight": "t", "StartupIOWeight": "t", "BlockIOWeight": "t", "IODeviceWeight": "a(st)",
		"IOReadBandwidthMax": "a(st)", "IOWriteBandwidthMax": "a(st)", "IOReadIOPSMax": "a(st)", "IOWriteIOPSMax": "a(st)",
		"TasksMax": "t", "ManagedOOMSwap": "s", "ManagedOOMMemoryPressure": "s", "ManagedOOMMemoryPressureLimit": "u", "ManagedOOMPreference": "s",
	}
}

// FromAnnotations returns the properties that annotations set, sorted by name. A
// number for nameSec, in seconds, becomes nameUSec.
func FromAnnotations(annotations map[string]string) ([]Property, error) {
	var list []Property
	var accepts map[string]string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, AnnotationPrefix)
		if !ok {
			continue
		}
		if accepts == nil {
			accepts = accepted()
		}
		value := annotations[key]
		refuse := func(format string, args ...any) ([]Property, error) {
			return nil, fmt.Errorf("set systemd property (config.json /annotations/%s): %s", key, fmt.Sprintf(format, args...))
		}
		stem, seconds := strings.CutSuffix(name, "Sec")
		seconds = seconds && !strings.HasSuffix(name, "USec") && accepts[stem+"USec"] == "t"
		if seconds {
			usec, err := microseconds(value)
			if err != nil {
				return refuse("%q is no number of seconds: %v", value, err)
			}
			list = append(list, Number(stem+"USec", usec))
			continue
		}
		signature, ok := accepts[name]
		switch {
		case !ok:
			return refuse("the property %q is not accepted; accepted are %s", name, strings.Join(slices.Sorted(maps.Keys(accepts)), ", "))
		case len(value) > 4096:
			return refuse("a value longer than 4096 bytes")
		}
		list = append(list, Property{name, signature, value})
	}
	return list, nil
}

// microseconds reads a number of seconds, perhaps with a GVariant type before it.
func microseconds(text string) (uint64, error) {
	if t, v, ok := strings.Cut(text, " "); ok {
		switch t {
		case "int16", "uint16", "int32", "uint32", "int64", "uint64", "double", "@n", "@q", "@i", "@u", "@x", "@t", "@d":
			text = strings.TrimSpace(v)
		}
	}
	const million = 1000000
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		if n > math.MaxUint64/million {
			return 0, strconv.ErrRange
		}
		return n * million, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err == nil && !(f >= 0 && f < 1e12) {
		err = strconv.ErrRange
	}
	return uint64(f * million), err
}
