package main

import (
	"rt/cli"
	"rt/libcontainer"
)

func deleteCommand() *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete a container and all that create made for it",
		ArgsUsage: "ID",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "kill it first if it runs; one that does not exist is no error"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			root, err := stateRoot(c)
			if err != nil {
				return err
			}
			return libcontainer.Delete(root, c.Args().First(), libcontainer.DeleteOptions{Force: c.Bool("force"), Warn: warn})
		},
	}
}
