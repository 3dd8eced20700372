/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * The connection probe: counts every connection to a protected port once, by what becomes of it, and sends an
 * event for the first of each kind and then a few a second. Compiled by BCC in the loader child.
 *
 * -D parameters: NETNS_INUM (our network namespace), EVENTS_PER_SECOND (a kind), the offsets of kernel.h and
 * packet.h (those of IPVS only where it is loaded), and DROP_REASONS where the kernel gives kfree_skb a
 * reason (since 5.17).
 */
#include <uapi/linux/ptrace.h>
#include "packet.h"
#include "events.h"

/* Written by the daemon (FlowWatch.protect), which also deletes; read here. */
BPF_F_TABLE("hash", struct endpoint, u8, protected, 16384, BPF_F_NO_PREALLOC);

/* Every address of this host, port and protocol zero. Written and deleted by the daemon; read here. */
BPF_F_TABLE("hash", struct endpoint, u8, local, 16384, BPF_F_NO_PREALLOC);

/* One element, written by the daemon: how many UDP ports are protected. With none, UDP is let pass unread. */
BPF_ARRAY(udp_ports, u32, 1);

/*
 * Listening sockets, by inode, that are certain to be another program's than the port's owner: who is
 * accepted there has arrived, and is diverted all the same. Written and deleted by the daemon
 * (FlowWatch.distrust); read here.
 */
BPF_F_TABLE("hash", u32, u8, strangers, 1024, BPF_F_NO_PREALLOC);

/*
 * Connections that were counted. Inserted here; the LRU deletes.
 *
 * What makes one connection is its original tuple and the client's initial sequence number. The tuple alone
 * would not do: at 10,000 connections a second a client is back at the same source port within seconds. Nor
 * would the conntrack entry's address: a SYN that is dropped takes its entry with it, and the retransmission
 * gets another, perhaps the same memory. Both numbers are in the SYN and the SYN-ACK, so these two are all
 * the TCP packets that are looked at, whichever is seen first; data packets leave at the flags. UDP has no
 * such number: there it is the conntrack entry (or, without one, the tuple).
 *
 * `what` is part of the key (enum told). A connection is diverted as soon as its translation is known,
 * whatever becomes of it then, so being dropped later changes no count; and if the rule comes between two
 * SYNs of one connection, one attempt was dropped and another diverted, both are counted, and the diversion
 * is never missed. Otherwise the first outcome stands: a drop followed by a delivered retransmission stays a
 * drop.
 */
struct told_key {
	u8 source[16];
	u8 dialled[16];
	u16 source_port;
	u16 dialled_port;
	u32 identity;
	u8 protocol;
	u8 what;
	u16 pad;
};
BPF_TABLE("lru_hash", struct told_key, u8, told, 65536);

/*
 * SYNs that passed through untracked, by who sent them: where to. Inserted here; the LRU deletes. When an
 * answer passes that says it comes from a protected port, this is who gave it: IPVS translates without
 * conntrack, and so may BPF programs of tc. On a host with NAT rules everything else is tracked, and leaves
 * this empty.
 */
struct sent_key {
	u8 source[16];
	u16 source_port;
	u16 pad;
	u32 identity;
};
struct sent {
	u8 to[16];
	u16 port;
	u16 pad;
};
BPF_TABLE("lru_hash", struct sent_key, struct sent, sent, 4096);

enum told {
	TOLD = 0,
	TOLD_DIVERTED = 1,
	TOLD_LOST = 2, /* that it was dropped after its diversion, which is no count of its own */
};

/*
 * The counts. The daemon inserts a row for each outcome of a protected port before it protects it, with
 * `reached` zero; rows for destinations are inserted here, and when there are too many of them, the row with
 * `reached` zero takes the rest. Nobody deletes: a count never decreases.
 */
BPF_HASH(counts, struct count_key, struct count, 1024);

/* Written here; the daemon consumes. 16 pages hold over 700 events. */
BPF_RINGBUF_OUTPUT(events, 16);

/*
 * By drop reason: not zero where a drop says nothing about the connection. It was a copy of the packet; or
 * congestion, then TCP sends it again, as if the wire had lost it, and that one tells. Written by the loader.
 */
BPF_ARRAY(transient, u8, 256);

/* enum stat; written here, read by the daemon. */
BPF_PERCPU_ARRAY(stats, u64, STATS);

/* Written by `layout`, once, at the loader's request; the daemon compares it with its own idea. */
BPF_ARRAY(layout, u32, LAYOUT_ENTRIES);

/* kprobe only: the nf_conn that nf_nat_setup_info was entered with. Inserted on entry, deleted on return. */
BPF_TABLE("lru_hash", u64, u64, entered, 1024);

