/* What the files of the stage share. plan.h has the contract with the parent. */
#ifndef STAGE_H
#define STAGE_H

#include <stddef.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"

/* A checked plan; it points into the read-only mapping. */
struct plan {
	const struct plan_header *head;
	const struct op *ops;
	const char *strings;
};

struct decode_error {
	uint32_t op; /* or UINT32_MAX for the header */
	const char *text;
};

/* decode.c: no system call, no global state, so that it can be fuzzed. */
int plan_decode(const void *map, size_t size, struct plan *plan, struct decode_error *bad);

/* The one instance is in main.c. All descriptors are close-on-exec. */
struct stage {
	struct plan plan;
	unsigned base;        /* the first descriptor that is not the container's */
	int tell;             /* the first process, which has made the second: writes that its pid; else -1 */
	int turn;             /* pipe of the first process, which speaks first; -1 for none */
	int pid;              /* of the second process as the first sees it, once that has told */
	int channel;          /* for frames: the control socket or the result fifo */
	int files[MAX_FILES]; /* the plan's, once received, plus one */
	bool fifo;            /* channel is the fifo */
	bool acked;           /* outlives its parent */
	uint64_t begun;       /* what MSG_BEGIN asked for, until the plan has */
	int begun_result;     /* of it */
	uint32_t op;          /* index of the current operation */
	struct rlimit nofile; /* as it was at start */
	bool nofile_set;      /* by the plan, so leave it alone */
	mode_t umask;         /* for hooks; the stage itself runs with 0 until KindUmask */
	char home[sizeof("HOME=") + MAX_TEXT];
	bool home_set;
};

extern struct stage stage;

/* What goes into the error frame besides the errno that an operation returns. */
struct failure {
	uint32_t step;
	uint64_t value;
	uint32_t len;
	char text[MAX_TEXT];
};

extern struct failure failure;

/* Where an operation has got to; the step of the error if it fails. */
static inline void at(uint32_t step)
{
	failure.step = step;
}

/* Owned descriptor: closed at the end of the scope unless kept. */
static inline void cleanup_fd(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define AUTO_FD __attribute__((cleanup(cleanup_fd))) int

static inline int keep(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

static inline const char *op_data(const struct op *op, int i)
{
	return stage.plan.strings + op->data[i].off;
}

static inline const char *op_end(const struct op *op, int i)
{
	return op_data(op, i) + op->data[i].len;
}

/* Only for an index that the decoder has checked not to be -1. */
static inline int plan_file(int64_t index)
{
	return stage.files[index] - 1;
}

#define NUMBER_SIZE 24 /* of a 64-bit number in octal, with its NUL */

/* report.c */
size_t format_number(char *text, uint64_t n, unsigned base);
int fail_text(int err, uint32_t step, const char *text);
void failure_add(const char *text, size_t len);
int report_send(uint32_t type, uint64_t value, const int *fds, unsigned nfds);
int report_await(uint32_t type, const int *fds, unsigned nfds, int *got, bool text);
int report_receive(int *fds, unsigned n, bool text);
int report_plan(int *fd);
void report_turn(void);
_Noreturn void report_error(int err);

/* root.c */
int root_fd(void);
void root_set(int fd);
int root_open(const char *path, uint64_t flags, uint64_t resolve);
int root_make(const char *path, mode_t type, bool real);
int root_parent(const char *path, char *name, bool real);
int own_proc(void);

/* mount.c */
int op_propagate(const struct op *op);
int op_mount(const struct op *op);
int op_mount_old(const struct op *op);
int op_remount(const struct op *op);
int new_fs(const char *type, const char *source, const char *first, const char *list, const char *end, unsigned attr);
int set_attr(int fd, uint64_t set, uint64_t clear, uint64_t propagation, bool recursive);
int apply_attr(int fd, const uint64_t *num);
int apply_propagation(int fd, const uint64_t *num);
int open_target(const struct op *op, int data, mode_t type);
int attach(int fd, int target);
const char *type_name(mode_t mode);

/* tree.c */
int op_clone(const struct op *op);
int op_root(const struct op *op);
int op_attach(const struct op *op);
int op_setattr(const struct op *op);
int op_rootattr(const struct op *op);
int op_readonly(const struct op *op);
int op_mask(const struct op *op);
int op_empty_dir(const struct op *op);
int op_pivot(const struct op *op);
int op_moveroot(const struct op *op);
int op_chroot(const struct op *op);
void slot_set(int slot, int fd, bool attached);
void slots_close(void);

/* node.c */
int op_node(const struct op *op);
int op_symlink(const struct op *op);
int op_sysctl(const struct op *op);
void sysctl_done(void);

/* namespace.c */
int op_raise(const struct op *op);
int op_tasks(const struct op *op);
int op_join(const struct op *op);
int op_fork(const struct op *op);
_Noreturn void fork_done(void);
int op_receive(const struct op *op);
int op_unshare(const struct op *op);
int op_timens(const struct op *op);
int op_setroot(const struct op *op);
int op_dumpable(const struct op *op);
int op_keyring(const struct op *op);
int op_loopback(const struct op *op);
int op_hostname(const struct op *op);
int op_domainname(const struct op *op);

/* label.c */
int op_label(const struct op *op);

/* hook.c */
int op_hook(const struct op *op);

/* console.c */
int op_console(const struct op *op);
int op_stdio(const struct op *op);

/* process.c */
int op_await(const struct op *op);
int op_home(const struct op *op);
int op_setsid(const struct op *op);
int op_cwd(const struct op *op);
int op_rlimit(const struct op *op);
int op_umask(const struct op *op);
int op_bounding(const struct op *op);
int op_groups(const struct op *op);
int op_ids(const struct op *op);
int op_caps(const struct op *op);
int op_no_new_privs(const struct op *op);
int op_tune(const struct op *op);
int op_find(const struct op *op);
int op_gate(const struct op *op);
int op_exec(const struct op *op);
void signals_default(void (*terminating)(int));
int raise_capability(unsigned cap);
int exec_program(const char *path, const struct op *op, int argv, int envp, bool home);

/* seccomp.c */
int op_seccomp(const struct op *op);
int filter_socket(int fd);
int load_deferred(void);

#endif
