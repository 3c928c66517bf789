/* The terminal, and stdio without one. */
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <termios.h>

#include "stage.h"
#include "sys.h"

/* The devpts of a container one joins is hostile: nothing on the way may be other than it must be. */
static int open_ptmx(void)
{
	AUTO_FD pts = root_open("/dev/pts", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
	AUTO_FD ptmx = -1;
	struct statfs fs;
	struct stat st;

	at(STEP_RESOLVE);
	if (pts < 0)
		return pts;
	if (fstatfs(pts, &fs) < 0 || fstat(pts, &st) < 0)
		return -errno;
	if (fs.f_type != DEVPTS_MAGIC || st.st_ino != 1)
		return fail_text(ENOTTY, STEP_VERIFY, "/dev/pts is not the root of a devpts");
	/* In a devpts nobody but the kernel makes files, so this opens no foreign device. */
	ptmx = sys_openat2(pts, "ptmx", O_RDWR | O_NOCTTY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS);
	if (ptmx < 0)
		return ptmx;
	if (fstat(ptmx, &st) < 0)
		return -errno;
	if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(5, 2))
		return fail_text(ENOTTY, STEP_VERIFY, type_name(st.st_mode));
	return keep(&ptmx);
}

static int bind_console(int peer)
{
	AUTO_FD tree = -1, target = -1;
	char name[256];
	AUTO_FD dev = root_parent("/dev/console", name, false);
	struct stat st;

	if (dev < 0)
		return dev;
	at(STEP_CREATE);
	if (mknodat(dev, name, S_IFREG | 0644, 0) < 0 && errno != EEXIST)
		return -errno;
	at(STEP_RESOLVE);
	target = sys_openat2(dev, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);
	if (target < 0)
		return target;
	if (fstat(target, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return fail_text(ELOOP, STEP_VERIFY, type_name(st.st_mode));
	at(STEP_SOURCE);
	tree = sys_open_tree(peer, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
	if (tree < 0)
		return tree;
	at(STEP_ATTACH);
	return sys_move_mount(tree, target);
}

int op_console(const struct op *op)
{
	AUTO_FD ptmx = open_ptmx();
	AUTO_FD peer = -1;
	struct winsize size = { .ws_col = (unsigned short)op->num[0], .ws_row = (unsigned short)op->num[1] };
	int unlock = 0, r;

	if (ptmx < 0)
		return ptmx;
	at(STEP_NONE);
	if (ioctl(ptmx, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	peer = sys_ret(ioctl(ptmx, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
	if (peer < 0)
		return peer;
	if (size.ws_col && size.ws_row && ioctl(peer, TIOCSWINSZ, &size) < 0)
		return -errno;
	if (fchown(peer, (uid_t)op->num[2], (gid_t)-1) < 0)
		return -errno;
	if (op->flags & FLAG_BIND) {
		r = bind_console(peer);
		if (r < 0)
			return r;
	}
	r = report_await(MSG_CONSOLE, &ptmx, 1, NULL, false);
	if (r < 0)
		return r;
	if (ioctl(peer, TIOCSCTTY, 0) < 0)
		return -errno;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(peer, fd) < 0)
			return -errno;
	return 0;
}

static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* The container's own null device, or -1: then stdio stays as it is. */
static int open_null(void)
{
	AUTO_FD path = root_open("/dev/null", O_PATH, 0);
	AUTO_FD fd = -1;
	struct stat st;

	/* Looked at before it is opened; with O_RDWR no fifo put there meanwhile blocks. */
	if (path < 0 || fstat(path, &st) < 0 || !is_null(&st))
		return -1;
	fd = root_open("/dev/null", O_RDWR | O_NOCTTY, 0);
	if (fd < 0 || fstat(fd, &st) < 0 || !is_null(&st))
		return -1;
	return keep(&fd);
}

int op_stdio(const struct op *op)
{
	AUTO_FD null = open_null();

	for (int fd = 0; fd < 3; fd++) {
		struct stat st;

		if (fstat(fd, &st) < 0)
			return -errno;
		if (is_null(&st)) {
			if (null >= 0 && dup2(null, fd) < 0)
				return -errno;
		} else if ((S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)) && st.st_uid != op->num[0]) {
			if (fchown(fd, (uid_t)op->num[0], (gid_t)-1) < 0 &&
			    errno != EPERM && errno != EROFS && errno != EINVAL)
				return -errno;
		}
	}
	return 0;
}
