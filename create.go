package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"rt/cli"
	"rt/libcontainer"
)

func createCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create a container from a bundle, and wait for start to run its program",
		ArgsUsage: "ID",
		Flags:     createFlags(),
		Action: func(c *cli.Context) error {
			if err := checkArgs(c, 1, 1); err != nil {
				return err
			}
			root, o, err := createOptions(c)
			if err == nil {
				err = libcontainer.Create(root, c.Args().First(), o)
			}
			if err != nil {
				return &exitError{interrupted(err, 1), fmt.Errorf("rt create failed: %w", err)}
			}
			return nil
		},
	}
}

// interrupted is the exit code of a command that a signal has ended, and code for all other errors.
func interrupted(err error, code int) int {
	if i, ok := errors.AsType[*libcontainer.Interrupted](err); ok {
		return 128 + int(i.Signal)
	}
	return code
}

// createFlags are those that create and run share.
func createFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "bundle", Aliases: []string{"b"}, Usage: "`DIR` of the bundle (default: the current one)"},
		&cli.StringFlag{Name: "console-socket", Usage: "`PATH` of the AF_UNIX socket that receives the terminal"},
		&cli.StringFlag{Name: "pidfd-socket", Usage: "`PATH` of the AF_UNIX socket that receives the process's pidfd"},
		&cli.StringFlag{Name: "pid-file", Usage: "`FILE` to write the process's pid to"},
		&cli.BoolFlag{Name: "no-pivot", Usage: "move the root over / instead of pivot_root"},
		&cli.BoolFlag{Name: "no-new-keyring", Usage: "keep the caller's session keyring"},
		&cli.IntFlag{Name: "preserve-fds", Usage: "pass `N` more descriptors, from 3 on"},
	}
}

// createOptions reads the flags of create and run.
func createOptions(c *cli.Context) (root string, o libcontainer.CreateOptions, err error) {
	if root, o, err = bundleOptions(c); err != nil {
		return "", o, err
	}
	preserve := c.Int("preserve-fds")
	if preserve < 0 {
		return "", o, fmt.Errorf("--preserve-fds: %d is negative", preserve)
	}
	o.PidfdSocket = c.String("pidfd-socket")
	o.NoNewKeyring = c.Bool("no-new-keyring")
	o.PreserveFDs = preserve
	o.ListenFDs = listenFDs()
	o.NotifySocket = os.Getenv("NOTIFY_SOCKET")
	return root, o, nil
}

// bundleOptions reads the flags of all commands that make a container from a bundle, and makes a state directory
// in $XDG_RUNTIME_DIR ready.
func bundleOptions(c *cli.Context) (root string, o libcontainer.CreateOptions, err error) {
	rootless, err := parseRootless(c.String("rootless"))
	if err != nil {
		return "", o, err
	}
	pidFile, err := absolute(c.String("pid-file"))
	if err != nil {
		return "", o, err
	}
	root, err = stateRoot(c)
	if err != nil {
		return "", o, err
	}
	if err := makeDefaultRoot(c); err != nil {
		return "", o, err
	}
	return root, libcontainer.CreateOptions{
		Bundle:        c.String("bundle"),
		ConsoleSocket: c.String("console-socket"),
		PidFile:       pidFile,
		NoPivot:       c.Bool("no-pivot"),
		Rootless:      rootless,
		SystemdCgroup: c.Bool("systemd-cgroup"),
		CatchSignals:  true,
		Warn:          warn,
	}, nil
}

func parseRootless(s string) (libcontainer.Rootless, error) {
	if s == "" || strings.EqualFold(s, "auto") {
		return libcontainer.RootlessAuto, nil
	}
	yes, err := strconv.ParseBool(s)
	if err != nil {
		return 0, fmt.Errorf("--rootless: %w; accepted are true, false and auto", err)
	}
	if yes {
		return libcontainer.RootlessTrue, nil
	}
	return libcontainer.RootlessFalse, nil
}

// absolute is filepath.Abs, but for "", which stays.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

// makeDefaultRoot makes the state directory if it is in $XDG_RUNTIME_DIR, where
// only the sticky bit protects it from being cleaned up (XDG Base Directory
// Specification).
func makeDefaultRoot(c *cli.Context) error {
	if c.IsSet("root") {
		return nil
	}
	root, xdg := defaultRoot(os.Geteuid(), os.LookupEnv, inUserNamespace)
	if !xdg {
		return nil
	}
	err := os.MkdirAll(root, 0o700)
	if err == nil {
		err = os.Chmod(root, os.ModeSticky|0o700)
	}
	if err != nil {
		return fmt.Errorf("prepare the default --root: %w; set XDG_RUNTIME_DIR to a directory of yours, or give --root", err)
	}
	return nil
}

// listenFDs is the number of descriptors that socket activation passed to rt
// itself (sd_listen_fds(3)).
func listenFDs() int {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return 0
	}
	return n
}
