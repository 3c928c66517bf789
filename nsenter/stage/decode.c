/*
 * The decoder: nothing of a plan is used before all of it has passed here.
 * Sums are done in 64 bits, of 32-bit operands, so they cannot overflow.
 */
#include <string.h>

#include "stage.h"

static const struct kind_info kinds[] = { KIND_TABLE };

enum { UNSET, SET };

/* What the operations so far have done, as far as later ones depend on it. */
struct progress {
	uint8_t slots[MAX_SLOTS];
	bool forked;
	bool rooted;
	bool found;
	bool silent; /* the parent answers no more */
};

static const char *check_header(const struct plan_header *h, size_t size)
{
	if (h->magic != PLAN_MAGIC)
		return "magic";
	if (h->version != PLAN_VERSION)
		return "version";
	if (h->size != size || size > MAX_SIZE)
		return "size";
	if (h->nops == 0 || h->nops > MAX_OPS)
		return "number of operations";
	if (h->nfiles > MAX_FILES)
		return "number of descriptors";
	if ((uint64_t)h->strings != sizeof(*h) + (uint64_t)h->nops * sizeof(struct op) || h->strings > size)
		return "offset of the strings";
#ifndef RTFAULT
	if (h->fault_action != FAULT_NONE)
		return "fault in a build without faults";
#else
	if (h->fault_action > FAULT_SLEEP)
		return "fault action";
#endif
	return NULL;
}

static const char *check_list(const char *s, uint32_t len)
{
	const char *end = s + len;
	unsigned n = 0;

	if (len == 0)
		return NULL;
	if (end[-1] != 0)
		return "list without its last NUL";
	while (s < end) {
		s += strlen(s) + 1;
		if (++n > MAX_LIST)
			return "list too long";
	}
	return NULL;
}

static const char *check_operand(const char *strings, uint64_t size, const struct operand *d, uint8_t type)
{
	const char *s;

	if (type == OPERAND_NONE)
		return d->off || d->len ? "operand that must be empty" : NULL;
	if ((uint64_t)d->off + d->len > size)
		return "operand beyond the end";
	s = strings + d->off;
	if (type == OPERAND_LIST)
		return check_list(s, d->len);
	if ((uint64_t)d->off + d->len + 1 > size || s[d->len] != 0)
		return "string without NUL";
	if (type == OPERAND_BYTES)
		return NULL;
	if (memchr(s, 0, d->len))
		return "string with NUL inside";
	if (type == OPERAND_PATH && d->len == 0)
		return "empty path";
	return NULL;
}

static bool sets_slot(uint16_t kind)
{
	return kind == OP_CLONE || kind == OP_MOUNT || kind == OP_MOUNT_OLD || kind == OP_EMPTY_DIR;
}

static bool optional_slot(uint16_t kind)
{
	return kind == OP_MOUNT || kind == OP_MOUNT_OLD || kind == OP_ROOT;
}

static const char *use_slot(const struct progress *p, uint64_t slot)
{
	if (slot >= MAX_SLOTS)
		return "slot out of range";
	return p->slots[slot] == UNSET ? "slot that is not set" : NULL;
}

/* prev is the operation before, to which op may be the alternative. */
static const char *check_slot(struct progress *p, const struct op *op, const struct op *prev)
{
	bool alternative = prev && (prev->flags & FLAG_ELSE);

	if (op->slot == -1)
		return optional_slot(op->kind) || !kinds[op->kind].slot ? NULL : "no slot";
	if (!kinds[op->kind].slot)
		return "slot of a kind that has none";
	if (!sets_slot(op->kind))
		return op->slot < 0 ? "slot out of range" : use_slot(p, (uint64_t)op->slot);
	if (op->slot < 0 || op->slot >= (int)MAX_SLOTS)
		return "slot out of range";
	/* Of an operation and its alternative only one is carried out. */
	if (p->slots[op->slot] != UNSET &&
	    !(alternative && sets_slot(prev->kind) && prev->slot == op->slot))
		return "slot set twice";
	p->slots[op->slot] = SET;
	return NULL;
}

