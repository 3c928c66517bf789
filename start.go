package main

import (
	"os"

	"rt/cli"
	"rt/libcontainer"
)

func startCommand() *cli.Command {
	return &cli.Command{
		Name:      "start",
		Usage:     "run the program of a created container",
		ArgsUsage: "ID",
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			return container.Start(libcontainer.StartOptions{NotifySocket: os.Getenv("NOTIFY_SOCKET"), Warn: warn})
		},
	}
}
