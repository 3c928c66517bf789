package libcontainer

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runc/libcontainer/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Bounds of the container's /etc/passwd, which is hostile: what is larger names
// no home.
const (
	maxPasswd     = 1 << 20
	maxPasswdLine = 4096
)

// passwdMayBeCovered says whether the mounts could put another /etc/passwd in the
// place of the root file system's own.
func passwdMayBeCovered(s *specs.Spec) bool {
	for i := range s.Mounts {
		switch d := path.Clean("/" + s.Mounts[i].Destination); {
		case d == "/proc", d == "/sys", d == "/dev",
			strings.HasPrefix(d, "/proc/"), strings.HasPrefix(d, "/sys/"), strings.HasPrefix(d, "/dev/"),
			d == "/etc/hosts", d == "/etc/hostname", d == "/etc/resolv.conf":
		default:
			return true
		}
	}
	// A createRuntime hook may mount into the root as well.
	h := s.Hooks
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 //nolint:staticcheck // prestart is deprecated, not gone
}

// lookupHomeAt is lookupHome for the root file system at a host path.
func lookupHomeAt(rootfs string, uid uint32) string {
	fd, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(fd)
	return lookupHome(fd, uid)
}

// lookupHome returns the home directory of uid in the /etc/passwd below the
// directory root, and "/" if there is none or it cannot be read safely.
func lookupHome(root int, uid uint32) string {
	fd, err := unix.Openat2(root, "etc/passwd", &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "/"
	}
	f := os.NewFile(uintptr(fd), "/etc/passwd")
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxPasswd {
		return "/"
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPasswd))
	if err != nil {
		return "/"
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); ; {
		if !lines.Scan() {
			if lines.Err() != nil {
				return "/"
			}
			break
		}
		if len(lines.Bytes()) > maxPasswdLine {
			return "/"
		}
	}
	found, err := user.ParsePasswdFilter(bytes.NewReader(data), func(u user.User) bool {
		return u.Uid == int(uid)
	})
	if err != nil || len(found) == 0 || !usableHome(found[0].Home) {
		return "/"
	}
	return found[0].Home
}

func usableHome(s string) bool {
	return s != "" && !strings.ContainsAny(s, "\x00\n")
}
