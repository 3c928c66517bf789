/*
 * Paths in the root file system. All that lies in it is hostile and may
 * change at any time, so a path is resolved once, to a descriptor, by the
 * kernel, and a missing part is made relative to a descriptor.
 */
#include <limits.h>
#include <string.h>
#include <sys/vfs.h>

#include "stage.h"
#include "sys.h"

#define EAGAIN_TRIES 64 /* a rename or mount elsewhere was in the way */
#define MAX_LINKS 40    /* as the kernel's MAXSYMLINKS */

static int root = -1;

void root_set(int fd)
{
	root = fd;
}

/* Without KindRoot it is the process's own root. Not the caller's to close. */
int root_fd(void)
{
	if (root < 0)
		root = sys_ret(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	return root;
}

static int open_at(int dir, const char *path, uint64_t flags, uint64_t resolve)
{
	int fd;

	for (int i = 0; i < EAGAIN_TRIES; i++) {
		fd = sys_openat2(dir, path, flags, resolve | RESOLVE_NO_MAGICLINKS);
		if (fd != -EAGAIN)
			break;
	}
	return fd;
}

int root_open(const char *path, uint64_t flags, uint64_t resolve)
{
	int dir = root_fd();

	return dir < 0 ? dir : open_at(dir, path, flags, resolve | RESOLVE_IN_ROOT);
}

/* Opens name in dir, or makes it and then opens it. */
static int make_component(int dir, const char *name, mode_t type)
{
	int fd = open_at(dir, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH);

	if (fd != -ENOENT)
		return fd;
	at(STEP_CREATE);
	/* Neither call follows a link or opens what is there. */
	if (type == S_IFDIR)
		fd = sys_ret(mkdirat(dir, name, 0755));
	else
		fd = sys_ret(mknodat(dir, name, S_IFREG | 0644, 0));
	if (fd < 0 && fd != -EEXIST)
		return fd;
	return open_at(dir, name, O_PATH | O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
}

/* Splits the first component off *path into name; 1, or 0 if there is none, or -errno. */
static int next_component(char **path, char *name)
{
	char *s = *path, *end;

	while (*s == '/')
		s++;
	end = strchrnul(s, '/');
	if (end - s > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, s, (size_t)(end - s));
	name[end - s] = 0;
	*path = end;
	return end != s;
}

/* Puts the target of the symbolic link fd in front of rest, in buf of PATH_MAX. */
static int expand_link(int fd, char *buf, char **rest)
{
	char target[PATH_MAX];
	size_t left = strlen(*rest);
	int n = sys_ret(readlinkat(fd, "", target, sizeof(target)));

	if (n < 0)
		return n;
	if ((size_t)n + left >= PATH_MAX)
		return -ENAMETOOLONG;
	memmove(buf + n, *rest, left + 1);
	memcpy(buf, target, (size_t)n);
	*rest = buf;
	return 0;
}

/*
 * The walk of a path of which some part is missing. done is what has been
 * walked, free of links and "..", so that ".." can be taken from the root
 * again: a directory's own ".." may by now lead out of the root.
 */
static int make_walk(const char *path, mode_t type, bool real)
{
	static char todo[PATH_MAX], done[PATH_MAX];
	char name[NAME_MAX + 1], *rest = todo;
	AUTO_FD dir = root_open("/", O_PATH | O_DIRECTORY, 0);
	size_t len = 0;
	int links = 0, r;

	if (dir < 0)
		return dir;
	if (strlen(path) >= sizeof(todo))
		return -ENAMETOOLONG;
	strcpy(todo, path);
	done[0] = 0;
	while ((r = next_component(&rest, name)) > 0) {
		bool last = rest[strspn(rest, "/")] == 0;
		struct stat st;
		AUTO_FD fd = -1;

		at(STEP_RESOLVE);
		if (!strcmp(name, "."))
			continue;
		if (!strcmp(name, "..")) {
			while (len && done[--len] != '/')
				;
			done[len] = 0;
			fd = root_open(len ? done : "/", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
		} else {
			fd = make_component(dir, name, last && *rest == 0 ? type : S_IFDIR);
		}
		if (fd < 0)
			return fd;
		if (fstat(fd, &st) < 0)
			return -errno;
		if (S_ISLNK(st.st_mode)) {
			if (real || ++links > MAX_LINKS)
				return -ELOOP;
			r = expand_link(fd, todo, &rest);
			if (r < 0)
				return r;
			if (*rest != '/')
				continue;
			len = 0;
			done[0] = 0;
			close(keep(&fd));
			fd = root_open("/", O_PATH | O_DIRECTORY, 0);
			if (fd < 0)
				return fd;
		} else if (strcmp(name, "..")) {
			size_t n = strlen(name);

			if (len + 1 + n >= sizeof(done))
				return -ENAMETOOLONG;
			done[len] = '/';
			memcpy(done + len + 1, name, n + 1);
			len += 1 + n;
		}
		close(dir);
		dir = keep(&fd);
	}
	return r < 0 ? r : keep(&dir);
}

/*
 * Opens (O_PATH) path in the root. What is missing is made: directories 0755,
 * and if type is S_IFREG an empty file 0644 at the end. With real no symbolic
 * link is followed.
 */
int root_make(const char *path, mode_t type, bool real)
{
	int fd;

	at(STEP_RESOLVE);
	fd = root_open(path, O_PATH, real ? RESOLVE_NO_SYMLINKS : 0);
	return fd == -ENOENT ? make_walk(path, type, real) : fd;
}

/*
 * Opens the directory that holds the last component of path, made if missing,
 * and puts that component into name, of NAME_MAX + 1.
 */
int root_parent(const char *path, char *name, bool real)
{
	char dir[PATH_MAX];
	size_t len = strlen(path), start;

	at(STEP_RESOLVE);
	while (len && path[len - 1] == '/')
		len--;
	for (start = len; start && path[start - 1] != '/'; start--)
		;
	if (start >= sizeof(dir) || len - start > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, path + start, len - start);
	name[len - start] = 0;
	if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EINVAL;
	memcpy(dir, path, start);
	dir[start] = 0;
	return root_make(start ? dir : "/", S_IFDIR, real);
}

/*
 * A procfs that nobody else can reach or cover, never attached. Where the
 * kernel refuses one (a user namespace that sees only part of a procfs) it is
 * the one at /proc, if that is the root of a procfs.
 */
int own_proc(void)
{
	AUTO_FD fd = new_fs("proc", "", NULL, NULL, NULL, 0);
	struct statfs fs;
	struct stat st;

	if (fd == -EPERM)
		fd = sys_ret(open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (fd < 0)
		return fd;
	if (fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (fs.f_type != PROC_MAGIC || st.st_ino != PROC_ROOT_INO)
		return fail_text(EXDEV, STEP_VERIFY, "/proc is not the root of a procfs");
	return keep(&fd);
}
