"""Connections that are still where a rule once sent them: found in conntrack, taken out one by one.

A connection keeps its translation for as long as its entry lives, whatever the rules say by then. Without the entry
its next packet reaches whoever has the port now, who knows no such connection and resets it; the client dials again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from k3swatch.decode.attributes import walk
from k3swatch.decode.conntrack import decode_new
from k3swatch.errors import DecodeError
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Address, ProtectedPort
from k3swatch.sources.ctnetlink import Conntrack
from k3swatch.sources.netlink import attribute
from k3swatch.sources.transaction import NESTED

_HEADER = 20  # nlmsghdr and nfgenmsg
_TUPLE_ORIG, _ID, _ZONE = 1, 12, 18  # enum ctattr_type


def end_diverted(
    port: ProtectedPort, addresses: Collection[Address], keep: Callable[[Flow], bool] = lambda flow: False
) -> list[Flow]:
    """End every connection to `port` of one of `addresses` that is answered from elsewhere; those that were ended.

    `keep`: those that may stay. Raises NotPermitted, Unsupported, SourceError, Interrupted.
    """
    ended: list[Flow] = []
    with Conntrack() as table:
        for raw in table.entries(lambda raw: port.port.to_bytes(2) in raw):
            try:
                flow = decode_new(raw, 0.0)
            except DecodeError:
                continue  # not TCP or UDP
            ours = (flow.protocol, flow.dialled_port) == (
                port.protocol,
                port.port,
            ) and flow.dialled in addresses
            if (
                ours
                and flow.outcome is Outcome.DIVERTED
                and not keep(flow)
                and table.delete(raw[16], _name(raw))
            ):
                ended.append(flow)
    return ended


def _name(raw: bytes) -> bytes:
    """The attributes that name a connection, and no other that has its tuple later."""
    return b"".join(
        attribute(kind | (NESTED if kind == _TUPLE_ORIG else 0), value)
        for kind, value in walk(raw, "conntrack", _HEADER)
        if kind in (_TUPLE_ORIG, _ID, _ZONE)
    )
