package main

import "rt/cli"

func pauseCommand() *cli.Command {
	return &cli.Command{
		Name:      "pause",
		Usage:     "freeze all processes of a container",
		ArgsUsage: "ID",
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			return container.Pause()
		},
	}
}
