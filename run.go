package main

import (
	"fmt"

	"rt/cli"
	"rt/libcontainer"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "create and start a container, and wait for it",
		ArgsUsage: "ID",
		Flags: append(createFlags(),
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait"},
			&cli.BoolFlag{Name: "keep", Usage: "do not delete the container when it has ended"},
			&cli.BoolFlag{Name: "no-subreaper", Usage: "do not reap orphans of the container's"},
		),
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			status := 0
			root, o, err := createOptions(c)
			if err == nil {
				o.Detach = c.Bool("detach")
				o.Keep = c.Bool("keep")
				o.NoSubreaper = c.Bool("no-subreaper")
				status, err = libcontainer.Run(root, c.Args().First(), o)
			}
			if err != nil {
				// With an error the status is 255 if execve failed, else 1.
				return &exitError{interrupted(err, max(status, 1)), fmt.Errorf("rt run failed: %w", err)}
			}
			return &exitError{code: status}
		},
	}
}
