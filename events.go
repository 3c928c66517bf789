package main

import (
	"encoding/json"
	"errors"
	"os"

	"rt/cli"
	"rt/libcontainer"
)

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "print what a container uses, and when it has no memory left, as lines of JSON",
		ArgsUsage: "ID",
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "interval", Value: "5s", Usage: "`TIME` from one report to the next"},
			&cli.BoolFlag{Name: "stats", Usage: "print what it uses now, and end"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			interval := c.Duration("interval")
			if interval <= 0 {
				return errors.New("duration interval must be greater than 0")
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			if c.Bool("stats") {
				s, err := container.Stats()
				if err != nil {
					return err
				}
				return printEvent(libcontainer.Event{Type: "stats", ID: container.ID(), Data: s})
			}
			return container.Events(interval, printEvent)
		},
	}
}

func printEvent(e libcontainer.Event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(b, '\n'))
	return err
}
