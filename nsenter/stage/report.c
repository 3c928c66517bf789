/* Frames to the parent, and its replies. */
#include <string.h>
#include <sys/socket.h>

#include "stage.h"
#include "sys.h"

struct packet {
	struct frame frame;
	char text[MAX_TEXT];
};

struct failure failure;

/* Writes n in base 8 or 10 and a NUL, and returns the length. */
size_t format_number(char *text, uint64_t n, unsigned base)
{
	char digits[NUMBER_SIZE];
	size_t len = 0, i;

	do
		digits[len++] = (char)('0' + n % base);
	while ((n /= base) != 0);
	for (i = 0; i < len; i++)
		text[i] = digits[len - 1 - i];
	text[len] = 0;
	return len;
}

/* Returns -err, for the operation to return. */
int fail_text(int err, uint32_t step, const char *text)
{
	failure.step = step;
	failure.len = 0;
	failure_add(text, strlen(text));
	return -err;
}

/* What does not fit is cut off. */
void failure_add(const char *text, size_t len)
{
	if (len > MAX_TEXT - failure.len)
		len = MAX_TEXT - failure.len;
	memcpy(failure.text + failure.len, text, len);
	failure.len += (uint32_t)len;
}

/*
 * Waits until the first process has done all that is left to it: before that the second sends nothing,
 * and runs nothing of the container's. The first ends without a word if it fails.
 */
void report_turn(void)
{
	int r;

	if (stage.turn < 0)
		return;
	do
		r = sys_ret(read(stage.turn, &stage.pid, sizeof(stage.pid)));
	while (r == -EINTR);
	if (r != sizeof(stage.pid))
		_exit(1);
	close(stage.turn);
	stage.turn = -1;
}

static int send_packet(const struct packet *p, const int *fds, unsigned nfds)
{
	struct iovec iov = { .iov_base = (void *)p, .iov_len = sizeof(p->frame) + p->frame.len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	int r;

	if (nfds) {
		memset(&control, 0, sizeof(control));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = (socklen_t)CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, nfds * sizeof(int));
		msg.msg_control = &control;
		msg.msg_controllen = (socklen_t)CMSG_SPACE(nfds * sizeof(int));
	}
	report_turn();
	do {
		if (stage.fifo)
			r = sys_ret(write(stage.channel, p, iov.iov_len));
		else
			r = sys_ret(sendmsg(stage.channel, &msg, MSG_NOSIGNAL));
	} while (r == -EINTR);
	return r < 0 ? r : 0;
}

/* At most two descriptors. Until the commit the stage ends with its parent. */
int report_send(uint32_t type, uint64_t value, const int *fds, unsigned nfds)
{
	struct packet p = { .frame = { .type = type, .op = stage.op, .value = value } };
	int r = send_packet(&p, fds, nfds);

	if (stage.acked)
		return 0;
	if (r == -EPIPE || r == -ECONNRESET)
		_exit(1);
	return r;
}

/* Takes at most max descriptors of a message and closes the others; returns how many there were. */
static unsigned take_fds(struct msghdr *msg, int *fds, unsigned max)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int got;

			memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < max)
				fds[n] = got;
			else
				close(got);
			n++;
		}
	}
	return n;
}

/* Waits for a frame, and returns with how many descriptors it came: at most max. */
static int receive(struct packet *p, int *fds, unsigned max)
{
	struct iovec iov = { .iov_base = p, .iov_len = sizeof(*p) };
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE((MAX_RECEIVE + 1) * sizeof(int))];
	} control;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	unsigned n;
	int r;

	do
		r = sys_ret(recvmsg(stage.channel, &msg, MSG_CMSG_CLOEXEC));
	while (r == -EINTR);
	if (r == 0 || r == -ECONNRESET)
		_exit(1);
	at(STEP_REPLY);
	if (r < 0)
		return r;
	n = take_fds(&msg, fds, max);
	if (n > max || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return -EPROTO;
	if (r < (int)sizeof(p->frame) || p->frame.len != (size_t)r - sizeof(p->frame))
		return -EPROTO;
	return (int)n;
}

static struct packet received;

/*
 * Waits for MSG_GO, with exactly n descriptors. With text its text becomes
 * stage.home; else it must have none.
 */
int report_receive(int *fds, unsigned n, bool text)
{
	struct packet *p = &received;
	int r = receive(p, fds, n);

	if (r < 0)
		return r;
	if (r != (int)n || p->frame.type != MSG_GO || (!text && p->frame.len))
		return -EPROTO;
	if (text) {
		if (memchr(p->text, 0, p->frame.len))
			return -EPROTO;
		memcpy(stage.home, "HOME=", 5);
		memcpy(stage.home + 5, p->text, p->frame.len);
		stage.home[5 + p->frame.len] = 0;
		stage.home_set = true;
	}
	at(STEP_NONE);
	return 0;
}

/* Waits for the plan, MSG_GO with its descriptor. MSG_BEGIN may come before it. */
int report_plan(int *fd)
{
	struct packet *p = &received;
	int r = receive(p, fd, 1);

	if (r == 0 && p->frame.type == MSG_BEGIN && !p->frame.len && p->frame.value) {
		stage.begun = p->frame.value;
		stage.begun_result = sys_ret(unshare((int)stage.begun));
		r = receive(p, fd, 1);
	}
	if (r < 0)
		return r;
	if (r != 1 || p->frame.type != MSG_GO || p->frame.len)
		return -EPROTO;
	at(STEP_NONE);
	return 0;
}

/* Sends a message and waits for the answer. got, if not NULL, takes the one descriptor that must come with it. */
int report_await(uint32_t type, const int *fds, unsigned nfds, int *got, bool text)
{
	int r = report_send(type, 0, fds, nfds);

	return r < 0 ? r : report_receive(got, got ? 1 : 0, text);
}

/* err is positive. No clean-up: the kernel does it. */
_Noreturn void report_error(int err)
{
	struct packet p = {
		.frame = {
			.type = MSG_ERROR,
			.op = stage.op,
			.err = err,
			.step = failure.step,
			.value = failure.value,
			.len = failure.len,
		},
	};

	memcpy(p.text, failure.text, failure.len);
	send_packet(&p, NULL, 0);
	_exit(1);
}
