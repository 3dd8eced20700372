"""NFT_MSG_NEWRULE, _NEWSET and _NEWSETELEM as the kernel sent them -> what makes the same object again.

The kernel's own messages are nearly what it takes: without handle, position and counters of its own. What is missing:

* NFTA_RULE_COMPAT, which a rule with xtables extensions needs (nft_parse_compat) and no dump has: the protocol is in
  the rule's own comparison.
* anonymous sets, which go with their rule: made again under NFTA_SET_ID, and the rule's lookups sent there.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence

from k3swatch.decode.attributes import Attributes, walk
from k3swatch.decode.message import NFPROTO, NFT_HEADER_LENGTH, nft_message
from k3swatch.decode.nft.expression import decode_expressions
from k3swatch.decode.rule import NFT_MSG_NEWRULE
from k3swatch.decode.sets import NFT_MSG_NEWSET
from k3swatch.model.expr import Cmp, Expr, Lookup, Meta, Payload, XtMatch, XtTarget
from k3swatch.sources.netlink import attribute
from k3swatch.sources.transaction import NESTED

_EXPRESSIONS, _COMPAT, _USERDATA = 4, 5, 7  # enum nft_rule_attributes
_COMPAT_PROTO, _COMPAT_FLAGS, _COMPAT_INVERTED = 1, 2, 2
_EXPR_NAME, _EXPR_DATA, _LIST_ELEM = 1, 2, 1
_LOOKUP_SET, _LOOKUP_SET_ID = 1, 4
_SET_NAME, _SET_ID = 2, 10
# flags, key and data type and length, policy, desc, timeout, gc, userdata, object type, expressions
_SET_KEPT = {3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18}
_ELEMENTS, _ELEM_KEY, _ELEM_FLAGS, _ELEM_PAD, _ELEM_KEY_END = 3, 1, 3, 8, 10
_MOVING = {b"counter\0", b"last\0", b"quota\0"}  # expressions whose content every packet changes
_L4PROTO = 16  # enum nft_meta_keys


def digest(expressions: bytes) -> str:
    """What makes two rules the same: their expressions, counters aside."""
    sum_ = hashlib.sha256()
    for _, value in walk(expressions, "rule"):
        if Attributes(value, "expression").raw(_EXPR_NAME) not in _MOVING:
            sum_.update(value)
    return sum_.hexdigest()[:32]


def sets_asked(exprs: Sequence[Expr]) -> list[str]:
    """The sets that a rule looks things up in, anonymous or not."""
    return list(dict.fromkeys(each.set for each in exprs if isinstance(each, Lookup)))


def rule_again(raw: bytes, sets: Mapping[str, int]) -> bytes:
    """The attributes that make this rule again. `sets`: the ids of the anonymous sets it asks, by their old names."""
    message = nft_message(raw, NFT_MSG_NEWRULE, "rule")
    found = dict(walk(raw, "rule", NFT_HEADER_LENGTH))
    expressions = found.get(_EXPRESSIONS, b"")
    content = attribute(NESTED | _EXPRESSIONS, _sent_to(expressions, sets))
    if _USERDATA in found:
        content += attribute(_USERDATA, found[_USERDATA])
    exprs = decode_expressions(expressions, NFPROTO.get(message.family, 0))
    if any(isinstance(each, XtMatch | XtTarget) for each in exprs):
        protocol, inverted = _protocol(exprs)
        flags = _COMPAT_INVERTED if inverted else 0
        compat = attribute(_COMPAT_PROTO, protocol.to_bytes(4)) + attribute(_COMPAT_FLAGS, flags.to_bytes(4))
        content += attribute(NESTED | _COMPAT, compat)
    return content


def set_again(raw: bytes, number: int) -> bytes:
    """The attributes (but the table) that make this anonymous set again, under the id `number`."""
    nft_message(raw, NFT_MSG_NEWSET, "set")
    kept = b"".join(
        attribute(kind | (NESTED if kind in (9, 17, 18) else 0), value)
        for kind, value in walk(raw, "set", NFT_HEADER_LENGTH)
        if kind in _SET_KEPT
    )
    return attribute(_SET_NAME, b"__set%d\0") + kept + attribute(_SET_ID, number.to_bytes(4))


def elements_of_message(raw: bytes) -> list[bytes]:
    """The elements in one NEWSETELEM message, as they are."""
    for kind, value in walk(raw, "elements", NFT_HEADER_LENGTH):
        if kind == _ELEMENTS:
            return [element for _, element in walk(value, "elements")]
    return []


def element_key(element: bytes) -> bytes:
    """Those attributes of an element that name it."""
    return b"".join(
        attribute(kind | (NESTED if kind in (_ELEM_KEY, _ELEM_KEY_END) else 0), value)
        for kind, value in walk(element, "element")
        if kind in (_ELEM_KEY, _ELEM_KEY_END, _ELEM_FLAGS)
    )


def element_value(element: bytes) -> bytes | None:
    """The key of an element as a lookup has it; None for the catch-all."""
    attributes = Attributes(element, "element")
    return attributes.nested(_ELEM_KEY, "key").raw(1) if _ELEM_KEY in attributes else None


def _sent_to(expressions: bytes, sets: Mapping[str, int]) -> bytes:
    """The expressions, their lookups in `sets` by id."""
    parts = []
    for kind, value in walk(expressions, "rule"):
        outer = Attributes(value, "expression")
        if kind == _LIST_ELEM and outer.raw(_EXPR_NAME) == b"lookup\0" and sets:
            data = outer.raw(_EXPR_DATA)
            name = Attributes(data, "lookup").text(_LOOKUP_SET)
            if name in sets:
                kept = [each for each in walk(data, "lookup") if each[0] not in (_LOOKUP_SET, _LOOKUP_SET_ID)]
                data = attribute(_LOOKUP_SET, b"__set%d\0") + b"".join(attribute(*each) for each in kept)
                data += attribute(_LOOKUP_SET_ID, sets[name].to_bytes(4))
                value = attribute(_EXPR_NAME, b"lookup\0") + attribute(NESTED | _EXPR_DATA, data)
        parts.append(attribute(NESTED | kind, value))
    return b"".join(parts)


def _protocol(exprs: Sequence[Expr]) -> tuple[int, bool]:
    """The transport protocol a rule is about (0: any), and whether about all others."""
    for load, test in itertools.pairwise(exprs):
        asked = (isinstance(load, Meta) and load.key == _L4PROTO) or (
            isinstance(load, Payload) and (load.base, load.offset, load.length) in ((1, 9, 1), (1, 6, 1))
        )
        if asked and isinstance(test, Cmp) and len(test.data) == 1:
            return test.data[0], test.op == 1
    return 0, False
