// Package cli is rt's command line: which flags and commands there are is the
// caller's, how they are written is runc's. Long names take one dash or two and
// "=" or a separate word; short flags are not bundled; global flags are taken
// behind the command too, and flags behind the first positional argument unless
// the command says otherwise.
//
// It is ours, and not a library's, because every command pays for it: start-up with
// urfave/cli took 0.4 ms longer, a quarter of all that `rt state` takes.
package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Command is one command of a program.
type Command struct {
	Name      string
	Usage     string // one line, without a full stop
	About     string // more lines for the help; "" for none
	ArgsUsage string // the positional arguments, for the help
	// StopAtArg ends the flags at the first positional argument: what follows are
	// words for another program, or a signal.
	StopAtArg bool
	Flags     []Flag
	Action    func(*Context) error
}

// Flag is one of the flag types below. In its usage a word between backquotes
// names its value.
type Flag interface {
	definition() *definition
	// parse returns the value of the flag, given the one that it has already (nil:
	// none), as a repeatable flag adds to it.
	parse(before any, text string) (any, error)
}

type definition struct {
	Name    string
	Aliases []string // one letter each
	Value   string   // the default, as the user would write it
	Usage   string
	Hidden  bool // from the help
}

// The flag types. A flag that is not given has its Value; the zero value of
// its type if that is empty.
type (
	BoolFlag        definition // "--name" alone is true; a value must follow "="
	StringFlag      definition
	IntFlag         definition
	DurationFlag    definition // such as 5s
	StringSliceFlag definition // repeatable; commas do not separate
	Int64SliceFlag  definition // repeatable
)

func (f *BoolFlag) definition() *definition        { return (*definition)(f) }
func (f *StringFlag) definition() *definition      { return (*definition)(f) }
func (f *IntFlag) definition() *definition         { return (*definition)(f) }
func (f *DurationFlag) definition() *definition    { return (*definition)(f) }
func (f *StringSliceFlag) definition() *definition { return (*definition)(f) }
func (f *Int64SliceFlag) definition() *definition  { return (*definition)(f) }

func (f *BoolFlag) parse(_ any, text string) (any, error) {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return nil, fmt.Errorf("invalid boolean value %q for -%s: parse error", text, f.Name)
	}
	return b, nil
}

func (f *StringFlag) parse(_ any, text string) (any, error) { return text, nil }

func (f *IntFlag) parse(_ any, text string) (any, error) {
	n, err := strconv.ParseInt(text, 0, strconv.IntSize)
	if err != nil {
		return nil, f.definition().invalid(text)
	}
	return int(n), nil
}

func (f *DurationFlag) parse(_ any, text string) (any, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, f.definition().invalid(text)
	}
	return d, nil
}

func (f *StringSliceFlag) parse(before any, text string) (any, error) {
	list, _ := before.([]string)
	return append(list, text), nil
}

func (f *Int64SliceFlag) parse(before any, text string) (any, error) {
	list, _ := before.([]int64)
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		return nil, f.definition().invalid(text)
	}
	return append(list, n), nil
}

func (d *definition) invalid(text string) error {
	return fmt.Errorf("invalid value %q for flag -%s: parse error", text, d.Name)
}

// Names returns the names of a flag, the long one first; Usage what it does.
func Names(f Flag) []string { return append([]string{f.definition().Name}, f.definition().Aliases...) }
func Usage(f Flag) string   { return f.definition().Usage }

// setting is a flag that was given.
type setting struct {
	flag  Flag
	value any
}

// Context is what an Action gets: the command line, taken apart.
type Context struct {
	Command  *Command // nil for the program without a command
	global   []Flag
	settings []setting
	args     Args
}

// Args are the positional arguments.
type Args []string

// First returns the first one, "" if there is none.
func (a Args) First() string { return a.Get(0) }

// Get returns the one at index i, "" if there is none.
func (a Args) Get(i int) string {
	if i < len(a) {
		return a[i]
	}
	return ""
}

// Tail returns all but the first.
func (a Args) Tail() []string {
	if len(a) < 2 {
		return nil
	}
	return a[1:]
}

// Args returns the positional arguments, NArg their number.
func (c *Context) Args() Args { return c.args }
func (c *Context) NArg() int  { return len(c.args) }

// IsSet tells whether a flag was given. As everywhere a flag of the command hides
// a global one of the same name.
func (c *Context) IsSet(name string) bool { return c.setting(c.flag(name)) != nil }

