"""One netlink message: struct nlmsghdr of `uapi/linux/netlink.h`, struct nfgenmsg of `nfnetlink.h`."""

from __future__ import annotations

import struct
from typing import NamedTuple

from k3swatch.decode.attributes import Attributes
from k3swatch.errors import DecodeError

_NLMSGHDR = struct.Struct("=IHHII")
_NFT_HEADER = struct.Struct("=IHHIIBBBB")  # with nfgenmsg: family, version, res_id in network order
NFT_HEADER_LENGTH = _NFT_HEADER.size  # where the attributes of an nf_tables message begin
_NFNL_SUBSYS_NFTABLES = 10

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
    raw: bytes

    def attributes(self, where: str) -> Attributes:
        """The attributes of the object; `where` names it in errors."""
        return Attributes(self.raw[NFT_HEADER_LENGTH:], where)


def message(raw: bytes) -> Message:
    """Read one netlink message; DecodeError when its length is not its own."""
    if len(raw) < _NLMSGHDR.size:
        raise DecodeError(f"netlink: {len(raw)} bytes, want a header of {_NLMSGHDR.size}")
    length, kind, flags, _, _ = _NLMSGHDR.unpack_from(raw)
    if length != len(raw):
        raise DecodeError(f"netlink: message of length {length}, have {len(raw)}")
    return Message(kind, flags, raw[_NLMSGHDR.size :])


def nft_message(raw: bytes, want: int, what: str) -> NftMessage:
    """Read one nf_tables message that must be of type `want`; `what` names it in errors."""
    if len(raw) < NFT_HEADER_LENGTH:
        raise DecodeError(f"{what}: message of {len(raw)} bytes, want {NFT_HEADER_LENGTH}")
    length, kind, _, _, _, family, _, high, low = _NFT_HEADER.unpack_from(raw)
    if length != len(raw):
        raise DecodeError(f"{what}: message of length {length}, have {len(raw)}")
    if kind != _NFNL_SUBSYS_NFTABLES << 8 | want:
        raise DecodeError(f"{what}: message of type {kind:#x}, want {_NFNL_SUBSYS_NFTABLES << 8 | want:#x}")
    return NftMessage(want, FAMILIES.get(family) or str(family), high << 8 | low, raw)
