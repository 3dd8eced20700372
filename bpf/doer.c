/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who does it: remembers which programs were executed, so that whoever commits a ruleset is still known when
 * it has ended; and tells at once of what no netlink message announces, a listener on a protected port and an
 * iptables-legacy table. Compiled by BCC in the loader child; does without conntrack.
 *
 * -D parameters: NETNS_INUM (our network namespace) and offsets. Only what happens in our network namespace
 * is recorded: nobody fills the maps from within a pod.
 */
#include <uapi/linux/ptrace.h>
#include "kernel.h"
#include "doer.h"

#define TCP_CLOSE	   7 /* enum, include/net/tcp_states.h */
#define TCP_LISTEN	   10
#define IPT_SO_SET_REPLACE 64 /* and IP6T_SO_SET_REPLACE, uapi/linux/netfilter_ipv[46]/ */
#define NFPROTO_IPV4	   2
#define NFPROTO_IPV6	   10

/*
 * What each process executed last, by its id. Inserted here; the LRU deletes. The daemon reads an entry when
 * a commit names its process: nobody is woken by an exec. One entry per process is enough: who executes
 * something else after its commit is told by the time of the exec.
 */
BPF_TABLE("lru_hash", u32, struct exec, execs, 4096);

/* A record is too large for the stack. One per CPU is enough: a tracepoint's program is not preempted. */
BPF_PERCPU_ARRAY(scratch, struct exec, 1);

/* The protected TCP ports. Written and deleted by the daemon (DoerWatch.protect); read here. */
BPF_F_TABLE("hash", u16, u8, ports, 4096, BPF_F_NO_PREALLOC);

/* Written here; the daemon consumes. 4 pages hold over 300 deeds. */
BPF_RINGBUF_OUTPUT(deeds, 4);

/* enum doer_stat; written here, read by the daemon. */
BPF_PERCPU_ARRAY(doer_stats, u64, DOER_STATS);

/* Written by `doer_layout`, once, at the loader's request; the daemon compares it with its own idea. */
BPF_ARRAY(layout, u32, DOER_LAYOUT_ENTRIES);

/* kprobe only: whose table nf_setsockopt was entered to replace. Inserted on entry, deleted on return. */
BPF_TABLE("lru_hash", u64, u8, entered, 1024);

inline_always void bump(int which)
{
	u64 *value = doer_stats.lookup(&which);

	if (value)
		(*value)++;
}

inline_always void load_ancestors(struct exec *record, const char *task)
{
	record->depth = 0;
#pragma unroll
	for (int i = 0; i < ANCESTORS; i++) {
		struct ancestor *parent = &record->ancestors[i];

		/* the thread that forked; its leader is what has a name and a number */
		task = LOAD(const char *, task, TASK_REAL_PARENT);
		task = LOAD(const char *, task, TASK_GROUP_LEADER);
		parent->pid = LOAD(u32, task, TASK_TGID);
		if (parent->pid == 0)
			return;
		parent->started = LOAD(u64, task, TASK_STARTED);
		bpf_probe_read_kernel(parent->comm, COMM, task + TASK_COMM);
		record->depth = i + 1;
		if (parent->pid == 1)
			return;
	}
}

/* Names of control groups (version 2), the innermost first; the root's is empty. */
inline_always void load_groups(struct exec *record, const char *task)
{
	const char *set = LOAD(const char *, task, TASK_CGROUPS);
	const char *node = LOAD(const char *, LOAD(const char *, set, CSS_SET_CGROUP), CGROUP_NODE);

#pragma unroll
	for (int i = 0; i < GROUPS; i++) {
		record->groups[i][0] = 0;
		bpf_probe_read_kernel_str(record->groups[i], GROUP, LOAD(const char *, node, NODE_NAME));
		node = LOAD(const char *, node, NODE_PARENT);
	}
}

inline_always void load_arguments(struct exec *record, const char *task)
{
	const char *mm = LOAD(const char *, task, TASK_MM);
	const char *start = LOAD(const char *, mm, MM_ARG_START);
	u64 length = LOAD(const char *, mm, MM_ARG_END) - start;

	record->arguments_length = length;
	if (length > ARGUMENTS - 1)
		length = ARGUMENTS - 1;
	/* so that the bound below is not optimised away: it is what the verifier of 6.1 understands */
	asm volatile("" : "+r"(length));
	length &= ARGUMENTS - 1;
	if (bpf_probe_read_user(record->arguments, length, start))
		length = 0;
	record->arguments_kept = length;
}

/* raw tracepoint sched:sched_process_exec(task, old_pid, bprm), in the process that now runs the new program
 */
