"""NFT_MSG_NEWRULE -> Rule. The expressions are kept as bytes: most rules of a chain are never looked into.

NFTA_RULE_TABLE         name
NFTA_RULE_CHAIN         name
NFTA_RULE_HANDLE        be64
NFTA_RULE_EXPRESSIONS   list, see nft/expression.py
NFTA_RULE_USERDATA      TLVs of 8-bit type and length, of libnftnl: type 0 is the comment
"""

from __future__ import annotations

from functools import lru_cache

from k3swatch.decode.attributes import display, text, walk
from k3swatch.decode.destination import first_destination
from k3swatch.decode.message import NFPROTO, NFT_HEADER_LENGTH, nft_message
from k3swatch.errors import DecodeError
from k3swatch.model.ruleset import ChainRef, Rule

NFT_MSG_NEWRULE = 6
_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS, _USERDATA = 1, 2, 3, 4, 7
_COMMENT = 0


@lru_cache(maxsize=512)
def _reference(family: str, table: bytes, chain: bytes) -> ChainRef:
    """One ChainRef for all rules of a chain."""
    return ChainRef(family, text(table, "rule: table"), text(chain, "rule: chain"))


def comment(userdata: bytes | None) -> str | None:
    """The comment among libnftnl's TLVs (rules and set elements alike); broken TLVs hold none."""
    while userdata and len(userdata) >= 2:
        kind, length = userdata[0], userdata[1]
        if kind == _COMMENT and len(userdata) >= 2 + length:
            return display(userdata[2 : 2 + length])
        userdata = userdata[2 + length :]
    return None


def decode_rule(raw: bytes) -> Rule:
    """Read one rule without its expressions."""
    family = nft_message(raw, NFT_MSG_NEWRULE, "rule").family
    attributes = dict(walk(raw, "rule", NFT_HEADER_LENGTH))
    try:
        ref = _reference(family, attributes[_TABLE], attributes[_CHAIN])
        handle = int.from_bytes(attributes[_HANDLE], "big")
    except KeyError as missing:
        raise DecodeError(f"rule: attribute {missing} is missing") from None
    expressions = attributes.get(_EXPRESSIONS, b"")
    daddr = first_destination(expressions, NFPROTO.get(family, 0))
    return Rule(ref, handle, expressions, comment(attributes.get(_USERDATA)), daddr)