#ifdef IPVS_DADDR
/* kprobe only: the packet that ip_vs_schedule was entered with. Inserted on entry, deleted on return. */
BPF_TABLE("lru_hash", u64, u64, scheduling, 1024);
#endif

inline_always void bump(int which)
{
	u64 *value = stats.lookup(&which);

	if (value)
		(*value)++;
}

inline_always bool is_protected(const struct connection *c)
{
	struct endpoint key = {.port = c->dialled_port, .protocol = c->protocol};

	__builtin_memcpy(key.address, c->dialled, sizeof(key.address));
	return protected.lookup(&key) != NULL;
}

/* Reached anything but what was dialled; the same port on another address of ours is still delivered. */
inline_always bool is_diverted(const struct connection *c)
{
	struct endpoint key = {};

	if (c->reached_port != c->dialled_port)
		return true;
	if (same_address(c->reached, c->dialled))
		return false;
	__builtin_memcpy(key.address, c->reached, sizeof(key.address));
	return local.lookup(&key) == NULL;
}

inline_always bool is_strangers(const struct connection *c)
{
	u32 inode = c->listener;

	return inode && strangers.lookup(&inode);
}

inline_always bool is_transient(u32 reason)
{
	u8 *answer = transient.lookup(&reason);

	return answer && *answer;
}

inline_always void name(struct told_key *key, const struct connection *c, u8 what)
{
	key->source_port = c->source_port;
	key->dialled_port = c->dialled_port;
	key->identity = c->identity;
	key->protocol = c->protocol;
	key->what = what;
	__builtin_memcpy(key->source, c->source, sizeof(key->source));
	__builtin_memcpy(key->dialled, c->dialled, sizeof(key->dialled));
}

/* True for exactly one caller per connection. */
inline_always bool is_new(const struct connection *c, u8 what)
{
	struct told_key key = {};
	u8 told_now = 1;
	int refused;

	name(&key, c, what);
	if (told.lookup(&key)) /* for the sake of most, and it keeps the entry young */
		return false;
	refused = told.insert(&key, &told_now);
	if (refused == -17 /* EEXIST: another CPU was faster */)
		return false;
	if (refused)
		bump(LOST_IDENTITY);
	return true;
}

inline_always struct count *find_count(const struct connection *c, u8 outcome)
{
	struct count_key key = {.port = c->dialled_port, .protocol = c->protocol, .outcome = outcome};
	struct count zero = {}, *found;

	if (outcome == DIVERTED) {
		__builtin_memcpy(key.reached, c->reached, sizeof(key.reached));
		key.reached_port = c->reached_port;
	}
	found = counts.lookup(&key);
	if (found)
		return found;
	counts.insert(&key, &zero);
	found = counts.lookup(&key);
	if (found)
		return found;
	__builtin_memset(key.reached, 0, sizeof(key.reached));
	key.reached_port = 0;
	return counts.lookup(&key);
}

/* Whether this connection gets an event. Races between CPUs can let one or two more through, never fewer. */
inline_always bool may_send(struct count *count, u64 now)
{
	if (now - count->window >= 1000000000ULL) {
		count->window = now;
		count->sent = 0;
	}
	if (count->sent >= EVENTS_PER_SECOND)
		return false;
	count->sent++;
	return true;
}

inline_always bool send(const struct connection *c, u8 outcome, u32 reason, u64 connections, u64 now)
{
	struct event event = {
	    .at = now,
	    .connections = connections,
	    .source_port = c->source_port,
	    .dialled_port = c->dialled_port,
	    .reached_port = c->reached_port,
	    .protocol = c->protocol,
	    .outcome = outcome,
	    .drop_reason = reason,
	    .listener = c->listener,
	};

	__builtin_memcpy(event.source, c->source, sizeof(event.source));
	__builtin_memcpy(event.dialled, c->dialled, sizeof(event.dialled));
	__builtin_memcpy(event.reached, c->reached, sizeof(event.reached));
	if (!events.ringbuf_output(&event, sizeof(event), 0))
		return true;
	bump(LOST_EVENT);
	return false;
}

/* True when it was news. */
inline_always bool tell(const struct connection *c, u8 outcome, u32 reason)
{
	u64 connections, now = bpf_ktime_get_ns();
	struct count *count;

	if (!is_new(c, outcome == DIVERTED ? TOLD_DIVERTED : TOLD))
		return false;
	count = find_count(c, outcome);
	if (!count) {
		bump(LOST_COUNT);
		return true;
	}
	__sync_fetch_and_add(&count->connections, 1);
	connections = count->connections;
	if (may_send(count, now) && send(c, outcome, reason, connections - count->reported, now))
		count->reported = connections;
	return true;
}

/*
 * A diverted connection is dropped on this host: nobody is there where it leads, or a filter forbids it.
 * `known`: it was told and counted when it was diverted, so this event stands for no connection.
 */
