"""nf_tables as raw netlink messages: per chain, per set, per key, so that what is not needed is never read.

Follows `net/netfilter/nf_tables_api.c`: a rule dump filtered by table and chain is a hash lookup and is
hardly ever interrupted; a dump of everything starts over at every commit. Every message carries the low 16
bits of the generation it belongs to (res_id); GETGEN tells the whole of it.
"""

from __future__ import annotations

import errno
import struct
from types import TracebackType

from k3swatch.errors import SourceError, Unsupported
from k3swatch.sources.events import EventSocket, only_type
from k3swatch.sources.netlink import LONGEST, NETLINK_NETFILTER, NetlinkSocket, Refused, attribute

_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _NEWGEN, _GETGEN = 1, 4, 7, 10, 13, 15, 16
_NFNLGRP_NFTABLES = 7
_ELEM_CATCHALL = 2

# Family numbers of `uapi/linux/netfilter.h`, by nft's names.
_NFPROTO = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
_ALL_FAMILIES = bytes(4)  # nfgenmsg: NFPROTO_UNSPEC, version 0, res_id 0


def family_header(family: str) -> bytes:
    """struct nfgenmsg for a family by nft's name."""
    if family not in _NFPROTO:
        raise SourceError(f"nf_tables: no family {family!r}")
    return struct.pack(">BBH", _NFPROTO[family], 0, 0)


def name(kind: int, value: str) -> bytes:
    """A name as an attribute."""
    return attribute(kind, value.encode() + b"\0")


class NftablesSource:
    """The nf_tables ruleset of the network namespace it was made in.

    All methods raise NotPermitted, Unsupported, Interrupted or SourceError.
    """

    def __init__(self, timeout: float = 5.0) -> None:
        self._netlink = NetlinkSocket(NETLINK_NETFILTER, "nf_tables", timeout)

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    def __enter__(self) -> NftablesSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def generation(self) -> bytes:
        """The NEWGEN message that says which generation is in force. Unsupported without nf_tables."""
        try:
            return self._netlink.ask(_NFTABLES | _GETGEN, _ALL_FAMILIES)
        except Refused as error:
            if error.errno == errno.EINVAL:  # nfnetlink_rcv_msg: there is no such subsystem
                hint = "no nf_tables in this kernel: modprobe nf_tables"
                raise Unsupported(str(error), hint) from None
            raise

    def tables(self) -> list[bytes]:
        """All tables, in the order they were created."""
        return self._dump(_GETTABLE, _ALL_FAMILIES)

    def chains(self) -> list[bytes]:
        """All chains, by table, in the order they were created."""
        return self._dump(_GETCHAIN, _ALL_FAMILIES)

    def chain(self, family: str, table: str, chain: str) -> bytes | None:
        """One chain, None when there is none of that name."""
        return self._get(_GETCHAIN, family_header(family) + name(1, table) + name(3, chain))

    def rules(self, family: str, table: str, chain: str) -> list[bytes]:
        """The rules of one chain, in order; also empty when there is no such chain."""
        return self._dump(_GETRULE, family_header(family) + name(1, table) + name(2, chain))

    def sets(self) -> list[bytes]:
        """The shapes of all sets and maps."""
        return self._dump(_GETSET, _ALL_FAMILIES)

    def set(self, family: str, table: str, set_name: str) -> bytes | None:
        """The shape of one set, None when there is none of that name."""
        return self._get(_GETSET, family_header(family) + name(1, table) + name(2, set_name))

    def get_element(self, family: str, table: str, set_name: str, key: bytes | None) -> bytes | None:
        """The element that holds `key` (None: the catch-all element); None when there is none.

        The kernel looks as it does for a packet, except that it does not fall back on the catch-all.
        """
        catchall = attribute(3, _ELEM_CATCHALL.to_bytes(4, "big"))
        element = catchall if key is None else attribute(1, attribute(1, key))
        elements = attribute(3, attribute(1, element))
        return self._get(_GETSETELEM, family_header(family) + name(1, table) + name(2, set_name) + elements)

    def elements(self, family: str, table: str, set_name: str, longest: int = LONGEST) -> list[bytes] | None:
        """All elements of one set; None when they are more than `longest` bytes."""
        payload = family_header(family) + name(1, table) + name(2, set_name)
        return self._netlink.dump(_NFTABLES | _GETSETELEM, payload, longest)

    def _dump(self, kind: int, payload: bytes) -> list[bytes]:
        found = self._netlink.dump(_NFTABLES | kind, payload)
        if found is None:
            raise SourceError(f"nf_tables: a dump of more than {LONGEST >> 20} MB")
        return found

    def _get(self, kind: int, payload: bytes) -> bytes | None:
        try:
            return self._netlink.ask(_NFTABLES | kind, payload)
        except Refused as error:
            if error.errno == errno.ENOENT:
                return None
            raise


class GenerationEvents(EventSocket):
    """One NEWGEN message per commit, whatever its size: the kernel drops all others before they are queued.

    Without the filter the 35 MB that a kube-proxy restore of 50,000 rules sends would overrun the buffer
    and take the NEWGEN with them.
    """

    def __init__(self) -> None:
        program = only_type(_NFTABLES | _NEWGEN)
        super().__init__(NETLINK_NETFILTER, [_NFNLGRP_NFTABLES], "nf_tables events", program)
