"""Puts back what was taken out of the ruleset, where it was: between the neighbours that are still there."""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.decode.rule import decode_rules
from k3swatch.errors import SourceError
from k3swatch.live.again import digest, element_value, elements_of_message, rule_again, set_again
from k3swatch.live.saved import Saved, SavedElement, SavedRule
from k3swatch.model.ruleset import ChainRef
from k3swatch.sources import transaction
from k3swatch.sources.netlink import attribute
from k3swatch.sources.nftables import NftablesSource, name
from k3swatch.sources.transaction import Change

_LIST_SET_ID = 4  # NFTA_SET_ELEM_LIST_SET_ID

Chain = list[tuple[int, str]]  # handle and digest


def putting_back(source: NftablesSource, saved: Sequence[Saved]) -> tuple[list[Change], list[Saved]]:
    """The changes that make it all again, and what is there already and was left alone.

    SourceError when a chain or set is gone. All answers must be of one generation: the caller binds the changes to it.
    """
    changes: list[Change] = []
    there: list[Saved] = []
    chains: dict[ChainRef, Chain] = {}
    for each in saved:
        if isinstance(each, SavedRule):
            ref = ChainRef(each.family, each.table, each.chain)
            if ref not in chains:
                chains[ref] = _chain(source, ref)
    rules = [each for each in saved if isinstance(each, SavedRule)]
    missing: list[SavedRule] = []
    for rule in rules:
        now = chains[ChainRef(rule.family, rule.table, rule.chain)]
        (there if _present(rule, now) else missing).append(rule)
    number = 0
    for rule, beside, after in _places(missing, chains):
        ids: dict[str, int] = {}
        for gone in rule.sets:
            number += 1
            ids[gone.name] = number
            head = name(1, rule.table)
            changes.append(Change(transaction.NEWSET, rule.family, head + set_again(gone.message, number)))
            changes += [_elements(rule, message, number) for message in gone.elements]
        content = rule_again(rule.message, ids)
        changes.append(transaction.add_rule(rule.family, rule.table, rule.chain, content, beside, after))
    for each in saved:
        if isinstance(each, SavedElement):
            if _in_set(source, each):
                there.append(each)
            else:
                changes.append(transaction.add_element(each.family, each.table, each.set, each.element))
    return changes, there


def _chain(source: NftablesSource, ref: ChainRef) -> Chain:
    messages = source.rules(ref.family, ref.table, ref.chain)
    if not messages and source.chain(ref.family, ref.table, ref.chain) is None:
        hint = "what was removed was part of it: there is nothing to put it back into"
        raise SourceError(f"chain {ref.family} {ref.table} {ref.chain} is gone", hint)
    return [(rule.handle, digest(rule.raw)) for rule in decode_rules(messages)]


def _present(rule: SavedRule, now: Chain) -> bool:
    """Whether somebody has put it back already: as many like it are there as were before."""
    content = dict(rule.chain_before)[rule.handle]
    before = sum(1 for _, each in rule.chain_before if each == content)
    return sum(1 for _, each in now if each == content) >= before


def _places(
    rules: Sequence[SavedRule], chains: dict[ChainRef, Chain]
) -> list[tuple[SavedRule, int | None, bool]]:
    """Each rule with the neighbour it goes next to, and on which side; in the order that makes the old order.

    Those that go behind the same neighbour are put in last first; those that have none before them, first first.
    """
    behind: list[tuple[SavedRule, int | None, bool]] = []
    others: list[tuple[SavedRule, int | None, bool]] = []
    for rule in sorted(rules, key=lambda each: _position(each)):
        now = set(chains[ChainRef(rule.family, rule.table, rule.chain)])
        place = _position(rule)
        earlier = next((each[0] for each in reversed(rule.chain_before[:place]) if each in now), None)
        later = next((each[0] for each in rule.chain_before[place + 1 :] if each in now), None)
        if earlier is not None:
            behind.append((rule, earlier, True))
        else:
            others.append((rule, later, later is None))
    return [*reversed(behind), *others]


def _position(rule: SavedRule) -> int:
    return [handle for handle, _ in rule.chain_before].index(rule.handle)


def _elements(rule: SavedRule, message: bytes, number: int) -> Change:
    """The elements of one message, for the anonymous set with this id."""
    listed = b"".join(attribute(transaction.NESTED | 1, each) for each in elements_of_message(message))
    content = name(1, rule.table) + name(2, "__set%d") + attribute(transaction.NESTED | 3, listed)
    return Change(transaction.NEWSETELEM, rule.family, content + attribute(_LIST_SET_ID, number.to_bytes(4)))


def _in_set(source: NftablesSource, saved: SavedElement) -> bool:
    """Whether it is in its set. SourceError when the set is gone."""
    if source.set(saved.family, saved.table, saved.set) is None:
        raise SourceError(f"set {saved.family} {saved.table} {saved.set} is gone")
    message = source.get_element(saved.family, saved.table, saved.set, element_value(saved.element))
    return bool(message) and elements_of_message(message or b"") == [saved.element]
