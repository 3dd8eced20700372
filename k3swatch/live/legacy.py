"""The iptables-legacy tables of one moment, beside the nf_tables ruleset and asked the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from k3swatch.decode.legacy import LegacyTable, without_counters
from k3swatch.decode.message import FAMILIES
from k3swatch.errors import DecodeError, Interrupted, NotPermitted, SourceError
from k3swatch.model.expr import Expr
from k3swatch.model.ruleset import LEGACY, BaseChain, ChainRef, Rule
from k3swatch.sources.xtables import LegacyBlob, legacy_table_names, read_legacy_info, read_legacy_table

# There is no event when they change, so they are asked again and again: in full up to this many bytes (about
# 4,000 rules, 5 ms), beyond that only for their size.
_COMPARED = 1 << 20
_UNLISTED = ("ip (cannot be listed)", "ip6 (cannot be listed)")


def is_legacy(ref: ChainRef) -> bool:
    """Whether a chain is one of iptables-legacy."""
    return ref.family.startswith(f"{LEGACY} ")


def _listing() -> tuple[tuple[str, str], ...] | None:
    """Family and name of the tables there are; None when this user may not know: the files are for the group root,
    and to ask for a table without knowing would create it.
    """
    try:
        return legacy_table_names()
    except NotPermitted:
        return None


def read_legacy() -> tuple[list[LegacyBlob], list[str]]:
    """All tables of the calling thread's network namespace, and the names of those that cannot be read.

    Interrupted when one never holds still.
    """
    found: list[LegacyBlob] = []
    unread: list[str] = []
    names = _listing()
    for family, table in names or ():
        try:
            found.append(read_legacy_table(family, table))
        except Interrupted:
            raise
        except SourceError:
            unread.append(f"{family} {table}")
    return found, unread if names is not None else list(_UNLISTED)


class LegacyTables:
    """Answers for chains of family `legacy ip` and `legacy ip6`. `unread` names tables that are not in
    them.
    """

    def __init__(self, blobs: Iterable[LegacyBlob], unread: Iterable[str] = ()) -> None:
        self._tables: dict[tuple[str, str], LegacyTable] = {}
        missing = list(unread)
        for blob in blobs:
            try:
                self._tables[f"{LEGACY} {blob.family}", blob.table] = LegacyTable(*blob)
            except DecodeError:
                missing.append(f"{blob.family} {blob.table}")
        self.unread = tuple(missing)

    def base_chains(self, hook: int, nfproto: int, order: int) -> list[BaseChain]:
        """See Ruleset.base_chains. `order` is that of the first: when they were registered cannot be told."""
        family = f"{LEGACY} {FAMILIES.get(nfproto)}"
        found = [base for key, table in self._tables.items() if key[0] == family for base in table.base]
        return [replace(base, order=order + place) for place, base in enumerate(found) if base.hook == hook]

    def rules(self, ref: ChainRef) -> Sequence[Rule]:
        """See Ruleset.rules."""
        table = self._tables.get((ref.family, ref.table))
        if table is None or ref not in table.rules:
            raise DecodeError(f"no chain {ref.family} {ref.table} {ref.chain!r}")
        return table.rules[ref]

    def expressions(self, rule: Rule) -> Sequence[Expr]:
        """See Ruleset.expressions."""
        return self._tables[rule.ref.family, rule.ref.table].expressions(rule)


class LegacyWatch:
    """Tells whether the tables are still what `read_legacy` found; counters do not count."""

    def __init__(self, blobs: Iterable[LegacyBlob], unread: Iterable[str]) -> None:
        self._seen = {(blob.family, blob.table): self._state(blob) for blob in blobs}
        self._names = {f"{family} {table}" for family, table in self._seen} | set(unread)

    @staticmethod
    def _state(blob: LegacyBlob) -> tuple[bytes, int]:
        small = len(blob.entries) <= _COMPARED
        return blob.info, hash(without_counters(blob.family, blob.entries)) if small else 0

    def changed(self) -> bool:
        """Whether a table came, went or changed."""
        names = _listing()
        if self._names != (set(_UNLISTED) if names is None else {" ".join(name) for name in names}):
            return True
        for (family, table), (info, content) in self._seen.items():
            if read_legacy_info(family, table) != info:
                return True
            if content and self._state(read_legacy_table(family, table)) != (info, content):
                return True
        return False
