"""An iptables-legacy table that a real kernel gave (data/legacy-nat.*), whole and damaged."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3swatch.decode.legacy import LegacyTable, without_counters
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Code, Counter, XtMatch, XtTarget
from k3swatch.model.ruleset import ChainRef, Rule
from k3swatch.model.xt import IpHeader, XtStandard

DATA = Path(__file__).parent / "data"
INFO = (DATA / "legacy-nat.info").read_bytes()
ENTRIES = (DATA / "legacy-nat.entries").read_bytes()
ENTRY = 112  # sizeof(struct ipt_entry)
COUNTERS = 96  # offset of its counters


def table(entries: bytes = ENTRIES, info: bytes = INFO) -> LegacyTable:
    return LegacyTable("ip", "nat", info, entries)


def rule(found: LegacyTable, chain: str, place: int) -> Rule:
    return found.rules[ChainRef("legacy ip", "nat", chain)][place - 1]


def header(found: LegacyTable, chain: str, place: int) -> IpHeader | None:
    first = found.expressions(rule(found, chain, place))[0]
    assert isinstance(first, XtMatch)
    assert isinstance(first.spec, IpHeader | None)
    return first.spec


def verdict(found: LegacyTable, chain: str, place: int) -> object:
    last = found.expressions(rule(found, chain, place))[-1]
    return last.spec if isinstance(last, XtTarget) else None


def test_chains_and_their_rules() -> None:
    assert {ref.chain: len(rules) for ref, rules in table().rules.items()} == {
        "PREROUTING": 4,
        "INPUT": 0,
        "OUTPUT": 0,
        "POSTROUTING": 1,
        "KUBE-SVC": 2,
        "EMPTY": 0,
    }
    assert [base.ref.chain for base in table().base] == ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]


def test_header() -> None:
    assert header(table(), "PREROUTING", 1) == IpHeader(
        2,
        (b"\n\0\0\0", b"\xff\0\0\0"),
        (b"\n+\0\1", b"\xff\xff\xff\xff"),
        in_interface="eth+",
        protocol=6,
        invert=0x10,
    )


def test_jump_goto_return_and_no_target() -> None:
    assert verdict(table(), "PREROUTING", 1) == XtStandard(Code.JUMP, "KUBE-SVC")
    assert verdict(table(), "PREROUTING", 2) == XtStandard(Code.GOTO, "KUBE-SVC")
    assert verdict(table(), "PREROUTING", 4) == XtStandard(Code.JUMP, "EMPTY")
    assert verdict(table(), "KUBE-SVC", 1) == XtStandard(Code.RETURN)
    assert isinstance(table().expressions(rule(table(), "PREROUTING", 3))[-1], Counter)


def test_counters_are_shown_and_do_not_count_as_a_change() -> None:
    counted = bytearray(ENTRIES)
    counted[COUNTERS : COUNTERS + 16] = struct.pack("=QQ", 7, 420)
    found = table(bytes(counted))
    assert Counter(7, 420) in found.expressions(rule(found, "PREROUTING", 1))
    assert without_counters("ip", bytes(counted)) == without_counters("ip", ENTRIES)
    counted[0] ^= 1
    assert without_counters("ip", bytes(counted)) != without_counters("ip", ENTRIES)


@pytest.mark.parametrize(
    ("name", "mask", "expected"),
    [
        (b"eth0\0", b"\xff" * 5, "eth0"),
        (b"veth+", b"\xff" * 4, "veth+"),
        (b"", b"", ""),
        (b"eth0\0", b"\xff\0\xff", None),
        (b"\xffth0\0", b"\xff" * 5, None),
    ],
)
def test_interface_is_what_its_mask_leaves(name: bytes, mask: bytes, expected: str | None) -> None:
    """A mask that is not the beginning of the name is no name: the header is then not understood."""
    changed = ENTRIES[:16] + name.ljust(16, b"\0") + ENTRIES[32:48] + mask.ljust(16, b"\0") + ENTRIES[64:]
    found = header(table(changed), "PREROUTING", 1)
    assert (found.in_interface if found else None) == expected


def test_jump_to_nowhere_is_not_understood_rather_than_dropped() -> None:
    raw = ENTRIES.replace(rule(table(), "PREROUTING", 4).raw[-8:], struct.pack("=iI", 4711, 0))
    assert verdict(table(raw), "PREROUTING", 4) is None


def test_match_that_does_not_fit_is_not_understood() -> None:
    raw = bytearray(ENTRIES)
    raw[ENTRY : ENTRY + 2] = struct.pack("=H", 9000)
    found = table(bytes(raw))
    assert XtMatch("?", 0, bytes(raw[ENTRY : ENTRY + 48])) in found.expressions(rule(found, "PREROUTING", 1))


@pytest.mark.parametrize(
    ("entries", "info", "why"),
    [
        (ENTRIES, INFO[:-1], "info of 83 bytes"),
        (ENTRIES + b"\0", INFO, "1 stray bytes"),
        (ENTRIES[:-8], INFO, "entry at"),
        (b"", INFO, "chains without entries"),
        (ENTRIES[: len(ENTRIES) // 2], INFO, "legacy ip nat: "),
    ],
)
def test_structure_that_does_not_fit(entries: bytes, info: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        table(entries, info)


def test_unknown_table_is_not_guessed_at() -> None:
    with pytest.raises(DecodeError, match="no such table"):
        LegacyTable("ip", "tan", INFO, ENTRIES)


@given(st.data())
def test_damaged_tables_raise_nothing_but_decode_error(draw: st.DataObject) -> None:
    raw = bytearray(ENTRIES)
    for _ in range(draw.draw(st.integers(1, 4))):
        raw[draw.draw(st.integers(0, len(raw) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(DecodeError):
        found = table(bytes(raw))
        for rules in found.rules.values():
            for each in rules:
                assert found.expressions(each)
