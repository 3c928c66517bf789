/* The seccomp filter, and the helper that passes its listener on. */
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "stage.h"
#include "sys.h"

#define SET_MODE_FILTER 1
#define FLAG_NEW_LISTENER 8

#define MAX_PIECES 3

/*
 * The helper is a thread, which the filter of the thread that loads it does
 * not bind. It shares the descriptors, so it can pass the listener on while
 * the other makes no system call, and it is gone with the execve.
 */
static struct {
	const struct op *op;
	int fd;      /* the listener, or -errno */
	bool loaded; /* fd is set */
	bool passed; /* the helper is done */
	_Alignas(16) char stack[32768];
} listener;

/* The filter that op_exec loads, or NULL. */
static const struct op *deferred;

/* One message: its first byte brings the descriptor along, and it is never cut in two. */
static int send_listener(int sock, int fd)
{
	char pid[NUMBER_SIZE];
	struct iovec iov[2 * MAX_PIECES];
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .head = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	struct msghdr msg = { .msg_iov = iov, .msg_control = &control, .msg_controllen = sizeof(control.space) };
	size_t total = 0, n = 0, digits = format_number(pid, (uint64_t)stage.pid, 10);
	int r;

	for (const char *s = op_data(listener.op, 1); s < op_end(listener.op, 1) && n < 2 * MAX_PIECES; s += strlen(s) + 1) {
		if (n)
			iov[n++] = (struct iovec){ .iov_base = pid, .iov_len = digits };
		iov[n++] = (struct iovec){ .iov_base = (char *)s, .iov_len = strlen(s) };
	}
	for (size_t i = 0; i < n; i++)
		total += iov[i].iov_len;
	msg.msg_iovlen = (int)n;
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	do
		r = sys_ret(sendmsg(sock, &msg, MSG_NOSIGNAL));
	while (r == -EINTR);
	/* The parent has given the socket a deadline. */
	if (r == -EAGAIN || (r >= 0 && (size_t)r != total))
		return -ETIMEDOUT;
	return r < 0 ? r : 0;
}

/* sched_yield never fails: errno is the other thread's as well. */
static int pass_on(void *unused)
{
	int r = 0, sock = plan_file(listener.op->fd);

	(void)unused;
	while (!__atomic_load_n(&listener.loaded, __ATOMIC_ACQUIRE))
		sched_yield();
	if (listener.fd >= 0) {
		r = send_listener(sock, listener.fd);
		close(listener.fd);
	}
	close(sock);
	if (r < 0) {
		at(STEP_DELIVER);
		report_error(-r); /* ends both threads */
	}
	__atomic_store_n(&listener.passed, true, __ATOMIC_RELEASE);
	return 0;
}

static int load_filter(const struct op *op)
{
	const int thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
	bool listens = op->num[0] & FLAG_NEW_LISTENER;
	struct {
		unsigned short len;
		const void *insns;
	} program = { .len = (unsigned short)(op->data[0].len / 8), .insns = op_data(op, 0) };
	int r;

	if (listens) {
		listener.op = op;
		at(STEP_SPAWN);
		r = sys_ret(clone(pass_on, listener.stack + sizeof(listener.stack), thread, NULL));
		if (r < 0)
			return r;
		at(STEP_NONE);
	}
	r = sys_ret(syscall(SYS_seccomp, SET_MODE_FILTER, (unsigned)op->num[0], &program));
	if (!listens)
		return r;
	listener.fd = r;
	__atomic_store_n(&listener.loaded, true, __ATOMIC_RELEASE);
	/* Whatever system call this thread waited with, the filter may deny. */
	while (!__atomic_load_n(&listener.passed, __ATOMIC_ACQUIRE))
		;
	return r < 0 ? r : 0;
}

int op_seccomp(const struct op *op)
{
	int r;

	if (op->num[1]) {
		deferred = op;
		return 0;
	}
	r = raise_capability(CAP_SYS_ADMIN);
	return r < 0 ? r : load_filter(op);
}

/* The socket that the filter to come needs, or fd. */
int filter_socket(int fd)
{
	return deferred && deferred->fd >= 0 ? plan_file(deferred->fd) : fd;
}

/* What goes wrong is the fault of the operation that has the filter. */
int load_deferred(void)
{
	if (!deferred)
		return 0;
	stage.op = (uint32_t)(deferred - stage.plan.ops);
	return load_filter(deferred);
}
