"""Conntrack's NEW events, diverted connections only: the fallback for when no probe can be loaded.

The group NFNLGRP_CONNTRACK_NEW with a classic BPF filter in the kernel, so that undiverted connections cost
nothing, at any rate. What it cannot see: delivered connections, and those that a filter drops (they are never
confirmed, so there is no event).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from k3swatch.errors import Unsupported
from k3swatch.sources.events import EventSocket
from k3swatch.sources.netlink import NETLINK_NETFILTER

_NFNLGRP_CONNTRACK_NEW = 1
_EVENTS_SYSCTL = "/proc/sys/net/netfilter/nf_conntrack_events"
MOST_PORTS = 128  # a jump of classic BPF reaches 255 instructions

# uapi/linux/netfilter/nfnetlink_conntrack.h
_TUPLE_ORIG, _TUPLE_REPLY, _TUPLE_IP, _TUPLE_PROTO = 1, 2, 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FIRST_ATTRIBUTE = 20  # after nlmsghdr and nfgenmsg

# uapi/linux/filter.h: instruction codes, and the ancillary loads that walk netlink attributes (net/core/filter.c)
_LD_ABS, _LD_IMM, _LDX_IMM, _LD_MEM, _LDX_MEM, _ST, _TAX = 0x20, 0x00, 0x01, 0x60, 0x61, 0x02, 0x07
_LD_IND = {4: 0x40, 2: 0x48, 1: 0x50}
_LSH, _OR_X, _JA, _JEQ, _JEQ_X, _RET = 0x64, 0x4C, 0x05, 0x15, 0x1D, 0x06
_NLATTR, _NLATTR_NEST = 0xFFFFF000 + 12, 0xFFFFF000 + 16
_ALL = 0xFFFFFFFF

_Instruction = tuple[int, int, str | None, str | None]  # code, k, jump if true, jump if false (None: go on)


def diverted_only(ports: Iterable[tuple[int, int]]) -> list[bytes]:
    """A filter that accepts events of connections to one of `ports` (IPPROTO_*, number) that are answered from
    elsewhere than they were dialled: reply source (address, port) is not original destination.
    """
    pairs = sorted(set(ports))
    if len(pairs) > MOST_PORTS:
        raise Unsupported(f"conntrack filter: {len(pairs)} ports, at most {MOST_PORTS}")
    original, wanted, scratch = 0, 1, 2  # scratch memory cells
    code: list[_Instruction | str] = [
        *_find(_FIRST_ATTRIBUTE, _TUPLE_ORIG, _NLATTR, missing="not ours"),
        (_ST, original, None, None),
        *_nested(_TUPLE_PROTO, _PROTO_NUM, missing="not ours"),
        *_value(1),
        (_LSH, 16, None, None),
        (_ST, scratch, None, None),
        (_LD_MEM, original, None, None),
        *_nested(_TUPLE_PROTO, _PROTO_DST_PORT, missing="not ours"),
        *_value(2),
        (_ST, wanted, None, None),
        (_LDX_MEM, scratch, None, None),
        (_OR_X, 0, None, None),
        *((_JEQ, protocol << 16 | port, "ours", None) for protocol, port in pairs),
        "not ours",  # near enough for those before; and a return here would make the kernel's checker lose count
        (_JA, 0, "reject", None),
        "ours",
        *_find(_FIRST_ATTRIBUTE, _TUPLE_REPLY, _NLATTR),
        (_ST, scratch, None, None),
        *_nested(_TUPLE_PROTO, _PROTO_SRC_PORT),
        *_value(2),
        (_LDX_MEM, wanted, None, None),
        (_JEQ_X, 0, None, "accept"),
        (_LD_MEM, original, None, None),
        *_nested(_TUPLE_IP),
        (_ST, original, None, None),
        (_LD_MEM, scratch, None, None),
        *_nested(_TUPLE_IP),
        (_ST, scratch, None, None),
        *_find(None, _V4_DST, _NLATTR_NEST, original, missing="ipv6"),
        *_same(original, _V4_DST, scratch, _V4_SRC, word=0),
        (_JA, 0, "reject", None),
        "ipv6",
        *(step for word in range(4) for step in _same(original, _V6_DST, scratch, _V6_SRC, word)),
        (_JA, 0, "reject", None),
        "accept",
        (_RET, _ALL, None, None),
        "reject",
        (_RET, 0, None, None),
    ]
    return _assemble(code)


class ConntrackEvents(EventSocket):
    """Diverted connections to the ports of `watch`, as raw conntrack messages.

    Raises Unsupported when this namespace sends no conntrack events, NotPermitted without CAP_NET_ADMIN.
    """

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER, [_NFNLGRP_CONNTRACK_NEW], "conntrack events", diverted_only(()))
        try:
            self._sysctl = os.open(_EVENTS_SYSCTL, os.O_RDONLY | os.O_CLOEXEC)  # stays this namespace's
        except OSError as error:
            super().close()
            hint = "modprobe nf_conntrack_netlink; the kernel needs CONFIG_NF_CONNTRACK_EVENTS"
            raise Unsupported(f"{_EVENTS_SYSCTL}: {error.strerror}", hint=hint) from error
        if not self.enabled():
            self.close()
            hint = "sysctl -w net.netfilter.nf_conntrack_events=2"
            raise Unsupported("conntrack events are switched off", hint=hint)

    def watch(self, ports: Iterable[tuple[int, int]]) -> None:
        """Replace the filter: only these (IPPROTO_*, number) from now on."""
        self.attach(diverted_only(ports))

    def enabled(self) -> bool:
        """Whether the kernel still makes events: the sysctl nf_conntrack_events is not 0."""
        return os.pread(self._sysctl, 16, 0).strip() not in (b"", b"0")

    def close(self) -> None:
        """Leave the group."""
        super().close()
        os.close(self._sysctl)


def _find(
    start: int | None, kind: int, how: int, cell: int | None = None, missing: str = "reject"
) -> list[_Instruction]:
    """A = offset of the attribute `kind`, looked for from `start` or (nested) inside the one that A or `cell` is."""
    begin: list[_Instruction] = []
    if start is not None:
        begin = [(_LD_IMM, start, None, None)]
    elif cell is not None:
        begin = [(_LD_MEM, cell, None, None)]
    return [
        *begin,
        (_LDX_IMM, kind, None, None),
        (_LD_ABS, how, None, None),
        (_JEQ, 0, missing, None),
    ]


def _nested(*kinds: int, missing: str = "reject") -> list[_Instruction]:
    """A = offset of an attribute some levels inside the one that A is."""
    return [step for kind in kinds for step in _find(None, kind, _NLATTR_NEST, missing=missing)]


def _value(size: int, at: int = 0) -> list[_Instruction]:
    """A = `size` bytes of the payload of the attribute that A is."""
    return [(_TAX, 0, None, None), (_LD_IND[size], 4 + at, None, None)]


def _same(left: int, left_kind: int, right: int, right_kind: int, word: int) -> list[_Instruction]:
    """Go on when the `word` of two addresses is the same, accept when it differs."""
    hold = 3
    return [
        *_find(None, left_kind, _NLATTR_NEST, left),
        *_value(4, 4 * word),
        (_ST, hold, None, None),
        *_find(None, right_kind, _NLATTR_NEST, right),
        *_value(4, 4 * word),
        (_LDX_MEM, hold, None, None),
        (_JEQ_X, 0, None, "accept"),
    ]


def _assemble(code: list[_Instruction | str]) -> list[bytes]:
    """struct sock_filter for each instruction, labels turned into distances."""
    places: dict[str, int] = {}
    instructions: list[_Instruction] = []
    for entry in code:
        if isinstance(entry, str):
            places[entry] = len(instructions)
        else:
            instructions.append(entry)
    packed = []
    for here, (operation, k, true, false) in enumerate(instructions):
        near = [places[label] - here - 1 if label else 0 for label in (true, false)]
        if operation == _JA:
            k, near = near[0], [0, 0]
        packed.append(struct.pack("=HBBI", operation, *near, k))
    return packed
