/* Limits, cgroups and namespaces on the way in, and what belongs to a namespace. */
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "stage.h"
#include "sys.h"

int op_raise(const struct op *op)
{
	struct rlimit limit;
	int r = sys_rlimit((int)op->num[0], NULL, &limit);

	if (r < 0 || limit.rlim_max >= op->num[1])
		return r;
	limit.rlim_max = op->num[1];
	return sys_rlimit((int)op->num[0], &limit, NULL);
}

int op_tasks(const struct op *op)
{
	if (write(plan_file(op->fd), "0", 1) != 1)
		return -errno;
	close(plan_file(op->fd));
	return 0;
}

int op_join(const struct op *op)
{
	static uint64_t refused;
	uint64_t type = op->num[0];
	int r;

	if ((op->flags & FLAG_AGAIN) && !(refused & type))
		return 0;
	r = sys_ret(setns(plan_file(op->fd), (int)type));
	if (r == -EPERM && (op->flags & FLAG_TRY)) {
		refused |= type;
		return 0;
	}
	return r;
}

int op_receive(const struct op *op)
{
	uint32_t index[MAX_RECEIVE];
	unsigned n = op->data[0].len / sizeof(*index);
	int fds[MAX_RECEIVE], r = n ? report_receive(fds, n, false) : 0;

	memcpy(index, op_data(op, 0), op->data[0].len);
	for (unsigned i = 0; r >= 0 && i < n; i++)
		stage.files[index[i]] = fds[i] + 1;
	return r;
}

/* The namespaces that have been joined; more than once if one was tried again. */
static void close_joined(void)
{
	for (uint32_t i = 0; i < stage.op; i++)
		if (stage.plan.ops[i].kind == OP_JOIN)
			close(plan_file(stage.plan.ops[i].fd));
}

/*
 * Once it exists the child may be looked at by the container that it joins: it
 * inherits nothing of the host's but the cgroup, which it closes first of all.
 *
 * It must not be heard before MSG_CHILD has been sent: with its first frame it
 * waits for its pid (report_turn), which has mostly come by then.
 */
int op_fork(const struct op *op)
{
	struct clone3_args args = { .flags = op->num[0] | CLONE_PARENT };
	int sent[2], pid, r;

	if (stage.begun)
		return fail_text(EPROTO, STEP_NONE, "begun without the plan");
	/* With CLONE_PARENT the exit signal is this process's own, so none is given. */
	if (op->fd >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)plan_file(op->fd);
	}
	close_joined();
	if (pipe2(sent, O_CLOEXEC) < 0)
		return -errno;
	pid = sys_clone3(&args);
	if (pid < 0)
		return pid;
	if (pid > 0) {
		r = report_send(MSG_CHILD, (uint64_t)pid, NULL, 0);
		if (r < 0)
			return r;
		stage.tell = sent[1];
		stage.pid = pid;
		return 0;
	}
	if (op->fd >= 0)
		close(plan_file(op->fd));
	close(sent[1]);
	stage.turn = sent[0];
	return 0;
}

/* The end of the first process. */
void fork_done(void)
{
	_exit(write(stage.tell, &stage.pid, sizeof(stage.pid)) != sizeof(stage.pid));
}

int op_unshare(const struct op *op)
{
	if (stage.begun && stage.begun == op->num[0]) {
		stage.begun = 0;
		return stage.begun_result;
	}
	return sys_ret(unshare((int)op->num[0]));
}

int op_timens(const struct op *op)
{
	AUTO_FD ns = -1;
	int r;

	(void)op;
	if (unshare(CLONE_NEWTIME) < 0)
		return -errno;
	r = report_await(MSG_TIME, NULL, 0, &ns, false);
	return r < 0 ? r : sys_ret(setns(ns, CLONE_NEWTIME));
}

/* Raw system calls: those of the C library go through all its threads. */
int op_setroot(const struct op *op)
{
	int r = sys_ret(syscall(SYS_setgroups, 0, NULL));

	(void)op;
	/* Denied in the user namespace of an unprivileged user; setresgid would fail too if it were for another reason. */
	if (r < 0 && r != -EPERM)
		return r;
	r = sys_ret(syscall(SYS_setresgid, 0, 0, 0));
	return r < 0 ? r : sys_ret(syscall(SYS_setresuid, 0, 0, 0));
}

int op_dumpable(const struct op *op)
{
	return sys_ret(prctl(PR_SET_DUMPABLE, op->num[0], 0, 0, 0));
}

int op_keyring(const struct op *op)
{
	int r = sys_ret(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, op_data(op, 0)));

	if (r == -ENOSYS)
		return 0;
	if (r >= 0 && op->num[0])
		r = sys_ret(syscall(SYS_keyctl, KEYCTL_SETPERM, r, op->num[0]));
	return r < 0 ? r : 0;
}

int op_loopback(const struct op *op)
{
	AUTO_FD fd = sys_ret(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	struct ifreq request = { .ifr_name = "lo" };

	(void)op;
	if (fd < 0)
		return fd;
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -errno;
	request.ifr_flags |= IFF_UP;
	return sys_ret(ioctl(fd, SIOCSIFFLAGS, &request));
}

int op_hostname(const struct op *op)
{
	return sys_ret(sethostname(op_data(op, 0), op->data[0].len));
}

int op_domainname(const struct op *op)
{
	return sys_ret(setdomainname(op_data(op, 0), op->data[0].len));
}
