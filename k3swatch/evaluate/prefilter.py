"""Which destination ports a rule can match at all: a chain of thousands of rules about other ports costs little.

Only what is certain counts: a comparison with a constant that every packet has to pass before the rule has any effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.evaluate.ranges import Ranges, normal
from k3swatch.model import xt
from k3swatch.model.expr import (
    Bitwise,
    Byteorder,
    Cmp,
    Counter,
    Ct,
    Expr,
    Fib,
    Immediate,
    Lookup,
    Meta,
    Payload,
    Range,
    XtMatch,
)

_TESTS = (
    Bitwise,
    Byteorder,
    Cmp,
    Counter,
    Ct,
    Fib,
    Lookup,
    Meta,
    Payload,
    Range,
    XtMatch,
)  # no effect beyond breaking


def required_ports(exprs: Sequence[Expr]) -> Ranges | None:
    """The destination ports a packet must have one of; None when the rule does not (plainly) ask."""
    register: int | None = None  # where the destination port was loaded, as long as it is untouched
    for expr in exprs:
        if not isinstance(expr, _TESTS) and not (isinstance(expr, Immediate) and expr.verdict is None):
            return None
        if isinstance(expr, Lookup) and expr.dreg is not None:
            return None  # a verdict map decides before the port is asked for
        if isinstance(expr, Payload):
            register = expr.dreg if (expr.base, expr.offset, expr.length) == (2, 2, 2) else None
        elif isinstance(expr, Cmp) and expr.sreg == register and expr.op == 0 and len(expr.data) == 2:
            port = int.from_bytes(expr.data)
            return ((port, port),)
        elif isinstance(expr, Range) and expr.sreg == register and expr.op == 0 and len(expr.low) == 2:
            return ((int.from_bytes(expr.low), int.from_bytes(expr.high)),)
        elif isinstance(expr, XtMatch):
            ports = _of_match(expr)
            if ports is not None:
                return ports
        elif isinstance(expr, Bitwise | Byteorder | Meta | Ct | Fib | Immediate):
            register = None
    return None


def _of_match(expr: XtMatch) -> Ranges | None:
    spec = expr.spec
    if isinstance(spec, xt.Ports) and not spec.invert_destination and spec.destination != (0, 65535):
        return normal([spec.destination])
    if isinstance(spec, xt.Multiport) and spec.which == 1 and not spec.invert:
        return normal([pair for pair in spec.ranges if pair[0] <= pair[1]])
    return None
