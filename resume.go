package main

import "rt/cli"

func resumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "thaw the processes of a paused container",
		ArgsUsage: "ID",
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			return container.Resume()
		},
	}
}
