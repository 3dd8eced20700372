"""match and target: xtables extensions inside nf_tables rules, as iptables-nft writes them (`-m comment`,
`-j DNAT`).

NFTA_MATCH_NAME name, NFTA_MATCH_REV be32, NFTA_MATCH_INFO the extension's own struct; the same three for
target (`uapi/linux/netfilter/nf_tables_compat.h`).
"""

from __future__ import annotations

from k3swatch.decode.attributes import Attributes
from k3swatch.decode.xt import decode_match, decode_target
from k3swatch.model.expr import XtMatch, XtTarget

_NAME, _REV, _INFO = 1, 2, 3


def match(attributes: Attributes, nfproto: int) -> XtMatch:
    """An xtables match; `spec` is None when its blob is not one we read."""
    name, revision, info = attributes.text(_NAME), attributes.be32(_REV), attributes.raw(_INFO)
    return XtMatch(name, revision, info, decode_match(name, revision, info, nfproto))


def target(attributes: Attributes, nfproto: int) -> XtTarget:
    """An xtables target; `spec` is None when its blob is not one we read."""
    name, revision, info = attributes.text(_NAME), attributes.be32(_REV), attributes.raw(_INFO)
    return XtTarget(name, revision, info, decode_target(name, revision, info, nfproto))
