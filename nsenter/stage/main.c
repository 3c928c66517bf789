/*
 * The stage: it carries out the plan of its parent and execs the user's
 * process. It decides nothing; see libcontainer/plan for the contract.
 *
 * Started as rt-stage BASE, with no environment: descriptors 0 to 2 are the
 * container's stdio, those below BASE are preserved for it, BASE is the
 * control socket, over which the plan comes.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "stage.h"
#include "sys.h"

#ifndef F_SEAL_WRITE
#define F_SEAL_SHRINK 2
#define F_SEAL_WRITE 8
#endif

struct stage stage;

static int run_op(const struct op *op)
{
	switch (op->kind) {
	case OP_RAISE:
		return op_raise(op);
	case OP_TASKS:
		return op_tasks(op);
	case OP_JOIN:
		return op_join(op);
	case OP_FORK:
		return op_fork(op);
	case OP_RECEIVE:
		return op_receive(op);
	case OP_AWAIT:
		return op_await(op);
	case OP_UNSHARE:
		return op_unshare(op);
	case OP_TIMENS:
		return op_timens(op);
	case OP_SETROOT:
		return op_setroot(op);
	case OP_DUMPABLE:
		return op_dumpable(op);
	case OP_KEYRING:
		return op_keyring(op);
	case OP_LOOPBACK:
		return op_loopback(op);
	case OP_HOSTNAME:
		return op_hostname(op);
	case OP_DOMAINNAME:
		return op_domainname(op);
	case OP_SYSCTL:
		return op_sysctl(op);
	case OP_PROPAGATE:
		return op_propagate(op);
	case OP_CLONE:
		return op_clone(op);
	case OP_ROOT:
		return op_root(op);
	case OP_MOUNT:
		return op_mount(op);
	case OP_MOUNT_OLD:
		return op_mount_old(op);
	case OP_ATTACH:
		return op_attach(op);
	case OP_REMOUNT:
		return op_remount(op);
	case OP_SETATTR:
		return op_setattr(op);
	case OP_NODE:
		return op_node(op);
	case OP_SYMLINK:
		return op_symlink(op);
	case OP_READONLY:
		return op_readonly(op);
	case OP_MASK:
		return op_mask(op);
	case OP_EMPTY_DIR:
		return op_empty_dir(op);
	case OP_ROOTATTR:
		return op_rootattr(op);
	case OP_PIVOT:
		return op_pivot(op);
	case OP_MOVEROOT:
		return op_moveroot(op);
	case OP_CHROOT:
		return op_chroot(op);
	case OP_HOME:
		return op_home(op);
	case OP_HOOK:
		return op_hook(op);
	case OP_SETSID:
		return op_setsid(op);
	case OP_CONSOLE:
		return op_console(op);
	case OP_STDIO:
		return op_stdio(op);
	case OP_CWD:
		return op_cwd(op);
	case OP_RLIMIT:
		return op_rlimit(op);
	case OP_UMASK:
		return op_umask(op);
	case OP_BOUNDING:
		return op_bounding(op);
	case OP_GROUPS:
		return op_groups(op);
	case OP_IDS:
		return op_ids(op);
	case OP_CAPS:
		return op_caps(op);
	case OP_SECCOMP:
		return op_seccomp(op);
	case OP_TUNE:
		return op_tune(op);
	case OP_LABEL:
		return op_label(op);
	case OP_NO_NEW_PRIVS:
		return op_no_new_privs(op);
	case OP_FIND:
		return op_find(op);
	case OP_GATE:
		return op_gate(op);
	case OP_EXEC:
		return op_exec(op);
	default:
		return -ENOSYS;
	}
}

#ifdef RTFAULT
static int fault(const struct plan_header *h)
{
	struct timespec t = { .tv_sec = h->fault_arg };

	if (h->fault_action == FAULT_NONE || h->fault_op < 0 || (uint32_t)h->fault_op != stage.op)
		return 0;
	switch (h->fault_action) {
	case FAULT_KILL:
		/* Strict seccomp ends a pid 1 by SIGKILL too; a signal from itself does not. */
		kill(sys_getpid(), SIGKILL);
		prctl(PR_SET_SECCOMP, 1, 0, 0, 0);
		sys_getpid();
		break;
	case FAULT_STOP:
		/* A pid 1 cannot stop itself; it can do nothing for ever. */
		if (sys_getpid() != 1)
			kill(sys_getpid(), SIGSTOP);
		else
			for (;;)
				pause();
		break;
	case FAULT_ERRNO:
		return -h->fault_arg;
	case FAULT_SLEEP:
		nanosleep(&t, NULL);
		break;
	}
	return 0;
}
#endif

