/* Mount trees that are kept, bound into the root, and the root itself. */
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "stage.h"
#include "sys.h"

/* A mount kept for later operations; fd is stored plus one, so that 0 is none. */
static struct {
	int fd_plus_1;
	bool attached;
	bool top; /* a clone has nothing of what is mounted below */
} slots[MAX_SLOTS];
static int slots_used; /* the highest that was ever set, plus one */

void slot_set(int slot, int fd, bool attached)
{
	if (slot >= slots_used)
		slots_used = slot + 1;
	slots[slot].fd_plus_1 = fd + 1;
	slots[slot].attached = attached;
}

/*
 * Called before anything of the container's may run, which could look at this
 * process: some of these are mounts of the host's.
 */
void slots_close(void)
{
	for (; slots_used; slots_used--) {
		int fd = slots[slots_used - 1].fd_plus_1 - 1;

		if (fd >= 0)
			close(fd);
		slots[slots_used - 1].fd_plus_1 = 0;
	}
	root_set(-1); /* it was one of them */
}

static int slot_fd(uint64_t slot)
{
	/* Unset if the operation that sets it was skipped or had an alternative. */
	return slots[slot].fd_plus_1 ? slots[slot].fd_plus_1 - 1 : -EBADF;
}

static int verify_clone(int fd, const struct op *op)
{
	struct statfs fs;
	struct stat st;

	at(STEP_VERIFY);
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	if ((op->flags & FLAG_NULL) && (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)))
		return fail_text(EINVAL, STEP_VERIFY, type_name(st.st_mode));
	if ((op->flags & FLAG_PROCFS) && (fs.f_type != PROC_MAGIC || st.st_ino != PROC_ROOT_INO))
		return fail_text(EINVAL, STEP_VERIFY, type_name(st.st_mode));
	if ((op->flags & FLAG_NO_FOLLOW) && S_ISLNK(st.st_mode))
		return fail_text(ELOOP, STEP_VERIFY, type_name(st.st_mode));
	return 0;
}

int op_clone(const struct op *op)
{
	AUTO_FD fd = -1;
	int r;

	at(STEP_SOURCE);
	if (op->fd >= 0) {
		fd = plan_file(op->fd);
	} else {
		unsigned flags = op->num[1] ? 0 : OPEN_TREE_CLONE;

		if (op->num[0] && !op->num[1])
			flags |= AT_RECURSIVE;
		if (op->flags & FLAG_NO_FOLLOW)
			flags |= AT_SYMLINK_NOFOLLOW;
		fd = sys_open_tree(AT_FDCWD, op_data(op, 0), flags);
		if (fd < 0)
			return fd;
	}
	r = verify_clone(fd, op);
	if (r < 0)
		return r;
	/* What is only found now is cloned like a tree that is attached already. */
	slot_set(op->slot, keep(&fd), op->fd < 0 && op->num[1]);
	slots[op->slot].top = op->fd < 0 && op->num[1] && !op->num[0];
	return 0;
}

