/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A connection, read from a packet or from its conntrack entry. */
#ifndef K3SWATCH_PACKET_H
#define K3SWATCH_PACKET_H

#include "kernel.h"

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86dd

#define IPPROTO_TCP 6
#define IPPROTO_UDP 17

#define AF_INET 2

#define TCP_SYN_SENT	 2 /* enum, include/net/tcp_states.h */
#define TCP_NEW_SYN_RECV 12

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* skb->_nfct: an nf_conn pointer whose low bits are enum ip_conntrack_info (include/linux/skbuff.h) */
#define NFCT_INFOMASK  7UL
#define IP_CT_IS_REPLY 3

#define NF_NAT_MANIP_DST 1 /* enum nf_nat_manip_type, include/net/netfilter/nf_nat.h */

/* Who dials what, where it leads, and which attempt it is. */
struct connection {
	u8 source[16];
	u8 dialled[16];
	u8 reached[16];
	u16 source_port;
	u16 dialled_port;
	u16 reached_port;
	u8 protocol;
	u8 reply;     /* seen on a packet that goes back to the client */
	u32 identity; /* see `told` in probe.c */
	u32 listener; /* inode of the socket whose queue a SYN-ACK says it is in; 0: not known */
};

inline_always void load_address(u8 *to, const void *from, bool ipv4)
{
	if (ipv4) {
		__builtin_memset(to, 0, 10);
		to[10] = to[11] = 0xff;
		bpf_probe_read_kernel(to + 12, 4, from);
	} else {
		bpf_probe_read_kernel(to, 16, from);
	}
}

