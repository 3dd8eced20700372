"""Every kind of expression, from the bytes a real kernel sent (data/expressions.txt, with the nft text)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.expressions import read, value
from support.wire import be32, be64, expression, name, nla

from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import COMPAT, DECODERS, decode_expression, decode_expressions
from k3swatch.model.expr import (
    Bitwise,
    Expr,
    Flow,
    Fwd,
    Hash,
    Immediate,
    Last,
    Numgen,
    Opaque,
    Queue,
    Range,
    Socket,
    Verdict,
)

SAMPLES = read()


@pytest.mark.parametrize(
    ("family", "raw", "expected"),
    [
        pytest.param(family, raw, text, id=f"{rule}-{place}")
        for place, (family, rule, raw, text) in enumerate(SAMPLES)
    ],
)
def test_expression_from_a_real_kernel(family: str, raw: bytes, expected: str) -> None:
    assert value(decode_expression(raw, NFPROTO[family])) == expected


def data(kind: int, constant: bytes) -> bytes:
    """A nested NFTA_DATA_VALUE."""
    return nla(kind, nla(1, constant))


# What nft 1.0.6 cannot write or this kernel was built without: made by hand after nf_tables.h.
BY_HAND: list[tuple[str, bytes, Expr]] = [
    ("last", be32(1, 1) + be64(2, 1000), Last()),
    # queue flags bypass to 1-3
    ("queue", nla(1, b"\0\1") + nla(2, b"\0\3") + nla(3, b"\0\1"), Queue(1, 3, 1)),
    # tcp dport 100-200
    ("range", be32(1, 1) + be32(2, 0) + data(3, b"\0d") + data(4, b"\0\xc8"), Range(1, 0, b"\0d", b"\0\xc8")),
    # meta mark set meta mark | ct mark: two registers, since 6.13
    (
        "bitwise",
        be32(1, 1) + be32(2, 1) + be32(3, 4) + be32(6, 4) + be32(8, 2),
        Bitwise(1, 1, 4, op=4, sreg2=2),
    ),
    (
        "bitwise",
        be32(1, 1) + be32(2, 1) + be32(3, 4) + be32(6, 3) + data(7, b"\0\0\0\1"),
        Bitwise(1, 1, 4, op=3, data=b"\0\0\0\1"),
    ),
    # socket cgroupv2 level 2 "a/b"
    ("socket", be32(1, 3) + be32(2, 1) + be32(3, 2), Socket(1, 3, 2)),
    ("numgen", be32(1, 1) + be32(2, 7) + be32(3, 1), Numgen(1, 7, 1)),
    ("hash", be32(1, 9) + be32(2, 1) + be32(3, 4) + be32(4, 3), Hash(1, 3, 0, 9, 4)),
    # fwd ip to 10.0.0.1 device lo
    ("fwd", be32(1, 1) + be32(2, 2) + be32(3, 2), Fwd(1, 2, 2)),
    # flow add @ft, of kernels with flowtables
    ("flow_offload", name(1, "ft"), Flow("ft")),
]


@pytest.mark.parametrize(("kind", "attributes", "expected"), BY_HAND)
def test_expression_made_by_hand(kind: str, attributes: bytes, expected: Expr) -> None:
    assert decode_expression(expression(kind, attributes), 2) == expected


def test_no_kind_lacks_a_sample() -> None:
    sampled = {kind for kind, _, _ in BY_HAND}
    for _, _, raw, _ in SAMPLES:
        (length,) = struct.unpack_from("=H", raw)
        sampled.add(raw[4:length].rstrip(b"\0").decode())
    assert not (DECODERS.keys() | COMPAT.keys()) - sampled


REFUSED = [
    ("a kind not known", name(1, "teleport") + nla(2, b""), "teleport", "not a kind"),
    ("no name", nla(2, b""), "?", "attribute 1 is missing"),
    ("a name that is not UTF-8", nla(1, b"\xff\0"), "?", "not UTF-8"),
    (
        "an attribute of the expression not known",
        name(1, "notrack") + nla(3, b""),
        "?",
        "attribute 3 is not known",
    ),
    (
        "an attribute of the kind not known",
        expression("meta", be32(1, 1) + be32(2, 3) + be32(9, 1)),
        "meta",
        "attribute 9 is not known",
    ),
    ("an attribute missing", expression("meta", be32(1, 1)), "meta", "meta: attribute 2 is missing"),
    ("a register that is none", expression("meta", be32(1, 5) + be32(2, 3)), "meta", "no register 5"),
    ("an integer too short", expression("meta", be32(1, 1) + nla(2, b"\0\0")), "meta", "2 bytes, want 4"),
    (
        "a comparison that is none",
        expression("cmp", be32(1, 1) + be32(2, 6) + data(3, b"x")),
        "cmp",
        "no comparison 6",
    ),
    (
        "a verdict where a value is due",
        expression("cmp", be32(1, 1) + be32(2, 0) + nla(3, nla(2, be32(1, 1)))),
        "cmp",
        "want a value",
    ),
    (
        "a verdict into a data register",
        expression("immediate", be32(1, 1) + nla(2, nla(2, be32(1, 1)))),
        "immediate",
        "register 1 does not take",
    ),
    (
        "a value into the verdict register",
        expression("immediate", be32(1, 0) + data(2, b"x")),
        "immediate",
        "register 0 does not take",
    ),
    (
        "a jump without a chain",
        expression("immediate", be32(1, 0) + nla(2, nla(2, be32(1, -3)))),
        "immediate",
        "verdict: attribute 2 is missing",
    ),
    (
        "a mask of another length",
        expression("bitwise", be32(1, 1) + be32(2, 1) + be32(3, 4) + data(4, b"\0") + data(5, b"\0")),
        "bitwise",
        "mask 1",
    ),
    (
        "a range of two lengths",
        expression("range", be32(1, 1) + be32(2, 0) + data(3, b"\0") + data(4, b"\0\0")),
        "range",
        "1 and 2 bytes",
    ),
    (
        "a bitwise op not known",
        expression("bitwise", be32(1, 1) + be32(2, 1) + be32(3, 4) + be32(6, 9)),
        "bitwise",
        "op 9",
    ),
    (
        "a byteorder size not known",
        expression("byteorder", be32(1, 1) + be32(2, 1) + be32(3, 0) + be32(4, 4) + be32(5, 3)),
        "byteorder",
        "size 3",
    ),
    ("a NAT type not known", expression("nat", be32(1, 2) + be32(2, 2)), "nat", "no NAT type 2"),
    ("modulus 0", expression("numgen", be32(1, 1) + be32(2, 0) + be32(3, 0)), "numgen", "mod 0"),
    ("a hash not known", expression("hash", be32(2, 1) + be32(4, 2) + be32(7, 2)), "hash", "type 2"),
    (
        "an element with a limit",
        expression("dynset", name(1, "s") + be32(3, 0) + be32(4, 1) + nla(10, nla(1, expression("limit")))),
        "dynset",
        "carries limit",
    ),
    (
        "a zone of no direction",
        expression("ct", be32(2, 17) + nla(3, b"") + be32(4, 1)),
        "ct",
        "attribute 3",
    ),
    ("a truncated attribute", b"\x20\0\1\0abc", "?", "length 32, have 7"),
    ("a stray byte", name(1, "notrack") + b"\0", "?", "1 stray bytes"),
]


@pytest.mark.parametrize(("raw", "kind", "why"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_what_does_not_fit_is_kept_whole_as_opaque(raw: bytes, kind: str, why: str) -> None:
    found = decode_expression(raw, 2)
    assert isinstance(found, Opaque)
    assert (found.kind, found.raw) == (kind, raw)
    assert why in found.why


def test_verdict_that_is_none_of_ours_keeps_its_number() -> None:
    found = decode_expression(expression("immediate", be32(1, 0) + nla(2, nla(2, be32(1, -99)))), 2)
    assert isinstance(found, Immediate)
    assert found.verdict == Verdict(-99)


def test_expressions_before_a_broken_one_are_kept() -> None:
    raw = nla(1, expression("notrack")) + nla(2, b"odd") + b"\xff\xff\1\0"
    first, odd, rest = decode_expressions(raw, 2)
    assert type(first).__name__ == "Notrack"
    assert odd == Opaque("?", b"odd", "list attribute 2, want 1")
    assert isinstance(rest, Opaque)
    assert rest.raw == raw


@given(st.binary(max_size=400))
def test_random_bytes_never_raise(raw: bytes) -> None:
    for found in decode_expressions(raw, 2):
        assert isinstance(found, Opaque)


@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_expressions_never_raise(sample: tuple[str, str, bytes, str], draw: st.DataObject) -> None:
    """One byte changed, or the end cut off: any value or Opaque, in a list of exactly one expression."""
    raw = bytearray(sample[2])
    if draw.draw(st.booleans()):
        raw[draw.draw(st.integers(0, len(raw) - 1))] = draw.draw(st.integers(0, 255))
    else:
        del raw[draw.draw(st.integers(0, len(raw) - 1)) :]
    assert len(decode_expressions(nla(1, bytes(raw)), 10)) == 1