/* Sets the propagation of the mount on which fd lies: only its root can be named. */
static int propagate_holder(int fd, uint64_t propagation)
{
	AUTO_FD dir = sys_openat2(fd, ".", O_PATH | O_DIRECTORY, 0);
	int r;

	at(STEP_PROP);
	for (;;) {
		int up;

		if (dir < 0)
			return dir;
		r = set_attr(dir, 0, 0, propagation, false);
		if (r != -EINVAL)
			return r;
		up = sys_openat2(dir, "..", O_PATH | O_DIRECTORY, 0);
		if (up >= 0) {
			struct stat a, b;

			/* The root of the namespace: EINVAL meant something else. */
			if (fstat(dir, &a) == 0 && fstat(up, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino) {
				close(up);
				return -EINVAL;
			}
		}
		close(dir);
		dir = up;
	}
}

int op_root(const struct op *op)
{
	AUTO_FD target = -1;
	int tree = -1, r;

	at(STEP_SOURCE);
	if (op->slot >= 0) {
		tree = slot_fd((uint64_t)op->slot);
		if (tree < 0)
			return tree;
	}
	at(STEP_RESOLVE);
	target = sys_openat2(AT_FDCWD, op_data(op, 0), O_PATH | O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
	if (target < 0)
		return target;
	if (op->num[4]) {
		r = propagate_holder(target, op->num[4]);
		if (r < 0)
			return r;
	}
	if (tree >= 0) {
		r = attach(tree, target);
		if (r < 0)
			return r;
		slot_set(op->slot, tree, true);
	} else {
		tree = keep(&target);
	}
	root_set(tree);
	at(STEP_PROP);
	return op->num[5] ? set_attr(tree, 0, 0, op->num[5], true) : 0;
}

/*
 * The tree of a slot the first time, a clone of it later. An attached tree
 * must not be moved away, and a detached one cannot be cloned before 6.15.
 * *fd is to be closed after if it is not that of the slot.
 */
static int use_slot(uint64_t slot, int *fd, bool *cloned)
{
	*cloned = slots[slot].attached;
	*fd = slot_fd(slot);
	at(STEP_SOURCE);
	if (*fd >= 0 && *cloned)
		*fd = sys_open_tree(*fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | (slots[slot].top ? 0 : AT_RECURSIVE));
	return *fd < 0 ? *fd : 0;
}

static int attach_slot(uint64_t slot, int target, const uint64_t *attr)
{
	bool cloned;
	int fd, r;

	r = use_slot(slot, &fd, &cloned);
	if (r < 0)
		return r;
	if (attr)
		r = apply_attr(fd, attr);
	if (r >= 0)
		r = attach(fd, target);
	if (r >= 0 && !cloned)
		slots[slot].attached = true;
	if (r >= 0 && attr)
		r = apply_propagation(fd, attr);
	if (cloned)
		close(fd);
	return r;
}

int op_attach(const struct op *op)
{
	int tree = slot_fd((uint64_t)op->slot);
	AUTO_FD target = -1;
	struct stat st;

	at(STEP_SOURCE);
	if (tree < 0)
		return tree;
	if (fstat(tree, &st) < 0)
		return -errno;
	target = open_target(op, 0, S_ISDIR(st.st_mode) ? S_IFDIR : S_IFREG);
	return target < 0 ? target : attach_slot((uint64_t)op->slot, target, op->num);
}

static int attr_and_propagation(int fd, const struct op *op)
{
	int r;

	if (fd < 0)
		return fd;
	r = apply_attr(fd, op->num);
	return r < 0 ? r : apply_propagation(fd, op->num);
}

int op_setattr(const struct op *op)
{
	return attr_and_propagation(slot_fd((uint64_t)op->slot), op);
}

int op_rootattr(const struct op *op)
{
	return attr_and_propagation(root_fd(), op);
}

int op_readonly(const struct op *op)
{
	AUTO_FD target = -1, tree = -1;
	int r;

	at(STEP_RESOLVE);
	target = root_open(op_data(op, 0), O_PATH, 0);
	if (target < 0)
		return target == -ENOENT ? 0 : target;
	at(STEP_SOURCE);
	tree = sys_open_tree(target, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);
	if (tree < 0)
		return tree;
	at(STEP_ATTR);
	r = set_attr(tree, MOUNT_ATTR_RDONLY, 0, 0, false);
	return r < 0 ? r : attach(tree, target);
}

int op_mask(const struct op *op)
{
	AUTO_FD target = -1;
	struct stat st;

	at(STEP_RESOLVE);
	target = root_open(op_data(op, 0), O_PATH, 0);
	if (target < 0)
		return target == -ENOENT ? 0 : target;
	if (fstat(target, &st) < 0)
		return -errno;
	return attach_slot(S_ISDIR(st.st_mode) ? op->num[0] : (uint64_t)op->slot, target, NULL);
}

int op_empty_dir(const struct op *op)
{
	static const char options[] = "nr_blocks=1\0nr_inodes=1"; /* as small as they get: 0 is no limit */
	const char *label = op->data[0].len ? op_data(op, 0) : NULL;
	int fd = new_fs("tmpfs", "tmpfs", label, options, options + sizeof(options),
			MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);

	if (fd < 0)
		return fd;
	slot_set(op->slot, fd, false);
	return 0;
}

int op_pivot(const struct op *op)
{
	AUTO_FD old = sys_openat2(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
	int r;

	if (old < 0)
		return old;
	if (fchdir(root_fd()) < 0)
		return -errno;
	at(STEP_ATTACH);
	r = sys_pivot_root(".", ".");
	if (r < 0)
		return r;
	/* The old root now covers the new one. Were it shared, its unmounting would reach the host. */
	at(STEP_PROP);
	r = op->num[0] == 1 ? set_attr(old, 0, 0, MS_SLAVE, true) : 0;
	if (r < 0)
		return r;
	at(STEP_NONE);
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

static int change_root(void)
{
	if (fchdir(root_fd()) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

int op_moveroot(const struct op *op)
{
	AUTO_FD old = sys_openat2(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0);
	int r;

	(void)op;
	if (old < 0)
		return old;
	r = attach(root_fd(), old);
	return r < 0 ? r : change_root();
}

int op_chroot(const struct op *op)
{
	(void)op;
	return change_root();
}
