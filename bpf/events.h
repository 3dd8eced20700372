/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What the probe and user space say to each other; k3swatch/decode/event.py is the other half.
 *
 * Flat, no bitfields, and padded by hand, so that every compiler lays it out alike. Ports are in host byte
 * order. Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. The asserts below pin what user
 * space relies on; a unit test compares every offset, and the daemon does once more when it attaches.
 */
#ifndef K3SWATCH_EVENTS_H
#define K3SWATCH_EVENTS_H

#include <linux/types.h>

enum outcome {
	DELIVERED = 0,
	DIVERTED = 1,
	DROPPED = 2,
};

/* Key of `protected`: one protected port on one address. */
struct endpoint {
	__u8 address[16];
	__u16 port;
	__u8 protocol; /* IPPROTO_* */
	__u8 pad;
};

/* Key of `counts`. For diverted connections `reached` says where to; else it is zero. */
struct count_key {
	__u8 reached[16];
	__u16 reached_port;
	__u16 port; /* the one that was dialled */
	__u8 protocol;
	__u8 outcome; /* enum outcome */
	__u16 pad;
};

/* Value of `counts`. Only `connections` is exact; the rest rations events. */
struct count {
	__u64 connections;
	__u64 reported; /* `connections` when the last event was sent */
	__u64 window;	/* CLOCK_MONOTONIC ns, when the current second began */
	__u32 sent;	/* events in this second */
	__u32 pad;
};

/* One record of the ring buffer `events`. */
struct event {
	__u64 at;	   /* CLOCK_MONOTONIC ns */
	__u64 connections; /* it stands for: those of its kind since the last event; 0: a drop of one told
			      before */
	__u8 source[16];
	__u8 dialled[16]; /* destination of the ORIGINAL tuple */
	__u8 reached[16]; /* source of the REPLY tuple */
	__u16 source_port;
	__u16 dialled_port;
	__u16 reached_port;
	__u8 protocol;
	__u8 outcome;	   /* enum outcome */
	__u32 drop_reason; /* enum skb_drop_reason of the running kernel; 0 when nothing was dropped */
	__u32 listener;	   /* inode of the listening socket that has it; 0: not known, or it went elsewhere */
};

/* Indices of `stats`: counters per CPU. */
enum stat {
	SEEN_QUEUED = 0,   /* packets net_dev_queue showed us, ours or not: the sign of life */
	SEEN_FREED = 1,	   /* packets kfree_skb showed us, each twice */
	LOST_EVENT = 2,	   /* the ring buffer was full */
	LOST_IDENTITY = 3, /* `told` took no new entry: this connection may be counted twice */
	LOST_COUNT = 4,	   /* `counts` took no new entry */
	STATS = 5,
};

_Static_assert(sizeof(struct endpoint) == 20, "endpoint");
_Static_assert(sizeof(struct count_key) == 24, "count_key");
_Static_assert(sizeof(struct count) == 32, "count");
_Static_assert(sizeof(struct event) == 80, "event");
_Static_assert(__builtin_offsetof(struct event, drop_reason) == 72, "event.drop_reason");

/* Every size and offset user space relies on, in the order of LAYOUT in decode/event.py. */
#define LAYOUT(X)                                                                                            \
	X(sizeof(struct endpoint))                                                                           \
	X(__builtin_offsetof(struct endpoint, port))                                                         \
	X(__builtin_offsetof(struct endpoint, protocol))                                                     \
	X(sizeof(struct count_key))                                                                          \
	X(__builtin_offsetof(struct count_key, reached_port))                                                \
	X(__builtin_offsetof(struct count_key, port))                                                        \
	X(__builtin_offsetof(struct count_key, protocol))                                                    \
	X(__builtin_offsetof(struct count_key, outcome))                                                     \
	X(sizeof(struct count))                                                                              \
	X(__builtin_offsetof(struct count, connections))                                                     \
	X(sizeof(struct event))                                                                              \
	X(__builtin_offsetof(struct event, connections))                                                     \
	X(__builtin_offsetof(struct event, source))                                                          \
	X(__builtin_offsetof(struct event, dialled))                                                         \
	X(__builtin_offsetof(struct event, reached))                                                         \
	X(__builtin_offsetof(struct event, source_port))                                                     \
	X(__builtin_offsetof(struct event, dialled_port))                                                    \
	X(__builtin_offsetof(struct event, reached_port))                                                    \
	X(__builtin_offsetof(struct event, protocol))                                                        \
	X(__builtin_offsetof(struct event, outcome))                                                         \
	X(__builtin_offsetof(struct event, drop_reason))                                                     \
	X(__builtin_offsetof(struct event, listener))                                                        \
	X(STATS)
#define LAYOUT_ENTRIES 23

#endif
