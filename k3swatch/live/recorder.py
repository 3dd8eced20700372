"""A ruleset that remembers which elements of sets it was asked for and had: what to take out of a map for one port."""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.live.ruleset import LiveRuleset
from k3swatch.model.ruleset import Found, SetInfo
from k3swatch.sources.nftables import NftablesSource

Hit = tuple[str, str, str, bytes, Found]  # family, table, set, key, what it held


class RecordingRuleset(LiveRuleset):
    """The live ruleset; `hits` are the lookups since `refresh` that found something, each once."""

    def __init__(self, source: NftablesSource) -> None:
        self._hits: dict[Hit, None] = {}
        super().__init__(source)

    @property
    def hits(self) -> Sequence[Hit]:
        """In the order they were asked for."""
        return list(self._hits)

    def refresh(self) -> None:
        """See LiveRuleset.refresh."""
        self._hits.clear()
        super().refresh()

    def lookup(self, info: SetInfo, key: bytes) -> Found | None:
        """See Ruleset.lookup."""
        found = super().lookup(info, key)
        if found is not None:
            self._hits[info.family, info.table, info.name, key[: info.key_length], found] = None
        return found
