"""What netfilter calls, as nfnetlink_hook tells it; and ebtables-legacy's tables, of which only emptiness is read."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3swatch.decode.ebtables import idle
from k3swatch.decode.nfhook import RegisteredHook, decode_hook
from k3swatch.errors import DecodeError
from k3swatch.sources.netlink import attribute


def hook(
    family: int,
    number: int,
    priority: int,
    function: str,
    module: str = "",
    program: int = 0,
    kind: int = 12 << 8,
) -> bytes:
    """As nfnl_hook_dump_one puts it."""
    body = bytes((family, 0, 0, 0))
    if module:
        body += attribute(5, module.encode() + b"\0")
    body += attribute(4, function.encode() + b"\0")
    body += attribute(1, number.to_bytes(4, "big")) + attribute(2, struct.pack(">i", priority))
    if program:
        description = attribute(1 | 0x8000, attribute(1, program.to_bytes(4, "big")))
        body += attribute(6 | 0x8000, attribute(2, (2).to_bytes(4, "big")) + description)
    return struct.pack("=IHHII", 16 + len(body), kind, 2, 1, 1) + body


def test_a_function_of_a_module() -> None:
    found = decode_hook(hook(2, 0, -200, "ipv4_conntrack_in", "nf_conntrack"))
    assert found == RegisteredHook(2, 0, -200, "ipv4_conntrack_in", "nf_conntrack", 0)


def test_a_bpf_program() -> None:
    assert decode_hook(hook(10, 1, 7, "nf_hook_run_bpf", program=4711)).program == 4711


def test_a_chain_is_no_program() -> None:
    """NFNL_HOOK_TYPE_NFTABLES has strings where a program has its id."""
    chain = attribute(
        6 | 0x8000, attribute(2, (1).to_bytes(4, "big")) + attribute(1 | 0x8000, attribute(1, b"t\0"))
    )
    plain = hook(2, 0, 0, "nft_do_chain_inet", "nf_tables")
    raw = struct.pack("=I", len(plain) + len(chain)) + plain[4:] + chain
    assert decode_hook(raw).program == 0


def test_hostile_names_are_bounded() -> None:
    assert len(decode_hook(hook(2, 0, 0, "x" * 4000, "\x1b[2J" * 900)).module) <= 64


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        hook(2, 0, 0, "f")[:-3],
        hook(2, 0, 0, "f", kind=10 << 8),
        struct.pack("=IHHIII", 20, 12 << 8, 2, 1, 1, 2),
    ],
)
def test_what_is_none(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_hook(raw)


@given(st.binary(max_size=200))
def test_anything_else_is_an_error(body: bytes) -> None:
    raw = struct.pack("=IHHII", 16 + len(body), 12 << 8, 2, 1, 1) + body
    with suppress(DecodeError):
        assert isinstance(decode_hook(raw), RegisteredHook)


def chain(name: bytes, policy: int = -1, rules: int = 0) -> bytes:
    """struct ebt_entries"""
    return struct.pack("=I32sIiI", 0, name, 0, policy, rules)


NEW = chain(b"INPUT") + chain(b"FORWARD") + chain(b"OUTPUT")
RULE = struct.pack("=I", 1) + bytes(140)


@pytest.mark.parametrize(
    ("entries", "nothing"),
    [
        (b"", True),
        (NEW, True),
        (NEW + chain(b"mine"), True),  # a chain of somebody's, empty
        (chain(b"INPUT", policy=-2) + NEW[48:], False),
        (chain(b"INPUT", rules=1) + RULE + NEW[48:], False),
        (NEW + RULE, False),
    ],
)
def test_a_table_that_does_nothing(entries: bytes, nothing: bool) -> None:
    assert idle(entries) is nothing


def test_half_a_chain() -> None:
    with pytest.raises(DecodeError):
        idle(NEW[:-1])
