// Gen writes the system call tables of package seccomp, from the numbers that
// golang.org/x/sys/unix has for every architecture and the few it lacks.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A row is one line of the table: the numbers of one architecture by name.
type row struct {
	ident string
	goos  string // suffix of the file in golang.org/x/sys/unix, "" if it has none
	base  int    // the first number; the table holds numbers relative to it
}

// The order is that of the row constants.
var rows = []row{
	{"rowX86", "386", 0},
	{"rowX8664", "amd64", 0},
	{"rowX32", "", 0},
	{"rowARM", "arm", 0},
	{"rowAARCH64", "arm64", 0},
	{"rowMIPS", "mips", 4000},
	{"rowMIPS64", "mips64", 5000},
	{"rowPPC", "ppc", 0},
	{"rowPPC64", "ppc64", 0},
	{"rowRISCV64", "riscv64", 0},
	{"rowS390X", "s390x", 0},
	{"rowLOONG64", "loong64", 0},
	{"rowMux", "", 0},
}

// privateSlot is where the table has the numbers from 0x0f0000 on, ARM's own.
const privateSlot = 1024

// What golang.org/x/sys/unix leaves out or has besides the calls themselves.
var (
	noCall = regexp.MustCompile(`^(syscall_mask|arch_specific_syscall|reserved\d+|unused\d+)$`)

	// arch/arm/include/uapi/asm/unistd.h, __ARM_NR_*.
	armPrivate = []string{1: "breakpoint", 2: "cacheflush", 3: "usr26", 4: "usr32", 5: "set_tls", 6: "get_tls"}

	// arch/x86/entry/syscalls/syscall_64.tbl: x32 has the calls of x86-64 with
	// bit 30 set, but these from 512 on, for their arguments differ, and not
	// those that are marked "64".
	x32Own = []string{
		"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg", "execve",
		"ptrace", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack", "timer_create", "mq_notify",
		"kexec_load", "waitid", "set_robust_list", "get_robust_list", "vmsplice", "move_pages", "preadv", "pwritev",
		"rt_tgsigqueueinfo", "recvmmsg", "sendmmsg", "process_vm_readv", "process_vm_writev", "setsockopt",
		"getsockopt", "io_setup", "io_submit", "execveat", "preadv2", "pwritev2",
	}
	x32None = []string{
		"uselib", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "set_thread_area",
		"get_thread_area", "epoll_ctl_old", "epoll_wait_old", "vserver", "uretprobe", "uprobe", "map_shadow_stack",
	}

	// include/uapi/linux/net.h SYS_*, and include/uapi/linux/ipc.h: the first
	// argument that stands for the call in socketcall(2) and ipc(2).
	socketcalls = []string{
		1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
		"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
	}
	ipcs = []string{
		1: "semop", "semget", "semctl", "semtimedop",
		11: "msgsnd", "msgrcv", "msgget", "msgctl",
		21: "shmat", "shmdt", "shmget", "shmctl",
	}
)

// muxIPC is added to the codes of ipc(2).
const muxIPC = 0x100

