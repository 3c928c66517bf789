/* The process the user asked for: credentials, limits, gate, exec. */
#include <string.h>
#include <sys/prctl.h>

#include "stage.h"
#include "sys.h"

int op_await(const struct op *op)
{
	int r = report_await((uint32_t)op->num[0], NULL, 0, NULL, false);

	if (r < 0 || op->num[0] != MSG_READY)
		return r;
	stage.acked = true;
	return report_send(MSG_ACK, 0, NULL, 0);
}

int op_home(const struct op *op)
{
	int root = root_fd();

	(void)op;
	return root < 0 ? root : report_await(MSG_HOME, &root, 1, NULL, true);
}

int op_setsid(const struct op *op)
{
	(void)op;
	return sys_ret(setsid());
}

/*
 * NO_MAGICLINKS keeps out /proc/self/fd/N; a directory outside the root shows
 * in the system call's "(unreachable)", which a C library would hide.
 */
int op_cwd(const struct op *op)
{
	static bool refused;
	AUTO_FD fd = -1;
	static char path[4096];
	int r;

	if ((op->flags & FLAG_AGAIN) && !refused)
		return 0;
	at(STEP_RESOLVE);
	if (op->flags & FLAG_CREATE)
		fd = root_make(op_data(op, 0), S_IFDIR, false);
	else
		fd = root_open(op_data(op, 0), O_PATH | O_DIRECTORY, 0);
	r = fd < 0 ? fd : sys_ret(fchdir(fd));
	if (r == -EACCES && (op->flags & FLAG_TRY)) {
		refused = true;
		return 0;
	}
	if (r < 0)
		return r;
	at(STEP_VERIFY);
	r = sys_ret(syscall(SYS_getcwd, path, sizeof(path)));
	if (r < 0)
		return r;
	return path[0] == '/' ? 0 : fail_text(EXDEV, STEP_VERIFY, "outside the root");
}

int op_rlimit(const struct op *op)
{
	struct rlimit limit = { .rlim_cur = op->num[1], .rlim_max = op->num[2] };

	if (op->num[0] == RLIMIT_NOFILE)
		stage.nofile_set = true;
	return sys_rlimit((int)op->num[0], &limit, NULL);
}

int op_umask(const struct op *op)
{
	stage.umask = (mode_t)op->num[0] & 0777;
	umask(stage.umask);
	return 0;
}

