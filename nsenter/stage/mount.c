/* New mounts: made detached, restricted, and only then attached. */
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "stage.h"
#include "sys.h"

const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFREG:
		return "regular file";
	case S_IFLNK:
		return "symbolic link";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	}
	return "file of unknown type";
}

/* The kernel's words about the last error of a file system context, a line each. */
static void add_log(int fs)
{
	char line[512];
	ssize_t n;

	while ((n = read(fs, line, sizeof(line))) > 0) {
		if (failure.len && failure.text[failure.len - 1] != 0)
			failure_add("\n", 1);
		if (line[n - 1] == '\n')
			n--;
		failure_add(line, (size_t)n);
	}
}

static int fail_fs(int err, int fs)
{
	fail_text(err, STEP_FS, "");
	add_log(fs);
	return -err;
}

/* option is "key" or "key=value". */
static int set_option(int fs, const char *option)
{
	const char *value = strchr(option, '=');
	char key[256]; /* the kernel's own limit */
	int r;

	if (!value) {
		r = sys_fsconfig(fs, FSCONFIG_SET_FLAG, option, NULL);
	} else if ((size_t)(value - option) >= sizeof(key)) {
		r = -EINVAL;
	} else {
		memcpy(key, option, (size_t)(value - option));
		key[value - option] = 0;
		r = sys_fsconfig(fs, FSCONFIG_SET_STRING, key, value + 1);
	}
	if (r < 0) {
		fail_text(-r, STEP_OPTION, option);
		failure_add("", 1);
		add_log(fs);
	}
	return r;
}

static int set_options(int fs, const char *list, const char *end)
{
	for (; list < end; list += strlen(list) + 1) {
		int r = set_option(fs, list);

		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * Makes a file system and returns its mount, detached. first is an option to
 * put before those of the list, or NULL.
 */
int new_fs(const char *type, const char *source, const char *first, const char *list, const char *end, unsigned attr)
{
	AUTO_FD fs = sys_fsopen(type);
	int r;

	at(STEP_FS);
	if (fs < 0)
		return fs;
	if (*source) {
		r = sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", source);
		if (r < 0) {
			fail_fs(-r, fs);
			at(STEP_SOURCE);
			return r;
		}
	}
	r = first ? set_option(fs, first) : 0;
	if (r >= 0)
		r = set_options(fs, list, end);
	if (r < 0)
		return r;
	r = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL);
	if (r >= 0)
		r = sys_fsmount(fs, attr);
	return r < 0 ? fail_fs(-r, fs) : r;
}

int set_attr(int fd, uint64_t set, uint64_t clear, uint64_t propagation, bool recursive)
{
	struct mount_attr attr = { .attr_set = set, .attr_clr = clear, .propagation = propagation };

	/* The atime modes are one field to the kernel. */
	if ((set | clear) & MOUNT_ATTR__ATIME)
		attr.attr_clr |= MOUNT_ATTR__ATIME;
	return sys_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr);
}

int apply_attr(int fd, const uint64_t *num)
{
	int r = 0;

	at(STEP_ATTR);
	if (num[0] | num[1])
		r = set_attr(fd, num[0], num[1], 0, false);
	if (r >= 0 && (num[2] | num[3]))
		r = set_attr(fd, num[2], num[3], 0, true);
	return r;
}

int apply_propagation(int fd, const uint64_t *num)
{
	at(STEP_PROP);
	return num[4] ? set_attr(fd, 0, 0, num[4], num[5] == 1) : 0;
}

static int check_target(int fd, const struct op *op)
{
	struct statfs fs;

	if (op->flags & FLAG_IN_PROC)
		return 0;
	if (fstatfs(fd, &fs) < 0)
		return -errno;
	return fs.f_type == PROC_MAGIC ? fail_text(EPERM, STEP_VERIFY, "in a procfs") : 0;
}

int open_target(const struct op *op, int data, mode_t type)
{
	AUTO_FD fd = root_make(op_data(op, data), type, op->flags & FLAG_REAL);
	int r;

	if (fd < 0)
		return fd;
	r = check_target(fd, op);
	return r < 0 ? r : keep(&fd);
}

int attach(int fd, int target)
{
	struct stat from, to;
	int r;

	at(STEP_ATTACH);
	r = sys_move_mount(fd, target);
	/* As mount(2) says it: move_mount(2) has EINVAL for this too. */
	if (r == -EINVAL && fstat(fd, &from) == 0 && fstat(target, &to) == 0 &&
	    S_ISDIR(from.st_mode) != S_ISDIR(to.st_mode))
		return -ENOTDIR;
	return r;
}

int op_propagate(const struct op *op)
{
	struct mount_attr attr = { .propagation = op->num[0] };

	at(STEP_PROP);
	return sys_mount_setattr(AT_FDCWD, op_data(op, 0), op->num[1] ? AT_RECURSIVE : 0, &attr);
}