func main() {
	src, err := generate()
	if err == nil {
		err = os.WriteFile("tables.go", src, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func generate() ([]byte, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		return nil, fmt.Errorf("find golang.org/x/sys: %w", err)
	}
	tables := make([]map[string]int, len(rows))
	for i, r := range rows {
		if r.goos != "" {
			file := filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+r.goos+".go")
			if tables[i], err = read(file, r.base); err != nil {
				return nil, err
			}
		}
	}
	complement(tables)
	var names []string
	for _, t := range tables {
		for name := range t {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return format.Source(render(slices.Compact(names), tables))
}

var constant = regexp.MustCompile(`(?m)^\s*SYS_(\w+)\s*=\s*(\d+)$`)

func read(file string, base int) (map[string]int, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t := map[string]int{}
	for _, m := range constant.FindAllStringSubmatch(string(src), -1) {
		name := strings.ToLower(m[1])
		if noCall.MatchString(name) {
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil || n < base || n >= base+privateSlot {
			return nil, fmt.Errorf("%s: %s = %s is no number from %d to %d", file, m[1], m[2], base, base+privateSlot-1)
		}
		t[name] = n - base
	}
	if len(t) < 250 {
		return nil, fmt.Errorf("%s: %d system calls found, expected are some 300", file, len(t))
	}
	return t, nil
}

// complement adds what golang.org/x/sys/unix has not.
func complement(tables []map[string]int) {
	by := func(ident string) *map[string]int {
		return &tables[slices.IndexFunc(rows, func(r row) bool { return r.ident == ident })]
	}
	add := func(to map[string]int, names []string, first int) {
		for i, name := range names {
			if name != "" {
				to[name] = first + i
			}
		}
	}
	add(*by("rowARM"), armPrivate, privateSlot)
	x32, mux := map[string]int{}, map[string]int{}
	for name, n := range *by("rowX8664") {
		if !slices.Contains(x32None, name) {
			x32[name] = n
		}
	}
	add(x32, x32Own, 512)
	*by("rowX32") = x32
	add(mux, socketcalls, 0)
	add(mux, ipcs, muxIPC)
	*by("rowMux") = mux
}

func render(names []string, tables []map[string]int) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, "// Code generated by gen from golang.org/x/sys/unix; DO NOT EDIT.\n\npackage seccomp")
	fmt.Fprintf(&b, "\nconst nameCount = %d\n", len(names))
	fmt.Fprintln(&b, "\n// nameText has all names, sorted, with a space after each; name i ends at nameEnds[i].")
	fmt.Fprint(&b, "const nameText = \"")
	var ends []int
	for pos, line := 0, 0; len(ends) < len(names); {
		name := names[len(ends)]
		if line > 100 {
			fmt.Fprint(&b, "\" +\n\t\"")
			line = 0
		}
		fmt.Fprint(&b, name, " ")
		line += len(name) + 1
		ends = append(ends, pos+len(name))
		pos += len(name) + 1
	}
	fmt.Fprintln(&b, "\"")
	fmt.Fprint(&b, "\nvar nameEnds = [nameCount]uint16")
	list(&b, ends)
	fmt.Fprintln(&b, "\n// Rows of numbers. A number is relative to the architecture's first, and absent if it has no such call;\n// rowMux has the codes of socketcall(2) and, with muxIPC, of ipc(2).\nconst (")
	for i, r := range rows {
		if i == 0 {
			fmt.Fprintf(&b, "\t%s = iota\n", r.ident)
		} else {
			fmt.Fprintf(&b, "\t%s\n", r.ident)
		}
	}
	fmt.Fprintf(&b, "\trowCount\n)\n\nconst (\n\tabsent = 0xffff\n\tprivateSlot = %d // stands for 0x0f0000\n\tmuxIPC = %#x\n)\n", privateSlot, muxIPC)
	fmt.Fprintln(&b, "\nvar numbers = [rowCount][nameCount]uint16{")
	for i, t := range tables {
		fmt.Fprintf(&b, "\t%s: ", rows[i].ident)
		column := make([]int, len(names))
		for j, name := range names {
			n, ok := t[name]
			if !ok {
				n = 0xffff
			}
			column[j] = n
		}
		list(&b, column)
		b.Truncate(b.Len() - 1)
		fmt.Fprintln(&b, ",")
	}
	fmt.Fprintln(&b, "}")
	return b.Bytes()
}

func list(b *bytes.Buffer, v []int) {
	fmt.Fprint(b, "{")
	for i, n := range v {
		if i%24 == 0 {
			fmt.Fprint(b, "\n\t\t")
		}
		if n == 0xffff {
			fmt.Fprint(b, "absent, ")
		} else {
			fmt.Fprintf(b, "%d, ", n)
		}
	}
	fmt.Fprintln(b, "\n\t}")
}
