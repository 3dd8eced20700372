"""The rules of one chain by the server's address they ask for: those about other addresses are passed over.

The destination of what clients send is known from the raw rule (Rule.daddr), so these rules are not even decoded; the
source of answers is not, so they are, once. Only what is certain counts, as in prefilter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k3swatch.errors import DecodeError
from k3swatch.evaluate.prefilter import required_source
from k3swatch.model.ruleset import Rule, Ruleset
from k3swatch.model.words import Family

_FEW = 16  # rules are as quickly run as looked up


class Index:
    """Of one chain; asked for one family only where the chain sees both."""

    def __init__(self, ruleset: Ruleset, rules: Sequence[Rule]) -> None:
        self._ruleset, self.rules = ruleset, rules
        self._by_destination: dict[bytes, list[int]] = {}
        self._others: list[int] = []
        for position, rule in enumerate(rules):
            if rule.daddr is None:
                self._others.append(position)
            else:
                self._by_destination.setdefault(rule.daddr, []).append(position)
        self._sources: dict[Family, tuple[dict[bytes, list[int]], list[int]]] = {}

    def to(self, destinations: Iterable[bytes]) -> Sequence[Rule]:
        """The rules that a packet to one of the addresses could match."""
        if not self._by_destination:
            return self.rules
        positions = list(self._others)
        for address in set(destinations):
            positions.extend(self._by_destination.get(address, ()))
        return [self.rules[position] for position in sorted(positions)]

    def answering(self, sources: Iterable[bytes], family: Family) -> Sequence[Rule]:
        """The rules that a packet from one of the addresses could match."""
        if len(self.rules) <= _FEW:
            return self.rules
        if family not in self._sources:
            self._sources[family] = self._by_source(family)
        by_prefix, others = self._sources[family]
        if not by_prefix:
            return self.rules
        positions = list(others)
        lengths = {len(prefix) for prefix in by_prefix}
        for prefix in {address[:length] for address in sources for length in lengths}:
            positions.extend(by_prefix.get(prefix, ()))
        return [self.rules[position] for position in sorted(positions)]

    def _by_source(self, family: Family) -> tuple[dict[bytes, list[int]], list[int]]:
        found: dict[bytes, list[int]] = {}
        others: list[int] = []
        for position, rule in enumerate(self.rules):
            try:
                prefix = required_source(self._ruleset.expressions(rule), family)
            except DecodeError:  # said when the rule is reached, if it is
                prefix = None
            if prefix is None:
                others.append(position)
            else:
                found.setdefault(prefix, []).append(position)
        return found, others
