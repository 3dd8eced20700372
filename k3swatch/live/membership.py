"""Is a key in a set, and what does it map to: as nf_tables looks it up, for when there is no kernel to ask.

Follows nft_lookup_eval: the set's own lookup (exact, interval, or a range in every field of a
concatenation), then the catch-all element.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from k3swatch.model.ruleset import Element, Found, SetInfo


def _slots(fields: Sequence[int]) -> list[slice]:
    """Where each field of a concatenation is in the key: every field begins at a multiple of 4 bytes."""
    ends = list(accumulate(length + 3 & ~3 for length in fields))
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class Members:
    """The elements of one set, ready to be looked up in; they must be sorted by their low key."""

    def __init__(self, elements: Sequence[Element], info: SetInfo) -> None:
        self._plain = [element for element in elements if not element.catchall]
        self._lows = [element.low for element in self._plain]
        self._catchall = next((element for element in elements if element.catchall), None)
        self._slots = _slots(info.fields)
        ranges = any(element.low != element.high for element in self._plain)
        self._by_field = ranges and len(info.fields) > 1

    def lookup(self, key: bytes) -> Found | None:
        """What the element that holds `key` carries; None when there is none."""
        element = self._holding_in_every_field(key) if self._by_field else self._holding(key)
        element = element or self._catchall
        return None if element is None else Found(element.data, element.verdict)

    def _holding(self, key: bytes) -> Element | None:
        """Elements do not overlap: only the last that begins at or below the key can hold it."""
        place = bisect_right(self._lows, key) - 1
        if place >= 0 and self._plain[place].high >= key:
            return self._plain[place]
        return None

    def _holding_in_every_field(self, key: bytes) -> Element | None:
        for element in self._plain:
            if all(element.low[at] <= key[at] <= element.high[at] for at in self._slots):
                return element
        return None
