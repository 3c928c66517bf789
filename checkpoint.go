package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"rt/cli"
	"rt/libcontainer"
)

func checkpointCommand() *cli.Command {
	return &cli.Command{
		Name:      "checkpoint",
		Usage:     "write the processes of a container to image files, and delete it",
		About:     "Needs CRIU (criu), 3.17 or newer. restore makes the container again.",
		ArgsUsage: "ID",
		Flags: append(imageFlags("write the images to"),
			&cli.StringFlag{Name: "parent-path", Usage: "`DIR` of an earlier pre-dump, relative to --image-path"},
			&cli.BoolFlag{Name: "leave-running", Usage: "let the container go on"},
			&cli.BoolFlag{Name: "tcp-skip-in-flight", Usage: "pass over TCP connections that are not established yet"},
			&cli.BoolFlag{Name: "link-remap", Usage: "allow open files that have been removed"},
			&cli.BoolFlag{Name: "lazy-pages", Usage: "leave the memory to a server of pages, which this then is"},
			&cli.IntFlag{Name: "status-fd", Value: "-1", Usage: "write a zero byte to descriptor `N` when that server is ready"},
			&cli.StringFlag{Name: "page-server", Usage: "send the memory to the server at `ADDRESS:PORT`"},
			&cli.BoolFlag{Name: "pre-dump", Usage: "write only the memory, and let the container go on"},
		),
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			o, err := checkpointOptions(c)
			if err != nil {
				return err
			}
			container, err := load(c)
			if err != nil {
				return err
			}
			if err := container.Checkpoint(o); err != nil {
				return &exitError{interrupted(err, 1), err}
			}
			return nil
		},
	}
}

// imageFlags are those that checkpoint and restore share; use says what for.
func imageFlags(use string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "image-path", Usage: "`DIR` to " + use + " (default: ./checkpoint)"},
		&cli.StringFlag{Name: "work-path", Usage: "`DIR` for logs (default: that of the images)"},
		&cli.BoolFlag{Name: "tcp-established", Usage: "allow open TCP connections"},
		&cli.BoolFlag{Name: "ext-unix-sk", Usage: "allow sockets whose peers are outside of the container"},
		&cli.BoolFlag{Name: "shell-job", Usage: "allow processes of a session that began outside"},
		&cli.BoolFlag{Name: "file-locks", Usage: "allow file locks"},
		&cli.StringFlag{Name: "manage-cgroups-mode", Usage: "what to do with cgroups below the container's: `MODE` is soft, full, strict or ignore (default: soft)"},
		&cli.StringSliceFlag{Name: "empty-ns", Usage: "leave the content of the namespace of `TYPE` (network) to others"},
		&cli.BoolFlag{Name: "auto-dedup", Usage: "free the memory in the images of a pre-dump that newer ones replace"},
	}
}

func imageOptions(c *cli.Context) (o libcontainer.ImageOptions, err error) {
	image := c.String("image-path")
	if image == "" {
		image = "checkpoint"
	}
	o = libcontainer.ImageOptions{
		TCPEstablished: c.Bool("tcp-established"),
		ExtUnixSk:      c.Bool("ext-unix-sk"),
		ShellJob:       c.Bool("shell-job"),
		FileLocks:      c.Bool("file-locks"),
		CgroupsMode:    c.String("manage-cgroups-mode"),
		AutoDedup:      c.Bool("auto-dedup"),
		LazyPages:      c.Bool("lazy-pages"),
	}
	if o.ImagePath, err = filepath.Abs(image); err != nil {
		return o, err
	}
	if o.WorkPath, err = absolute(c.String("work-path")); err != nil {
		return o, err
	}
	for _, t := range c.StringSlice("empty-ns") {
		if t != "network" {
			return o, fmt.Errorf("--empty-ns: namespace %q is not supported; accepted is network", t)
		}
		o.EmptyNetwork = true
	}
	return o, nil
}

func checkpointOptions(c *cli.Context) (o libcontainer.CheckpointOptions, err error) {
	o = libcontainer.CheckpointOptions{
		ParentPath:      c.String("parent-path"),
		LeaveRunning:    c.Bool("leave-running"),
		PreDump:         c.Bool("pre-dump"),
		TCPSkipInFlight: c.Bool("tcp-skip-in-flight"),
		LinkRemap:       c.Bool("link-remap"),
		PageServer:      c.String("page-server"),
		StatusFD:        c.Int("status-fd"),
		CatchSignals:    true,
		Warn:            warn,
	}
	if o.ImageOptions, err = imageOptions(c); err != nil {
		return o, err
	}
	if filepath.IsAbs(o.ParentPath) {
		return o, fmt.Errorf("--parent-path: %q is absolute; it must be relative to --image-path", o.ParentPath)
	}
	if o.ParentPath != "" {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(o.ImagePath, o.ParentPath), &st); err != nil {
			return o, fmt.Errorf("--parent-path: %q below --image-path: %w", o.ParentPath, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return o, fmt.Errorf("--parent-path: %q is not a directory", o.ParentPath)
		}
	}
	if o.PreDump && o.LazyPages {
		return o, errors.New("--pre-dump and --lazy-pages exclude each other")
	}
	if o.StatusFD != -1 {
		flags, err := unix.FcntlInt(uintptr(o.StatusFD), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_ACCMODE == unix.O_RDONLY {
			err = errors.New("it is not writable")
		}
		if err != nil {
			return o, fmt.Errorf("--status-fd: descriptor %d: %w", o.StatusFD, err)
		}
	}
	return o, nil
}
