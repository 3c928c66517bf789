package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	"rt/cli"
	"rt/libcontainer"
	"rt/libcontainer/bundle"
)

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run one more process in a container",
		ArgsUsage: "ID COMMAND [ARGUMENTS], or --process FILE ID",
		StopAtArg: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "console-socket", Usage: "`PATH` of the AF_UNIX socket that receives the terminal"},
			&cli.StringFlag{Name: "pidfd-socket", Usage: "`PATH` of the AF_UNIX socket that receives the process's pidfd"},
			&cli.StringFlag{Name: "cwd", Usage: "`DIR` in the container to run in"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set one more variable, `NAME=VALUE`"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give it a terminal"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `UID[:GID]`"},
			&cli.Int64SliceFlag{Name: "additional-gids", Aliases: []string{"g"}, Usage: "one more group, `GID`"},
			&cli.StringFlag{Name: "process", Aliases: []string{"p"}, Usage: "`FILE` with the process as JSON; flags about it do not apply then"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "do not wait for it"},
			&cli.StringFlag{Name: "pid-file", Usage: "`FILE` to write its pid to"},
			&cli.StringFlag{Name: "process-label", Usage: "SELinux `LABEL`"},
			&cli.StringFlag{Name: "apparmor", Usage: "AppArmor `PROFILE`"},
			&cli.BoolFlag{Name: "no-new-privs", Usage: "set no_new_privs"},
			&cli.StringSliceFlag{Name: "cap", Aliases: []string{"c"}, Usage: "one more capability, `NAME`"},
			&cli.IntFlag{Name: "preserve-fds", Usage: "pass `N` more descriptors, from 3 on"},
			&cli.StringSliceFlag{Name: "cgroup", Usage: "run in the cgroup `[CONTROLLER[,CONTROLLER]:]PATH` below the container's"},
			&cli.BoolFlag{Name: "ignore-paused", Usage: "wait for a paused container instead of refusing it"},
		},
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, math.MaxInt); err != nil {
				return err
			}
			status := 0
			o, err := execOptions(c)
			if err == nil {
				var container *libcontainer.Container
				if container, err = load(c); err == nil {
					status, err = container.Exec(o)
				}
			}
			if err != nil {
				return &exitError{255, fmt.Errorf("exec failed: %w", err)}
			}
			return &exitError{code: status}
		},
	}
}

func execOptions(c *cli.Context) (o libcontainer.ExecOptions, err error) {
	o = libcontainer.ExecOptions{
		Args:          c.Args().Tail(),
		Env:           c.StringSlice("env"),
		Cwd:           c.String("cwd"),
		User:          c.String("user"),
		Terminal:      c.Bool("tty"),
		NoNewPrivs:    c.Bool("no-new-privs"),
		Apparmor:      c.String("apparmor"),
		ProcessLabel:  c.String("process-label"),
		Caps:          c.StringSlice("cap"),
		ConsoleSocket: c.String("console-socket"),
		PidfdSocket:   c.String("pidfd-socket"),
		PreserveFDs:   c.Int("preserve-fds"),
		Detach:        c.Bool("detach"),
		IgnorePaused:  c.Bool("ignore-paused"),
		Cgroup:        c.StringSlice("cgroup"),
		Warn:          warn,
	}
	if o.PreserveFDs < 0 {
		return o, fmt.Errorf("--preserve-fds: %d is negative", o.PreserveFDs)
	}
	if o.PidFile, err = absolute(c.String("pid-file")); err != nil {
		return o, err
	}
	if file := c.String("process"); file != "" {
		b, err := bundle.ReadDocument(file)
		if errors.Is(err, fs.ErrNotExist) {
			return o, err // runc's words
		}
		if err != nil {
			return o, fmt.Errorf("--process: %w", err)
		}
		var warnings []string
		o.Process, warnings, err = bundle.ParseProcess("process", b)
		if err != nil {
			return o, fmt.Errorf("read --process %q: %w", file, err)
		}
		if o.Process == nil {
			return o, fmt.Errorf("read --process %q: process property must not be empty", file)
		}
		for _, w := range warnings {
			warn(w)
		}
		return o, nil
	}
	if len(o.Args) == 0 {
		return o, errors.New("process args cannot be empty")
	}
	if c.IsSet("user") {
		// "" must not mean the container's user, which may be root.
		if _, _, err := bundle.ParseUser(o.User); err != nil {
			return o, err
		}
	}
	for _, gid := range c.Int64Slice("additional-gids") {
		// The last number means "no change" to the kernel (setresgid(2)).
		if gid < 0 || gid >= math.MaxUint32 {
			return o, fmt.Errorf("--additional-gids: bad gid: %d; accepted are 0 to %d", gid, uint32(math.MaxUint32-1))
		}
		o.AdditionalGids = append(o.AdditionalGids, uint32(gid))
	}
	return o, nil
}
