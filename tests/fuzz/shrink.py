"""The smallest form of a disagreement: what can be left out, or made simpler, while it stays the same disagreement.

Delta debugging, coarse to fine: tables, chains, runs of rules, single rules, clauses, sets and their elements; and of
the connection its mark and its user. What a tool does not load is no form of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from support.dialer import Dial

from fuzz.compare import Verdict, compare
from fuzz.rig import Rig
from fuzz.ruleset import Chain, NamedSet, Rule, Ruleset, Table
from k3swatch.errors import K3swatchError

PATIENCE = 0.3  # nobody is in a hurry here: what has not answered by then will not

T = TypeVar("T")


def judged(rig: Rig, ruleset: Ruleset, dial: Dial, patience: float = PATIENCE) -> Verdict | None:
    """One connection compared; None when the ruleset cannot be loaded."""
    try:
        rig.load(ruleset)
    except K3swatchError:
        return None
    return compare(rig, [dial], rig.watch([dial], patience))[0]


def kind(complaint: str) -> str:
    """`FALSE ALARM`, without the particulars."""
    return complaint.removeprefix("for everybody: ").partition(":")[0]


def shrink(rig: Rig, ruleset: Ruleset, verdict: Verdict) -> tuple[Ruleset, Verdict]:
    """The smallest form found, and what it looks like then."""
    wanted = kind(verdict.complaint)
    best, last = ruleset, verdict

    def same(candidate: Ruleset, dial: Dial) -> bool:
        nonlocal best, last
        found = judged(rig, candidate, dial)
        if found is None or kind(found.complaint) != wanted:
            return False
        best, last = candidate, found
        return True

    smaller = True
    while smaller:
        before = (best, last.dial)
        for simpler in (replace(last.dial, mark=0), replace(last.dial, uid=0)):
            if simpler != last.dial:
                same(best, simpler)
        for pieces in (_tables, _chains, _rules, _clauses, _sets, _elements, _policies):
            _descend(lambda: best, pieces, lambda candidate: same(candidate, last.dial))
        smaller = (best, last.dial) != before
    return best, last


def _descend(
    now: Callable[[], Ruleset],
    pieces: Callable[[Ruleset], Iterator[Ruleset]],
    keep: Callable[[Ruleset], bool],
) -> None:
    """Take the first smaller form that keeps it, over and over; go on where the last one was found."""
    skip = 0
    while True:
        for position, candidate in enumerate(pieces(now())):
            if position >= skip and keep(candidate):
                skip = position
                break
        else:
            return


def without(items: Sequence[T], most: int = 1) -> Iterator[tuple[T, ...]]:
    """All but a run of them: long runs first, then one by one."""
    size = max(len(items) // 2, 1) if most > 1 else 1
    while size:
        for start in range(0, len(items), size):
            yield (*items[:start], *items[start + size :])
        size //= 2


def _tables(ruleset: Ruleset) -> Iterator[Ruleset]:
    for tables in without(ruleset.tables):
        yield replace(ruleset, tables=tables)


def _each_table(ruleset: Ruleset, change: Callable[[Table], Iterator[Table]]) -> Iterator[Ruleset]:
    for index, table in enumerate(ruleset.tables):
        for changed in change(table):
            yield replace(ruleset, tables=(*ruleset.tables[:index], changed, *ruleset.tables[index + 1 :]))


def _each_chain(ruleset: Ruleset, change: Callable[[Chain], Iterator[Chain]]) -> Iterator[Ruleset]:
    def of_table(table: Table) -> Iterator[Table]:
        for index, chain in enumerate(table.chains):
            for changed in change(chain):
                yield replace(table, chains=(*table.chains[:index], changed, *table.chains[index + 1 :]))

    return _each_table(ruleset, of_table)


def _chains(ruleset: Ruleset) -> Iterator[Ruleset]:
    return _each_table(ruleset, lambda table: (replace(table, chains=c) for c in without(table.chains)))


def _rules(ruleset: Ruleset) -> Iterator[Ruleset]:
    def of_chain(chain: Chain) -> Iterator[Chain]:
        kept = tuple(rule for rule in chain.rules if rule.kept)
        for rules in without(chain.rules[len(kept) :], 2):
            yield replace(chain, rules=(*kept, *rules))

    return _each_chain(ruleset, of_chain)


def _clauses(ruleset: Ruleset) -> Iterator[Ruleset]:
    def of_chain(chain: Chain) -> Iterator[Chain]:
        for index, rule in enumerate(chain.rules):
            for clauses in without(() if rule.kept else rule.clauses):
                yield replace(chain, rules=(*chain.rules[:index], Rule(clauses), *chain.rules[index + 1 :]))

    return _each_chain(ruleset, of_chain)


def _sets(ruleset: Ruleset) -> Iterator[Ruleset]:
    return _each_table(ruleset, lambda table: (replace(table, sets=s) for s in without(table.sets)))


def _elements(ruleset: Ruleset) -> Iterator[Ruleset]:
    def of_table(table: Table) -> Iterator[Table]:
        for index, each in enumerate(table.sets):
            for elements in without(each.elements):
                fewer = NamedSet(each.name, each.head, elements)
                yield replace(table, sets=(*table.sets[:index], fewer, *table.sets[index + 1 :]))

    return _each_table(ruleset, of_table)


def _policies(ruleset: Ruleset) -> Iterator[Ruleset]:
    return _each_chain(
        ruleset, lambda chain: iter([replace(chain, policy="accept")] if chain.policy == "drop" else [])
    )
