"""ebtables' blobs: what they say, what rules with them do to a packet, and how they are written."""

from __future__ import annotations

from struct import pack

import pytest
from support.build import ip

from k3swatch.decode.xt import decode_match, decode_target
from k3swatch.evaluate.text import rule_text
from k3swatch.model import xt
from k3swatch.model.expr import Code, XtMatch, XtTarget

BRIDGE = 7
MASK = b"\xff\xff\0\0"


def ebt_ip(asked: int, inverted: int = 0, tos: int = 0) -> bytes:
    addresses = ip("192.168.0.0") + ip("10.0.0.1") + MASK + b"\xff" * 4
    return addresses + pack("=4B4H", tos, 6, asked, inverted, 1, 2, 6400, 6500)


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (ebt_ip(1 | 2), "ip saddr 192.168.0.0/16 ip daddr 10.0.0.1"),
        (ebt_ip(8), "meta l4proto tcp"),
        (ebt_ip(8 | 16 | 32, 32), "tcp sport 1-2 tcp dport != 6400-6500"),
        (ebt_ip(8 | 32, 8), "meta l4proto != tcp th dport 6400-6500"),
        (ebt_ip(4, tos=8), "xt ip 08060400" + "0100020000196419"),
    ],
)
def test_ip(info: bytes, text: str) -> None:
    spec = decode_match("ip", 0, info, BRIDGE)
    assert isinstance(spec, xt.EtherIp)
    assert rule_text([XtMatch("ip", 0, info, spec)], "bridge", lambda name: None) == text


@pytest.mark.parametrize(
    ("name", "info", "spec"),
    [
        ("mark_m", pack("=2Q2B6x", 1, 3, 1, 1), xt.Mark(1, 3, True)),
        ("mark_m", pack("=2Q2B6x", 0, 3, 0, 2), xt.Mark(0, 3, True)),
        ("mark_m", pack("=2Q2B6x", 0, 3, 0, 3), None),
        ("pkttype", b"\2\1", xt.PktType(2, True)),
        ("arp", bytes(52), xt.Environment("arp", False)),
        ("among", bytes(12), None),
    ],
)
def test_other_matches(name: str, info: bytes, spec: xt.XtSpec | None) -> None:
    assert decode_match(name, 0, info, BRIDGE) == spec


MAC, WRITTEN = b"\2\0\0\0\0\x09", "02:00:00:00:00:09"
ALL, SET = 0xFFFFFFFF, "meta mark set"


OR, AND = (number & ~15 | 13 for number in (-17, -33))  # what is done, and EBT_CONTINUE


@pytest.mark.parametrize(
    ("name", "info", "spec", "text"),
    [
        ("dnat", pack("=6s2xi", MAC, -1), xt.EtherNat("dnat", MAC, Code.ACCEPT), f"ether daddr set {WRITTEN} accept"),
        ("snat", pack("=6s2xi", MAC, -3), xt.EtherNat("snat", MAC, Code.CONTINUE), f"ether saddr set {WRITTEN}"),
        ("redirect", pack("=i", -2), xt.EtherNat("redirect", b"", Code.DROP), "meta pkttype set host drop"),
        ("mark", pack("=Qi4x", 4, -1), xt.EtherMark(ALL, 4, Code.ACCEPT), "meta mark set 0x00000004 accept"),
        ("mark", pack("=Qi4x", 4, OR), xt.EtherMark(4, 4, Code.CONTINUE), f"{SET} meta mark | 0x00000004"),
        ("mark", pack("=Qi4x", 4, AND), xt.EtherMark(ALL ^ 4, 0, Code.CONTINUE), f"{SET} meta mark & 0x00000004"),
    ],
)  # fmt: skip
def test_targets(name: str, info: bytes, spec: xt.XtSpec, text: str) -> None:
    found = decode_target(name, 0, info, BRIDGE)
    assert found == spec
    assert rule_text([XtTarget(name, 0, info, found)], "bridge", lambda name: None) == text


def test_a_verdict_there_is_not() -> None:
    assert decode_target("dnat", 0, pack("=6s2xi", MAC, -7), BRIDGE) is None
