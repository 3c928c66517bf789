package main

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"rt/cli"
)

func killCommand() *cli.Command {
	return &cli.Command{
		Name:      "kill",
		Usage:     "send a signal (default: TERM) to the init process of a container",
		ArgsUsage: "ID [SIGNAL]",
		StopAtArg: true,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Hidden: true, Usage: "(obsolete) a stopped container is no error"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 2); err != nil {
				return err
			}
			sig := syscall.SIGTERM
			if c.NArg() == 2 {
				var err error
				if sig, err = parseSignal(c.Args().Get(1)); err != nil {
					return err
				}
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			return container.Signal(sig, c.Bool("all"))
		},
	}
}

// parseSignal reads a signal's number, or its name with or without SIG in any
// case. Zero is a signal (kill(2): it only checks); negative numbers must not get
// as far as a system call that means a group of processes by them.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n >= 0 && n <= 64 {
			return syscall.Signal(n), nil
		}
	} else {
		name := strings.ToUpper(s)
		if sig := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); sig != 0 {
			return sig, nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q; accepted are 0 to 64 and names such as TERM or SIGTERM", s)
}
