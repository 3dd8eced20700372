"""Who has hooked into netfilter in this network namespace: functions of the kernel and its modules, one message each.

Follows `net/netfilter/nfnetlink_hook.c` and its header in uapi (Linux 5.14). It lists what no other interface does:
ebtables-legacy, BPF programs of type netfilter, modules of others. A kernel has it as a module that loads when it is
first asked for; one that does not have it is not asked twice, for it would look for that module each time.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence

from k3swatch.errors import Unsupported
from k3swatch.sources.netlink import NETLINK_NETFILTER, NetlinkSocket, Refused, attribute

_HOOK_GET = 12 << 8  # NFNL_SUBSYS_HOOK, NFNL_MSG_HOOK_GET
_HOOKNUM = 1  # NFNLA_HOOK_HOOKNUM
_ABSENT: list[bool] = []  # anything in it: this kernel has none


def hooks(places: Mapping[int, Sequence[int]]) -> list[bytes]:
    """Every hook at `places` (hook numbers by NFPROTO_*). Unsupported where the kernel does not tell; NotPermitted,
    Interrupted, SourceError.
    """
    if _ABSENT:
        raise Unsupported("netfilter hooks: this kernel does not list them")
    found: list[bytes] = []
    with NetlinkSocket(NETLINK_NETFILTER, "netfilter hooks") as netlink:
        for family, numbers in places.items():
            for number in numbers:
                header = struct.pack(">BBH", family, 0, 0)  # struct nfgenmsg
                request = header + attribute(_HOOKNUM, number.to_bytes(4, "big"))
                try:
                    found += netlink.dump(_HOOK_GET, request) or ()
                except Refused as error:
                    if error.errno != errno.EINVAL:  # nfnetlink_rcv_msg: there is no such subsystem
                        raise
                    _ABSENT.append(True)
                    raise Unsupported("netfilter hooks: this kernel does not list them") from None
    return found
