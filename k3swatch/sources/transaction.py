"""nf_tables is changed here and nowhere else: one transaction, bound to the generation it was worked out for.

Follows nfnetlink_rcv_batch (net/netfilter/nfnetlink.c): NFNL_BATCH_GENID makes the kernel refuse the whole batch, under
the mutex of the commit itself, when the ruleset is not the one that was read. All of it happens, or nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from k3swatch.sources.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NetlinkSocket,
    attribute,
)
from k3swatch.sources.nftables import family_header, name

_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END, _GENID = 0x10, 0x11, 1  # NFNL_MSG_BATCH_BEGIN, _END, NFNL_BATCH_GENID
_SUBSYSTEM = struct.pack(">BBH", 0, 0, 10)  # nfgenmsg: res_id names the subsystem

NESTED = 0x8000  # NLA_F_NESTED
NEWTABLE, DELTABLE, NEWCHAIN, DELCHAIN = 0, 2, 3, 5
NEWRULE, DELRULE, NEWSET, NEWSETELEM, DELSETELEM = 6, 8, 9, 12, 14


class Change(NamedTuple):
    """One message of a transaction: NFT_MSG_*, the family, its attributes, NLM_F_APPEND or 0."""

    message: int
    family: str
    attributes: bytes
    flags: int = 0


def commit(generation: int, changes: Sequence[Change]) -> None:
    """Make all changes, provided that `generation` is still in force.

    Interrupted when it is not; NotPermitted; Refused, with what the kernel says. Nothing was changed then.
    """
    creating = {NEWTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM}
    messages = [
        (
            _NFTABLES | change.message,
            NLM_F_ACK | change.flags | (NLM_F_CREATE if change.message in creating else 0),
            family_header(change.family) + change.attributes,
        )
        for change in changes
    ]
    begin = (_BEGIN, 0, _SUBSYSTEM + attribute(_GENID, generation.to_bytes(4, "big")))
    with NetlinkSocket(NETLINK_NETFILTER, "nf_tables") as netlink:
        netlink.batch([begin, *messages, (_END, 0, _SUBSYSTEM)])


def delete_rule(family: str, table: str, chain: str, handle: int) -> Change:
    """Exactly one rule."""
    return Change(DELRULE, family, name(1, table) + name(2, chain) + attribute(3, handle.to_bytes(8, "big")))


def delete_element(family: str, table: str, set_name: str, element: bytes) -> Change:
    """Exactly one element of a set; `element` is the attributes that are its key."""
    return Change(DELSETELEM, family, name(1, table) + name(2, set_name) + _elements(element))


def add_element(family: str, table: str, set_name: str, element: bytes) -> Change:
    """One element, `element` is all of its attributes."""
    return Change(NEWSETELEM, family, name(1, table) + name(2, set_name) + _elements(element))


def _elements(element: bytes) -> bytes:
    return attribute(NESTED | 3, attribute(NESTED | 1, element))


def add_rule(
    family: str, table: str, chain: str, content: bytes, beside: int | None = None, after: bool = True
) -> Change:
    """One rule; `content` is its attributes but for place. `beside` is the handle of the rule it comes `after`
    (or before); without one it becomes the chain's last, or first.
    """
    place = attribute(6, beside.to_bytes(8, "big")) if beside is not None else b""
    head = name(1, table) + name(2, chain)
    return Change(NEWRULE, family, head + content + place, NLM_F_APPEND if after else 0)
