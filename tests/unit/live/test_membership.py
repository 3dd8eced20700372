"""Lookups in a set without a kernel; tests/netns compares the same with a real one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k3swatch.live.membership import Members
from k3swatch.model.ruleset import SET_CONCAT, SET_INTERVAL, Element, Found, SetInfo


def info(length: int, *fields: int, flags: int = 0) -> SetInfo:
    return SetInfo("ip", "t", "s", flags, length, fields=fields or (length,))


def one(key: bytes, data: bytes | None = None) -> Element:
    return Element(key, key, data)


def test_exact() -> None:
    members = Members([one(b"\0\1", b"a"), one(b"\0\3", b"b")], info(2))
    assert members.lookup(b"\0\1") == Found(b"a")
    assert members.lookup(b"\0\2") is None
    assert members.lookup(b"\0\3") == Found(b"b")
    assert members.lookup(b"\0\4") is None
    assert Members([], info(2)).lookup(b"\0\1") is None


def test_interval_and_catchall() -> None:
    elements = [Element(b"\0\5", b"\0\7", b"in"), Element(b"", b"", b"out", catchall=True)]
    members = Members(elements, info(2, flags=SET_INTERVAL))
    found = [members.lookup(bytes([0, key])) for key in range(4, 9)]
    assert [each and each.data for each in found] == [b"out", b"in", b"in", b"in", b"out"]


def test_concatenation_of_exact_keys() -> None:
    members = Members([one(b"\n\0\0\1\x19\x2b\0\0", b"x")], info(8, 4, 2))
    assert members.lookup(b"\n\0\0\1\x19\x2b\0\0") == Found(b"x")
    assert members.lookup(b"\n\0\0\1\x19\x2c\0\0") is None


def test_concatenation_of_ranges_asks_every_field() -> None:
    """10.0.0.1-10.0.0.9 . 100-200: (10.0.0.5, 250) lies between the ends as bytes, but is not in it."""
    element = Element(b"\n\0\0\1\0\x64\0\0", b"\n\0\0\x09\0\xc8\0\0")
    members = Members([element], info(8, 4, 2, flags=SET_INTERVAL | SET_CONCAT))
    assert members.lookup(b"\n\0\0\5\0\x96\0\0") == Found()
    assert members.lookup(b"\n\0\0\5\0\xfa\0\0") is None
    assert members.lookup(b"\n\0\0\5\0\x32\0\0") is None
    assert members.lookup(b"\n\0\0\x0a\0\x96\0\0") is None


@given(st.sets(st.integers(0, 255)), st.integers(0, 255))
def test_intervals_hold_what_their_ends_say(ends: set[int], key: int) -> None:
    bounds = sorted(ends)[: len(ends) // 2 * 2]
    pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
    members = Members(
        [Element(bytes([low]), bytes([high])) for low, high in pairs], info(1, flags=SET_INTERVAL)
    )
    assert (members.lookup(bytes([key])) is not None) == any(low <= key <= high for low, high in pairs)
