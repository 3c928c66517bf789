/*
 * System calls and kernel structures that musl has no header for. Every
 * wrapper returns the value or -errno.
 */
#ifndef SYS_H
#define SYS_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RESOLVE_NO_XDEV 0x01
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_BENEATH 0x08
#define RESOLVE_IN_ROOT 0x10

#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#define MOVE_MOUNT_F_EMPTY_PATH 0x04
#define MOVE_MOUNT_T_EMPTY_PATH 0x40
#define FSOPEN_CLOEXEC 1
#define FSMOUNT_CLOEXEC 1
#define FSPICK_CLOEXEC 1
#define FSPICK_EMPTY_PATH 8
#define FSCONFIG_SET_FLAG 0
#define FSCONFIG_SET_STRING 1
#define FSCONFIG_CMD_CREATE 6
#define FSCONFIG_CMD_RECONFIGURE 7

#define MOUNT_ATTR_RDONLY 0x1
#define MOUNT_ATTR_NOSUID 0x2
#define MOUNT_ATTR_NODEV 0x4
#define MOUNT_ATTR_NOEXEC 0x8
#define MOUNT_ATTR__ATIME 0x70
#define MOUNT_ATTR_NOATIME 0x10
#define MOUNT_ATTR_STRICTATIME 0x20
#define MOUNT_ATTR_NODIRATIME 0x80
#define MOUNT_ATTR_NOSYMFOLLOW 0x200000

#define PROC_MAGIC 0x9fa0
#define DEVPTS_MAGIC 0x1cd1
#define PROC_ROOT_INO 1

#define CLOSE_RANGE_CLOEXEC 4
#define CLONE_INTO_CGROUP 0x200000000ULL
#define KEYCTL_JOIN_SESSION_KEYRING 1
#define KEYCTL_SETPERM 5
#define CAP_SYS_ADMIN 21
#define CAP_SYS_NICE 23
#define CAP_VERSION_3 0x20080522
#define NSIGNALS 64

struct open_how {
	uint64_t flags;
	uint64_t mode;
	uint64_t resolve;
};

struct mount_attr {
	uint64_t attr_set;
	uint64_t attr_clr;
	uint64_t propagation;
	uint64_t userns_fd;
};

/* clone3(2), with set_tid and cgroup (CLONE_ARGS_SIZE_VER2). */
struct clone3_args {
	uint64_t flags;
	uint64_t pidfd;
	uint64_t child_tid;
	uint64_t parent_tid;
	uint64_t exit_signal;
	uint64_t stack;
	uint64_t stack_size;
	uint64_t tls;
	uint64_t set_tid;
	uint64_t set_tid_size;
	uint64_t cgroup;
};

/* The kernel's struct sigaction; musl keeps signals 32 to 34 to itself. */
struct kernel_sigaction {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

struct cap_header {
	uint32_t version;
	int pid;
};

struct cap_data {
	uint32_t effective;
	uint32_t permitted;
	uint32_t inheritable;
};

static inline int sys_ret(long r)
{
	return r < 0 ? -errno : (int)r;
}

static inline int sys_openat2(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };

	return sys_ret(syscall(SYS_openat2, dir, path, &how, sizeof(how)));
}

static inline int sys_open_tree(int dir, const char *path, unsigned flags)
{
	return sys_ret(syscall(SYS_open_tree, dir, path, flags | OPEN_TREE_CLOEXEC));
}

static inline int sys_move_mount(int from, int to)
{
	return sys_ret(syscall(SYS_move_mount, from, "", to, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
}

static inline int sys_mount_setattr(int dir, const char *path, unsigned flags, struct mount_attr *attr)
{
	return sys_ret(syscall(SYS_mount_setattr, dir, path, flags, attr, sizeof(*attr)));
}

static inline int sys_fsopen(const char *type)
{
	return sys_ret(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
}

static inline int sys_fspick(int dir)
{
	return sys_ret(syscall(SYS_fspick, dir, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC));
}

static inline int sys_fsconfig(int fs, unsigned cmd, const char *key, const char *value)
{
	return sys_ret(syscall(SYS_fsconfig, fs, cmd, key, value, 0));
}

static inline int sys_fsmount(int fs, unsigned attr)
{
	return sys_ret(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attr));
}

static inline int sys_pivot_root(const char *root, const char *old)
{
	return sys_ret(syscall(SYS_pivot_root, root, old));
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
	return sys_ret(syscall(SYS_close_range, first, last, flags));
}

static inline int sys_clone3(struct clone3_args *args)
{
	return sys_ret(syscall(SYS_clone3, args, sizeof(*args)));
}

static inline int sys_faccess(int dir, const char *path, int mode, int flags)
{
	return sys_ret(syscall(SYS_faccessat2, dir, path, mode, flags));
}

static inline int sys_sigaction(int sig, const struct kernel_sigaction *act)
{
	return sys_ret(syscall(SYS_rt_sigaction, sig, act, NULL, NSIGNALS / 8));
}

static inline int sys_rlimit(int resource, const struct rlimit *new, struct rlimit *old)
{
	return sys_ret(syscall(SYS_prlimit64, 0, resource, new, old));
}

/* The C library may cache the pid, and fork here goes past it. */
static inline int sys_getpid(void)
{
	return (int)syscall(SYS_getpid);
}

#endif
