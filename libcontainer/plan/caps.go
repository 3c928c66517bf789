package plan

// Capability numbers, linux/capability.h.
const (
	capMknod    = 27
	capSysAdmin = 21
)

// capNames are the capabilities by number.
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// Capabilities lists the capabilities that rt knows, by number.
func Capabilities() []string { return capNames[:] }

// CapMask returns the mask of the named capabilities and the names that it
// does not know or that lie above last.
func CapMask(names []string, last int) (mask uint64, unknown []string) {
	for _, n := range names {
		i := capNumber(n)
		if i < 0 || i > last {
			unknown = append(unknown, n)
			continue
		}
		mask |= 1 << i
	}
	return mask, unknown
}

func capNumber(name string) int {
	for i := range capNames {
		if capNames[i] == name {
			return i
		}
	}
	return -1
}

// CapNames is the inverse of CapMask.
func CapNames(mask uint64) []string {
	var l []string
	for i := range capNames {
		if mask&(1<<i) != 0 {
			l = append(l, capNames[i])
		}
	}
	return l
}
