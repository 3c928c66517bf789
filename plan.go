package main

import (
	"bufio"
	"fmt"
	"os"

	"rt/cli"
	"rt/libcontainer"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "print the operations that create and start would carry out for a bundle",
		About:     "Nothing is created. Any user may look at any bundle that he can read.\nWarnings go to standard error.",
		ArgsUsage: "BUNDLE",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Value: "text", Usage: "`FORMAT` of the output: text or json"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			format := c.String("format")
			if format != "text" && format != "json" {
				return fmt.Errorf("invalid format option %q; accepted are text and json", format)
			}
			p, warnings, err := libcontainer.Plan(c.Args().First(), libcontainer.CreateOptions{SystemdCgroup: c.Bool("systemd-cgroup")})
			if err != nil {
				return err
			}
			for _, w := range warnings {
				fmt.Fprintf(descriptor(2), "warning: %s\n", clean(w))
			}
			out := bufio.NewWriter(os.Stdout)
			if format == "json" {
				err = p.WriteJSON(out)
			} else {
				err = p.WriteText(out)
			}
			if err != nil {
				return err
			}
			return out.Flush()
		},
	}
}
