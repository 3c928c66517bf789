package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"rt/cli"
	"rt/libcontainer"
)

func listCommand() *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the containers of a state directory",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "table", Usage: "`FORMAT` of the output: table or json"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only ids"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 0, 0); err != nil {
				return err
			}
			root, err := stateRoot(c)
			if err != nil {
				return err
			}
			states, damaged, err := libcontainer.List(root)
			// The default directory is made by the first create; one that is named must exist.
			if err != nil && (c.IsSet("root") || !errors.Is(err, fs.ErrNotExist)) {
				return err
			}
			for _, err := range damaged {
				fmt.Fprintln(descriptor(2), clean(err.Error()))
			}
			var b bytes.Buffer
			if c.Bool("quiet") {
				for _, s := range states {
					fmt.Fprintln(&b, s.ID)
				}
			} else {
				for _, s := range states {
					s.Owner = owner(filepath.Join(root, s.ID))
				}
				if err := writeList(&b, c.String("format"), states); err != nil {
					return err
				}
			}
			_, err = os.Stdout.Write(b.Bytes())
			return err
		},
	}
}

// owner is the name of the user that path belongs to, "#UID" if it has none, and
// "" if path is gone.
func owner(path string) string {
	info, err := os.Lstat(path)
	if err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10)
	u, err := user.LookupId(uid)
	if err != nil {
		return "#" + uid
	}
	return u.Username
}

func writeList(b *bytes.Buffer, format string, states []*libcontainer.State) error {
	switch format {
	case "table":
		w := tabwriter.NewWriter(b, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, s := range states {
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n",
				s.ID, s.Pid, s.Status, clean(s.Bundle), s.Created.Format(time.RFC3339Nano), s.Owner)
		}
		return w.Flush()
	case "json":
		e := jsontext.NewEncoder(b, jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))
		if len(states) == 0 {
			// What runc prints, and its callers decode.
			return e.WriteToken(jsontext.Null)
		}
		if err := e.WriteToken(jsontext.BeginArray); err != nil {
			return err
		}
		for _, s := range states {
			if err := writeState(e, s); err != nil {
				return err
			}
		}
		return e.WriteToken(jsontext.EndArray)
	}
	return fmt.Errorf("invalid format option %q; accepted are table and json", format)
}
