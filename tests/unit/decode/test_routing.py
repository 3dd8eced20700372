"""Routes and policy rules as the kernel sends them."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import name, nla

from k3swatch.decode.routing import decode_policy, decode_route
from k3swatch.errors import DecodeError
from k3swatch.model.routing import PolicyRule, Prefix, Route
from k3swatch.model.words import Family


def u32(kind: int, value: int) -> bytes:
    return nla(kind, struct.pack("=I", value))


def message(kind: int, header: bytes, *attributes: bytes) -> bytes:
    body = header + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def rtmsg(family: int, length: int, kind: int, table: int = 254, source: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, length, source, 0, table, 3, 0, kind, 0)


def rule(family: int, to: int, source: int, action: int = 1, flags: int = 0, tos: int = 0) -> bytes:
    return struct.pack("=BBBBBBBBI", family, to, source, tos, 255, 0, 0, action, flags)


def test_route() -> None:
    raw = message(24, rtmsg(2, 24, 1), nla(1, bytes([10, 42, 7, 0])), u32(4, 3), u32(6, 100), u32(15, 1000))
    ten = 10 << 24 | 42 << 16 | 7 << 8
    assert decode_route(raw) == Route(Family.IP, 1000, Prefix(ten, ten + 255, 24), 1, 3, b"", 100)
    default = message(24, rtmsg(10, 0, 7), nla(5, bytes(16)))
    assert decode_route(default) == Route(Family.IP6, 254, Prefix(0, 2**128 - 1, 0), 7, 0, bytes(16))


def test_routes_of_no_interest() -> None:
    assert decode_route(message(24, rtmsg(128, 0, 1))) is None
    for_some = decode_route(message(24, rtmsg(10, 0, 1, source=64)))
    assert for_some is not None
    assert for_some.source is not None


def test_rule() -> None:
    raw = message(
        32,
        rule(2, 0, 24, flags=2),
        nla(2, bytes([192, 168, 1, 0])),
        u32(6, 100),
        u32(10, 1),
        u32(15, 300),
        u32(16, 0xFF),
        name(3, "cni0"),
        nla(22, b"\6"),
        nla(24, struct.pack("=HH", 6443, 6443)),
        nla(29, b"\xff\xff"),
        nla(20, struct.pack("=II", 0, 99)),
        u32(14, 0xFFFFFFFF),
    )
    base = 192 << 24 | 168 << 16 | 1 << 8
    assert decode_policy(raw) == PolicyRule(
        Family.IP,
        100,
        1,
        300,
        source=Prefix(base, base + 255, 24),
        mark=1,
        mark_mask=0xFF,
        in_interface="cni0",
        protocol=6,
        destination_ports=(6443, 6443),
        uids=(0, 99),
        invert=True,
    )


def test_what_a_rule_asks_beyond_that_is_marked() -> None:
    for raw in (
        message(32, rule(2, 0, 0, tos=4)),
        message(32, rule(2, 0, 0), u32(12, 7)),
        message(32, rule(2, 0, 0), u32(13, 1)),
    ):
        found = decode_policy(raw)
        assert found is not None
        assert found.other


@pytest.mark.parametrize("decode", [decode_route, decode_policy])
def test_what_does_not_fit(decode: object) -> None:
    assert callable(decode)
    for raw in (
        message(20, bytes(12)),
        message(24, bytes(4)),
        message(32, bytes(4)),
        message(24, rtmsg(2, 33, 1)),
        message(32, rule(2, 33, 0)),
    ):
        with pytest.raises(DecodeError):
            decode(raw)


@given(st.binary(max_size=80))
def test_random_bytes(data: bytes) -> None:
    for kind, decode in ((24, decode_route), (32, decode_policy)):
        with contextlib.suppress(DecodeError):
            decode(message(kind, data))
