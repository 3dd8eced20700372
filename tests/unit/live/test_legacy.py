"""The legacy tables beside the ruleset: what cannot be read is named, and is not taken for a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from k3swatch.errors import DecodeError, Interrupted, NotPermitted, SourceError
from k3swatch.live import legacy
from k3swatch.live.legacy import LegacyTables, LegacyWatch, read_legacy
from k3swatch.model.ruleset import ChainRef
from k3swatch.sources.xtables import LegacyBlob

DATA = Path(__file__).parents[1] / "decode" / "data"
NAT = LegacyBlob(
    "ip", "nat", (DATA / "legacy-nat.info").read_bytes(), (DATA / "legacy-nat.entries").read_bytes()
)


class Kernel:
    """The tables there are; a table that is an error cannot be read."""

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], LegacyBlob | SourceError] = {("ip", "nat"): NAT}
        self.listed = True

    def names(self) -> tuple[tuple[str, str], ...]:
        if not self.listed:
            raise NotPermitted("ip_tables_names: Permission denied")
        return tuple(self.tables)

    def table(self, family: str, table: str) -> LegacyBlob:
        found = self.tables[family, table]
        if isinstance(found, SourceError):
            raise found
        return found

    def info(self, family: str, table: str) -> bytes:
        return self.table(family, table).info


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(legacy, "legacy_table_names", kernel.names)
    monkeypatch.setattr(legacy, "read_legacy_table", kernel.table)
    monkeypatch.setattr(legacy, "read_legacy_info", kernel.info)
    return kernel


def test_table_that_cannot_be_read_is_named_and_is_no_change(kernel: Kernel) -> None:
    kernel.tables["ip6", "nat"] = SourceError("no")
    blobs, unread = read_legacy()
    assert blobs == [NAT]
    assert unread == ["ip6 nat"]
    assert LegacyTables(blobs, unread).unread == ("ip6 nat",)
    assert not LegacyWatch(blobs, unread).changed()


def test_table_that_is_not_understood_is_named(kernel: Kernel) -> None:
    kernel.tables["ip", "raw"] = NAT._replace(table="raw", entries=NAT.entries[:-8])
    tables = LegacyTables(*read_legacy())
    assert tables.unread == ("ip raw",)
    assert [base.ref.table for base in tables.base_chains(0, 2, 0)] == ["nat"]
    assert tables.base_chains(0, 10, 0) == []
    with pytest.raises(DecodeError):
        tables.rules(ChainRef("legacy ip", "raw", "PREROUTING"))


def test_list_that_may_not_be_read_says_so_and_is_no_change(kernel: Kernel) -> None:
    kernel.listed = False
    blobs, unread = read_legacy()
    assert (blobs, unread) == ([], ["ip (cannot be listed)", "ip6 (cannot be listed)"])
    watch = LegacyWatch(blobs, unread)
    assert not watch.changed()
    kernel.listed = True
    assert watch.changed()


def test_table_that_never_holds_still_interrupts(kernel: Kernel) -> None:
    kernel.tables["ip", "nat"] = Interrupted("it changed")
    with pytest.raises(Interrupted):
        read_legacy()


def test_changes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    rule_changed = NAT._replace(entries=b"\1" + NAT.entries[1:])
    watch = LegacyWatch(*read_legacy())
    assert not watch.changed()
    for changed in (
        {("ip", "nat"): rule_changed},
        {("ip", "nat"): NAT._replace(info=NAT.info[:-1] + b"\1")},
        {("ip", "nat"): NAT, ("ip", "raw"): NAT},
        {},
    ):
        kernel.tables = dict(changed)
        assert watch.changed()
    monkeypatch.setattr(legacy, "_COMPARED", 0)  # too large to be compared in full every second
    kernel.tables = {("ip", "nat"): NAT}
    large = LegacyWatch(*read_legacy())
    kernel.tables = {("ip", "nat"): rule_changed}
    assert not large.changed()
    kernel.tables = {("ip", "nat"): NAT._replace(info=NAT.info[:-1] + b"\1")}
    assert large.changed()