int op_bounding(const struct op *op)
{
	for (int cap = 0; cap < 64; cap++) {
		int r;

		if (op->num[0] >> cap & 1)
			continue;
		r = sys_ret(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
		if (r == -EINVAL)
			return 0; /* beyond the last one of this kernel */
		/* Without CAP_SETPCAP what is already gone is no error. */
		if (r < 0 && (r != -EPERM || prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0))
			return r;
	}
	return 0;
}

/* The order of the kernel's list is its own: compare as sets, by two sums. */
static bool same_groups(const gid_t *a, const gid_t *b, size_t n)
{
	uint64_t sum = 0, squares = 0;

	for (size_t i = 0; i < n; i++) {
		sum += (uint64_t)a[i] - b[i];
		squares += (uint64_t)a[i] * a[i] - (uint64_t)b[i] * b[i];
	}
	return sum == 0 && squares == 0;
}

int op_groups(const struct op *op)
{
	static gid_t want[MAX_LIST], have[MAX_LIST];
	size_t n = op->data[0].len / sizeof(gid_t);
	int r;

	memcpy(want, op_data(op, 0), op->data[0].len);
	r = sys_ret(syscall(SYS_setgroups, n, want));
	if (r < 0)
		return r == -EPERM && (op->flags & FLAG_TRY) ? 0 : r;
	at(STEP_VERIFY);
	r = sys_ret(syscall(SYS_getgroups, MAX_LIST, have));
	if (r < 0)
		return r;
	return (size_t)r == n && same_groups(want, have, n) ? 0 : -EPERM;
}

static int cap_get(struct cap_data caps[2])
{
	struct cap_header head = { .version = CAP_VERSION_3 };

	return sys_ret(syscall(SYS_capget, &head, caps));
}

static int cap_set(const struct cap_data caps[2])
{
	struct cap_header head = { .version = CAP_VERSION_3 };

	return sys_ret(syscall(SYS_capset, &head, caps));
}

static int set_ids(uid_t uid, gid_t gid)
{
	uid_t u[3];
	gid_t g[3];
	int r;

	r = sys_ret(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	if (r >= 0)
		r = sys_ret(syscall(SYS_setresgid, gid, gid, gid));
	if (r >= 0)
		r = sys_ret(syscall(SYS_setresuid, uid, uid, uid));
	if (r < 0)
		return r;
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0); /* execve would do the same */
	at(STEP_VERIFY);
	if (getresuid(&u[0], &u[1], &u[2]) < 0 || getresgid(&g[0], &g[1], &g[2]) < 0)
		return -errno;
	for (int i = 0; i < 3; i++)
		if (u[i] != uid || g[i] != gid)
			return -EPERM;
	at(STEP_NONE);
	return 0;
}

int op_ids(const struct op *op)
{
	struct cap_data caps[2];
	int r = set_ids((uid_t)op->num[0], (gid_t)op->num[1]);

	if (r < 0 || op->num[2] != 1)
		return r;
	r = cap_get(caps);
	if (r < 0)
		return r;
	caps[0].effective = caps[0].permitted;
	caps[1].effective = caps[1].permitted;
	return cap_set(caps);
}

int op_caps(const struct op *op)
{
	struct cap_data want[2], have[2] = { { 0 } };
	int r;

	for (int i = 0; i < 2; i++) {
		want[i].effective = (uint32_t)(op->num[0] >> (32 * i));
		want[i].permitted = (uint32_t)(op->num[1] >> (32 * i));
		want[i].inheritable = (uint32_t)(op->num[2] >> (32 * i));
	}
	r = sys_ret(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	if (r >= 0)
		r = cap_set(want);
	if (r < 0)
		return r;
	for (unsigned cap = 0; cap < 64; cap++)
		if (op->num[3] >> cap & 1)
			prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
	at(STEP_VERIFY);
	r = cap_get(have);
	if (r < 0)
		return r;
	return memcmp(want, have, sizeof(want)) ? -EPERM : 0;
}

/* A user that is not root has no effective capabilities any more, but still permitted ones. */
int raise_capability(unsigned cap)
{
	struct cap_data caps[2];
	int r = cap_get(caps);

	if (r < 0)
		return r;
	caps[cap / 32].effective |= caps[cap / 32].permitted & 1u << cap % 32;
	return cap_set(caps);
}

int op_tune(const struct op *op)
{
	const char *data = op_data(op, 0);
	uint32_t len = op->data[0].len;

	if (op->num[0] == TUNE_SCHEDULER || op->num[0] == TUNE_IO_PRIORITY) {
		int r = raise_capability(CAP_SYS_NICE);

		if (r < 0)
			return r;
	}
	switch (op->num[0]) {
	case TUNE_SCHEDULER:
		return sys_ret(syscall(SYS_sched_setattr, 0, data, 0));
	case TUNE_IO_PRIORITY:
		return sys_ret(syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, (int)op->num[1]));
	case TUNE_AFFINITY:
		return sys_ret(syscall(SYS_sched_setaffinity, 0, len, data));
	case TUNE_MEMORY_POLICY:
		/* The kernel takes one bit off the length. */
		return sys_ret(syscall(SYS_set_mempolicy, (int)op->num[1], len ? data : NULL, len ? (unsigned long)len * 8 + 1 : 0));
	case TUNE_PERSONALITY:
		return sys_ret(syscall(SYS_personality, (unsigned long)op->num[1]));
	}
	return -ENOSYS;
}

int op_no_new_privs(const struct op *op)
{
	(void)op;
	return sys_ret(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static const char *found;

/* 0 if the current user may execute path, a regular file. */
static int check_program(const char *path, struct stat *st)
{
	st->st_mode = 0;
	if (fstatat(AT_FDCWD, path, st, 0) < 0)
		return -errno;
	if (S_ISDIR(st->st_mode))
		return -EISDIR;
	if (!S_ISREG(st->st_mode))
		return -EACCES;
	return sys_faccess(AT_FDCWD, path, X_OK, AT_EACCESS);
}

int op_find(const struct op *op)
{
	bool search = !strchr(op_data(op, 0), '/');
	const char *denied = NULL;
	struct stat st;

	for (const char *s = op_data(op, 1); s < op_end(op, 1); s += strlen(s) + 1) {
		int r = check_program(s, &st);

		if (r == 0) {
			found = s;
			return 0;
		}
		if (!search) {
			if (r == -EISDIR)
				at(STEP_IS_DIR);
			else if (r == -EACCES && st.st_mode && !S_ISREG(st.st_mode))
				return fail_text(EACCES, STEP_VERIFY, type_name(st.st_mode));
			return r;
		}
		if (r == -EACCES && !denied)
			denied = s;
	}
	if (denied)
		return fail_text(EACCES, STEP_NONE, denied);
	at(STEP_SEARCH);
	return -ENOENT;
}

/* A signal handler that is only ever left by _exit still needs a restorer to be accepted. */
static void no_return(void)
{
}

static bool terminates(int sig)
{
	switch (sig) {
	case SIGKILL:
	case SIGSTOP:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
	case SIGCONT:
	case SIGCHLD:
	case SIGURG:
	case SIGWINCH:
		return false;
	}
	return true;
}

/* Sets every signal to its default, or with a handler those that end a process to it. */
void signals_default(void (*terminating)(int))
{
	struct kernel_sigaction dfl = { .handler = SIG_DFL };
	struct kernel_sigaction act = { .handler = terminating, .flags = 0x04000000 /* SA_RESTORER */, .restorer = no_return };

	for (int sig = 1; sig <= NSIGNALS; sig++)
		sys_sigaction(sig, terminating && terminates(sig) ? &act : &dfl);
}

static void exit_by_signal(int sig)
{
	_exit(128 + sig);
}

/*
 * In a pid namespace of its own the stage is pid 1, for which the default of
 * a signal is to be ignored: hence the handlers. The gate stays open (it is
 * close-on-exec): it tells a created container from a running one.
 */
int op_gate(const struct op *op)
{
	char byte;
	int r;

	slots_close();
	close(stage.channel);
	stage.channel = plan_file((int64_t)op->num[0]);
	stage.fifo = true;
	stage.acked = true;
	signals_default(exit_by_signal);
	do
		r = sys_ret(read(plan_file(op->fd), &byte, 1));
	while (r == -EINTR);
	sys_sigaction(SIGPIPE, &(struct kernel_sigaction){ .handler = SIG_IGN });
	/* The handlers stay: execve takes them away. */
	return r < 0 ? r : r == 1 ? 0 : -EPIPE;
}

static unsigned pointers(char **array, const char *list, const char *end)
{
	unsigned n = 0;

	for (; list < end; list += strlen(list) + 1)
		array[n++] = (char *)list;
	array[n] = NULL;
	return n;
}

/* Closes all but two of the descriptors that are not the container's. */
static void close_rest(int a, int b)
{
	unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);

	if (low > stage.base)
		sys_close_range(stage.base, low - 1, 0);
	if (high > low + 1)
		sys_close_range(low + 1, high - 1, 0);
	sys_close_range(high + 1, ~0u, 0);
}

/* Leaves what execve resets, and resets the rest: signals, descriptor limit. */
int exec_program(const char *path, const struct op *op, int argv, int envp, bool home)
{
	static char *args[MAX_LIST + 1], *env[MAX_LIST + 2];
	unsigned n;

	pointers(args, op_data(op, argv), op_end(op, argv));
	n = pointers(env, op_data(op, envp), op_end(op, envp));
	if (home && stage.home_set) {
		env[n] = stage.home;
		env[n + 1] = NULL;
	}
	sys_sigaction(SIGPIPE, &(struct kernel_sigaction){ .handler = SIG_DFL });
	if (!stage.nofile_set)
		sys_rlimit(RLIMIT_NOFILE, &stage.nofile, NULL);
	if (op->kind == OP_EXEC) {
		int r = report_send(MSG_EXEC, 0, NULL, 0);

		if (r < 0)
			return r;
		close_rest(stage.channel, filter_socket(stage.channel));
		r = load_deferred();
		if (r < 0)
			return r;
	}
	execve(path, args, env);
	return -errno;
}

int op_exec(const struct op *op)
{
	return exec_program(found, op, 0, 1, op->flags & FLAG_HOME);
}
