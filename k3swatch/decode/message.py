"""One netlink message: struct nlmsghdr of `uapi/linux/netlink.h`, struct nfgenmsg of `nfnetlink.h`."""

from __future__ import annotations

import struct
from typing import NamedTuple

from k3swatch.decode.attributes import Attributes
from k3swatch.errors import DecodeError

_NLMSGHDR = struct.Struct("=IHHII")
_NFGENMSG = struct.Struct(">BBH")  # res_id is network order
NFT_HEADER = _NLMSGHDR.size + _NFGENMSG.size  # where the attributes of an nfnetlink message begin

# family numbers of `uapi/linux/netfilter.h` as nft writes them
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
NFPROTO = {name: number for number, name in FAMILIES.items()}


class Message(NamedTuple):
    """A netlink message: type, flags and everything after the header."""

    type: int
    flags: int
    body: bytes


class NftMessage(NamedTuple):
    """An nf_tables message: `type` of enum nf_tables_msg_types, `res_id` low 16 bits of the generation."""

    type: int
    family: str
    res_id: int
    body: bytes

    def attributes(self, where: str, known: int | None = None) -> Attributes:
        """The attributes of the object; `where` names it in errors."""
        return Attributes(self.body, where, known)


def message(raw: bytes) -> Message:
    """Read one netlink message; DecodeError when its length is not its own."""
    if len(raw) < _NLMSGHDR.size:
        raise DecodeError(f"netlink: {len(raw)} bytes, want a header of {_NLMSGHDR.size}")
    length, kind, flags, _, _ = _NLMSGHDR.unpack_from(raw)
    if length < _NLMSGHDR.size or length > len(raw):
        raise DecodeError(f"netlink: message of length {length}, have {len(raw)}")
    return Message(kind, flags, raw[_NLMSGHDR.size : length])


def nft_message(raw: bytes) -> NftMessage:
    """Read one message of NFNL_SUBSYS_NFTABLES (10)."""
    kind, _, body = message(raw)
    if kind >> 8 != 10:
        raise DecodeError(f"nf_tables: message of subsystem {kind >> 8}, want 10")
    if len(body) < _NFGENMSG.size:
        raise DecodeError(f"nf_tables: {len(body)} bytes, want nfgenmsg")
    family, _, res_id = _NFGENMSG.unpack_from(body)
    return NftMessage(kind & 0xFF, FAMILIES.get(family, str(family)), res_id, body[_NFGENMSG.size :])


def expect(raw: bytes, kind: int, what: str) -> NftMessage:
    """Read one nf_tables message of a given type."""
    found = nft_message(raw)
    if found.type != kind:
        raise DecodeError(f"{what}: message of type {found.type}, want {kind}")
    return found
