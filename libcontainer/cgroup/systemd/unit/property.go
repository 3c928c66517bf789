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

// Bool, Number, Text, Texts and Bytes make properties of the types b, t, s, as and ay.
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