inline_always void tell_lost(const struct connection *c, u32 reason, bool known)
{
	u64 now = bpf_ktime_get_ns();
	struct count *count;

	if (!is_new(c, TOLD_LOST) || !known)
		return;
	count = find_count(c, DIVERTED);
	if (count && may_send(count, now))
		send(c, DIVERTED, reason, 0, now);
}

inline_always void remember_sent(const struct connection *c)
{
	struct sent_key key = {.source_port = c->source_port, .identity = c->identity};
	struct sent to = {.port = c->dialled_port};

	__builtin_memcpy(key.source, c->source, sizeof(key.source));
	__builtin_memcpy(to.to, c->dialled, sizeof(to.to));
	sent.update(&key, &to);
}

/* Where the SYN went that this answer is to; false when it was not seen. */
inline_always bool recall_sent(struct connection *c)
{
	struct sent_key key = {.source_port = c->source_port, .identity = c->identity};
	struct sent *to;

	__builtin_memcpy(key.source, c->source, sizeof(key.source));
	to = sent.lookup(&key);
	if (!to)
		return false;
	__builtin_memcpy(c->reached, to->to, sizeof(c->reached));
	c->reached_port = to->port;
	return true;
}

/* A packet that leaves (`freed` false) or is dropped. */
inline_always void packet(const void *skb, bool freed, u32 reason)
{
	struct connection c = {};
	unsigned long nfct;
	int zero = 0;
	bool tcp;
	u32 *udp;

	if (!load_packet(skb, &c))
		return;
	tcp = c.protocol == IPPROTO_TCP;
	if (!tcp) {
		udp = udp_ports.lookup(&zero);
		if (!udp || !*udp)
			return;
	}
	nfct = LOAD(unsigned long, skb, SKB_NFCT);
	if (nfct & ~NFCT_INFOMASK) {
		bool reply = (nfct & NFCT_INFOMASK) >= IP_CT_IS_REPLY;
		u8 protocol = c.protocol;

		if (protocol == IPPROTO_UDP) {
			c.identity = nfct & ~NFCT_INFOMASK;
			c.reply = reply;
		}
		if (reply != c.reply || !load_conntrack((const char *)(nfct & ~NFCT_INFOMASK), &c))
			return;
		if (c.protocol != protocol)
			return;
		if (!is_protected(&c))
			return;
	} else {
		/* Not tracked, so not translated: no NAT rule is in force, or a rule said notrack. */
		if (!our_packet(skb))
			return;
		if (c.protocol == IPPROTO_UDP)
			c.reply = !freed;
		if (c.reply) {
			u8 client[16];
			u16 port = c.dialled_port;

			__builtin_memcpy(client, c.dialled, sizeof(client));
			__builtin_memcpy(c.dialled, c.source, sizeof(client));
			__builtin_memcpy(c.source, client, sizeof(client));
			c.dialled_port = c.source_port;
			c.source_port = port;
		}
		__builtin_memcpy(c.reached, c.dialled, sizeof(c.reached));
		c.reached_port = c.dialled_port;
		if (tcp && !c.reply && !freed)
			load_dialler(skb, &c);
		if (!is_protected(&c)) {
			if (tcp && !c.reply && !freed && is_passing(skb))
				remember_sent(&c);
			return;
		}
		/* Nobody here gave an answer that is passing. If it is not known who did, nothing is said of
		 * it. */
		if (c.reply && is_passing(skb) && !(tcp && recall_sent(&c)))
			return;
	}
	if (tcp && c.reply && !freed && !is_diverted(&c))
		load_listener(skb, &c);
	if (is_diverted(&c) || is_strangers(&c)) {
		bool lost = freed && reason && !is_transient(reason);
		bool news = tell(&c, DIVERTED, reason);

		if (lost)
			tell_lost(&c, reason, !news);
	} else if (freed && !is_transient(reason))
		tell(&c, DROPPED, reason);
	else if (!freed && c.reply) /* an undiverted SYN on its way over lo has not arrived yet */
		tell(&c, DELIVERED, 0);
}

/* NAT has just decided on a new connection, before any filter can drop it. */
inline_always void translated(const char *ct, u32 manip)
{
	struct connection c = {};

	if (manip != NF_NAT_MANIP_DST || !load_conntrack(ct, &c))
		return;
	/*
	 * td_end is one past the SYN here (nf_conntrack_proto_tcp.c: tcp_new), so this is the sequence number
	 * that the packets show; only a SYN that carries data (TCP fast open) would be counted twice.
	 */
	if (c.protocol == IPPROTO_TCP)
		c.identity = LOAD(u32, ct, CT_TCP_END) - 1;
	else
		/* read back, because up to 6.3 the verifier lets nobody store the half of a pointer */
		c.identity = LOAD(unsigned long, &ct, 0);
	if (is_protected(&c) && is_diverted(&c))
		tell(&c, DIVERTED, 0);
}

