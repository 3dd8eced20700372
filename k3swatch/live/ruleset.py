"""The ruleset in force, read as it is asked for: only the chains a packet reaches, only the keys it looks up.

All answers between two `refresh()` belong to one generation: every message says which one it is of
(res_id), and an answer without a message (an empty chain, a key that is in no set) is followed by asking
for the generation. Whatever does not fit raises Interrupted: refresh and start again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from k3swatch.decode.element import decode_elements, decode_found
from k3swatch.decode.generation import decode_newgen
from k3swatch.decode.hooks import decode_hooks, seen_by
from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import decode_expressions
from k3swatch.decode.rule import decode_rules
from k3swatch.decode.sets import decode_set
from k3swatch.errors import DecodeError, Interrupted
from k3swatch.live.legacy import LegacyTables, LegacyWatch, is_legacy, read_legacy
from k3swatch.model.expr import Expr
from k3swatch.model.ruleset import SET_EVAL, SET_TIMEOUT, BaseChain, ChainRef, Element, Found, Rule, SetInfo
from k3swatch.sources.nftables import NftablesSource

_RES_ID = slice(18, 20)  # of nfgenmsg, in every nf_tables message
_ELEMENT_BYTES = 512  # a generous mean, to stop reading a set long before it fills the memory
_MESSAGE_BYTES = 1 << 16
_WATCHED = 32  # keys in sets that change by themselves, asked for again each second
_KEPT = 500  # rules of one chain that are kept while nothing happens


class LiveRuleset:
    """Implements model.ruleset.Ruleset over a NftablesSource. Remembers what it read until `refresh`.

    Raises what the protocol says, and NotPermitted or Unsupported (no nf_tables in this kernel).
    """

    def __init__(self, source: NftablesSource) -> None:
        self._source = source
        self.refresh()

    @property
    def generation(self) -> int:
        """The nf_tables generation id all answers belong to."""
        return self._generation

    def refresh(self) -> None:
        """Forget everything and start with the generation that is in force now."""
        self._generation = decode_newgen(self._source.generation()).id
        self._res_id = (self._generation & 0xFFFF).to_bytes(2, "big")
        self._hooks: tuple[BaseChain, ...] | None = None
        self._legacy: LegacyTables | None = None
        self._legacy_watch: LegacyWatch | None = None
        self._rules: dict[ChainRef, tuple[Rule, ...]] = {}
        self._sets: dict[tuple[str, str, str], SetInfo] = {}
        self._found: dict[tuple[SetInfo, bytes | None], Found | None] = {}
        self._changing: dict[tuple[SetInfo, bytes | None], Found | None] = {}

    def forget(self) -> None:
        """Let go of the rules of long chains: a daemon waits most of the time, and may need them never again."""
        self._rules = {ref: rules for ref, rules in self._rules.items() if len(rules) <= _KEPT}

    def check(self) -> None:
        """Interrupted when a commit was made since `refresh`, a legacy table changed since it was read, or what was
        looked up in a set that packets or timeouts change is there no more, or is now.
        """
        if self._legacy_watch is not None and self._legacy_watch.changed():
            raise Interrupted("iptables-legacy: the tables changed", hint="ask again")
        self._same_generation()
        for (info, key), found in list(self._changing.items()):
            if self._look_up(info, key) != found:
                raise Interrupted(f"nf_tables: set {info.name} has changed by itself", hint="ask again")

    def _same_generation(self) -> None:
        now = decode_newgen(self._source.generation()).id
        if now != self._generation:
            raise Interrupted(f"nf_tables: generation {now}, began with {self._generation}", hint="ask again")

    def _of_this_generation(self, messages: Iterable[bytes]) -> None:
        none = True
        for message in messages:
            none = False
            if message[_RES_ID] != self._res_id:
                raise Interrupted("nf_tables: the ruleset changed while it was read", hint="ask again")
        if none:
            self._same_generation()

    def _base_chains(self) -> tuple[BaseChain, ...]:
        if self._hooks is None:
            tables, chains = self._source.tables(), self._source.chains()
            self._of_this_generation(tables)
            self._of_this_generation(chains)
            self._hooks = decode_hooks(tables, chains)
        return self._hooks

    def base_chains(self, hook: int, nfproto: int) -> Sequence[BaseChain]:
        """See Ruleset.base_chains."""
        chains = self._base_chains()
        legacy = self._legacy_tables().base_chains(hook, nfproto, len(chains))
        return [*seen_by(chains, hook, nfproto), *legacy]

    def rules(self, ref: ChainRef) -> Sequence[Rule]:
        """See Ruleset.rules."""
        if is_legacy(ref):
            return self._legacy_tables().rules(ref)
        if ref not in self._rules:
            if ref.family not in NFPROTO:
                raise DecodeError(f"no family {ref.family!r}")
            messages = self._source.rules(ref.family, ref.table, ref.chain)
            self._of_this_generation(messages)
            if not messages and self._source.chain(ref.family, ref.table, ref.chain) is None:
                raise DecodeError(f"no chain {ref.family} {ref.table} {ref.chain!r}")
            self._rules[ref] = tuple(decode_rules(messages))
        return self._rules[ref]

    def expressions(self, rule: Rule) -> Sequence[Expr]:
        """See Ruleset.expressions."""
        if is_legacy(rule.ref):
            return self._legacy_tables().expressions(rule)
        return decode_expressions(rule.raw, NFPROTO.get(rule.ref.family, 0))

    def set_info(self, family: str, table: str, name: str) -> SetInfo:
        """See Ruleset.set_info."""
        key = (family, table, name)
        if key not in self._sets:
            message = self._source.set(*key)
            self._of_this_generation([message] if message else [])
            if message is None:
                raise DecodeError(f"no set {family} {table} {name!r}")
            self._sets[key] = decode_set(message)
        return self._sets[key]

    def lookup(self, info: SetInfo, key: bytes) -> Found | None:
        """See Ruleset.lookup. The kernel is asked, as it would look for a packet: the key, then the catch-
        all.
        """
        if len(key) < info.key_length:
            raise DecodeError(f"set {info.name}: key of {len(key)} bytes, want {info.key_length}")
        found = self._ask(info, key[: info.key_length])
        return self._ask(info, None) if found is None else found

    def _ask(self, info: SetInfo, key: bytes | None) -> Found | None:
        if (info, key) in self._found:
            return self._found[info, key]
        found = self._look_up(info, key)
        if not info.flags & (SET_TIMEOUT | SET_EVAL):
            self._found[info, key] = found
        elif len(self._changing) < _WATCHED:  # those change without a new generation
            self._changing[info, key] = found
        return found

    def _look_up(self, info: SetInfo, key: bytes | None) -> Found | None:
        message = self._source.get_element(info.family, info.table, info.name, key)
        self._of_this_generation([message] if message else [])
        return None if message is None else decode_found(message, info)

    def elements(self, info: SetInfo, limit: int) -> Sequence[Element] | None:
        """See Ruleset.elements."""
        longest = limit * _ELEMENT_BYTES + _MESSAGE_BYTES
        messages = self._source.elements(info.family, info.table, info.name, longest)
        if messages is None:
            return None
        self._of_this_generation(messages)
        found = decode_elements(messages, info)
        return found if len(found) <= limit else None

    def legacy_tables(self) -> tuple[str, ...]:
        """The iptables-legacy tables, as `ip nat`, that exist but are not among these answers: they cannot
        be read.
        """
        return self._legacy_tables().unread

    def _legacy_tables(self) -> LegacyTables:
        if self._legacy is None:
            blobs, unread = read_legacy()
            self._legacy = LegacyTables(blobs, unread)
            self._legacy_watch = LegacyWatch(blobs, unread)
        return self._legacy
