// rt runs containers as the OCI runtime specification describes them, with the
// command line of runc.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"rt/cli"
	"rt/libcontainer"
)

// commit is the source's, set by the linker (-X main.commit=...).
var commit = "unknown"

func main() {
	os.Exit(rt(os.Args))
}

// rt is the whole program: it returns the exit code. Closed descriptors 0 to 2
// need no care here: the Go runtime has opened /dev/null on them.
func rt(args []string) int {
	logrus.SetOutput(descriptor(2))
	logrus.SetLevel(logrus.ErrorLevel)
	if secureExec() {
		return report(errors.New("refuse to run: rt is set-user-ID, set-group-ID or has file capabilities"))
	}
	l, err := cli.Parse(args[1:], globalFlags(), command)
	if err != nil {
		return report(incorrectUsage(l.Command, err))
	}
	switch {
	case l.Help && l.Command != nil:
		if l.NArg() > 0 {
			return report(noHelpTopic(l.Args().First(), 1))
		}
		fmt.Print(help(l.Command))
		return 0
	case l.Version:
		fmt.Printf("rt version %s\ncommit: %s\nspec: %s\ngo: %s\n",
			libcontainer.Version, commit, libcontainer.SpecVersion, runtime.Version())
		return 0
	case l.Help && (l.Name == "" || isHelp(l.Name)) || l.Name == "":
		fmt.Print(help(nil))
		return 0
	}
	if err := openLog(&l.Context); err != nil {
		return report(err)
	}
	switch {
	case l.Command != nil:
		return report(l.Command.Action(&l.Context))
	case isHelp(l.Name):
		return report(helpAbout(l.Args()))
	}
	return report(noHelpTopic(l.Name, 3))
}

// isHelp tells whether a command is the one that prints help.
func isHelp(name string) bool { return name == "help" || name == "h" }

// help is the help of a command, that of the whole program if it is nil.
func help(c *cli.Command) string {
	if c != nil {
		return c.Help("rt")
	}
	p := cli.Program{
		Name: "rt", Usage: "run containers as the OCI runtime specification describes them",
		Commands: commands(), Flags: globalFlags(),
	}
	return p.Help()
}

// helpAbout prints the help of the command that is named, of the program if none is.
func helpAbout(args cli.Args) error {
	var c *cli.Command
	if len(args) > 0 {
		if c = command(args.First()); c == nil {
			return noHelpTopic(args.First(), 3)
		}
	}
	fmt.Print(help(c))
	return nil
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "debug", Usage: "log debug messages, with the place that logs them"},
		&cli.StringFlag{Name: "log", Usage: "`FILE` to log to (default: standard error)"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log: text or json"},
		&cli.StringFlag{Name: "root", Usage: "`DIR` to keep the state of containers in (default: /run/rt, or $XDG_RUNTIME_DIR/rt if not root)"},
		&cli.BoolFlag{Name: "systemd-cgroup", Usage: "let systemd manage the cgroups; cgroupsPath is then \"slice:prefix:name\""},
		&cli.StringFlag{Name: "rootless", Value: "auto", Usage: "`WHEN` to pass over missing permission for cgroups: true, false or auto"},
	}
}

// command builds the command called name; nil if there is none.
func command(name string) *cli.Command {
	var c *cli.Command
	switch name {
	case "checkpoint":
		c = checkpointCommand()
	case "create":
		c = createCommand()
	case "delete":
		c = deleteCommand()
	case "events":
		c = eventsCommand()
	case "exec":
		c = execCommand()
	case "features":
		c = featuresCommand()
	case "kill":
		c = killCommand()
	case "list":
		c = listCommand()
	case "pause":
		c = pauseCommand()
	case "plan":
		c = planCommand()
	case "ps":
		c = psCommand()
	case "restore":
		c = restoreCommand()
	case "resume":
		c = resumeCommand()
	case "run":
		c = runCommand()
	case "spec":
		c = specCommand()
	case "start":
		c = startCommand()
	case "state":
		c = stateCommand()
	case "update":
		c = updateCommand()
	}
	return c
}

func commands() []*cli.Command {
	var all []*cli.Command
	for _, name := range []string{
		"checkpoint", "create", "delete", "events", "exec", "features", "kill", "list", "pause",
		"plan", "ps", "restore", "resume", "run", "spec", "start", "state", "update",
	} {
		all = append(all, command(name))
	}
	return all
}

// incorrectUsage prints the help that belongs to err, a flag that could not be
// parsed. Such errors are not logged: runc opens no log before them.
func incorrectUsage(command *cli.Command, err error) error {
	fmt.Print(help(command))
	fmt.Fprintf(descriptor(2), "Incorrect Usage: %s\n", clean(err.Error()))
	return &exitError{code: 1}
}

// checkArgs refuses less than min and more than max positional arguments.
func checkArgs(c *cli.Context, min, max int) error {
	n := c.NArg()
	var want string
	switch {
	case min == max && n != min:
		want = fmt.Sprintf("exactly %d", min)
	case n < min:
		want = fmt.Sprintf("a minimum of %d", min)
	case n > max:
		want = fmt.Sprintf("a maximum of %d", max)
	default:
		return nil
	}
	fmt.Print("Incorrect Usage.\n\n", help(c.Command))
	return fmt.Errorf("%s: %q requires %s argument(s)", os.Args[0], c.Command.Name, want)
}

// exitError is an error with an exit code, or just the exit code if err is nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func noHelpTopic(name string, code int) error {
	return &exitError{code, fmt.Errorf("No help topic for '%s'", name)}
}

