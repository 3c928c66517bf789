/* A hook is a child of the stage: its cgroup and namespaces are the container's. */
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "stage.h"
#include "sys.h"

struct hook {
	int pid;
	int pidfd;
	int in;      /* write end of its standard input, -1 once all is written */
	int out;     /* read end of stdout and stderr */
	int spawn;   /* read end: the errno of its exec, or the end of file */
	int err;     /* what came from spawn */
	uint64_t sent;
	char number[NUMBER_SIZE]; /* the stage's pid */
	size_t digits;
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

_Noreturn static void hook_child(const struct op *op, int in, int out, int spawn)
{
	int err;

	setpgid(0, 0);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		goto fail;
	/* The preserved descriptors are the container's, not the hook's. */
	if (sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		goto fail;
	if ((op->flags & FLAG_IN_ROOT) && fchdir(root_fd()) < 0)
		goto fail;
	umask(stage.umask);
	errno = -exec_program(op_data(op, 0), op, 1, 2, op->flags & FLAG_HOME);
fail:
	err = errno;
	/* A short write cannot be, and if the stage has gone nobody asks. */
	_exit(write(spawn, &err, sizeof(err)) != sizeof(err));
}

/* The next piece of the hook's input: the state, with the pid put in at num[1]. */
static size_t next_input(const struct hook *h, const struct op *op, const char **piece)
{
	uint64_t at_pid = op->num[1], len = op->data[3].len;

	if (h->sent < at_pid) {
		*piece = op_data(op, 3) + h->sent;
		return at_pid - h->sent;
	}
	if (h->sent < at_pid + h->digits) {
		*piece = h->number + (h->sent - at_pid);
		return at_pid + h->digits - h->sent;
	}
	*piece = op_data(op, 3) + (h->sent - h->digits);
	return len + h->digits - h->sent;
}

static void feed(struct hook *h, const struct op *op)
{
	for (;;) {
		const char *piece;
		size_t len = next_input(h, op, &piece);
		ssize_t n = len ? write(h->in, piece, len) : 0;

		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			/* All written, or EPIPE: it need not read. */
			close(keep(&h->in));
			return;
		}
		h->sent += (uint64_t)n;
	}
}

/* Keeps the first MAX_TEXT bytes; false at the end of file. */
static bool drain(int out)
{
	char buf[4096];
	ssize_t n;

	while ((n = read(out, buf, sizeof(buf))) > 0)
		failure_add(buf, (size_t)n);
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void kill_group(const struct hook *h)
{
	kill(-h->pid, SIGKILL);
	kill(h->pid, SIGKILL); /* it may have made a group of its own */
}

/* Waits until the hook ends, 1, or its time does, 0. */
static int watch(struct hook *h, const struct op *op)
{
	int64_t end = op->num[0] ? now_ms() + (int64_t)op->num[0] : 0;

	for (;;) {
		struct pollfd p[5] = {
			{ .fd = h->pidfd, .events = POLLIN },
			{ .fd = h->out, .events = POLLIN },
			{ .fd = h->in, .events = POLLOUT },
			{ .fd = h->spawn, .events = POLLIN },
			{ .fd = stage.acked ? -1 : stage.channel }, /* the lifeline: POLLHUP */
		};
		int64_t left = end ? end - now_ms() : -1;
		int r;

		if (end && left <= 0)
			return 0;
		r = sys_ret(poll(p, 5, left > INT32_MAX ? INT32_MAX : (int)left));
		if (r < 0 && r != -EINTR)
			return r;
		if (r <= 0)
			continue;
		if (p[4].revents) {
			kill_group(h);
			_exit(1);
		}
		if (p[2].revents)
			feed(h, op);
		if (p[3].revents) {
			if (read(h->spawn, &h->err, sizeof(h->err)) != sizeof(h->err))
				h->err = 0;
			close(keep(&h->spawn));
		}
		if (p[1].revents && !drain(h->out))
			close(keep(&h->out));
		if (p[0].revents) {
			/* What a grandchild still writes is not waited for. */
			if (h->out >= 0)
				drain(h->out);
			return 1;
		}
	}
}

static int run(struct hook *h, const struct op *op)
{
	int status, r;

	failure.len = 0;
	r = watch(h, op);
	if (r < 0)
		return r;
	if (r == 0)
		kill_group(h);
	while (wait4(h->pid, &status, 0, NULL) < 0)
		if (errno != EINTR)
			return -errno;
	/* It may have ended before its errno was looked at. */
	if (h->spawn >= 0 && h->err == 0 && r == 1 &&
	    read(h->spawn, &h->err, sizeof(h->err)) != sizeof(h->err))
		h->err = 0;
	if (h->err) {
		failure.len = 0;
		at(STEP_SPAWN);
		return -h->err;
	}
	if (r == 0) {
		at(STEP_TIMEOUT);
		return -ETIMEDOUT;
	}
	if (status) {
		failure.value = (uint64_t)status;
		at(STEP_STATUS);
		return -ECHILD;
	}
	failure.len = 0;
	return 0;
}

int op_hook(const struct op *op)
{
	struct hook h = { .pidfd = -1, .in = -1, .out = -1, .spawn = -1 };
	struct clone3_args args = { .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&h.pidfd, .exit_signal = SIGCHLD };
	int in[2], out[2], spawn[2], r;

	report_turn();
	/* startContainer: a program of the container's. */
	if (op->num[2] == HOOK_START_CONTAINER)
		slots_close();
	at(STEP_SPAWN);
	h.digits = format_number(h.number, (uint64_t)sys_getpid(), 10);
	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(spawn, O_CLOEXEC) < 0)
		return -errno;
	h.pid = sys_clone3(&args);
	if (h.pid < 0)
		return h.pid;
	if (h.pid == 0)
		hook_child(op, in[0], out[1], spawn[1]);
	setpgid(h.pid, h.pid); /* whoever is first */
	close(in[0]);
	close(out[1]);
	close(spawn[1]);
	h.in = in[1];
	h.out = out[0];
	h.spawn = spawn[0];
	/* Only these ends: the hook's own must not be non-blocking. */
	if (fcntl(h.in, F_SETFL, O_NONBLOCK) < 0 || fcntl(h.out, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	at(STEP_NONE);
	r = run(&h, op);
	cleanup_fd(&h.pidfd);
	cleanup_fd(&h.in);
	cleanup_fd(&h.out);
	cleanup_fd(&h.spawn);
	return r;
}
