"""Netlink bytes made by hand, for tests that stand where the kernel would."""

from __future__ import annotations

import struct


def nla(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def be32(kind: int, number: int) -> bytes:
    """One attribute with a 32-bit number in network order."""
    return nla(kind, (number & 0xFFFFFFFF).to_bytes(4, "big"))


def be64(kind: int, number: int) -> bytes:
    """One attribute with a 64-bit number in network order."""
    return nla(kind, number.to_bytes(8, "big"))


def name(kind: int, text: str) -> bytes:
    """One attribute with a name."""
    return nla(kind, text.encode() + b"\0")


def expression(kind: str, data: bytes = b"") -> bytes:
    """The payload of an NFTA_LIST_ELEM."""
    return name(1, kind) + nla(2, data)


def nlmsg(kind: int, body: bytes, flags: int = 0, sequence: int = 0) -> bytes:
    """One netlink message."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def nft(kind: int, family: int, *attributes: bytes, generation: int = 7) -> bytes:
    """One nf_tables message of `kind` (enum nf_tables_msg_types)."""
    return nlmsg(10 << 8 | kind, struct.pack(">BBH", family, 0, generation & 0xFFFF) + b"".join(attributes))