static const char *check_fd(const struct op *op, unsigned nfiles)
{
	if (op->fd == -1)
		return op->kind == OP_FORK || op->kind == OP_CLONE || op->kind == OP_SECCOMP || !kinds[op->kind].fd ? NULL : "no descriptor";
	if (!kinds[op->kind].fd)
		return "descriptor of a kind that has none";
	return op->fd < 0 || (unsigned)op->fd >= nfiles ? "descriptor out of range" : NULL;
}

static const char *check_order(struct progress *p, const struct op *op, const struct op *prev, bool last)
{
	switch (op->kind) {
	case OP_RAISE:
	case OP_TASKS:
	case OP_RECEIVE:
		return p->forked ? "operation of the first process after the fork" : NULL;
	case OP_DUMPABLE:
	case OP_JOIN:
	case OP_UNSHARE:
		return NULL;
	case OP_BOUNDING:
	case OP_CAPS:
		if (!p->forked)
			return NULL;
		break;
	case OP_TUNE:
		return p->forked || op->num[0] == TUNE_AFFINITY ? NULL : "attribute before the fork";
	case OP_FORK:
		if (p->forked)
			return "second fork";
		p->forked = true;
		return op->flags & FLAG_ELSE ? "alternative to the fork" : NULL;
	}
	if (!p->forked)
		return "operation of the second process before the fork";
	switch (op->kind) {
	case OP_LOOPBACK:
		return (op->flags & FLAG_FIRST) && prev->kind != OP_FORK ? "not right after the fork" : NULL;
	case OP_AWAIT:
	case OP_TIMENS:
	case OP_HOME:
	case OP_CONSOLE:
		if (p->silent)
			return "message after the parent has gone";
		p->silent = op->kind == OP_AWAIT && op->num[0] == MSG_READY;
		break;
	case OP_MOUNT:
		if (p->silent && (op->flags & FLAG_COPY_UP))
			return "message after the parent has gone";
		break;
	case OP_ROOT:
		if (p->rooted)
			return "second root";
		p->rooted = true;
		break;
	case OP_ROOTATTR:
	case OP_PIVOT:
	case OP_MOVEROOT:
	case OP_CHROOT:
		if (!p->rooted)
			return "no root yet";
		break;
	case OP_GATE:
		p->silent = true;
		break;
	case OP_SECCOMP:
		/* The pid that goes with the listener comes on the way. */
		return op->fd >= 0 && !p->silent ? "listener before the commit" : NULL;
	case OP_FIND:
		p->found = true;
		break;
	case OP_EXEC:
		if (!last)
			return "operation after exec";
		if (!p->found)
			return "exec without find";
		break;
	}
	return NULL;
}

static const char *check_received(const struct plan *plan, const struct op *op)
{
	uint32_t index;

	if (op->data[0].len % sizeof(index) || op->data[0].len / sizeof(index) > MAX_RECEIVE)
		return "list of descriptors";
	for (uint32_t i = 0; i < op->data[0].len; i += sizeof(index)) {
		memcpy(&index, plan->strings + op->data[0].off + i, sizeof(index));
		if (index >= plan->head->nfiles)
			return "descriptor out of range";
	}
	return NULL;
}

static const char *check_tune(const struct op *op)
{
	switch (op->num[0]) {
	case TUNE_SCHEDULER:
		return op->data[0].len == 56 ? NULL : "scheduler"; /* SCHED_ATTR_SIZE_VER1 */
	case TUNE_AFFINITY:
	case TUNE_MEMORY_POLICY:
		return op->data[0].len % 8 ? "mask" : NULL;
	case TUNE_IO_PRIORITY:
	case TUNE_PERSONALITY:
		return op->data[0].len ? "operand that must be empty" : NULL;
	}
	return "attribute";
}

