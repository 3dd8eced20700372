"""The destination address that a rule asks for first, found by comparing bytes, without decoding the rule.

kube-proxy's KUBE-SERVICES has a rule for every Service, all of one form: `ip daddr 10.43.0.1 ...`. All but
one say no at once to any packet; this finds what they compare with, a hundred times cheaper than decoding
them. What is not of exactly this form is None, and is decoded.
"""

from __future__ import annotations

import struct


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def _be32(kind: int, number: int) -> bytes:
    return _attribute(kind, number.to_bytes(4, "big"))


def _expression(name: str, data: bytes) -> bytes:
    return _attribute(1, _attribute(1, name.encode() + b"\0") + _attribute(2, data))


def _load_meta(key: int) -> bytes:
    return _expression("meta", _be32(2, key) + _be32(1, 1))


def _load_payload(offset: int, length: int) -> bytes:
    return _expression("payload", _be32(1, 1) + _be32(2, 1) + _be32(3, offset) + _be32(4, length))


def _cmp_eq(length: int) -> bytes:
    """Everything of `cmp eq reg 1 DATA` but the data."""
    constant = _attribute(3, _attribute(1, bytes(length)))
    return _expression("cmp", _be32(1, 1) + _be32(2, 0) + constant)[: -(length + -length % 4)]


# As the kernel puts the attributes of each (nft_*_dump); a kernel that does it otherwise only costs time.
_NFPROTO_IS = _load_meta(15) + _cmp_eq(1)
_L4PROTO_IS = _load_meta(16) + _cmp_eq(1)
_PROTO_END = len(_L4PROTO_IS) + 4  # the value and its padding
_DADDR_IS = {2: _load_payload(16, 4) + _cmp_eq(4), 10: _load_payload(24, 16) + _cmp_eq(16)}
_LENGTH = {2: 4, 10: 16}


def first_destination(expressions: bytes, nfproto: int) -> bytes | None:
    """The address, 4 or 16 bytes, when the rule begins with `[meta nfproto N] [meta l4proto N] ip daddr
    ADDR`.

    In a table of both families (inet) only after `meta nfproto`: those bytes of the other family's header are
    something else. None when the rule is of another form.
    """
    start = 0
    for _ in range(2):
        if expressions.startswith(_NFPROTO_IS, start) and len(expressions) > start + _PROTO_END:
            nfproto = expressions[start + _PROTO_END - 4]
        elif not expressions.startswith(_L4PROTO_IS, start):
            break
        start += _PROTO_END
    head = _DADDR_IS.get(nfproto)
    if head is None or not expressions.startswith(head, start):
        return None
    start += len(head)
    address = expressions[start : start + _LENGTH[nfproto]]
    return address if len(address) == _LENGTH[nfproto] else None
