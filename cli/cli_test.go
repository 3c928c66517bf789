package cli

import (
	"slices"
	"testing"
	"time"
)

func flags() []Flag {
	return []Flag{
		&BoolFlag{Name: "bool", Aliases: []string{"b"}, Usage: "switch it on"},
		&StringFlag{Name: "string", Value: "x", Usage: "what to `SAY`"},
		&IntFlag{Name: "int", Usage: "`N` times"},
		&DurationFlag{Name: "every", Value: "5s", Usage: "how often"},
		&StringSliceFlag{Name: "word", Aliases: []string{"w"}, Usage: "one more `WORD`"},
		&Int64SliceFlag{Name: "number", Usage: "one more"},
		&BoolFlag{Name: "secret", Hidden: true, Usage: "not in the help"},
	}
}

func parse(t *testing.T, args ...string) (*Line, error) {
	t.Helper()
	return Parse(args, []Flag{&StringFlag{Name: "string", Usage: "hidden by that of do"}, &BoolFlag{Name: "all", Usage: "global"}}, func(name string) *Command {
		if name != "do" {
			return nil
		}
		return &Command{Name: "do", Usage: "do it", ArgsUsage: "THING", Flags: flags()}
	})
}

func TestValues(t *testing.T) {
	l, err := parse(t, "do")
	if err != nil || l.Bool("bool") || l.String("string") != "x" || l.Int("int") != 0 || l.Duration("every") != 5*time.Second ||
		l.StringSlice("word") != nil || l.Int64Slice("number") != nil || l.IsSet("string") || l.Bool("all") {
		t.Errorf("defaults: %v, %v", l, err)
	}
	l, err = parse(t, "do", "-b", "--string=", "-int", "-0x10", "--every", "1m", "-w", "a,b", "--word=c", "--number", "-7", "--number=8", "thing", "--all")
	if err != nil || !l.Bool("bool") || l.String("string") != "" || l.Int("int") != -16 || l.Duration("every") != time.Minute ||
		!slices.Equal(l.StringSlice("word"), []string{"a,b", "c"}) || !slices.Equal(l.Int64Slice("number"), []int64{-7, 8}) ||
		!l.IsSet("string") || !l.Bool("all") || l.Args().First() != "thing" || l.Args().Get(1) != "" || l.Args().Tail() != nil {
		t.Errorf("given: %v, %v", l, err)
	}
	// The last one counts, and a global flag is reached before the command only.
	if l, err = parse(t, "--string", "global", "do", "--int", "1", "--int=2", "-b", "-b=false"); err != nil || l.String("string") != "x" || l.Int("int") != 2 || l.Bool("bool") {
		t.Errorf("repeated: %v, %v", l, err)
	}
}

func TestBadValues(t *testing.T) {
	for arg, want := range map[string]string{
		"-b=maybe":                  `invalid boolean value "maybe" for -bool: parse error`,
		"--int=":                    `invalid value "" for flag -int: parse error`,
		"--int=9223372036854775808": `invalid value "9223372036854775808" for flag -int: parse error`,
		"--number=1,2":              `invalid value "1,2" for flag -number: parse error`,
		"--every=5":                 `invalid value "5" for flag -every: parse error`,
		"--every":                   "flag needs an argument: --every",
		"--":                        "",
		"---":                       "bad flag syntax: ---",
	} {
		l, err := parse(t, "do", arg)
		if got := errorText(err); got != want || l.Command == nil {
			t.Errorf("%s: %q, want %q", arg, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestHelp(t *testing.T) {
	c := &Command{Name: "do", Usage: "do it", About: "At once.\nOr later.", ArgsUsage: "THING", Flags: flags()}
	const want = `NAME:
   x do - do it

USAGE:
   x do [command options] THING

DESCRIPTION:
   At once.
   Or later.

OPTIONS:
   --bool, -b            switch it on
   --string SAY          what to SAY (default: x)
   --int N               N times
   --every VALUE         how often (default: 5s)
   --word WORD, -w WORD  one more WORD (may be repeated)
   --number VALUE        one more (may be repeated)
   --help, -h            show help
`
	if got := c.Help("x"); got != want {
		t.Errorf("got\n%s", got)
	}
	p := Program{Name: "x", Usage: "do things", Commands: []*Command{c}}
	const program = `NAME:
   x - do things

USAGE:
   x [global options] command [command options]

COMMANDS:
   do       do it
   help, h  show this, or the help of a command

GLOBAL OPTIONS:
   --version, -v  print the version
   --help, -h     show help
`
	if got := p.Help(); got != program {
		t.Errorf("got\n%s", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("do", "--int=1", "x")
	f.Add("--string", "--", "-b")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		l, err := parse(t, a, b, c)
		if err == nil && l.Command != nil {
			_, _ = l.Ordered(), l.IsSet("int")
		}
	})
}
