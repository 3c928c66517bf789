// A library that the uml lane preloads into linux.uml, to run it on processors
// with AMX. That kernel (6.1) keeps 2696 bytes of extended register state of a
// process, all that there is up to AVX-512. Since Linux 5.16 PTRACE_SETREGSET
// takes the processor's full size only and else gives EFAULT. Here the
// rest is filled with zeros: the tiles of AMX, which nobody in the lane uses.

enum { SETREGSET = 0x4205, GETREGSET = 0x4204, XSTATE = 0x202 };

struct iovec {
	void *base;
	unsigned long len;
};

extern void *dlsym(void *handle, const char *name);

long ptrace(long request, long pid, long addr, void *data)
{
	static long (*real)(long, long, long, void *);
	static char full[1 << 16];
	static struct iovec all;
	struct iovec *given = data;

	if (!real)
		real = dlsym((void *)-1L /* RTLD_NEXT */, "ptrace");
	if (request != SETREGSET || addr != XSTATE)
		return real(request, pid, addr, data);
	if (!all.len) {
		all.base = full;
		all.len = sizeof(full);
		if (real(GETREGSET, pid, XSTATE, &all) < 0)
			return -1;
		for (unsigned long i = given->len; i < all.len; i++)
			full[i] = 0;
	}
	if (given->len >= all.len)
		return real(request, pid, addr, data);
	__builtin_memcpy(full, given->base, given->len);
	return real(request, pid, addr, &all);
}
