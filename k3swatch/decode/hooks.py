"""All tables and chains of a dump -> the base chains that are in force, and which of them a packet meets."""

from __future__ import annotations

from collections.abc import Iterable

from k3swatch.decode.chain import decode_chain, is_base
from k3swatch.decode.message import FAMILIES
from k3swatch.decode.table import decode_table
from k3swatch.model.ruleset import BaseChain

_BOTH = {2, 10}  # what the inet family sees


def decode_hooks(tables: Iterable[bytes], chains: Iterable[bytes]) -> tuple[BaseChain, ...]:
    """Read NEWTABLE and NEWCHAIN messages; DecodeError when one does not fit, for then nothing is certain.

    In dump order, without dormant tables. Of thousands of chains a handful are base chains, so the others are
    only looked at for that.
    """
    dormant = {(table.family, table.name) for table in map(decode_table, tables) if table.dormant}
    found: list[BaseChain] = []
    for raw in chains:
        base = decode_chain(raw, len(found))[1] if is_base(raw) else None
        if base is not None and (base.ref.family, base.ref.table) not in dormant:
            found.append(base)
    return tuple(found)


def seen_by(chains: Iterable[BaseChain], hook: int, nfproto: int) -> tuple[BaseChain, ...]:
    """Those that a packet of this family meets in this hook."""
    families = {FAMILIES.get(nfproto, ""), "inet" if nfproto in _BOTH else ""}
    return tuple(chain for chain in chains if chain.hook == hook and chain.ref.family in families)
