"""What is taken out of the ruleset, kept so that it can be put back where it was: messages of one generation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import decode_expressions
from k3swatch.decode.rule import decode_rule, decode_rules
from k3swatch.decode.sets import decode_set
from k3swatch.errors import Interrupted, SourceError
from k3swatch.live.again import (
    digest,
    element_key,
    elements_of_message,
    sets_asked,
)
from k3swatch.model.plan import Removal
from k3swatch.model.ruleset import SET_ANONYMOUS
from k3swatch.sources import transaction
from k3swatch.sources.nftables import NftablesSource
from k3swatch.sources.transaction import Change

Neighbours = tuple[tuple[int, str], ...]  # handle and digest of every rule of a chain, in order

MOST_SET = 16 << 20  # bytes of the elements of an anonymous set


@dataclass(frozen=True, slots=True)
class SavedSet:
    """An anonymous set: the NEWSET message, the NEWSETELEM messages of its elements."""

    name: str
    message: bytes
    elements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SavedRule:
    """A rule: the NEWRULE message, the chain as it was, and the anonymous sets that are gone with it."""

    text: str
    family: str
    table: str
    chain: str
    handle: int
    message: bytes
    chain_before: Neighbours
    sets: tuple[SavedSet, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedElement:
    """An element of a named set: all of its attributes."""

    text: str
    family: str
    table: str
    set: str
    element: bytes


Saved = SavedRule | SavedElement


def save(source: NftablesSource, removals: Iterable[Removal]) -> list[Saved]:
    """What is to be removed, as it is now. Interrupted when something is not what was judged: a handle alone is no
    identity. The caller sees to it that the generation is still the one of the judgement.
    """
    return [_element(source, each) if each.key is not None else _rule(source, each) for each in removals]


def _rule(source: NftablesSource, removal: Removal) -> SavedRule:
    messages = source.rules(removal.family, removal.table, removal.chain)
    before = tuple((rule.handle, digest(rule.raw)) for rule in decode_rules(messages))
    for message, (handle, content) in zip(messages, before, strict=True):
        if handle != removal.handle:
            continue
        if content != digest(removal.raw):
            break
        exprs = decode_expressions(decode_rule(message).raw, NFPROTO.get(removal.family, 0))
        sets = [_set(source, removal, each) for each in sets_asked(exprs)]
        return SavedRule(
            removal.text,
            removal.family,
            removal.table,
            removal.chain,
            handle,
            message,
            before,
            tuple(each for each in sets if each is not None),
        )
    raise Interrupted(f"rule {removal.handle} is not what was judged", hint="try again")


def _set(source: NftablesSource, removal: Removal, asked: str) -> SavedSet | None:
    """A set that goes with the rule; None for one that stays."""
    message = source.set(removal.family, removal.table, asked)
    if message is None:
        raise Interrupted(f"set {asked} is gone", hint="try again")
    if not decode_set(message).flags & SET_ANONYMOUS:
        return None
    elements = source.elements(removal.family, removal.table, asked, MOST_SET)
    if elements is None:
        raise SourceError(f"set {asked}: more than {MOST_SET >> 20} MB")
    return SavedSet(asked, message, tuple(elements))


def _element(source: NftablesSource, removal: Removal) -> SavedElement:
    message = source.get_element(removal.family, removal.table, removal.chain, removal.key)
    found = elements_of_message(message) if message else []
    if len(found) != 1:
        raise Interrupted(f"the element of {removal.chain} is gone", hint="try again")
    return SavedElement(removal.text, removal.family, removal.table, removal.chain, found[0])


def removing(saved: Iterable[Saved]) -> list[Change]:
    """The changes that take it all away."""
    return [
        transaction.delete_rule(each.family, each.table, each.chain, each.handle)
        if isinstance(each, SavedRule)
        else transaction.delete_element(each.family, each.table, each.set, element_key(each.element))
        for each in saved
    ]
