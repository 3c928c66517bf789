package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"rt/cli"
)

func psCommand() *cli.Command {
	return &cli.Command{
		Name:      "ps",
		Usage:     "list the processes of a container",
		ArgsUsage: "ID [ARGUMENTS OF ps]",
		StopAtArg: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "`FORMAT` of the output: table or json"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, math.MaxInt); err != nil {
				return err
			}
			format := c.String("format")
			if format != "table" && format != "json" {
				return fmt.Errorf("invalid format option %q; accepted are table and json", format)
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			pids, err := container.Processes()
			if err != nil {
				return err
			}
			var out []byte
			if format == "json" {
				out = pidsJSON(pids)
			} else if out, err = psTable(pids, c.Args().Tail()); err != nil {
				return err
			}
			_, err = os.Stdout.Write(out)
			return err
		},
	}
}

func pidsJSON(pids []int) []byte {
	if len(pids) == 0 {
		return []byte("null\n")
	}
	b := []byte{'['}
	for i, pid := range pids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(pid), 10)
	}
	return append(b, ']', '\n')
}

// psTable runs the host's ps and keeps the rows of pids.
func psTable(pids []int, args []string) ([]byte, error) {
	// go-runc passes its options as one word even if it has none.
	args = slices.DeleteFunc(args, func(s string) bool { return s == "" })
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	var stderr bytes.Buffer
	cmd := exec.Command("ps", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run ps %q: %w: %s", args, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return filterPS(string(out), pids)
}

// filterPS keeps the header of ps's output and the rows whose PID column is one
// of pids.
func filterPS(out string, pids []int) ([]byte, error) {
	lines := strings.Split(out, "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return nil, errors.New("filter the output of ps: it has no PID column")
	}
	b := append([]byte(lines[0]), '\n')
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) <= column {
			return nil, fmt.Errorf("filter the output of ps: no pid in %q", line)
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil {
			return nil, fmt.Errorf("filter the output of ps: no pid in %q: %w", line, err)
		}
		if slices.Contains(pids, pid) {
			b = append(append(b, line...), '\n')
		}
	}
	return b, nil
}
