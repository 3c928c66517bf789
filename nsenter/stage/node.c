/* Device nodes and links in the root, and sysctls. */
#include <limits.h>
#include <string.h>

#include "stage.h"
#include "sys.h"

/*
 * chmod of what an O_PATH descriptor means: fchmodat2(2) is newer than our
 * floor, and opening a device may have effects.
 */
static int chmod_fd(int fd, mode_t mode)
{
	AUTO_FD proc = own_proc();
	char path[sizeof("self/fd/") + NUMBER_SIZE] = "self/fd/";

	if (proc < 0)
		return proc;
	format_number(path + strlen(path), (uint64_t)fd, 10);
	return sys_ret(fchmodat(proc, path, mode, 0));
}

static bool same_node(const struct stat *st, mode_t mode, dev_t dev)
{
	if ((st->st_mode & S_IFMT) != (mode & S_IFMT))
		return false;
	return (!S_ISCHR(mode) && !S_ISBLK(mode)) || st->st_rdev == dev;
}

int op_node(const struct op *op)
{
	mode_t mode = (mode_t)op->num[0];
	dev_t dev = (dev_t)op->num[1];
	char name[NAME_MAX + 1];
	AUTO_FD dir = root_parent(op_data(op, 0), name, false);
	AUTO_FD fd = -1;
	struct stat st;
	int r;

	if (dir < 0)
		return dir;
	at(STEP_CREATE);
	r = sys_ret(mknodat(dir, name, mode, dev));
	if (r < 0 && r != -EEXIST)
		return r;
	fd = sys_openat2(dir, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
	if (fd == -EXDEV) {
		/* Something is mounted there, perhaps the host's device: its owner and mode stay. */
		fd = sys_openat2(dir, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
		if (fd < 0)
			return fd;
		if (fstat(fd, &st) < 0)
			return -errno;
		return same_node(&st, mode, dev) ? 0 : fail_text(EEXIST, STEP_VERIFY, type_name(st.st_mode));
	}
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!same_node(&st, mode, dev)) {
		if (r == 0 || !(op->flags & FLAG_REPLACE) || S_ISDIR(st.st_mode))
			return fail_text(EEXIST, STEP_VERIFY, type_name(st.st_mode));
		if (unlinkat(dir, name, 0) < 0 || mknodat(dir, name, mode, dev) < 0)
			return -errno;
		close(keep(&fd));
		fd = sys_openat2(dir, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
		if (fd < 0)
			return fd;
		if (fstat(fd, &st) < 0)
			return -errno;
		if (!same_node(&st, mode, dev))
			return fail_text(EEXIST, STEP_VERIFY, type_name(st.st_mode));
	}
	at(STEP_ATTR);
	if ((st.st_uid != op->num[2] || st.st_gid != op->num[3]) &&
	    fchownat(fd, "", (uid_t)op->num[2], (gid_t)op->num[3], AT_EMPTY_PATH) < 0)
		return -errno;
	return (st.st_mode & 07777) == (mode & 07777) ? 0 : chmod_fd(fd, mode & 07777);
}

int op_symlink(const struct op *op)
{
	char name[NAME_MAX + 1];
	AUTO_FD dir = -1;
	struct stat st;
	int r;

	if (op->flags & FLAG_IF_EXISTS) {
		AUTO_FD there = root_open(op_data(op, 1), O_PATH, 0);

		if (there == -ENOENT || there == -ENOTDIR || there == -ELOOP)
			return 0;
		if (there < 0)
			return there;
	}
	dir = root_parent(op_data(op, 0), name, false);
	if (dir < 0)
		return dir;
	at(STEP_CREATE);
	r = sys_ret(symlinkat(op_data(op, 1), dir, name));
	if (r != -EEXIST)
		return r;
	if (!(op->flags & FLAG_REPLACE))
		return 0;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return fail_text(EEXIST, STEP_VERIFY, type_name(st.st_mode));
	/* Without AT_REMOVEDIR this cannot remove a directory put there meanwhile. */
	if (unlinkat(dir, name, 0) < 0)
		return -errno;
	return sys_ret(symlinkat(op_data(op, 1), dir, name));
}

static int proc_sys = -1;

/* Called before any other operation: in a container it would be a way out. */
void sysctl_done(void)
{
	if (proc_sys >= 0)
		close(keep(&proc_sys));
}

int op_sysctl(const struct op *op)
{
	AUTO_FD fd = -1;
	int r;

	if (proc_sys < 0) {
		AUTO_FD proc = own_proc();

		if (proc < 0)
			return proc;
		proc_sys = sys_openat2(proc, "sys", O_PATH | O_DIRECTORY,
				       RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
	}
	at(STEP_RESOLVE);
	if (proc_sys < 0)
		return proc_sys;
	fd = sys_openat2(proc_sys, op_data(op, 0), O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
	if (fd < 0)
		return fd;
	at(STEP_NONE);
	r = sys_ret(write(fd, op_data(op, 1), op->data[1].len));
	if (r < 0)
		return r;
	return (uint32_t)r == op->data[1].len ? 0 : -EIO;
}
