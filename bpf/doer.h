/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the doer's probe and user space say to each other; k3swatch/decode/doer.py is the other half. Laid out
 * and checked as events.h is. Strings end at their first NUL; what comes after it is of somebody else.
 */
#ifndef K3SWATCH_DOER_H
#define K3SWATCH_DOER_H

#include <linux/types.h>

enum {
	COMM = 16,	 /* TASK_COMM_LEN */
	FILENAME = 128,	 /* bytes kept of the path given to execve */
	ARGUMENTS = 512, /* bytes kept of argv; a power of two */
	ANCESTORS = 8,
	GROUPS =
	    4, /* control groups kept, from the innermost out: kubepods/besteffort/pod<uid>/<container> */
	GROUP = 96, /* bytes of one's name: cri-containerd-<64 hex digits>.scope are 86 */
};

/* One parent. `started` tells it from a later process with the same number. */
struct ancestor {
	__u64 started; /* CLOCK_BOOTTIME ns: field 22 of /proc/PID/stat, but exact */
	__u32 pid;
	__u32 pad;
	char comm[COMM];
};

/* Value of `execs`: what a process executed last. */
struct exec {
	__u64 at; /* CLOCK_MONOTONIC ns */
	__u64 started;
	__u32 pid;
	__u32 uid;
	__u32 arguments_length; /* bytes argv has */
	__u32 arguments_kept;
	__u32 depth; /* ancestors that follow, nearest first */
	__u32 pad;
	char comm[COMM];
	char filename[FILENAME];
	struct ancestor ancestors[ANCESTORS];
	char groups[GROUPS][GROUP];
	char arguments[ARGUMENTS];
};

enum deed_kind {
	LISTENED = 0, /* on a protected port */
	CLOSED = 1,   /* no longer listens on it */
	REPLACED = 2, /* an iptables-legacy table */
};

/* One record of the ring buffer `deeds`. */
struct deed {
	__u64 at; /* CLOCK_MONOTONIC ns */
	__u32 pid;
	__u32 thread;
	__u16 port;
	__u8 kind;   /* enum deed_kind */
	__u8 family; /* NFPROTO_* of a table, else 0 */
	__u32 inode; /* of a socket, as sock_diag has it; 0 where it is not known */
	char comm[COMM];
};

/* Indices of `doer_stats`: counters per CPU. */
enum doer_stat {
	LOST_EXEC = 0, /* `execs` took no new entry */
	LOST_DEED = 1, /* the ring buffer was full */
	DOER_STATS = 2,
};

_Static_assert(sizeof(struct ancestor) == 32, "ancestor");
_Static_assert(sizeof(struct exec) == 1336, "exec");
_Static_assert(sizeof(struct deed) == 40, "deed");

/* Every size and offset user space relies on, in the order of LAYOUT in decode/doer.py. */
#define DOER_LAYOUT(X)                                                                                       \
	X(sizeof(struct exec))                                                                               \
	X(__builtin_offsetof(struct exec, started))                                                          \
	X(__builtin_offsetof(struct exec, pid))                                                              \
	X(__builtin_offsetof(struct exec, uid))                                                              \
	X(__builtin_offsetof(struct exec, arguments_length))                                                 \
	X(__builtin_offsetof(struct exec, arguments_kept))                                                   \
	X(__builtin_offsetof(struct exec, depth))                                                            \
	X(__builtin_offsetof(struct exec, comm))                                                             \
	X(__builtin_offsetof(struct exec, filename))                                                         \
	X(__builtin_offsetof(struct exec, ancestors))                                                        \
	X(__builtin_offsetof(struct exec, groups))                                                           \
	X(__builtin_offsetof(struct exec, arguments))                                                        \
	X(sizeof(struct ancestor))                                                                           \
	X(__builtin_offsetof(struct ancestor, pid))                                                          \
	X(__builtin_offsetof(struct ancestor, comm))                                                         \
	X(sizeof(struct deed))                                                                               \
	X(__builtin_offsetof(struct deed, pid))                                                              \
	X(__builtin_offsetof(struct deed, thread))                                                           \
	X(__builtin_offsetof(struct deed, port))                                                             \
	X(__builtin_offsetof(struct deed, kind))                                                             \
	X(__builtin_offsetof(struct deed, family))                                                           \
	X(__builtin_offsetof(struct deed, inode))                                                            \
	X(__builtin_offsetof(struct deed, comm))                                                             \
	X(DOER_STATS)
#define DOER_LAYOUT_ENTRIES 24

#endif