// The values of flags by their names. A name that no flag has, or none of that
// type, is a mistake of the program, and panics.
func (c *Context) Bool(name string) bool              { return value[bool](c, name) }
func (c *Context) String(name string) string          { return value[string](c, name) }
func (c *Context) Int(name string) int                { return value[int](c, name) }
func (c *Context) Duration(name string) time.Duration { return value[time.Duration](c, name) }
func (c *Context) StringSlice(name string) []string   { return value[[]string](c, name) }
func (c *Context) Int64Slice(name string) []int64     { return value[[]int64](c, name) }

func value[T any](c *Context, name string) T {
	f := c.flag(name)
	if s := c.setting(f); s != nil {
		return s.value.(T)
	}
	text := f.definition().Value
	if text == "" {
		var zero T
		return zero
	}
	v, err := f.parse(nil, text)
	if err != nil {
		panic(err)
	}
	return v.(T)
}

func (c *Context) flag(name string) Flag {
	f := c.lookup(name)
	if f == nil {
		panic("no flag " + name)
	}
	return f
}

func (c *Context) lookup(name string) Flag {
	if c.Command != nil {
		if f := find(c.Command.Flags, name); f != nil {
			return f
		}
	}
	return find(c.global, name)
}

func find(flags []Flag, name string) Flag {
	for _, f := range flags {
		d := f.definition()
		if d.Name == name {
			return f
		}
		for _, a := range d.Aliases {
			if a == name {
				return f
			}
		}
	}
	return nil
}

func (c *Context) setting(f Flag) *setting {
	for i := range c.settings {
		if c.settings[i].flag == f {
			return &c.settings[i]
		}
	}
	return nil
}

func (c *Context) set(f Flag, text string) error {
	s := c.setting(f)
	if s == nil {
		c.settings = append(c.settings, setting{flag: f})
		s = &c.settings[len(c.settings)-1]
	}
	v, err := f.parse(s.value, text)
	if err != nil {
		return err
	}
	s.value = v
	return nil
}

// Line is a command line as Parse has understood it.
type Line struct {
	Context
	Name    string // of the command, perhaps one that does not exist; "" if none is named
	Help    bool   // -h or --help was given
	Version bool   // -v or --version was given before a command
}

// Ordered is the line put in order, each flag by its long name: for tests.
func (l *Line) Ordered() string {
	var b strings.Builder
	write := func(own bool) {
		for _, s := range l.settings {
			if (l.Command != nil && slices.Contains(l.Command.Flags, s.flag)) == own {
				fmt.Fprintf(&b, " --%s=%v", s.flag.definition().Name, s.value)
			}
		}
	}
	write(false)
	if l.Name != "" {
		b.WriteString(" " + l.Name)
		write(true)
		b.WriteString(" --")
	}
	for _, a := range l.args {
		b.WriteString(" " + a)
	}
	return b.String()
}

// Parse takes args apart, without the program's name, and finds the command by its
// name; nil is one that does not exist, and all that follows it is taken as it
// is. On an error the line tells how far Parse has come.
func Parse(args []string, global []Flag, command func(name string) *Command) (*Line, error) {
	l := &Line{Context: Context{global: global}}
	plain := false // no flags any more
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" && !plain {
			plain = true
			continue
		}
		if !plain && len(arg) > 1 && arg[0] == '-' {
			n, err := l.option(args[i:])
			if err != nil {
				return l, err
			}
			i += n
			continue
		}
		if l.Name == "" {
			l.Name, plain = arg, false
			if l.Command = command(arg); l.Command == nil {
				l.args = args[i+1:]
				break
			}
			continue
		}
		l.args = append(l.args, arg)
		if l.Command.StopAtArg {
			rest := args[i+1:]
			if len(rest) > 0 && rest[0] == "--" {
				rest = rest[1:]
			}
			l.args = append(l.args, rest...)
			break
		}
	}
	return l, nil
}

// option takes the flag at the head of args, and returns how many words its value
// takes beside.
func (l *Line) option(args []string) (int, error) {
	name, text, hasValue := strings.Cut(strings.TrimPrefix(args[0][1:], "-"), "=")
	switch {
	case name == "" || name[0] == '-':
		return 0, fmt.Errorf("bad flag syntax: %s", args[0])
	case name == "help" || name == "h":
		l.Help = true
		return 0, nil
	case l.Name == "" && (name == "version" || name == "v"):
		l.Version = true
		return 0, nil
	}
	f := l.lookup(name)
	if f == nil {
		return 0, fmt.Errorf("flag provided but not defined: -%s", name)
	}
	used := 0
	if !hasValue {
		if _, isBool := f.(*BoolFlag); isBool {
			text = "true"
		} else if len(args) == 1 {
			return 0, fmt.Errorf("flag needs an argument: %s", args[0])
		} else {
			text, used = args[1], 1
		}
	}
	return used, l.set(f, text)
}
