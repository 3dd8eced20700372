"""All tables and chains of a dump -> the base chains that are in force, and which chains there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from k3swatch.decode.chain import decode_chain
from k3swatch.decode.message import FAMILIES
from k3swatch.decode.table import decode_table
from k3swatch.model.ruleset import BaseChain, ChainRef

_BOTH = {2, 10}  # what the inet family sees


class Hooks(NamedTuple):
    """`base` without dormant tables; `chains` are all chains; both in dump order."""

    base: tuple[BaseChain, ...]
    chains: tuple[ChainRef, ...]

    def seen_by(self, hook: int, nfproto: int) -> tuple[BaseChain, ...]:
        """The base chains that a packet of this family meets in this hook."""
        families = {FAMILIES.get(nfproto, ""), "inet" if nfproto in _BOTH else ""}
        return tuple(chain for chain in self.base if chain.hook == hook and chain.ref.family in families)


def decode_hooks(tables: Iterable[bytes], chains: Iterable[bytes]) -> Hooks:
    """Read NEWTABLE and NEWCHAIN messages; DecodeError when one does not fit, for then nothing is certain."""
    dormant = {(table.family, table.name) for table in map(decode_table, tables) if table.dormant}
    base: list[BaseChain] = []
    refs: list[ChainRef] = []
    for raw in chains:
        ref, hooked = decode_chain(raw, len(base))
        refs.append(ref)
        if hooked is not None and (ref.family, ref.table) not in dormant:
            base.append(hooked)
    return Hooks(tuple(base), tuple(refs))
