"""NFT_MSG_NEWRULE -> Rule. The expressions are kept as bytes: most rules of a chain are never looked into.

NFTA_RULE_TABLE         name
NFTA_RULE_CHAIN         name
NFTA_RULE_HANDLE        be64
NFTA_RULE_EXPRESSIONS   list, see nft/expression.py
NFTA_RULE_USERDATA      TLVs of 8-bit type and length, of libnftnl: type 0 is the comment
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k3swatch.decode.attributes import attributes, display, text, walk
from k3swatch.decode.destination import first_destination
from k3swatch.decode.message import NFPROTO, NFT_HEADER_LENGTH, nft_message
from k3swatch.errors import DecodeError
from k3swatch.model.ruleset import ChainRef, Rule

NFT_MSG_NEWRULE = 6
_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS, _USERDATA = 1, 2, 3, 4, 7
_COMMENT = 0
_TYPE_OFFSET = 4  # of nlmsghdr: what comes before it is the length, which differs


def comment(userdata: bytes | None) -> str | None:
    """The comment among libnftnl's TLVs (rules and set elements alike); broken TLVs hold none."""
    while userdata and len(userdata) >= 2:
        kind, length = userdata[0], userdata[1]
        if kind == _COMMENT and len(userdata) >= 2 + length:
            return display(userdata[2 : 2 + length])
        userdata = userdata[2 + length :]
    return None


def _rest(raw: bytes, start: int, ref: ChainRef) -> Rule:
    """The rule of a chain that is known, from the attribute at `start`."""
    handle = None
    expressions, userdata = b"", None
    for kind, value in attributes(raw, "rule", start):
        if kind == _EXPRESSIONS:
            expressions = value
        elif kind == _HANDLE:
            handle = int.from_bytes(value, "big")
        elif kind == _USERDATA:
            userdata = value
    if handle is None:
        raise DecodeError(f"rule: attribute {_HANDLE} is missing")
    daddr = first_destination(expressions, NFPROTO.get(ref.family, 0))
    return Rule(ref, handle, expressions, comment(userdata), daddr)


def _chain(raw: bytes) -> tuple[ChainRef, int]:
    """The chain a rule is in, and where the attributes begin that follow its name."""
    family = nft_message(raw, NFT_MSG_NEWRULE, "rule").family
    found: dict[int, bytes] = {}
    start = NFT_HEADER_LENGTH
    for kind, value in walk(raw, "rule", start):
        found[kind] = value
        if list(found) == [_TABLE, _CHAIN]:  # the kernel puts them first
            start += sum(4 + len(each) + 3 & ~3 for each in found.values())
            break
    for kind in (_TABLE, _CHAIN):
        if kind not in found:
            raise DecodeError(f"rule: attribute {kind} is missing")
    table, chain = text(found[_TABLE], "rule: table"), text(found[_CHAIN], "rule: chain")
    return ChainRef(family, table, chain), start


def decode_rules(messages: Iterable[bytes]) -> Iterator[Rule]:
    """Read rules without their expressions.

    The rules of one chain come one after the other and begin with the same bytes, which are read once: a
    chain of 10,000 Services should cost no more than it must.
    """
    head = b""
    ref, start = ChainRef("", "", ""), 0
    for raw in messages:
        if not head or not raw.startswith(head, _TYPE_OFFSET):
            ref, start = _chain(raw)
            head = raw[_TYPE_OFFSET:start] if start > NFT_HEADER_LENGTH else b""
        yield _rest(raw, start, ref)


def decode_rule(raw: bytes) -> Rule:
    """Read one rule without its expressions."""
    return next(decode_rules([raw]))