// report logs err and returns the exit code. What goes to a log file is printed
// on standard error too, without dressing: engines show that to people.
func report(err error) int {
	if err == nil {
		return 0
	}
	code := 1
	if e, ok := err.(*exitError); ok {
		if code = e.code; e.err == nil {
			return code
		}
	}
	msg := clean(err.Error())
	logrus.Error(msg)
	if logrus.StandardLogger().Out != descriptor(2) {
		fmt.Fprintln(descriptor(2), msg)
	}
	return code
}

// warn logs what does not stop a command. It is seen with --log or --debug only:
// engines take all of standard error for the container's.
func warn(msg string) {
	logrus.Warn(clean(msg))
}

// openLog sets the log up from the global flags, before any command.
func openLog(c *cli.Context) error {
	if c.Bool("debug") {
		logrus.SetLevel(logrus.DebugLevel)
		logrus.SetReportCaller(true)
	}
	switch format := c.String("log-format"); format {
	case "text":
	case "json":
		logrus.SetFormatter(&logrus.JSONFormatter{DisableHTMLEscape: true})
	default:
		return fmt.Errorf("invalid log-format: %s", format)
	}
	file := c.String("log")
	if file == "" {
		return nil
	}
	// O_NONBLOCK: the open of a fifo without a reader must fail, not wait.
	const flags = syscall.O_WRONLY | syscall.O_APPEND | syscall.O_CREAT | syscall.O_NONBLOCK | syscall.O_NOCTTY | syscall.O_CLOEXEC
	for {
		fd, err := syscall.Open(file, flags, 0o644)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("open --log %q: %w", file, err)
		}
		logrus.SetOutput(descriptor(fd))
		if !c.Bool("debug") {
			logrus.SetLevel(logrus.InfoLevel)
		}
		return nil
	}
}

// descriptor is a log. Unlike an os.File it waits for no slow reader of a
// non-blocking pipe, a reader that is gone ends no process with SIGPIPE (as os
// does for descriptors 1 and 2) in the middle of a rollback, and a full disk fails no command.
type descriptor int

// Write never fails: what cannot be written is lost.
func (d descriptor) Write(p []byte) (int, error) {
	for b := p; len(b) > 0; {
		n, err := syscall.Write(int(d), b)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			break
		}
		b = b[n:]
	}
	return len(p), nil
}

// maxMessage is the longest text of a log record, in bytes.
const maxMessage = 4096

// clean makes s fit for one line of a log or terminal: what does not print
// (control bytes, marks that turn the direction of text, bad UTF-8) is escaped as
// in a Go string, and all over maxMessage is cut off.
func clean(s string) string {
	const dots = "..."
	b := make([]byte, 0, min(len(s), maxMessage)+len(dots))
	cut := 0 // where the dots still fit
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		piece := s[:n]
		if r == utf8.RuneError && n == 1 {
			piece = fmt.Sprintf(`\x%02x`, s[0])
		} else if !strconv.IsPrint(r) {
			piece = strings.Trim(strconv.QuoteRune(r), "'")
		}
		if len(b)+len(piece) > maxMessage {
			return string(append(b[:cut], dots...))
		}
		b = append(b, piece...)
		if len(b) <= maxMessage-len(dots) {
			cut = len(b)
		}
		s = s[n:]
	}
	return string(b)
}

// stateRoot returns the absolute path of the directory that holds the state of
// all containers.
func stateRoot(c *cli.Context) (string, error) {
	if !c.IsSet("root") {
		root, _ := defaultRoot(os.Geteuid(), os.LookupEnv, inUserNamespace)
		return root, nil
	}
	root, err := filepath.Abs(c.String("root"))
	if err != nil {
		return "", fmt.Errorf("resolve --root: %w", err)
	}
	if root == "/" {
		// runc's words.
		return "", errors.New("Option --root argument should not be set to /")
	}
	return root, nil
}

// load finds the container that the first positional argument names. It is not
// closed: its descriptors end with the command.
func load(c *cli.Context) (*libcontainer.Container, error) {
	root, err := stateRoot(c)
	if err != nil {
		return nil, err
	}
	return libcontainer.Load(root, c.Args().First())
}

// defaultRoot is the state directory when --root is not given, and whether it is
// in $XDG_RUNTIME_DIR. The rule is runc's: root of a user namespace counts as root
// if USER says so.
func defaultRoot(euid int, env func(string) (string, bool), inUserNamespace func() bool) (root string, xdg bool) {
	const system = "/run/rt"
	dir, _ := env("XDG_RUNTIME_DIR")
	if dir == "" {
		return system, false
	}
	if euid == 0 {
		if user, _ := env("USER"); user == "root" || !inUserNamespace() {
			return system, false
		}
	}
	return filepath.Join(dir, "rt"), true
}

// inUserNamespace tells whether uids are mapped (user_namespaces(7)). If it
// cannot be known they are not: the answer then is the one for most hosts.
func inUserNamespace() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	return strings.Join(strings.Fields(string(m)), " ") != "0 0 4294967295"
}

// secureExec tells whether rt has more privilege than its caller (AT_SECURE,
// getauxval(3)): nothing in it is made to withstand a hostile environment.
func secureExec() bool {
	const atSecure = 23
	auxv, err := unix.Auxv()
	if err != nil {
		return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid()
	}
	for _, v := range auxv {
		if v[0] == atSecure {
			return v[1] != 0
		}
	}
	return false
}