inline_always bool same_address(const u8 *a, const u8 *b)
{
	const u32 *x = (const u32 *)a, *y = (const u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

inline_always bool is_ipv4(const u8 *address)
{
	const u32 *words = (const u32 *)address;

	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

/* An address of a socket, of which it may have one in either family; false when it is bound to any. */
inline_always bool load_bound(u8 *to, const char *socket, bool ipv4)
{
	u32 words[4];

	load_address((u8 *)words, socket + (ipv4 ? SOCK_RCV_SADDR : SOCK_V6_RCV_SADDR), ipv4);
	if (!words[3] && (ipv4 || (!words[0] && !words[1] && !words[2])))
		return false;
	__builtin_memcpy(to, words, sizeof(words));
	return true;
}

/*
 * The packet's own headers. False for all but TCP handshake packets and UDP. Extension headers of IPv6 are
 * not walked: no client puts them before a handshake.
 */
inline_always bool load_packet(const void *skb, struct connection *c)
{
	const char *ip = LOAD(const char *, skb, SKB_HEAD) + LOAD(u16, skb, SKB_NETWORK_HEADER);
	u16 ethertype = bpf_ntohs(LOAD(u16, skb, SKB_PROTOCOL));
	const char *from, *to, *transport;
	bool ipv4 = ethertype == ETH_P_IP;

	if (ipv4) {
		c->protocol = LOAD(u8, ip, 9);
		transport = ip + (LOAD(u8, ip, 0) & 0x0f) * 4;
		from = ip + 12;
		to = ip + 16;
	} else if (ethertype == ETH_P_IPV6) {
		c->protocol = LOAD(u8, ip, 6);
		transport = ip + 40;
		from = ip + 8;
		to = ip + 24;
	} else {
		return false;
	}
	if (c->protocol == IPPROTO_TCP) {
		u8 flags = LOAD(u8, transport, 13) & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN);

		if (flags == TCP_SYN) {
			c->reply = false;
			c->identity = bpf_ntohl(LOAD(u32, transport, 4));
		} else if (flags == (TCP_SYN | TCP_ACK)) {
			c->reply = true;
			c->identity = bpf_ntohl(LOAD(u32, transport, 8)) - 1;
		} else {
			return false;
		}
	} else if (c->protocol != IPPROTO_UDP) {
		return false;
	}
	load_address(c->source, from, ipv4);
	load_address(c->dialled, to, ipv4);
	c->source_port = bpf_ntohs(LOAD(u16, transport, 0));
	c->dialled_port = bpf_ntohs(LOAD(u16, transport, 2));
	return true;
}

/* Both tuples of a conntrack entry. False when it is another network namespace's. */
inline_always bool load_conntrack(const char *ct, struct connection *c)
{
	const char *original = ct + CT_ORIGINAL, *reply = ct + CT_REPLY;
	bool ipv4 = LOAD(u16, original, TUPLE_L3NUM) == AF_INET;

	if (!our_netns(LOAD(const void *, ct, CT_NET)))
		return false;
	c->protocol = LOAD(u8, original, TUPLE_PROTONUM);
	load_address(c->source, original + TUPLE_SRC, ipv4);
	load_address(c->dialled, original + TUPLE_DST, ipv4);
	load_address(c->reached, reply + TUPLE_SRC, ipv4);
	c->source_port = bpf_ntohs(LOAD(u16, original, TUPLE_SRC_PORT));
	c->dialled_port = bpf_ntohs(LOAD(u16, original, TUPLE_DST_PORT));
	c->reached_port = bpf_ntohs(LOAD(u16, reply, TUPLE_SRC_PORT));
	return true;
}

/*
 * Whose SYN-ACK it is: it belongs to the request (tcp_make_synack), and that to the socket which was found
 * for the SYN. A lookup finds sockets of the port that was dialled, so any other port was given to it: by
 * TPROXY, or by a BPF program (sk_lookup, bpf_sk_assign), or IPVS translates. Then that is what was reached.
 * SYN cookies have no request.
 */
inline_always void load_listener(const void *skb, struct connection *c)
{
	const char *request = LOAD(const char *, skb, SKB_SK), *listener;
	const void *socket;
	u16 port;

	if (!request || LOAD(u8, request, SOCK_STATE) != TCP_NEW_SYN_RECV)
		return;
	listener = LOAD(const char *, request, REQUEST_LISTENER);
	port = LOAD(u16, listener, SOCK_PORT);
	if (!port)
		return;
	socket = LOAD(const void *, listener, SOCK_SOCKET);
	if (socket) /* else its process has closed it */
		c->listener = LOAD(unsigned long, socket, SOCKET_INODE);
	if (port == c->reached_port)
		return;
	c->reached_port = port;
	load_bound(c->reached, listener, is_ipv4(c->dialled));
}

/* What the socket dialled that a SYN was sent from: on its way out the packet may have been given another
 * destination. False when it was not. */
inline_always bool load_dialler(const void *skb, struct connection *c)
{
	const char *socket = LOAD(const char *, skb, SKB_SK);
	bool ipv4 = is_ipv4(c->dialled);
	u32 dialled[4];
	u16 port;

	if (!socket || LOAD(u8, socket, SOCK_STATE) != TCP_SYN_SENT)
		return false;
	port = bpf_ntohs(LOAD(u16, socket, SOCK_DPORT));
	load_address((u8 *)dialled, socket + (ipv4 ? SOCK_DADDR : SOCK_V6_DADDR), ipv4);
	if (port == c->dialled_port && same_address((u8 *)dialled, c->dialled))
		return false;
	__builtin_memcpy(c->reached, c->dialled, sizeof(dialled));
	__builtin_memcpy(c->dialled, dialled, sizeof(dialled));
	c->reached_port = c->dialled_port;
	c->dialled_port = port;
	return true;
}

/* Whether it came in on an interface: somebody else sent it. */
inline_always bool is_passing(const void *skb)
{
	return LOAD(u32, skb, SKB_IIF) && !LOAD(const void *, skb, SKB_SK);
}

#ifdef IPVS_DADDR
/* Where IPVS sends a connection. False when it is another network namespace's. */
inline_always bool load_virtual(const char *connection, struct connection *c)
{
	const char *ipvs = LOAD(const char *, connection, IPVS_IPVS);

	if (!our_netns(LOAD(const void *, ipvs, IPVS_NET)))
		return false;
	load_address(c->reached, connection + IPVS_DADDR, LOAD(u16, connection, IPVS_DAF) == AF_INET);
	c->reached_port = bpf_ntohs(LOAD(u16, connection, IPVS_DPORT));
	return true;
}
#endif

/* The network namespace of a packet without conntrack entry: its device's, or while it has none its socket's.
 */
inline_always bool our_packet(const void *skb)
{
	const void *device = LOAD(const void *, skb, SKB_DEV);
	const void *socket;

	if (device)
		return our_netns(LOAD(const void *, device, DEV_NET));
	socket = LOAD(const void *, skb, SKB_SK);
	return socket && our_netns(LOAD(const void *, socket, SOCK_NET));
}

#endif
