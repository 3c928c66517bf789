/*
 * Feeds the decoder with plans and mutations of them:
 *
 *	decode_test SECONDS SEED PLAN...
 *
 * Each plan lies at the end of an allocation of its own, so that a read past it
 * is seen by the sanitizer. What the decoder accepts is then read the way the
 * stage reads it. Unchanged plans must be accepted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "stage.h"

#define MAX_PLANS 64

struct seed {
	char *data;
	size_t size;
};

static struct seed seeds[MAX_PLANS];
static int nseeds;
static uint64_t state;
static volatile uint64_t sink;

/* xorshift64*: the same seed gives the same run. */
static uint64_t next_random(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL;
}

static size_t below(size_t n)
{
	return n ? (size_t)(next_random() % n) : 0;
}

/* Reads all that the stage may read of an accepted plan, and checks what it relies on. */
static void walk(const struct plan *plan)
{
	static const struct kind_info kinds[] = { KIND_TABLE };
	const struct plan_header *h = plan->head;

	for (uint32_t i = 0; i < h->nops; i++) {
		const struct op *op = &plan->ops[i];
		const struct kind_info *info = &kinds[op->kind];

		if (op->fd >= (int32_t)h->nfiles || op->slot >= (int32_t)MAX_SLOTS || op->fd < -1 || op->slot < -1)
			abort();
		if (op->kind == OP_HOOK && op->num[1] > op->data[3].len)
			abort();
		for (int j = 0; j < 4; j++) {
			const char *s = plan->strings + op->data[j].off;
			const char *end = s + op->data[j].len;

			if (info->data[j] == OPERAND_LIST) {
				unsigned n = 0;

				for (; s < end; s += strlen(s) + 1)
					n++;
				if (s != end || n > MAX_LIST)
					abort();
				sink += n;
			} else if (info->data[j] == OPERAND_BYTES) {
				for (; s <= end; s++)
					sink += (unsigned char)*s;
			} else if (info->data[j] != OPERAND_NONE && strlen(s) != op->data[j].len) {
				abort();
			}
		}
		if ((op->flags & FLAG_ELSE) && i + 1 == h->nops)
			abort();
	}
}

static bool feed(const char *data, size_t size)
{
	struct plan plan;
	struct decode_error bad;
	void *map = malloc(size ? size : 1);
	bool ok;

	if (!map)
		exit(2);
	memcpy(map, data, size);
	ok = plan_decode(map, size, &plan, &bad) == 0;
	if (ok)
		walk(&plan);
	else if (!bad.text || !*bad.text)
		abort();
	free(map);
	return ok;
}

static uint32_t extreme(void)
{
	static const uint32_t values[] = {
		0, 1, 2, 3, 7, 8, 0x7f, 0x80, 0xff, 0xffff, 0x10000, MAX_SLOTS - 1, MAX_SLOTS, MAX_OPS, MAX_OPS + 1,
		0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
	};

	return values[below(sizeof(values) / sizeof(values[0]))];
}

/* Changes data in place and returns its new size. */
static size_t mutate(char *data, size_t size)
{
	struct plan_header *h = (struct plan_header *)data;
	struct op *ops = (struct op *)(h + 1);
	struct op *op;
	size_t nops;
	uint32_t value;

	if (size < sizeof(*h) + sizeof(*op)) {
		if (size)
			data[below(size)] ^= (char)(1 << below(8));
		return size;
	}
	nops = (size - sizeof(*h)) / sizeof(*op); /* the header may lie by now */
	if (h->nops < nops)
		nops = h->nops ? h->nops : 1;
	op = &ops[below(nops)];
	switch (below(12)) {
	case 0: /* a bit anywhere */
		data[below(size)] ^= (char)(1 << below(8));
		break;
	case 1: /* a word of the header */
		value = extreme();
		memcpy(data + 4 * below(8), &value, 4);
		break;
	case 2: /* a word of an operation */
		value = extreme();
		memcpy((char *)op + 4 * below(sizeof(*op) / 4), &value, 4);
		break;
	case 3:
		op->data[below(4)].off = extreme();
		break;
	case 4:
		op->data[below(4)].len = extreme();
		break;
	case 5: /* near the end of the strings */
		op->data[below(4)].len = (uint32_t)(size - h->strings - op->data[0].off + below(5) - 2);
		break;
	case 6:
		op->data[below(4)].off += (uint32_t)below(5) - 2;
		break;
	case 7: /* cut off, and say so or not */
		size = below(size);
		if (below(2) && size >= sizeof(*h))
			h->size = (uint32_t)size;
		break;
	case 8: /* another kind with these operands */
		op->kind = (uint16_t)below(80);
		break;
	case 9:
		*op = ops[below(nops)];
		break;
	case 10: /* remove or add a NUL */
		if (h->strings < size)
			data[h->strings + below(size - h->strings)] = (char)(below(2) ? 0 : 'x');
		break;
	case 11:
		op->flags ^= (uint16_t)(1 << below(16));
		break;
	}
	return size;
}

static void load(const char *path)
{
	struct seed *s = &seeds[nseeds++];
	FILE *f = fopen(path, "rb");
	long size;

	if (!f || fseek(f, 0, SEEK_END) != 0 || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET) != 0)
		exit(2);
	s->size = (size_t)size;
	s->data = malloc(s->size + 1);
	if (!s->data || fread(s->data, 1, s->size, f) != s->size)
		exit(2);
	fclose(f);
	if (!feed(s->data, s->size)) {
		fprintf(stderr, "%s is refused\n", path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	uint64_t runs = 0, accepted = 0;
	time_t end;

	if (argc < 4 || argc - 3 > MAX_PLANS)
		return 2;
	end = time(NULL) + atoi(argv[1]);
	state = strtoull(argv[2], NULL, 10) | 1;
	for (int i = 3; i < argc; i++)
		load(argv[i]);
	/* Every shorter form first. */
	for (int i = 0; i < nseeds; i++)
		for (size_t size = 0; size < seeds[i].size && size < 4096; size++)
			if (feed(seeds[i].data, size))
				abort();
	while (time(NULL) < end) {
		for (int n = 0; n < 1000; n++, runs++) {
			const struct seed *s = &seeds[below((size_t)nseeds)];
			char *copy = malloc(s->size);
			size_t size = s->size;

			if (!copy)
				return 2;
			memcpy(copy, s->data, size);
			for (size_t times = 1 + below(4); times; times--)
				size = mutate(copy, size);
			accepted += feed(copy, size);
			free(copy);
		}
	}
	printf("%llu plans, %llu accepted\n", (unsigned long long)runs, (unsigned long long)accepted);
	for (int i = 0; i < nseeds; i++)
		free(seeds[i].data);
	return accepted == runs || accepted == 0;
}
