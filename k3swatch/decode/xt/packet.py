"""Matches on the packet's other headers and on what it carries, most of which a model of a packet leaves open."""

from __future__ import annotations

from struct import unpack_from

from k3swatch.decode.xt.blob import IPV4, Layouts, Reader, span, string
from k3swatch.model.xt import ICMP, ICMPV6, Environment, Icmp, PktType, XtSpec

COMPARE = ("", "!= ", "< ", "> ")  # IPT_TTL_EQ, NE, LT, GT; IP6T_HL_* alike


def names(words: str) -> Reader:
    """For a match of another protocol than a port's, or too long to spell out: only its name."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return Environment(words)

    return read


def extension(words: str) -> Reader:
    """For an IPv6 extension header, which a connection's first packet does not carry unless somebody builds it so.

    The matches of ip6t_rt.c, ip6t_frag.c and ip6t_hbh.c are false without their header, inverted or not.
    """

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return Environment(words, holds=False)

    return read


def mac(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_mac_info."""
    return Environment(f"mac source {'!= ' if any(info[8:12]) else ''}{info[:6].hex(':')}")


def length(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_length_info."""
    low, high, invert = unpack_from("=2HB", info)
    return Environment(f"length {'!= ' if invert else ''}{span(low, high)}")


def ttl(info: bytes, nfproto: int) -> XtSpec | None:
    """struct ipt_ttl_info and ip6t_hl_info."""
    if info[0] >= len(COMPARE):
        return None
    return Environment(f"{'ttl' if nfproto == IPV4 else 'hoplimit'} {COMPARE[info[0]]}{info[1]}")


def tos(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tos_match_info."""
    return Environment(f"tos & {info[0]:#04x} {'!=' if info[2] else '=='} {info[1]:#04x}")


def dscp(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_dscp_info."""
    return Environment(f"dscp {'!= ' if info[1] else ''}{info[0]:#04x}")


def ecn(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_ecn_info."""
    asked = [
        name for bit, name in ((0x01, f"ip {info[2]}"), (0x10, "tcp ece"), (0x20, "tcp cwr")) if info[0] & bit
    ]
    return Environment(f"ecn {'!= ' if info[1] else ''}{', '.join(asked)}")


def string_match(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_string_info: `-m string --algo bm --string "GET /"`."""
    pattern, invert = info[20:148][: info[148]], info[149] & 1
    return Environment(f'string {"!= " if invert else ""}"{pattern.decode(errors="backslashreplace")}"')


def pkttype(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_pkttype_info."""
    kind, invert = unpack_from("=2i", info)
    return PktType(kind, bool(invert))


def tcpmss(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_tcpmss_match_info."""
    low, high, invert = unpack_from("=2HB", info)
    return Environment(f"tcpmss {'!= ' if invert else ''}{span(low, high)}")


def spi(name: str) -> Reader:
    """struct ipt_ah, ip6t_ah, xt_esp, xt_ipcomp: all begin with a range of security parameter indexes."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        return Environment(f"{name} spi {span(*unpack_from('=2I', info))}")

    return read


def icmp(protocol: int) -> Reader:
    """struct ipt_icmp and ip6t_icmp: type, range of codes, invert."""

    def read(info: bytes, nfproto: int) -> XtSpec | None:
        kind, low, high, invert = info[:4]
        return Icmp(protocol, kind, (low, high), bool(invert & 1))

    return read


def u32(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_u32: arithmetic on the packet's bytes; how many tests."""
    return Environment(f"u32 {'not ' if info[1981] else ''}({info[1980]} tests)")


def bpf(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_bpf_info: a classic BPF program."""
    return Environment(f"bpf program of {unpack_from('=H', info)[0]} instructions")


def bpf_v1(info: bytes, nfproto: int) -> XtSpec | None:
    """struct xt_bpf_info_v1: bytecode, or an object pinned in bpffs."""
    mode, count = unpack_from("=2H", info)
    if mode == 1:  # XT_BPF_MODE_PATH_PINNED
        return Environment(f'bpf pinned at "{string(info[8:520])}"')
    return Environment(f"bpf program of {count} instructions" if mode == 0 else "bpf program")


COMMON: Layouts = {
    ("mac", 0): (12, mac),
    ("length", 0): (6, length),
    ("tos", 1): (3, tos),
    ("dscp", 0): (2, dscp),
    ("ecn", 0): (4, ecn),
    ("string", 0): (160, string_match),
    ("string", 1): (160, string_match),
    ("pkttype", 0): (8, pkttype),
    ("tcpmss", 0): (6, tcpmss),
    ("esp", 0): (12, spi("esp")),
    ("ipcomp", 0): (12, spi("ipcomp")),
    ("u32", 0): (1984, u32),
    ("bpf", 0): (528, bpf),
    ("bpf", 1): (528, bpf_v1),
    ("sctp", 0): (292, names("sctp")),
    ("dccp", 0): (16, names("dccp")),
    ("l2tp", 0): (12, names("l2tp")),
}
IP: Layouts = {
    ("ttl", 0): (2, ttl),
    ("ah", 0): (12, spi("ah")),
    ("icmp", 0): (4, icmp(ICMP)),
}
IP6: Layouts = {
    ("hl", 0): (2, ttl),
    ("ah", 0): (16, spi("ah")),
    ("icmp6", 0): (4, icmp(ICMPV6)),
    ("frag", 0): (16, extension("frag")),
    ("rt", 0): (280, extension("rt")),
    ("hbh", 0): (40, extension("hbh")),
    ("dst", 0): (40, extension("dst")),
    ("ipv6header", 0): (3, names("ipv6header")),
    ("eui64", 0): (4, names("eui64")),
    ("mh", 0): (3, names("mh")),
    ("srh", 0): (10, names("srh")),
    ("srh", 1): (108, names("srh")),
}


def layouts(nfproto: int) -> Layouts:
    """The same name has another structure in each family."""
    return COMMON | (IP if nfproto == IPV4 else IP6)
