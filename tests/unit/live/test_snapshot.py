"""The snapshot file: what is refused, and that it answers what the source it was taken from would."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from support.source import FakeNftables
from support.wire import be32, nla

from k3swatch.errors import DecodeError, SourceError
from k3swatch.live import capture as capture_module
from k3swatch.live.host import RawHost
from k3swatch.live.snapshot import SnapshotRuleset, capture
from k3swatch.model.expr import Verdict
from k3swatch.model.ruleset import ChainRef, Found
from k3swatch.sources.nftables import NftablesSource
from k3swatch.sources.xtables import LegacyBlob

PRE, EMPTY = ChainRef("ip", "t", "pre"), ChainRef("ip", "t", "empty")


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> FakeNftables:
    host = RawHost("node1", [], None, [], [], ("interfaces: not today",))
    monkeypatch.setattr(capture_module, "read_raw_host", lambda: host)
    monkeypatch.setattr(
        capture_module, "read_legacy", lambda: ([LegacyBlob("ip", "raw", b"", b"")], ["ip nat"])
    )
    source = FakeNftables()
    source.members = {b"\x19\x2b": nla(2, nla(2, be32(1, 0))), None: nla(2, nla(2, be32(1, 1)))}
    return source


@pytest.fixture
def document(source: FakeNftables) -> dict[str, Any]:
    return capture(cast(NftablesSource, source), 1732345678.5)


def test_snapshot_answers_as_the_source_did(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "case.json"
    path.write_text(json.dumps(document))
    snapshot = SnapshotRuleset.load(path)
    assert snapshot.generation == 0x1_0007
    assert [chain.ref for chain in snapshot.base_chains(0, 2)] == [PRE]
    assert [rule.handle for rule in snapshot.rules(PRE)] == [1, 2]
    assert snapshot.rules(EMPTY) == []
    assert snapshot.expressions(snapshot.rules(PRE)[0]) == ()
    info = snapshot.set_info("ip", "t", "s")
    assert snapshot.lookup(info, b"\x19\x2b\0\0") == Found(verdict=Verdict(0))
    assert snapshot.lookup(info, b"\0\1") == Found(verdict=Verdict(1))
    assert len(snapshot.elements(info, 2) or ()) == 2
    assert snapshot.elements(info, 1) is None
    assert snapshot.legacy_tables() == ("ip nat", "ip raw"), "not read, and read but not understood"
    assert snapshot.host().name == "node1"
    assert snapshot.host().unreadable == ("interfaces: not today",)
    snapshot.refresh()
    snapshot.check()


def test_document_says_when_and_where_it_was_taken(document: dict[str, Any]) -> None:
    assert document["schema"] == 1
    assert document["kind"] == "k3swatch-snapshot"
    assert document["taken_at"] == 1732345678.5
    assert document["kernel"]
    assert document["generation"] == 0x1_0007


def test_commit_while_capturing_starts_again(source: FakeNftables) -> None:
    source.commit_before = "rules"
    with pytest.raises(SourceError, match="changed in each of 10 attempts"):
        capture(cast(NftablesSource, source), 0.0)
    source.commit_before = ""
    assert capture(cast(NftablesSource, source), 0.0)["generation"] == source.number


def test_too_large_a_ruleset_is_refused(source: FakeNftables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "LARGEST", 200)
    with pytest.raises(SourceError, match="more than 0 MB"):
        capture(cast(NftablesSource, source), 0.0)


def test_what_is_not_there_is_an_error(document: dict[str, Any]) -> None:
    snapshot = SnapshotRuleset(document)
    with pytest.raises(DecodeError, match="no chain ip t 'nowhere'"):
        snapshot.rules(ChainRef("ip", "t", "nowhere"))
    with pytest.raises(DecodeError, match="no set ip t 'nowhere'"):
        snapshot.set_info("ip", "t", "nowhere")
    with pytest.raises(DecodeError, match="key of 1 bytes, want 2"):
        snapshot.lookup(snapshot.set_info("ip", "t", "s"), b"\0")


OTHER_ORDER = "little" if sys.byteorder == "big" else "big"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schema": 2}, "kind 'k3swatch-snapshot', schema 2"),
        ({"schema": "1"}, "snapshot: schema: want int"),
        ({"kind": "other"}, "kind 'other'"),
        ({"byte_order": OTHER_ORDER}, "another byte order"),
        ({"nf_tables": None}, "snapshot: nf_tables: want dict"),
        ({"nf_tables": {"tables": 1}}, "nf_tables: tables: want list"),
        ({"nf_tables": {"tables": ["?"]}}, "nf_tables: tables: not base64"),
        ({"nf_tables": {"tables": [1]}}, "nf_tables: tables: not base64"),
        ({"nf_tables": {"tables": ["AAAA"]}}, "nf_tables: chains: want list"),
        ({"host": []}, "snapshot: host: want dict"),
        ({"host": {"name": "x"}}, "host: unreadable: want list"),
        ({"host": {"name": 1, "unreadable": []}}, "host: name: want str"),
        ({"legacy": 5}, "snapshot: legacy: want list"),
        ({"xtables": 5}, "snapshot: xtables: want list of tables"),
        ({"xtables": [{"family": "x", "table": "nat"}]}, "xtables: family 'x'"),
        ({"xtables": [{"family": "ip", "table": "nat"}]}, "xtables: info: want list"),
    ],
)
def test_document_that_is_none_says_why(changes: dict[str, Any], why: str, document: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as error:
        SnapshotRuleset({**document, **changes})
    assert why in str(error.value)


def test_damaged_message_is_an_error_not_a_missing_rule(document: dict[str, Any]) -> None:
    document["nf_tables"]["rules"][1] = "AAAA"
    with pytest.raises(DecodeError, match="rule: message of 3 bytes"):
        SnapshotRuleset(document)


@pytest.mark.parametrize("content", ["", "[", "[1]", "7", "[" * 100_000, "\xff\xfe"])
def test_file_that_is_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DecodeError):
        SnapshotRuleset.load(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        SnapshotRuleset.load(tmp_path / "none")
