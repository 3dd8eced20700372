/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Reading the kernel's structs, without its headers: the offsets are -D macros that the loader takes from the
 * running kernel's BTF (k3swatch/sources/btf.py names the member behind each).
 */
#ifndef K3SWATCH_KERNEL_H
#define K3SWATCH_KERNEL_H

#include <linux/types.h>

#define LOAD(type, base, offset)                                                                             \
	({                                                                                                   \
		type value_ = 0;                                                                             \
		bpf_probe_read_kernel(&value_, sizeof(value_), (const char *)(base) + (offset));             \
		value_;                                                                                      \
	})

#define inline_always static inline __attribute__((always_inline))

inline_always bool our_netns(const void *net)
{
	return net && LOAD(u32, net, NET_INUM) == NETNS_INUM;
}

#endif
