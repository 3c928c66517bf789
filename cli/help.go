package cli

import (
	"fmt"
	"strings"
)

// Program is what the help of the whole program tells.
type Program struct {
	Name     string
	Usage    string
	Commands []*Command
	Flags    []Flag
}

// Help is the help of the whole program.
func (p *Program) Help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "NAME:\n   %s - %s\n\nUSAGE:\n   %s [global options] command [command options]\n\nCOMMANDS:\n", p.Name, p.Usage, p.Name)
	rows := make([][2]string, 0, len(p.Commands)+1)
	for _, c := range p.Commands {
		rows = append(rows, [2]string{c.Name, c.Usage})
	}
	writeRows(&b, append(rows, [2]string{"help, h", "show this, or the help of a command"}))
	b.WriteString("\nGLOBAL OPTIONS:\n")
	writeRows(&b, append(flagRows(p.Flags), [2]string{"--version, -v", "print the version"}, helpRow))
	return b.String()
}

// Help is the help of one command of the program.
func (c *Command) Help(program string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "NAME:\n   %s %s - %s\n\nUSAGE:\n   %s\n", program, c.Name, c.Usage,
		strings.TrimSpace(program+" "+c.Name+" [command options] "+c.ArgsUsage))
	if c.About != "" {
		fmt.Fprintf(&b, "\nDESCRIPTION:\n   %s\n", strings.ReplaceAll(c.About, "\n", "\n   "))
	}
	b.WriteString("\nOPTIONS:\n")
	writeRows(&b, append(flagRows(c.Flags), helpRow))
	return b.String()
}

var helpRow = [2]string{"--help, -h", "show help"}

// flagRows are the columns of the help: how a flag is written, what it does.
func flagRows(flags []Flag) [][2]string {
	var rows [][2]string
	for _, f := range flags {
		d := f.definition()
		if d.Hidden {
			continue
		}
		value, usage := valueName(f, d.Usage)
		written := "--" + d.Name + value
		for _, a := range d.Aliases {
			written += ", -" + a + value
		}
		switch f.(type) {
		case *StringSliceFlag, *Int64SliceFlag:
			usage += " (may be repeated)"
		}
		if d.Value != "" {
			usage += " (default: " + d.Value + ")"
		}
		rows = append(rows, [2]string{written, usage})
	}
	return rows
}

// valueName returns the word between backquotes, as it follows the flag, and the
// usage without them.
func valueName(f Flag, usage string) (value, clean string) {
	before, rest, found := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(rest, "`")
	if found && closed {
		return " " + name, before + name + after
	}
	if _, isBool := f.(*BoolFlag); isBool {
		return "", usage
	}
	return " VALUE", usage
}

func writeRows(b *strings.Builder, rows [][2]string) {
	width := 0
	for _, r := range rows {
		width = max(width, len(r[0]))
	}
	for _, r := range rows {
		fmt.Fprintf(b, "   %-*s  %s\n", width, r[0], r[1])
	}
}