#ifdef IPVS_DADDR
/*
 * IPVS has just chosen the real server for a first packet. Not ip_vs_conn_new, which runs for templates of
 * persistence, for what another director synchronises and for data connections of FTP as well, and knows no
 * packet: without its sequence number a connection that conntrack follows, too, would be counted twice.
 */
inline_always void scheduled(const void *skb, const char *connection)
{
	struct connection c = {};
	unsigned long nfct;

	if (!connection || !load_packet(skb, &c) || c.reply)
		return;
	nfct = LOAD(unsigned long, skb, SKB_NFCT) & ~NFCT_INFOMASK;
	if (nfct) { /* what was dialled, if NAT came before */
		if (c.protocol == IPPROTO_UDP)
			c.identity = nfct;
		if (!load_conntrack((const char *)nfct, &c))
			return;
	}
	if (load_virtual(connection, &c) && is_protected(&c) && is_diverted(&c))
		tell(&c, DIVERTED, 0);
}
#endif

/*
 * Attach points. queued and freed are always attached: they alone see what is delivered, what is dropped, and
 * connections without conntrack. The nat_ and ipvs_ ones see a diversion at its source: before a filter, a
 * tunnel or IPsec can hide the packet. What several of them see is counted once, by `told`.
 */

/* raw tracepoint net:net_dev_queue(skb): every packet that leaves, over lo too */
int queued(struct bpf_raw_tracepoint_args *ctx)
{
	bump(SEEN_QUEUED);
	packet((const void *)ctx->args[0], false, 0);
	return 0;
}

/*
 * raw tracepoint skb:kfree_skb(skb, location, reason): every packet that is dropped. Loaded and attached
 * twice: the kernel does not run a program that a softirq finds already running on its CPU, and packets are
 * dropped in process context too (net_dev_queue always has softirqs off). Of two, at least one runs; `told`
 * counts once.
 */
int freed(struct bpf_raw_tracepoint_args *ctx)
{
	u32 reason = 0;

	bump(SEEN_FREED);
#ifdef DROP_REASONS
	reason = ctx->args[2];
#endif
	packet((const void *)ctx->args[0], true, reason);
	return 0;
}

/* fexit nf_nat_setup_info(ct, range, maniptype) */
int nat_fexit(u64 *ctx)
{
	translated((const char *)ctx[0], ctx[2]);
	return 0;
}

/* The idle task's id is 0 on every CPU. A softirq nested in the same task loses the outer call to the others.
 */
inline_always u64 caller(void)
{
	u64 task = bpf_get_current_pid_tgid();

	return task ? task : 1ULL << 63 | bpf_get_smp_processor_id();
}

/* kprobe and kretprobe nf_nat_setup_info: the arguments are only known on entry, the translation on return */
int nat_enter(struct pt_regs *ctx)
{
	u64 key = caller(), ct = PT_REGS_PARM1(ctx);

	if ((u32)PT_REGS_PARM3(ctx) == NF_NAT_MANIP_DST)
		entered.update(&key, &ct);
	return 0;
}

int nat_return(struct pt_regs *ctx)
{
	u64 key = caller(), *ct = entered.lookup(&key);

	if (!ct)
		return 0;
	translated((const char *)*ct, NF_NAT_MANIP_DST);
	entered.delete(&key);
	return 0;
}

#ifdef IPVS_DADDR
/* fexit ip_vs_schedule(service, skb, protocol, ignored, header) */
int ipvs_fexit(u64 *ctx)
{
	scheduled((const void *)ctx[1], (const char *)ctx[5]);
	return 0;
}

/* kprobe and kretprobe ip_vs_schedule: the packet is only known on entry, the real server on return */
int ipvs_enter(struct pt_regs *ctx)
{
	u64 key = caller(), skb = PT_REGS_PARM2(ctx);

	scheduling.update(&key, &skb);
	return 0;
}

int ipvs_return(struct pt_regs *ctx)
{
	u64 key = caller(), *skb = scheduling.lookup(&key);

	if (!skb)
		return 0;
	scheduled((const void *)*skb, (const char *)PT_REGS_RC(ctx));
	scheduling.delete(&key);
	return 0;
}
#endif

inline_always void put(int index, u32 value)
{
	layout.update(&index, &value);
}

/* Run once by the loader (BPF_PROG_TEST_RUN), attached nowhere. */
int report_layout(struct bpf_raw_tracepoint_args *ctx)
{
	int index = 0;

#define PUT(number) put(index++, number);
	LAYOUT(PUT)
	return 0;
}