/* What the first process does beside the second. */
static bool by_first(const struct op *op)
{
	return op->kind == OP_LOOPBACK && (op->flags & FLAG_FIRST);
}

static void run_plan(const struct plan *plan)
{
	for (uint32_t i = 0; i < plan->head->nops; i++) {
		const struct op *op = &plan->ops[i];
		int r = 0;

		if (stage.tell >= 0 && !by_first(op))
			fork_done();
		if (stage.tell < 0 && by_first(op))
			continue;
		stage.op = i;
		failure.step = STEP_NONE;
		failure.value = 0;
		failure.len = 0;
		if (op->kind != OP_SYSCTL)
			sysctl_done();
#ifdef RTFAULT
		r = fault(plan->head);
#endif
		if (r == 0)
			r = run_op(op);
		if (r < 0) {
			if ((op->flags & FLAG_ELSE) && (r == -EPERM || r == -EBUSY || r == -EACCES))
				continue;
			report_error(-r);
		}
		/* Pass over the alternative, and its alternative. */
		while (plan->ops[i].flags & FLAG_ELSE)
			i++;
	}
	if (stage.tell >= 0)
		fork_done();
}

/* Receives the plan, maps it and closes its descriptor. */
static void load_plan(void)
{
	int fd = -1, r;
	struct decode_error bad = { .op = UINT32_MAX };
	struct stat st;
	void *map;

	stage.op = UINT32_MAX;
	r = report_plan(&fd);
	if (r < 0)
		report_error(-r);
	at(STEP_DECODE);
	/* Sealed, it can neither change under the decoder nor shrink under the mapping. */
	int seals = sys_ret(fcntl(fd, F_GET_SEALS));
	if (seals < 0)
		report_error(-seals);
	if ((seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE)) {
		fail_text(EPERM, STEP_DECODE, "not sealed");
		report_error(EPERM);
	}
	if (fstat(fd, &st) < 0)
		report_error(errno);
	if (st.st_size <= 0 || st.st_size > (off_t)MAX_SIZE) {
		fail_text(EBADMSG, STEP_DECODE, "size");
		report_error(EBADMSG);
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		report_error(errno);
	close(fd);
	if (plan_decode(map, (size_t)st.st_size, &stage.plan, &bad) < 0) {
		stage.op = bad.op;
		fail_text(EBADMSG, STEP_DECODE, bad.text);
		report_error(EBADMSG);
	}
}

static unsigned parse_base(const char *s)
{
	unsigned n = 0;

	for (; *s >= '0' && *s <= '9' && n < 100000; s++)
		n = n * 10 + (unsigned)(*s - '0');
	return *s == 0 && n >= 3 && n < 100000 ? n : 0;
}

/* What the caller may have left behind that its parent's exec kept. */
static void reset_process(void)
{
	static uint64_t all[128]; /* CPUs */
	uint64_t none = 0;
	struct rlimit limit;

	prctl(PR_SET_NAME, "rt-stage", 0, 0, 0);
	sys_close_range(stage.base + 1, ~0u, 0);
	fcntl((int)stage.base, F_SETFD, FD_CLOEXEC);
	signals_default(NULL);
	sys_sigaction(SIGPIPE, &(struct kernel_sigaction){ .handler = SIG_IGN });
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, NSIGNALS / 8);
	stage.umask = umask(0);
	/* The container's cgroup says on which CPUs it runs, not how rt was called. */
	memset(all, 0xff, sizeof(all));
	syscall(SYS_sched_setaffinity, 0, sizeof(all), all);
	/* Every mount that is kept takes a descriptor. */
	sys_rlimit(RLIMIT_NOFILE, NULL, &stage.nofile);
	limit = stage.nofile;
	limit.rlim_cur = limit.rlim_max;
	sys_rlimit(RLIMIT_NOFILE, &limit, NULL);
}

int main(int argc, char **argv)
{
	/* Whoever else runs it, as a container may through /proc, gets nothing. */
	stage.base = argc == 2 ? parse_base(argv[1]) : 0;
	if (!stage.base)
		return 1;
	stage.channel = (int)stage.base;
	stage.turn = stage.tell = -1;
	reset_process();
	load_plan();
	run_plan(&stage.plan);
	return 0;
}
