/* Labels of security modules (AppArmor, SELinux). */
#include <sys/xattr.h>

#include "stage.h"
#include "sys.h"

/* What has been opened for a later write. */
static int kept[2] = { -1, -1 };

static int write_label(int fd, const struct op *op)
{
	at(STEP_NONE);
	/* No bytes at all take a label back. */
	return write(fd, op_data(op, 1), op->data[1].len) == (ssize_t)op->data[1].len ? 0 : -errno;
}

static int open_attr(const struct op *op)
{
	AUTO_FD proc = own_proc();

	at(STEP_SOURCE);
	if (proc < 0)
		return proc;
	/* thread-self is a link, but an ordinary one. */
	return sys_openat2(proc, op_data(op, 0), O_WRONLY, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
}

static int label_file(const struct op *op)
{
	AUTO_FD fd = -1;

	at(STEP_RESOLVE);
	fd = root_open(op_data(op, 0), O_RDONLY | O_NONBLOCK | O_NOCTTY, RESOLVE_NO_SYMLINKS);
	if (fd < 0)
		return fd;
	at(STEP_NONE);
	return sys_ret(fsetxattr(fd, "security.selinux", op_data(op, 1), op->data[1].len + 1, 0));
}

int op_label(const struct op *op)
{
	int *keeper = &kept[op->num[1]];
	AUTO_FD fd = -1;

	switch (op->num[0]) {
	case LABEL_WRITE:
		fd = open_attr(op);
		return fd < 0 ? fd : write_label(fd, op);
	case LABEL_OPEN:
		*keeper = open_attr(op);
		return *keeper < 0 ? *keeper : 0;
	case LABEL_KEPT:
		fd = keep(keeper);
		return write_label(fd, op);
	default:
		return label_file(op);
	}
}