static int copy_up(int target, int mount)
{
	AUTO_FD from = sys_openat2(target, ".", O_RDONLY | O_DIRECTORY, 0);
	int fds[2] = { from, mount };

	at(STEP_SOURCE);
	return from < 0 ? from : report_await(MSG_COPY_UP, fds, 2, NULL, false);
}

/* "mode=" and the permissions of the directory fd. */
static int covered_mode(int fd, char *option)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	memcpy(option, "mode=", 5);
	format_number(option + 5, st.st_mode & 07777, 8);
	return 0;
}

static bool exists(const char *path)
{
	AUTO_FD fd = root_open(path, O_PATH, 0);

	return fd >= 0;
}

int op_mount(const struct op *op)
{
	bool take_mode = (op->flags & FLAG_MODE) && exists(op_data(op, 3));
	AUTO_FD target = open_target(op, 3, S_IFDIR);
	AUTO_FD mount = -1;
	char mode[5 + NUMBER_SIZE];
	int r;

	if (target < 0)
		return target;
	if (take_mode) {
		r = covered_mode(target, mode);
		if (r < 0)
			return r;
	}
	mount = new_fs(op_data(op, 0), op_data(op, 1), take_mode ? mode : NULL,
		       op_data(op, 2), op_end(op, 2), (unsigned)op->num[0]);
	if (mount < 0)
		return mount;
	/* A new mount has nothing to clear; only the recursive ones are left. */
	if (op->num[2] | op->num[3]) {
		r = apply_attr(mount, op->num);
		if (r < 0)
			return r;
	}
	if (op->flags & FLAG_COPY_UP) {
		r = copy_up(target, mount);
		if (r < 0)
			return r;
	}
	r = attach(mount, target);
	if (r >= 0)
		r = apply_propagation(mount, op->num);
	if (r >= 0 && op->slot >= 0)
		slot_set(op->slot, keep(&mount), true);
	return r;
}

/* Those attributes that mount(2) has too, so that the mount never exists without. */
static unsigned long old_flags(uint64_t attr)
{
	unsigned long flags = attr & (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);

	if (attr & MOUNT_ATTR_NOATIME)
		flags |= MS_NOATIME;
	if (attr & MOUNT_ATTR_STRICTATIME)
		flags |= MS_STRICTATIME;
	if (attr & MOUNT_ATTR_NODIRATIME)
		flags |= MS_NODIRATIME;
	return flags;
}

int op_mount_old(const struct op *op)
{
	AUTO_FD target = open_target(op, 3, S_IFDIR);
	AUTO_FD cwd = -1, top = -1;
	unsigned long flags = old_flags(op->num[0]);
	struct stat covered, now;
	int r;

	if (target < 0)
		return target;
	cwd = sys_openat2(AT_FDCWD, ".", O_PATH | O_DIRECTORY, 0);
	if (cwd < 0)
		return cwd;
	if (fchdir(target) < 0)
		return -errno;
	at(STEP_FS);
	if (op->flags & FLAG_IVERSION)
		flags |= MS_I_VERSION;
	r = sys_ret(mount(op_data(op, 1), ".", op_data(op, 0), flags, op_data(op, 2)));
	if (r < 0)
		return r;
	if (fchdir(cwd) < 0)
		return -errno;
	/* The descriptor still means the covered directory. */
	at(STEP_RESOLVE);
	top = root_open(op_data(op, 3), O_PATH | O_DIRECTORY, op->flags & FLAG_REAL ? RESOLVE_NO_SYMLINKS : 0);
	if (top < 0)
		return top;
	if (fstat(target, &covered) < 0 || fstat(top, &now) < 0)
		return -errno;
	if (covered.st_dev == now.st_dev && covered.st_ino == now.st_ino)
		return -EAGAIN;
	r = apply_attr(top, op->num);
	if (r >= 0)
		r = apply_propagation(top, op->num);
	if (r >= 0 && op->slot >= 0)
		slot_set(op->slot, keep(&top), true);
	return r;
}

static int reconfigure(int fd, const struct op *op)
{
	AUTO_FD fs = sys_fspick(fd);
	int r;

	at(STEP_FS);
	if (fs < 0)
		return fs;
	r = set_options(fs, op_data(op, 2), op_end(op, 2));
	if (r < 0)
		return r;
	r = sys_fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL);
	return r < 0 ? fail_fs(-r, fs) : 0;
}

int op_remount(const struct op *op)
{
	AUTO_FD fd = -1;
	int r;

	at(STEP_RESOLVE);
	fd = root_open(op_data(op, 0), O_PATH, op->flags & FLAG_REAL ? RESOLVE_NO_SYMLINKS : 0);
	if (fd < 0)
		return fd;
	r = check_target(fd, op);
	if (r < 0)
		return r;
	if (op->data[2].len) {
		r = reconfigure(fd, op);
		if (r < 0)
			return r;
	}
	r = apply_attr(fd, op->num);
	return r < 0 ? r : apply_propagation(fd, op->num);
}

