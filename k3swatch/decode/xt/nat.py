"""Targets that send a packet elsewhere: DNAT and its kin, TPROXY, NPT. `uapi/linux/netfilter/nf_nat.h`."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import IPV4, Layouts, Reader, address
from k3swatch.model.xt import NatRange, XtNpt, XtSpec, XtTproxy

RANGE_MASK = 0x7F  # NF_NAT_RANGE_MASK
COMPAT, RANGE, RANGE2 = 20, 40, 44  # sizeof nf_nat_ipv4_multi_range_compat, nf_nat_range, nf_nat_range2


def compat(target: str) -> Reader:
    """struct nf_nat_ipv4_multi_range_compat: IPv4 addresses, exactly one range."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        (ranges, flags), (low, high) = unpack_from("=2I", info), unpack_from(">2H", info, 16)
        if ranges != 1 or flags & ~RANGE_MASK:
            return None
        return NatRange(target, flags, addr=(info[8:12], info[12:16]), port=(low, high))

    return read


def inet_range(target: str) -> Reader:
    """struct nf_nat_range and nf_nat_range2, which only adds base_proto."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        (flags,), (low, high) = unpack_from("=I", info), unpack_from(">2H", info, 36)
        base = unpack_from(">H", info, 40)[0] if len(info) >= RANGE2 else 0
        if flags & ~RANGE_MASK:
            return None
        addr = (address(info[4:20], nfproto), address(info[20:36], nfproto))
        return NatRange(target, flags, addr=addr, port=(low, high), base_port=base)

    return read


def tproxy_v0(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tproxy_target_info: IPv4 only."""
    mask, value = unpack_from("=2I", info)
    (port,) = unpack_from(">H", info, 12)
    return XtTproxy(addr=info[8:12], port=port, mark_mask=mask, mark_value=value)


def tproxy(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tproxy_target_info_v1: `-j TPROXY --on-port 9000 --on-ip 127.0.0.1 --tproxy-mark 1/0xff`."""
    mask, value = unpack_from("=2I", info)
    (port,) = unpack_from(">H", info, 24)
    return XtTproxy(address(info[8:24], nfproto), port, mark_mask=mask, mark_value=value)


def npt(target: str) -> Reader:
    """struct ip6t_npt_tginfo: `-j DNPT --src-pfx fd00:1::/64 --dst-pfx fd00:2::/64`."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return XtNpt(target, source=(info[:16], info[32]), destination=(info[16:32], info[33]))

    return read


COMMON: Layouts = {
    ("DNAT", 1): (RANGE, inet_range("DNAT")),
    ("DNAT", 2): (RANGE2, inet_range("DNAT")),
    ("SNAT", 1): (RANGE, inet_range("SNAT")),
    ("SNAT", 2): (RANGE2, inet_range("SNAT")),
    ("TPROXY", 1): (28, tproxy),
}
IP: Layouts = {
    ("DNAT", 0): (COMPAT, compat("DNAT")),
    ("SNAT", 0): (COMPAT, compat("SNAT")),
    ("REDIRECT", 0): (COMPAT, compat("REDIRECT")),
    ("MASQUERADE", 0): (COMPAT, compat("MASQUERADE")),
    ("NETMAP", 0): (COMPAT, compat("NETMAP")),
    ("TPROXY", 0): (16, tproxy_v0),
}
IP6: Layouts = {
    ("REDIRECT", 0): (RANGE, inet_range("REDIRECT")),
    ("MASQUERADE", 0): (RANGE, inet_range("MASQUERADE")),
    ("NETMAP", 0): (RANGE, inet_range("NETMAP")),
    ("DNPT", 0): (36, npt("DNPT")),
    ("SNPT", 0): (36, npt("SNPT")),
}


def layouts(nfproto: int) -> Layouts:
    """The same name and revision has another structure in each family."""
    return COMMON | (IP if nfproto == IPV4 else IP6)
