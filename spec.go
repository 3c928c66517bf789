package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rt/cli"
	"rt/libcontainer/bundle"
)

func specCommand() *cli.Command {
	return &cli.Command{
		Name:  "spec",
		Usage: "write a config.json to begin with",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "`DIR` to write it to (default: the current one)"},
			&cli.BoolFlag{Name: "rootless", Usage: "for a container of the current user, who is not root"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 0, 0); err != nil {
				return err
			}
			spec := bundle.Default(cgroup2())
			if c.Bool("rootless") {
				bundle.Rootless(spec, uint32(os.Geteuid()), uint32(os.Getegid()))
			}
			// The types are made for the omitempty of encoding/json: the newer
			// package would print their zeros.
			b, err := json.MarshalIndent(spec, "", "\t")
			if err != nil {
				return err
			}
			return writeNew(filepath.Join(c.String("bundle"), "config.json"), b)
		},
	}
}

// cgroup2 tells whether the host has nothing but cgroup v2 (cgroups(7)).
func cgroup2() bool {
	var s unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC
}

// writeNew writes b to path, which must not exist.
func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("File %s exists. Remove it first", filepath.Base(path))
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
