"""lookup and dynset: `ip saddr @mgmt`, `tcp dport vmap @ports`, `add @seen { ip saddr }`.

NFTA_LOOKUP_SET name, _SREG, _DREG be32, _SET_ID (not used), _FLAGS be32. NFTA_DYNSET_SET_NAME name,
_SET_ID, _OP, _SREG_KEY, _SREG_DATA be32, _TIMEOUT be64, _EXPR nested, _FLAGS be32, _EXPRESSIONS list.
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes, text, walk
from k3swatch.decode.nft.data import register, register_or_none
from k3swatch.errors import DecodeError
from k3swatch.model.expr import Dynset, Lookup

_SET, _SREG, _DREG, _FLAGS = 1, 2, 3, 5
_SET_NAME, _OP, _SREG_KEY, _SREG_DATA, _EXPR, _DYNSET_FLAGS, _EXPRESSIONS = 1, 3, 4, 5, 7, 9, 10
_NFTA_EXPR_NAME = 1
# Expressions in an element only count, all others (limit, quota, connlimit) end the rule when they are over.
_ONLY_COUNT = {"counter", "last"}


def lookup(attributes: Attributes) -> Lookup:
    """Ask a set or map."""
    return Lookup(
        attributes.text(_SET),
        register(attributes, _SREG),
        register_or_none(attributes, _DREG),
        attributes.be32(_FLAGS, 0),
    )


def refuse_deciding(expression: bytes, where: str) -> None:
    """DecodeError when an expression in an element can end the rule: membership alone does not tell then."""
    name = text(Attributes(expression, where).raw(_NFTA_EXPR_NAME), where)
    if name not in _ONLY_COUNT:
        raise DecodeError(f"{where}: the element carries {name}: it may match or not")


def dynset(attributes: Attributes) -> Dynset:
    """Put the packet's key into a set. An element with `limit` is more than Dynset can say: DecodeError."""
    if _EXPR in attributes:
        refuse_deciding(attributes.raw(_EXPR), attributes.where)
    if _EXPRESSIONS in attributes:
        for _, expression in walk(attributes.raw(_EXPRESSIONS), attributes.where):
            refuse_deciding(expression, attributes.where)
    return Dynset(
        attributes.text(_SET_NAME),
        attributes.be32(_OP),
        register(attributes, _SREG_KEY),
        register_or_none(attributes, _SREG_DATA),
        attributes.be32(_DYNSET_FLAGS, 0),
    )
