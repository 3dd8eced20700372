"""Rules and destinations in words: the steps of a finding's path."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import pairwise

from k3swatch.errors import DecodeError, Interrupted, SourceError
from k3swatch.evaluate.outcome import Target
from k3swatch.model import xt
from k3swatch.model.expr import Expr, Payload, XtMatch
from k3swatch.model.finding import PathStep
from k3swatch.model.ipvs import IPVS
from k3swatch.model.ruleset import SET_ANONYMOUS, Element, Rule, Ruleset
from k3swatch.model.words import Family

MOST_SHOWN = 16  # elements of an anonymous set in a rule's text


def destination(target: Target, family: Family) -> str:
    """`10.42.0.244:6443`, `[fd00::5]:6443`, ranges as `10.0.0.1-10.0.0.3:80-90`."""
    low, high = (str(ipaddress.ip_address(side)) for side in (target.low, target.high))
    address = low if low == high else f"{low}-{high}"
    port = str(target.port_low)
    if target.port_low != target.port_high:
        port = f"{target.port_low}-{target.port_high}"
    return f"[{address}]:{port}" if family is Family.IP6 else f"{address}:{port}"


def step(ruleset: Ruleset, rule: Rule | PathStep) -> PathStep:
    """One rule in words. A rule without a handle stands for a chain's policy."""
    if isinstance(rule, PathStep):
        return rule
    ref = rule.ref
    if ref.family == IPVS:
        return PathStep(ref.family, ref.table, ref.chain, 0, rule.raw.decode())
    if rule.handle == 0 and not rule.raw:
        return PathStep(ref.family, ref.table, ref.chain, 0, "policy drop")
    # not at the top: most of what `check` costs are imports, and on a healthy host it says no rule
    from k3swatch.evaluate.text import comment_of, packets_of, rule_text

    exprs = ruleset.expressions(rule)

    def members(name: str) -> Sequence[Element] | None:
        """What nft shows in braces: the elements of an anonymous set. Its name will do when they cannot be read."""
        try:
            info = ruleset.set_info(ref.family, ref.table, name)
            return ruleset.elements(info, MOST_SHOWN) if info.flags & SET_ANONYMOUS else None
        except Interrupted:
            raise
        except (SourceError, DecodeError):
            return None

    return PathStep(
        ref.family,
        ref.table,
        ref.chain,
        rule.handle,
        rule_text(exprs, ref.family, members),
        rule.comment or comment_of(exprs),
        packets_of(exprs),
    )


def anchor(ruleset: Ruleset, path: Sequence[Rule | PathStep]) -> tuple[str, str, str] | None:
    """The chain entered by the first rule that asks for the port (see Finding.anchor). A virtual server of IPVS is one
    cause, whichever of its real servers is chosen.
    """
    last = path[-1] if path else None
    if isinstance(last, Rule) and last.ref.family == IPVS:
        return (last.ref.family, last.ref.table, last.ref.chain)
    for rule, following in pairwise(path):
        if isinstance(rule, PathStep) or isinstance(following, PathStep):
            return None
        if any(_asks_port(expr) for expr in ruleset.expressions(rule)):
            ref = following.ref
            return (ref.family, ref.table, ref.chain)
    return None


def _asks_port(expr: Expr) -> bool:
    if isinstance(expr, Payload):
        return expr.base == 2 and expr.offset < 4 and expr.offset + expr.length > 2
    if isinstance(expr, XtMatch):
        if isinstance(expr.spec, xt.Ports):
            return expr.spec.destination != (0, 65535)
        return isinstance(expr.spec, xt.Multiport) and expr.spec.which > 0
    return False
