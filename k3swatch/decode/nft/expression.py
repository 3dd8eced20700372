"""NFTA_RULE_EXPRESSIONS -> expressions. Never raises and never drops: what does not fit becomes an Opaque.

NFTA_LIST_ELEM
    NFTA_EXPR_NAME   name
    NFTA_EXPR_DATA   nested, of that kind of expression
NFTA_LIST_ELEM ...
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from k3swatch.decode.attributes import Attributes, walk
from k3swatch.decode.nft import (
    bitwise,
    choice,
    compare,
    compat,
    environment,
    exthdr,
    fate,
    fib,
    immediate,
    nat,
    payload,
    sets,
    stateful,
    tproxy,
)
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Expr, Opaque

_LIST_ELEM = 1
_NAME, _DATA = 1, 2

# Kind of expression -> the highest attribute it is known to have (a higher one means something we do not
# know) and its decoder. Kinds that are not here (inner, xfrm, osf, tunnel, ...) become
# Opaque.
DECODERS: Final[dict[str, tuple[int, Callable[[Attributes], Expr]]]] = {
    "bitwise": (8, bitwise.bitwise),
    "byteorder": (5, bitwise.byteorder),
    "cmp": (3, compare.cmp),
    "connlimit": (2, stateful.connlimit),
    "counter": (3, stateful.counter),
    "ct": (4, environment.ct),
    "dup": (2, fate.dup),
    "dynset": (10, sets.dynset),
    "exthdr": (7, exthdr.exthdr),
    "fib": (3, fib.fib),
    "flow_offload": (1, fate.flow),
    "fwd": (3, fate.fwd),
    "hash": (7, choice.hash_),
    "immediate": (2, immediate.immediate),
    "last": (3, stateful.last),
    "limit": (6, stateful.limit),
    "log": (6, fate.log),
    "lookup": (5, sets.lookup),
    "masq": (3, nat.masq),
    "meta": (3, environment.meta),
    "nat": (7, nat.nat),
    "notrack": (0, fate.notrack),
    "numgen": (4, choice.numgen),
    "objref": (5, stateful.objref),
    "payload": (8, payload.payload),
    "queue": (4, fate.queue),
    "quota": (4, stateful.quota),
    "range": (4, compare.range_),
    "redir": (3, nat.redir),
    "reject": (2, fate.reject),
    "rt": (2, environment.rt),
    "socket": (3, environment.socket),
    "synproxy": (3, fate.synproxy),
    "tproxy": (3, tproxy.tproxy),
}
COMPAT: Final[dict[str, Callable[[Attributes, int], Expr]]] = {
    "match": compat.match,
    "target": compat.target,
}


@lru_cache(maxsize=8192)
def decode_expression(raw: bytes, nfproto: int) -> Expr:
    """One expression: the payload of an NFTA_LIST_ELEM. Rules share most of theirs, hence the memory."""
    name = "?"
    try:
        outer = Attributes(raw, "expression", known=2)
        name = outer.text(_NAME)
        data = outer.raw(_DATA) if _DATA in outer else b""
        if name in COMPAT:
            return COMPAT[name](Attributes(data, name, known=3), nfproto)
        if name in DECODERS:
            known, decoder = DECODERS[name]
            return decoder(Attributes(data, name, known))
        return Opaque(name, raw, "not a kind of expression this version knows")
    except DecodeError as error:
        return Opaque(name, raw, str(error))


def decode_expressions(raw: bytes, nfproto: int) -> tuple[Expr, ...]:
    """All expressions of a rule, in order. `nfproto` is the table's family: xt blobs depend on it."""
    found: list[Expr] = []
    try:
        for kind, value in walk(raw, "expressions"):
            if kind == _LIST_ELEM:
                found.append(decode_expression(value, nfproto))
            else:
                found.append(Opaque("?", value, f"list attribute {kind}, want {_LIST_ELEM}"))
    except DecodeError as error:
        found.append(Opaque("?", raw, str(error)))
    return tuple(found)
