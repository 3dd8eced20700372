"""LiveRuleset: what is asked of the kernel, what is remembered, and that two generations never mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from support.source import FakeNftables
from support.wire import be32, name, nla

from k3swatch.errors import DecodeError, Interrupted
from k3swatch.live.ruleset import LiveRuleset
from k3swatch.model.expr import Verdict
from k3swatch.model.ruleset import SET_EVAL, SET_TIMEOUT, ChainRef, Found, Rule
from k3swatch.sources.nftables import NftablesSource
from k3swatch.sources.xtables import LegacyBlob

PRE, EMPTY = ChainRef("ip", "t", "pre"), ChainRef("ip", "t", "empty")
IP, IP6 = 2, 10


@pytest.fixture
def source() -> FakeNftables:
    return FakeNftables()


@pytest.fixture
def legacy(monkeypatch: pytest.MonkeyPatch) -> list[LegacyBlob]:
    """The iptables-legacy tables there are: none, until a test puts one in."""
    tables: list[LegacyBlob] = []
    names = "k3swatch.live.legacy.legacy_table_names"
    monkeypatch.setattr(names, lambda: tuple((blob.family, blob.table) for blob in tables))
    monkeypatch.setattr("k3swatch.live.legacy.read_legacy_info", lambda family, table: tables[0].info)
    monkeypatch.setattr("k3swatch.live.legacy.read_legacy_table", lambda family, table: tables[0])
    return tables


@pytest.fixture
def ruleset(source: FakeNftables, legacy: list[LegacyBlob]) -> LiveRuleset:
    return LiveRuleset(cast(NftablesSource, source))


def test_base_chains_are_read_once_and_only_for_families_that_see_them(
    source: FakeNftables, ruleset: LiveRuleset
) -> None:
    assert [chain.ref for chain in ruleset.base_chains(0, IP)] == [PRE]
    assert ruleset.base_chains(3, IP) == []
    assert ruleset.base_chains(0, IP6) == []
    assert source.asked == ["generation", "tables", "chains"]


def test_rules_are_read_when_asked_for_and_once(source: FakeNftables, ruleset: LiveRuleset) -> None:
    assert source.asked == ["generation"]
    assert ruleset.rules(PRE) == (Rule(PRE, 1, b""), Rule(PRE, 2, b""))
    assert ruleset.rules(PRE) is ruleset.rules(PRE)
    assert source.asked == ["generation", "rules"]


def test_empty_chain_is_told_from_one_that_is_not_there(ruleset: LiveRuleset) -> None:
    assert ruleset.rules(EMPTY) == ()
    with pytest.raises(DecodeError, match="no chain ip t 'nowhere'"):
        ruleset.rules(ChainRef("ip", "t", "nowhere"))
    with pytest.raises(DecodeError, match="no chain legacy ip nat 'PREROUTING'"):
        ruleset.rules(ChainRef("legacy ip", "nat", "PREROUTING"))
    with pytest.raises(DecodeError, match="no family 'x'"):
        ruleset.rules(ChainRef("x", "nat", "PREROUTING"))


def test_set_that_is_not_there(ruleset: LiveRuleset) -> None:
    with pytest.raises(DecodeError, match="no set ip t 'nowhere'"):
        ruleset.set_info("ip", "t", "nowhere")


def test_lookup_asks_for_the_key_then_for_the_catchall(source: FakeNftables, ruleset: LiveRuleset) -> None:
    info = ruleset.set_info("ip", "t", "s")
    source.members = {
        b"\x19\x2b": nla(2, nla(2, be32(1, -4) + name(2, "other"))),
        None: nla(2, nla(2, be32(1, 1))),
    }
    assert ruleset.lookup(info, b"\x19\x2b\0\0") == Found(verdict=Verdict(-4, "other"))
    assert ruleset.lookup(info, b"\0\1") == Found(verdict=Verdict(1))
    assert ruleset.lookup(info, b"\0\2") == Found(verdict=Verdict(1))
    assert source.asked.count("get_element") == 4  # three keys, the catch-all once
    source.members = {}
    assert ruleset.lookup(info, b"\x19\x2b") == Found(verdict=Verdict(-4, "other"))
    ruleset.refresh()
    assert ruleset.lookup(info, b"\x19\x2b") is None


@pytest.mark.parametrize("flag", [SET_TIMEOUT, SET_EVAL])
def test_sets_that_change_without_a_commit_are_asked_every_time(
    flag: int, source: FakeNftables, ruleset: LiveRuleset
) -> None:
    source.set_flags = flag
    info = ruleset.set_info("ip", "t", "s")
    assert ruleset.lookup(info, b"\0\1") is None
    source.members = {b"\0\1": b""}
    assert ruleset.lookup(info, b"\0\1") == Found()


@pytest.mark.parametrize("flag", [SET_TIMEOUT, SET_EVAL])
def test_sets_that_change_without_a_commit_are_watched(
    flag: int, source: FakeNftables, ruleset: LiveRuleset
) -> None:
    source.set_flags = flag
    source.members = {b"\0\1": b""}
    assert ruleset.lookup(ruleset.set_info("ip", "t", "s"), b"\0\1") == Found()
    ruleset.check()
    source.members = {}
    with pytest.raises(Interrupted, match="changed by itself"):
        ruleset.check()
    ruleset.refresh()
    ruleset.check()


def test_key_that_is_too_short_is_an_error(ruleset: LiveRuleset) -> None:
    with pytest.raises(DecodeError, match="key of 1 bytes, want 2"):
        ruleset.lookup(ruleset.set_info("ip", "t", "s"), b"\0")


def test_elements_up_to_a_limit(source: FakeNftables, ruleset: LiveRuleset) -> None:
    info = ruleset.set_info("ip", "t", "s")
    source.members = {bytes([0, number]): b"" for number in range(10)}
    assert len(ruleset.elements(info, 10) or ()) == 10
    assert ruleset.elements(info, 9) is None
    source.members = {number.to_bytes(2, "big"): nla(6, bytes(200)) for number in range(400)}
    assert ruleset.elements(info, 1) is None


QUESTIONS: list[tuple[str, Callable[[LiveRuleset], object]]] = [
    ("tables", lambda ruleset: ruleset.base_chains(0, IP)),
    ("chains", lambda ruleset: ruleset.base_chains(0, IP)),
    ("rules", lambda ruleset: ruleset.rules(PRE)),
    ("rules", lambda ruleset: ruleset.rules(EMPTY)),
    ("rules", lambda ruleset: ruleset.rules(ChainRef("ip", "t", "nowhere"))),
    ("set", lambda ruleset: ruleset.set_info("ip", "t", "s")),
    ("set", lambda ruleset: ruleset.set_info("ip", "t", "nowhere")),
    ("get_element", lambda ruleset: ruleset.lookup(ruleset.set_info("ip", "t", "s"), b"\0\1")),
    ("get_element", lambda ruleset: ruleset.lookup(ruleset.set_info("ip", "t", "s"), b"\0\2")),
    ("elements", lambda ruleset: ruleset.elements(ruleset.set_info("ip", "t", "s"), 10)),
    ("generation", lambda ruleset: ruleset.check()),
]


@pytest.mark.parametrize(("question", "ask"), QUESTIONS)
def test_a_commit_in_between_interrupts_and_a_refresh_mends_it(
    question: str, ask: Callable[[LiveRuleset], object], source: FakeNftables, ruleset: LiveRuleset
) -> None:
    source.members = {b"\0\1": b""}
    source.commit_before = question
    with pytest.raises(Interrupted):
        ask(ruleset)
    source.commit_before = ""
    ruleset.refresh()
    assert ruleset.generation == 0x1_0008
    if "nowhere" not in repr(ask.__code__.co_consts):
        ask(ruleset)
    ruleset.check()
