package main

import (
	"bytes"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"rt/cli"
	"rt/libcontainer"
)

func stateCommand() *cli.Command {
	return &cli.Command{
		Name:      "state",
		Usage:     "print the state of a container as JSON",
		ArgsUsage: "ID",
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			s, err := container.State()
			if err != nil {
				return err
			}
			var b bytes.Buffer
			e := jsontext.NewEncoder(&b, jsontext.WithIndent("  "), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
			if err := writeState(e, s); err != nil {
				return err
			}
			// runc ends it without a newline.
			_, err = os.Stdout.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
			return err
		},
	}
}

// writeState writes s member by member: the first use of a type by the json
// package costs more than all the rest of the command.
func writeState(e *jsontext.Encoder, s *libcontainer.State) error {
	var err error
	write := func(tokens ...jsontext.Token) {
		for _, t := range tokens {
			if err == nil {
				err = e.WriteToken(t)
			}
		}
	}
	str := jsontext.String
	write(jsontext.BeginObject,
		str("ociVersion"), str(s.Version),
		str("id"), str(s.ID),
		str("pid"), jsontext.Int(int64(s.Pid)),
		str("status"), str(string(s.Status)),
		str("bundle"), str(s.Bundle),
		str("rootfs"), str(s.Rootfs),
		str("created"), str(s.Created.Format(time.RFC3339Nano)))
	if len(s.Annotations) > 0 {
		write(str("annotations"), jsontext.BeginObject)
		for _, k := range slices.Sorted(maps.Keys(s.Annotations)) {
			write(str(k), str(s.Annotations[k]))
		}
		write(jsontext.EndObject)
	}
	write(str("owner"), str(s.Owner), jsontext.EndObject)
	return err
}