static const char *check_numbers(const struct progress *p, const struct op *op, unsigned nfiles)
{
	const uint64_t *n = op->num;

	switch (op->kind) {
	case OP_AWAIT:
		return n[0] == MSG_MAPS || n[0] == MSG_NETWORK || n[0] == MSG_MOUNTED || n[0] == MSG_READY ? NULL : "message type";
	case OP_NODE:
		if (n[0] > UINT16_MAX || n[1] > UINT32_MAX || n[2] >= UINT32_MAX || n[3] >= UINT32_MAX)
			return "mode, device or owner out of range";
		break;
	case OP_MOUNT:
		return n[0] > UINT32_MAX ? "attributes out of range" : NULL;
	case OP_MASK:
		return use_slot(p, n[0]);
	case OP_HOOK:
		return n[1] > op->data[3].len ? "position of the pid out of range" : NULL;
	case OP_CONSOLE:
		if (n[0] > UINT16_MAX || n[1] > UINT16_MAX || n[2] >= UINT32_MAX)
			return "size or owner out of range";
		break;
	case OP_STDIO:
		return n[0] >= UINT32_MAX ? "owner out of range" : NULL;
	case OP_RAISE:
	case OP_RLIMIT:
		return n[0] >= RLIM_NLIMITS ? "resource" : NULL;
	case OP_SECCOMP:
		if (op->data[0].len == 0 || op->data[0].len % 8 || op->data[0].len / 8 > 4096 /* BPF_MAXINSNS */)
			return "filter size";
		/* SECCOMP_FILTER_FLAG_NEW_LISTENER */
		return ((n[0] & 8) != 0) != (op->fd >= 0) ? "listener without a socket, or the reverse" : NULL;
	case OP_TUNE:
		return check_tune(op);
	case OP_LABEL:
		return n[0] > LABEL_FILE || n[1] > 1 ? "label" : NULL;
	case OP_GROUPS:
		if (op->data[0].len % 4 || op->data[0].len / 4 > MAX_LIST)
			return "groups";
		break;
	case OP_IDS:
		/* UINT32_MAX is "no change" to the kernel. */
		return n[0] >= UINT32_MAX || n[1] >= UINT32_MAX ? "id out of range" : NULL;
	case OP_GATE:
		return n[0] >= nfiles ? "descriptor out of range" : NULL;
	}
	return NULL;
}

static const char *check_op(struct progress *p, const struct plan *plan, uint32_t i)
{
	const struct op *op = &plan->ops[i];
	const struct op *prev = i ? op - 1 : NULL;
	bool last = i + 1 == plan->head->nops;
	uint64_t strings = plan->head->size - plan->head->strings;
	const char *bad;

	if (op->kind >= sizeof(kinds) / sizeof(kinds[0]) || !kinds[op->kind].known)
		return "unknown kind";
	if (op->reserved)
		return "reserved field";
	if (last && (op->flags & FLAG_ELSE))
		return "alternative missing";
	for (int j = 0; j < 4; j++) {
		bad = check_operand(plan->strings, strings, &op->data[j], kinds[op->kind].data[j]);
		if (bad)
			return bad;
	}
	bad = check_order(p, op, prev, last);
	if (!bad)
		bad = check_fd(op, plan->head->nfiles);
	if (!bad)
		bad = check_slot(p, op, prev);
	if (!bad && op->kind == OP_RECEIVE)
		bad = check_received(plan, op);
	return bad ? bad : check_numbers(p, op, plan->head->nfiles);
}

/* Returns 0 and fills plan, or -1 and fills bad. map must be aligned to 8. */
int plan_decode(const void *map, size_t size, struct plan *plan, struct decode_error *bad)
{
	static struct progress progress;

	bad->op = UINT32_MAX;
	bad->text = "size";
	if (size < sizeof(struct plan_header))
		return -1;
	plan->head = map;
	bad->text = check_header(plan->head, size);
	if (bad->text)
		return -1;
	plan->ops = (const struct op *)(plan->head + 1);
	plan->strings = (const char *)map + plan->head->strings;
	memset(&progress, 0, sizeof(progress));
	for (uint32_t i = 0; i < plan->head->nops; i++) {
		bad->op = i;
		bad->text = check_op(&progress, plan, i);
		if (bad->text)
			return -1;
	}
	bad->text = "no fork";
	return progress.forked ? 0 : -1;
}
