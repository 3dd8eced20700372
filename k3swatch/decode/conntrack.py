"""A conntrack NEW event as the two tuples of a connection: who dialled what, and who answers.

Follows `uapi/linux/netfilter/nfnetlink_conntrack.h`. Pure; what does not fit raises DecodeError.

    CTA_TUPLE_ORIG  { CTA_TUPLE_IP { CTA_IP_V4_SRC, CTA_IP_V4_DST | CTA_IP_V6_… },
                      CTA_TUPLE_PROTO { CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT } }
    CTA_TUPLE_REPLY { the same }
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.message import message
from k3swatch.errors import DecodeError
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.port import Address
from k3swatch.model.words import Protocol

IPCTNL_MSG_CT_NEW = 1 << 8  # NFNL_SUBSYS_CTNETLINK, message 0
_NFGENMSG = 4
_TUPLE_ORIG, _TUPLE_REPLY, _TUPLE_IP, _TUPLE_PROTO = 1, 2, 1, 2
_V4_SRC, _V4_DST, _V6_SRC, _V6_DST = 1, 2, 3, 4
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3

_PROTOCOLS = {protocol.number: protocol for protocol in Protocol}


class Tuple(NamedTuple):
    """struct nf_conntrack_tuple: one direction of a connection."""

    protocol: Protocol
    source: Address
    source_port: int
    destination: Address
    destination_port: int


def decode_new(raw: bytes, at: float) -> Flow:
    """The connection a NEW event announces; `at` is when it was read, as the event itself has no time.

    Outcome is `diverted` when it is answered from elsewhere than was dialled, else `delivered`.
    """
    kind, _, body = message(raw)
    if kind != IPCTNL_MSG_CT_NEW:
        raise DecodeError(f"conntrack: message of type {kind:#x}, want {IPCTNL_MSG_CT_NEW:#x}")
    if len(body) < _NFGENMSG:
        raise DecodeError(f"conntrack: body of {len(body)} bytes, want {_NFGENMSG}")
    attributes = Attributes(body[_NFGENMSG:], "conntrack")
    original = _tuple(attributes.nested(_TUPLE_ORIG, "original"))
    reply = _tuple(attributes.nested(_TUPLE_REPLY, "reply"))
    answered = (reply.source, reply.source_port)
    dialled = (original.destination, original.destination_port)
    return Flow(
        protocol=original.protocol,
        source=original.source,
        source_port=original.source_port,
        dialled=original.destination,
        dialled_port=original.destination_port,
        reached=reply.source,
        reached_port=reply.source_port,
        outcome=Outcome.DELIVERED if answered == dialled else Outcome.DIVERTED,
        at=at,
    )


def _tuple(attributes: Attributes) -> Tuple:
    address = attributes.nested(_TUPLE_IP, "address")
    transport = attributes.nested(_TUPLE_PROTO, "transport")
    number = transport.u8(_PROTO_NUM)
    if number not in _PROTOCOLS:
        raise DecodeError(f"{transport.where}: protocol {number}, want 6 or 17")
    ipv4 = _V4_SRC in address
    return Tuple(
        _PROTOCOLS[number],
        _address(address, _V4_SRC if ipv4 else _V6_SRC),
        transport.be16(_PROTO_SRC_PORT),
        _address(address, _V4_DST if ipv4 else _V6_DST),
        transport.be16(_PROTO_DST_PORT),
    )


def _address(attributes: Attributes, kind: int) -> Address:
    raw = attributes.raw(kind)
    want = 4 if kind in (_V4_SRC, _V4_DST) else 16
    if len(raw) != want:
        raise DecodeError(f"{attributes.where}: attribute {kind}: {len(raw)} bytes, want {want}")
    return ipaddress.IPv4Address(raw) if want == 4 else ipaddress.IPv6Address(raw)
