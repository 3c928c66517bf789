package main

import (
	"fmt"
	"strings"

	"rt/cli"
	"rt/libcontainer"
)

func restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "make a container from a bundle and the images of a checkpoint",
		About:     "Needs CRIU (criu), 3.17 or newer. The container is confined as config.json has it: images of processes that were not are refused.",
		ArgsUsage: "ID",
		Flags: append(imageFlags("read the images from"),
			&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "`DIR` of the bundle (default: the current one)"},
			&cli.StringFlag{Name: "console-socket", Usage: "`PATH` of the AF_UNIX socket that receives the terminal"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait"},
			&cli.StringFlag{Name: "pid-file", Usage: "`FILE` to write the process's pid to"},
			&cli.BoolFlag{Name: "no-subreaper", Usage: "do not reap orphans of the container's"},
			&cli.BoolFlag{Name: "no-pivot", Usage: "taken for the sake of callers; CRIU enters the root file system in its own way"},
			&cli.BoolFlag{Name: "lazy-pages", Usage: "fetch the memory from a server of pages when it is needed"},
			&cli.StringFlag{Name: "lsm-profile", Usage: "another profile or label than that of the images, `TYPE:NAME` with the type apparmor or selinux"},
			&cli.StringFlag{Name: "lsm-mount-context", Usage: "another SELinux `LABEL` for mounts than that of the images"},
		),
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			status := 0
			root, o, err := restoreOptions(c)
			if err == nil {
				status, err = libcontainer.Restore(root, c.Args().First(), o)
			}
			if err != nil {
				return &exitError{interrupted(err, max(status, 1)), err}
			}
			return &exitError{code: status}
		},
	}
}

func restoreOptions(c *cli.Context) (root string, o libcontainer.RestoreOptions, err error) {
	if o.ImageOptions, err = imageOptions(c); err != nil {
		return "", o, err
	}
	o.LSMProfile, o.LSMMountContext = c.String("lsm-profile"), c.String("lsm-mount-context")
	if kind, name, _ := strings.Cut(o.LSMProfile, ":"); o.LSMProfile != "" && (kind != "apparmor" && kind != "selinux" || name == "") {
		return "", o, fmt.Errorf("--lsm-profile: %q is not of the form apparmor:PROFILE or selinux:LABEL", o.LSMProfile)
	}
	if root, o.CreateOptions, err = bundleOptions(c); err != nil {
		return "", o, err
	}
	o.Detach = c.Bool("detach")
	o.NoSubreaper = c.Bool("no-subreaper")
	return root, o, nil
}
