"""The attribute cursor: what it reads, and what it says about what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import be32, be64, name, nla

from k3swatch.decode.attributes import Attributes, display, text, walk
from k3swatch.errors import DecodeError


def test_walk_reads_types_without_flags_and_payloads_without_padding() -> None:
    data = nla(1, b"abc") + nla(0x8002, b"") + nla(0x4003, b"defgh")
    assert list(walk(data, "x")) == [(1, b"abc"), (2, b""), (3, b"defgh")]


def test_last_attribute_may_lack_its_padding() -> None:
    assert list(walk(nla(1, b"a")[:5], "x")) == [(1, b"a")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\0", "x: 1 stray bytes after the last attribute", id="stray byte"),
        pytest.param(b"\3\0\1\0", "x: attribute 1: length 3, have 4", id="length shorter than its header"),
        pytest.param(b"\5\0\1\0", "x: attribute 1: length 5, have 4", id="length past the end"),
        pytest.param(nla(1, b"") + b"\xff\xff\2\0", "x: attribute 2: length 65535, have 4", id="the second"),
    ],
)
def test_bad_framing_says_where(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as error:
        list(walk(data, "x"))
    assert str(error.value) == message


def test_getters() -> None:
    attributes = Attributes(
        nla(1, b"\7")
        + nla(2, b"\1\2")
        + be32(3, 0x01020304)
        + be64(4, 5)
        + name(5, "nat")
        + nla(6, be32(1, 9)),
        "x",
    )
    assert attributes.u8(1) == 7
    assert attributes.be16(2) == 0x0102
    assert attributes.be32(3) == 0x01020304
    assert attributes.be64(4) == 5
    assert attributes.text(5) == "nat"
    assert attributes.nested(6, "y").be32(1) == 9
    assert attributes.be32(9, 42) == 42
    assert 3 in attributes
    assert 9 not in attributes


def test_the_last_of_a_type_counts_as_in_the_kernel() -> None:
    assert Attributes(be32(1, 1) + be32(1, 2), "x").be32(1) == 2


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda each: each.raw(7), "rule: attribute 7 is missing"),
        (lambda each: each.be32(7), "rule: attribute 7 is missing"),
        (lambda each: each.be64(1), "rule: attribute 1: 4 bytes, want 8"),
        (lambda each: each.be64(1, 5), "rule: attribute 1: 4 bytes, want 8"),
        (lambda each: each.text(2), r"rule: attribute 2: name b'\xff' is not UTF-8"),
        (lambda each: each.nested(3, "expr").be32(1), "rule: expr: attribute 1: 2 bytes, want 4"),
        (lambda each: each.nested(2, "expr"), "rule: expr: 1 stray bytes after the last attribute"),
        (lambda each: each.nested(3, "expr", known=0), "rule: expr: attribute 1 is not known"),
    ],
)
def test_errors_read_as_a_path(read: Callable[[Attributes], object], message: str) -> None:
    attributes = Attributes(be32(1, 1) + nla(2, b"\xff") + nla(3, nla(1, b"\0\0")), "rule")
    with pytest.raises(DecodeError) as error:
        read(attributes)
    assert str(error.value) == message


def test_names_end_at_nul_as_the_kernel_reads_them() -> None:
    assert text(b"nat\0evil", "x") == "nat"


def test_shown_text_never_fails() -> None:
    assert display(b"caf\xc3\xa9 \xff\0rest") == "caf\xe9 \\xff"


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_decode_error(data: bytes) -> None:
    with suppress(DecodeError):
        for kind, value in walk(data, "x"):
            assert 0 <= kind <= 0x3FFF
            assert value in data


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_what_is_written_is_read(pairs: list[tuple[int, bytes]]) -> None:
    assert list(walk(b"".join(nla(*pair) for pair in pairs), "x")) == pairs
