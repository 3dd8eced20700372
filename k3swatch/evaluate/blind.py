"""Rules that do not look at the destination address: they do the same to the same packet to any other address.

A block list of thousands of rules is therefore walked once for all addresses of a host, not once for each. Only what
is known to be blind counts, a rule with anything else in it does not: then it is merely walked again.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.model import xt
from k3swatch.model.expr import (
    Bitwise,
    Byteorder,
    Cmp,
    Code,
    Counter,
    Ct,
    Expr,
    Immediate,
    Last,
    Limit,
    Log,
    Lookup,
    Meta,
    Payload,
    Range,
    Reject,
    XtMatch,
    XtTarget,
)
from k3swatch.model.words import Family

LONG = 64  # rules in a row; fewer are as quickly walked again

_ALWAYS = (Bitwise, Byteorder, Cmp, Counter, Last, Limit, Log, Meta, Range, Reject)
_PLAIN = frozenset(
    {Code.ACCEPT, Code.DROP, Code.RETURN, Code.CONTINUE, Code.BREAK}
)  # leads to no other chain
_ADDRESS = {Family.IP: 16, Family.IP6: 24}  # where the destination address begins in the network header
_CT_DESTINATION = frozenset({9, 20, 22})  # NFT_CT_DST, _DST_IP, _DST_IP6
_CT_STATE = 1  # XT_CONNTRACK_STATE, and nothing beside it
_MATCHES = (xt.Comment, xt.Environment, xt.Mark, xt.Multiport, xt.Ports, xt.State, xt.Statistic)


def blind(exprs: Sequence[Expr], family: Family, from_client: bool = True) -> bool:
    """Whether the rule neither reads nor changes the server's address, and leads to no other chain: the destination of
    what the client sends, the source of answers.
    """
    return all(_blind(expr, family, from_client) for expr in exprs)


def _blind(expr: Expr, family: Family, from_client: bool) -> bool:
    match expr:
        case Payload():
            start = _ADDRESS[family] - (0 if from_client else family.length)
            beside = expr.offset + expr.length <= start or expr.offset >= start + family.length
            return expr.base == 2 or (expr.base == 1 and beside)
        case Ct():
            return expr.key not in _CT_DESTINATION
        case Immediate():
            return expr.verdict is None or expr.verdict.code in _PLAIN
        case Lookup():
            return expr.dreg is None
        case XtMatch():
            return _blind_match(expr.spec, from_client)
        case XtTarget():
            return isinstance(expr.spec, xt.XtReject | xt.Harmless) or (
                isinstance(expr.spec, xt.XtStandard) and expr.spec.code in _PLAIN
            )
    return isinstance(expr, _ALWAYS)


def _blind_match(spec: xt.XtSpec | None, from_client: bool) -> bool:
    if isinstance(spec, xt.IpHeader):
        return not any(spec.destination[1] if from_client else spec.source[1])
    if isinstance(spec, xt.Conntrack):
        return spec.match == _CT_STATE
    return isinstance(spec, _MATCHES)
