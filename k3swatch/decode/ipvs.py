"""Answers of the generic netlink family IPVS -> VirtualServer, RealServer.

Follows `uapi/linux/ip_vs.h` and ip_vs_genl_fill_service, ip_vs_genl_fill_dest (net/netfilter/ipvs/ip_vs_ctl.c).
Integers are in host order but for addresses and ports.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import replace

from k3swatch.decode.attributes import Attributes, display
from k3swatch.decode.message import message
from k3swatch.errors import DecodeError
from k3swatch.model.ipvs import Method, RealServer, VirtualServer
from k3swatch.model.port import Address
from k3swatch.model.words import Family

_GENLMSGHDR = 4  # command, version, reserved
_NEW_SERVICE, _NEW_DEST = 1, 5  # IPVS_CMD_*: what answers begin with
_SERVICE, _DEST = 1, 2  # IPVS_CMD_ATTR_*
_AF, _PROTOCOL, _ADDR, _PORT, _FWMARK, _SCHED_NAME, _FLAGS = range(1, 8)  # IPVS_SVC_ATTR_*
_DEST_ADDR, _DEST_PORT, _FWD_METHOD, _WEIGHT = range(1, 5)  # IPVS_DEST_ATTR_*
_DEST_FAMILY = 11  # IPVS_DEST_ATTR_ADDR_FAMILY
_FAMILIES = {family.nfproto: family for family in Family}  # AF_INET, AF_INET6


def is_service(raw: bytes) -> bool:
    """Whether an answer is a virtual server, and not one of the real servers of the last."""
    return _command(raw) == _NEW_SERVICE


def decode_services(messages: Iterable[bytes]) -> tuple[VirtualServer, ...]:
    """Virtual servers, each followed by its real servers. DecodeError when one of them is not understood."""
    found: list[VirtualServer] = []
    for raw in messages:
        if is_service(raw):
            found.append(_service(raw))
        elif not found:
            raise DecodeError("ipvs: a real server before any virtual one")
        else:
            last = found[-1]
            found[-1] = replace(last, servers=(*last.servers, _server(raw, last.family)))
    return tuple(found)


def _command(raw: bytes) -> int:
    body = message(raw).body
    if len(body) < _GENLMSGHDR:
        raise DecodeError(f"ipvs: an answer of {len(body)} bytes")
    return body[0]


def _inside(raw: bytes, command: int, kind: int, where: str) -> Attributes:
    if _command(raw) != command:
        raise DecodeError(f"{where}: command {_command(raw)}, want {command}")
    return Attributes(message(raw).body[_GENLMSGHDR:], where).nested(kind, "object")


def _service(raw: bytes) -> VirtualServer:
    inside = _inside(raw, _NEW_SERVICE, _SERVICE, "ipvs service")
    family = _family(_integer(inside, _AF, 2))
    mark = _integer(inside, _FWMARK, 4, 0)
    return VirtualServer(
        family,
        display(inside.raw(_SCHED_NAME)) if _SCHED_NAME in inside else "",
        _integer(inside, _PROTOCOL, 2, 0),
        None if mark else _address(inside.raw(_ADDR), family),
        inside.be16(_PORT, 0),
        mark,
        # struct ip_vs_flags: flags and mask
        struct.unpack_from("=I", inside.raw(_FLAGS).ljust(4, b"\0"))[0] if _FLAGS in inside else 0,
    )


def _server(raw: bytes, family: Family) -> RealServer:
    inside = _inside(raw, _NEW_DEST, _DEST, "ipvs destination")
    if _DEST_FAMILY in inside:  # a tunnel may lead to another family
        family = _family(_integer(inside, _DEST_FAMILY, 2))
    method = _integer(inside, _FWD_METHOD, 4) & 0x7
    try:
        forward = Method(method)
    except ValueError:
        raise DecodeError(f"ipvs destination: forwarding method {method}") from None
    weight = _integer(inside, _WEIGHT, 4)
    return RealServer(_address(inside.raw(_DEST_ADDR), family), inside.be16(_DEST_PORT), forward, weight)


def _family(number: int) -> Family:
    if number not in _FAMILIES:
        raise DecodeError(f"ipvs: address family {number}")
    return _FAMILIES[number]


def _address(value: bytes, family: Family) -> Address:
    """Out of union nf_inet_addr: 16 bytes, of which IPv4 takes the first four."""
    if len(value) < family.length:
        raise DecodeError(f"ipvs: an address of {len(value)} bytes")
    if family is Family.IP:
        return ipaddress.IPv4Address(value[:4])
    return ipaddress.IPv6Address(value[:16])


def _integer(attributes: Attributes, kind: int, size: int, default: int | None = None) -> int:
    if default is not None and kind not in attributes:
        return default
    value = attributes.raw(kind)
    if len(value) != size:
        raise DecodeError(f"{attributes.where}: attribute {kind}: {len(value)} bytes, want {size}")
    return int(struct.unpack("=H" if size == 2 else "=I", value)[0])