int executed(struct bpf_raw_tracepoint_args *ctx)
{
	const char *task = (const char *)ctx->args[0], *bprm = (const char *)ctx->args[2];
	u32 zero = 0, pid = bpf_get_current_pid_tgid() >> 32;
	struct exec *record;

	if (!our_netns(LOAD(const void *, LOAD(const char *, task, TASK_NSPROXY), NSPROXY_NET)))
		return 0;
	record = scratch.lookup(&zero);
	if (!record)
		return 0;
	record->at = bpf_ktime_get_ns();
	record->started = LOAD(u64, LOAD(const char *, task, TASK_GROUP_LEADER), TASK_STARTED);
	record->pid = pid;
	record->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(record->comm, COMM);
	record->filename[0] = 0;
	bpf_probe_read_kernel_str(record->filename, FILENAME, LOAD(const char *, bprm, BPRM_FILENAME));
	load_ancestors(record, task);
	load_groups(record, task);
	load_arguments(record, task);
	if (execs.update(&pid, record))
		bump(LOST_EXEC);
	return 0;
}

inline_always void tell(u8 kind, u16 port, u8 family, u32 inode)
{
	u64 id = bpf_get_current_pid_tgid();
	struct deed deed = {
	    .at = bpf_ktime_get_ns(),
	    .pid = id >> 32,
	    .thread = id,
	    .port = port,
	    .kind = kind,
	    .family = family,
	    .inode = inode,
	};

	bpf_get_current_comm(deed.comm, COMM);
	if (deeds.ringbuf_output(&deed, sizeof(deed), 0))
		bump(LOST_DEED);
}

/*
 * raw tracepoint sock:inet_sock_set_state(sk, old, new): to TCP_LISTEN, and from it to TCP_CLOSE, in the
 * context of who does it. Every connection that is accepted leaves TCP_LISTEN, too: it begins as a copy of
 * the listener (inet_csk_clone_lock) and goes to TCP_SYN_RECV.
 */
int state_set(struct bpf_raw_tracepoint_args *ctx)
{
	const char *sk = (const char *)ctx->args[0];
	int old = ctx->args[1], new = ctx->args[2];
	const void *socket;
	u16 port;

	if (new != TCP_LISTEN && (old != TCP_LISTEN || new != TCP_CLOSE))
		return 0;
	port = LOAD(u16, sk, SOCK_PORT);
	if (!ports.lookup(&port) || !our_netns(LOAD(const void *, sk, SOCK_NET)))
		return 0;
	socket = LOAD(const void *, sk, SOCK_SOCKET); /* none once its process has closed it */
	tell(new == TCP_LISTEN ? LISTENED : CLOSED, port, 0,
	     socket ? LOAD(unsigned long, socket, SOCKET_INODE) : 0);
	return 0;
}

inline_always bool replaces(const void *sk, u8 family, int option)
{
	return option == IPT_SO_SET_REPLACE && (family == NFPROTO_IPV4 || family == NFPROTO_IPV6) &&
	       our_netns(LOAD(const void *, sk, SOCK_NET));
}

/*
 * nf_setsockopt(sk, pf, option, sockptr, length) is where iptables-legacy's tables are replaced. It runs for
 * nothing but netfilter's own options, so watching it costs nobody else anything; the system call's
 * tracepoints make every system call of the host slower.
 */

/* fexit; sockptr_t takes two places (since 6.1 a function with such an argument may be traced) */
int replaced_fexit(u64 *ctx)
{
	if ((int)ctx[6] == 0 && replaces((const void *)ctx[0], ctx[1], ctx[2]))
		tell(REPLACED, 0, ctx[1], 0);
	return 0;
}

/* kprobe and kretprobe: the arguments are only known on entry, whether it succeeded on return */
int replace_enter(struct pt_regs *ctx)
{
	u64 key = bpf_get_current_pid_tgid();
	u8 family = PT_REGS_PARM2(ctx);

	if (replaces((const void *)PT_REGS_PARM1(ctx), family, PT_REGS_PARM3(ctx)))
		entered.update(&key, &family);
	return 0;
}

int replace_return(struct pt_regs *ctx)
{
	u64 key = bpf_get_current_pid_tgid();
	u8 *family = entered.lookup(&key);

	if (!family)
		return 0;
	if ((int)PT_REGS_RC(ctx) == 0)
		tell(REPLACED, 0, *family, 0);
	entered.delete(&key);
	return 0;
}

inline_always void put(int index, u32 value)
{
	layout.update(&index, &value);
}

/* Run once by the loader (BPF_PROG_TEST_RUN), attached nowhere. */
int doer_layout(struct bpf_raw_tracepoint_args *ctx)
{
	int index = 0;

#define PUT(number) put(index++, number);
	DOER_LAYOUT(PUT)
	return 0;
}
