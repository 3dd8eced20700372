"""Set elements: intervals out of boundaries as the kernel pairs them, maps, verdicts, the catch-all."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire import be32, expression, name, nft, nla

from k3swatch.decode.element import decode_elements, decode_found, elements_of
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Verdict
from k3swatch.model.ruleset import SET_CONCAT, SET_INTERVAL, SET_MAP, Element, Found, SetInfo

END, CATCHALL = 1, 2


def info(flags: int = 0, length: int = 2, fields: tuple[int, ...] = ()) -> SetInfo:
    return SetInfo("ip", "t", "s", flags, length, fields=fields or (length,))


def element(key: bytes | None, flags: int = 0, end: bytes | None = None, more: bytes = b"") -> bytes:
    raw = nla(1, nla(1, key)) if key is not None else b""
    raw += be32(3, flags) if flags else b""
    raw += nla(10, nla(1, end)) if end is not None else b""
    return raw + more


def dump(*elements: bytes) -> bytes:
    return nft(12, 2, name(1, "t"), name(2, "s"), nla(3, b"".join(nla(1, each) for each in elements)))


def port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def ranges(found: list[Element]) -> list[tuple[int, int]]:
    return [(int.from_bytes(each.low, "big"), int.from_bytes(each.high, "big")) for each in found]


def test_plain_elements_are_intervals_of_one() -> None:
    found = decode_elements([dump(element(port(80)), element(port(22)))], info())
    assert found == [Element(port(22), port(22)), Element(port(80), port(80))]


def test_no_elements() -> None:
    assert decode_elements([nft(12, 2, name(1, "t"), name(2, "s"))], info()) == []


@pytest.mark.parametrize(
    ("boundaries", "expected"),
    [
        pytest.param([(100, 0), (200, END)], [(100, 199)], id="one"),
        pytest.param([(0, END), (100, 0), (200, END)], [(100, 199)], id="with the end of nothing first"),
        pytest.param([(100, 0), (200, END), (200, 0), (300, END)], [(100, 199), (200, 299)], id="neighbours"),
        pytest.param(
            [(100, 0), (200, 0), (300, END)], [(100, 199), (200, 299)], id="a start ends the one before"
        ),
        pytest.param([(65000, 0)], [(65000, 65535)], id="open to the top"),
        pytest.param([(0, 0), (1, END)], [(0, 0)], id="the lowest key"),
        pytest.param([(0, 0)], [(0, 65535)], id="everything"),
    ],
)
def test_intervals_are_paired_in_any_order(
    boundaries: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    raw = [element(port(key), flags) for key, flags in boundaries]
    assert ranges(decode_elements([dump(*raw)], info(SET_INTERVAL))) == expected
    assert ranges(decode_elements([dump(*reversed(raw))], info(SET_INTERVAL))) == expected
    assert ranges(decode_elements([dump(each) for each in raw], info(SET_INTERVAL))) == expected


def test_concatenated_ranges_carry_their_end() -> None:
    shape = info(SET_INTERVAL | SET_CONCAT, 8, (4, 2))
    low, high = bytes(4) + port(100) + bytes(2), bytes([0, 0, 0, 9]) + port(200) + bytes(2)
    assert decode_elements([dump(element(low, end=high))], shape) == [Element(low, high)]


def test_map_verdict_comment_and_object() -> None:
    elements = [
        element(port(1), more=nla(2, nla(1, b"\n\0\0\1"))),
        element(port(2), more=nla(2, nla(2, be32(1, -4) + name(2, "other")))),
        element(port(3), more=name(9, "counter1")),
        element(port(4), more=nla(6, b"\0\3hi\0")),
    ]
    first, second, third, fourth = decode_elements([dump(*elements)], info(SET_MAP))
    assert first.data == b"\n\0\0\1"
    assert second.verdict == Verdict(-4, "other")
    assert second.data is None
    assert third.data == b"counter1"
    assert fourth.comment == "hi"


def test_catchall_comes_last() -> None:
    found = decode_elements([dump(element(None, CATCHALL), element(port(9)))], info())
    assert found == [Element(port(9), port(9)), Element(b"", b"", catchall=True)]


def test_an_element_that_only_counts_is_a_member() -> None:
    counting = element(port(1), more=nla(11, nla(1, expression("counter")) + nla(1, expression("last"))))
    assert decode_found(dump(counting), info()) == Found()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (dump(element(port(1), more=nla(7, expression("limit")))), "carries limit: it may match or not"),
        (dump(element(port(1), more=nla(11, nla(1, expression("quota"))))), "carries quota"),
        (dump(element(b"\0")), "key of 1 bytes, want 2"),
        (dump(element(None)), "attribute 1 is missing"),
        (dump(element(port(1), more=nla(12, b""))), "attribute 12 is not known"),
        (dump(element(port(1)), element(port(2))), "2 elements in answer to one key"),
        (dump(), "0 elements in answer to one key"),
    ],
)
def test_what_membership_does_not_tell_is_an_error(raw: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        decode_found(raw, info())


def test_elements_of_names_the_set() -> None:
    assert elements_of(dump()) == ("ip", "t", "s")


@given(st.lists(st.tuples(st.integers(0, 65535), st.sampled_from([0, END]))), st.integers(0, 65535))
def test_interval_holds_a_key_when_the_nearest_boundary_below_is_a_start(
    boundaries: list[tuple[int, int]], key: int
) -> None:
    """The rule of nft_rbtree_lookup, said the other way round."""
    raw = dump(*(element(port(at), flags) for at, flags in boundaries))
    below = max(((at, not flags) for at, flags in boundaries if at <= key), default=(0, False))
    held = any(low <= key <= high for low, high in ranges(decode_elements([raw], info(SET_INTERVAL))))
    assert held == below[1]


@given(st.binary(max_size=200))
def test_random_elements_raise_nothing_but_decode_error(raw: bytes) -> None:
    message = nft(12, 2, name(1, "t"), name(2, "s"), nla(3, nla(1, raw)))
    for shape in (info(), info(SET_INTERVAL)):
        with suppress(DecodeError):
            decode_elements([message], shape)
