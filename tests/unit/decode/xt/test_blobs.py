"""Blobs beyond those iptables makes here: older revisions, wrong sizes, senseless values, junk."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3swatch.decode.xt import IPV4, IPV6, MATCHES, TARGETS, decode_match, decode_target
from k3swatch.model.xt import (
    Addrtype,
    Conntrack,
    Environment,
    Mark,
    Multiport,
    NatRange,
    PhysDev,
    Ports,
    SetMark,
    State,
    XtNotrack,
    XtQueue,
    XtReject,
    XtSocket,
    XtSpec,
    XtTproxy,
)

Known = tuple[Callable[[str, int, bytes, int], XtSpec | None], int, str, int, int]
KNOWN: list[Known] = [
    (decode, nfproto, name, revision, size)
    for decode, tables in ((decode_match, MATCHES), (decode_target, TARGETS))
    for nfproto, table in tables.items()
    for (name, revision), (size, _) in table.items()
]
ANY4, ANY6 = bytes(4), bytes(16)


def inet(address: bytes) -> bytes:
    """union nf_inet_addr."""
    return address.ljust(16, b"\0")


@pytest.mark.parametrize(
    ("name", "revision", "info", "nfproto", "spec"),
    [
        # --dport 6443
        ("tcp", 0, pack("=4H4B", 0, 65535, 6443, 6443, 0, 0, 0, 0), 2, Ports(6, destination=(6443, 6443))),
        ("udp", 0, pack("=4HBx", 1, 2, 53, 53, 2), 10, Ports(17, (1, 2), (53, 53), invert_destination=True)),
        # --sports 10:20,30
        (
            "multiport",
            1,
            bytes([0, 3]) + pack("=15H", 10, 20, 30, *[0] * 12) + b"\1" + bytes(14) + b"\0",
            2,
            Multiport(0, ((10, 20), (30, 30))),
        ),
        # ! --src-type LOCAL, IPv4 only
        ("addrtype", 0, pack("=2H2I", 4, 0, 1, 0), 2, Addrtype(4, 0, invert_source=True)),
        ("mark", 1, pack("=2IB3x", 1, 0xFF, 1), 2, Mark(1, 0xFF, invert=True)),
        # xt_state's UNTRACKED is not xt_conntrack's
        ("state", 0, pack("=I", 8 | 64), 2, State(8 | 256)),
        # revision 1: one byte masks, single ports in network order
        (
            "conntrack",
            1,
            bytes(136) + pack("=H", 6) + pack(">4H", 0, 6443, 0, 0) + pack("=2H2B", 1 << 9 | 1, 1, 8, 0),
            2,
            Conntrack(
                1 << 9 | 1,
                1,
                state_mask=8,
                protocol=6,
                origsrc=(ANY4, ANY4),
                origdst=(ANY4, ANY4),
                replsrc=(ANY4, ANY4),
                repldst=(ANY4, ANY4),
                origdst_port=(6443, 6443),
            ),
        ),
        # revision 2: two byte masks; -m conntrack ! --ctstate DNAT
        ("conntrack", 2, bytes(146) + pack("=4H", 1, 1, 128, 0) + bytes(2), 10, State(128, invert=True)),
        ("set", 0, pack("=H2x", 7) + bytes(28), 2, Environment("ipset #7")),
        ("set", 1, pack("=H2B", 7, 2, 0b011), 2, Environment("ipset != #7 src,dst")),
        (
            "recent",
            0,
            pack("=2I2B", 0, 0, 2, 1) + b"x".ljust(202, b"\0"),
            2,
            Environment('recent "x" add source', holds=False),
        ),
        ("limit", 0, pack("=2I", 2_000, 5) + bytes(32), 2, Environment("limit 5/second burst 5")),
        ("limit", 0, pack("=2I", 288_000_000, 5) + bytes(32), 2, Environment("limit 3/day burst 5")),
        # revision 1 counts in 1/10000 s, has its numbers in another order and a short name
        (
            "hashlimit",
            1,
            b"ssh".ljust(16, b"\0") + pack("=3I", 0x14, 600_000, 5) + bytes(28),
            2,
            Environment('hashlimit "ssh" above 1/minute burst 5 per srcip'),
        ),
        ("socket", 1, b"\1", 2, XtSocket(1)),
        ("socket", 0, b"", 2, XtSocket(0)),
        (
            "connlimit",
            0,
            inet(b"\xff" * 4) + pack("=2I", 10, 1) + bytes(8),
            2,
            Environment("connlimit up to 10 per source"),
        ),
        # --physdev-in eth+
        (
            "physdev",
            0,
            b"eth+".ljust(16, b"\0") + b"\xff\xff\xff".ljust(16, b"\0") + bytes(32) + b"\0\1",
            2,
            PhysDev("eth+", "", invert=0, bitmask=1),
        ),
        ("cgroup", 0, pack("=2I", 0x10001, 1), 2, Environment("cgroup != 0x10001")),
        ("cgroup", 1, b"\1\0\0\0" + b"/a".ljust(4108, b"\0"), 2, Environment('cgroup "/a"')),
        (
            "bpf",
            1,
            pack("=2Hi", 1, 0, 3) + b"/sys/fs/bpf/p".ljust(520, b"\0"),
            2,
            Environment('bpf pinned at "/sys/fs/bpf/p"'),
        ),
        # a name that is not UTF-8 stays visible and encodable
        ("nfacct", 1, b"\xff\x1b".ljust(40, b"\0"), 2, Environment('nfacct "\\xff\x1b"')),
    ],
)
def test_match(name: str, revision: int, info: bytes, nfproto: int, spec: XtSpec) -> None:
    assert decode_match(name, revision, info, nfproto) == spec


@pytest.mark.parametrize(
    ("name", "revision", "info", "nfproto", "spec"),
    [
        # the first DNAT: one range of IPv4 addresses
        (
            "DNAT",
            0,
            pack("=2I", 1, 3) + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + pack(">2H", 80, 81),
            2,
            NatRange("DNAT", 3, (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])), (80, 81)),
        ),
        # revision 1 has no base port, and serves both families
        (
            "DNAT",
            1,
            pack("=I", 1) + inet(b"\n\0\0\1") * 2 + bytes(4),
            2,
            NatRange("DNAT", 1, (b"\n\0\0\1", b"\n\0\0\1")),
        ),
        (
            "SNAT",
            2,
            pack("=I", 2) + bytes(32) + pack(">3H2x", 5, 6, 7),
            10,
            NatRange("SNAT", 2, (ANY6, ANY6), (5, 6), 7),
        ),
        (
            "TPROXY",
            0,
            pack("=2I", 0xFF, 1) + b"\x7f\0\0\1" + pack(">H2x", 9000),
            2,
            XtTproxy(b"\x7f\0\0\1", 9000, 0xFF, 1),
        ),
        (
            "CONNMARK",
            1,
            pack("=3IB3x", 0, 0xFF, 0xF, 2),
            2,
            SetMark(0xFF, 0, conntrack=True, op=2, nfmask=0xF),
        ),
        (
            "CONNMARK",
            2,
            pack("=3I3Bx", 0, 1, 1, 1, 4, 1),
            2,
            SetMark(1, 0, conntrack=True, op=1, nfmask=1, shift=-4),
        ),
        ("NOTRACK", 0, b"", 2, XtNotrack()),
        ("CT", 0, pack("=2H", 1, 0) + bytes(36), 2, XtNotrack()),
        ("NFQUEUE", 0, pack("=H", 3), 2, XtQueue(3)),
        ("NFQUEUE", 2, pack("=3H", 3, 2, 1), 2, XtQueue(3, 2, bypass=True)),
        ("REJECT", 0, pack("=I", 7), 2, XtReject(7)),
    ],
)
def test_target(name: str, revision: int, info: bytes, nfproto: int, spec: XtSpec) -> None:
    assert decode_target(name, revision, info, nfproto) == spec


@pytest.mark.parametrize(
    ("name", "revision", "info"),
    [
        ("tcp", 0, pack("=4H4B", 0, 1, 0, 1, 0, 0, 0, 0x10)),  # unknown invert bit
        ("multiport", 1, bytes([3, 1]) + bytes(46)),  # no such side
        ("multiport", 1, bytes([1, 16]) + bytes(46)),  # more ports than fit
        ("multiport", 1, bytes([1, 1]) + bytes(30) + b"\1" + bytes(15)),  # a range without an end
        ("addrtype", 1, pack("=2HI", 0, 4, 0x10)),
        ("conntrack", 3, bytes(146) + pack("=H", 1 << 14) + bytes(16)),  # asks what we do not know
        ("statistic", 0, pack("=2H", 2, 0) + bytes(20)),  # no such mode
        ("recent", 1, bytes(228)),  # asks nothing
        ("socket", 1, b"\2"),  # a flag of a later revision
        ("rpfilter", 0, b"\x10"),
        ("owner", 1, bytes(16) + b"\x10" + bytes(3)),
    ],
)
def test_senseless_match(name: str, revision: int, info: bytes) -> None:
    assert decode_match(name, revision, info, IPV4) is None


@pytest.mark.parametrize(
    ("name", "revision", "info"),
    [
        ("DNAT", 0, pack("=2I", 2, 1) + bytes(12)),  # two ranges
        ("DNAT", 2, pack("=I", 0x80) + bytes(40)),  # a flag that could mean anything
        ("CONNMARK", 2, bytes(14) + b"\3\0"),
        ("CT", 2, pack("=H", 0x20) + bytes(70)),
        ("REJECT", 0, pack("=I", 9)),
        ("TTL", 0, b"\3\0"),
        ("DNAT", 9, bytes(44)),
        ("MIRROR", 0, b""),
        ("ACCEPT", 0, b""),
    ],
)
def test_senseless_target(name: str, revision: int, info: bytes) -> None:
    assert decode_target(name, revision, info, IPV4) is None


def test_same_name_means_something_else_in_another_family() -> None:
    assert decode_target("REDIRECT", 0, bytes(20), IPV6) is None
    assert decode_target("REDIRECT", 0, bytes(40), IPV6) is not None
    assert decode_target("REDIRECT", 0, bytes(40), IPV4) is None
    assert decode_match("ah", 0, bytes(12), IPV6) is None
    for bridge_arp_inet in (1, 3, 7):
        assert decode_match("mark", 1, bytes(12), bridge_arp_inet) is None


@pytest.mark.parametrize(("decode", "nfproto", "name", "revision", "size"), KNOWN)
def test_only_its_own_size(
    decode: Callable[[str, int, bytes, int], XtSpec | None], nfproto: int, name: str, revision: int, size: int
) -> None:
    padded = (size + 7) & ~7
    assert decode(name, revision, bytes(size), nfproto) == decode(name, revision, bytes(padded), nfproto)
    wrong = [length for length in range(max(0, size - 9), padded + 9) if length not in (size, padded)]
    assert [decode(name, revision, b"\xff" * length, nfproto) for length in wrong] == [None] * len(wrong)


@given(st.sampled_from(KNOWN), st.data())
def test_junk_never_raises(known: Known, data: st.DataObject) -> None:
    decode, nfproto, name, revision, size = known
    spec = decode(name, revision, data.draw(st.binary(min_size=size, max_size=size)), nfproto)
    words = getattr(spec, "words", "")
    words.encode()
    assert len(words) < 4 * size + 100
