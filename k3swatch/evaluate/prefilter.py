"""Which rules need not be run: those about other destination ports, and those that treat later packets as the first.

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
    Socket,
    XtMatch,
    XtTarget,
)
from k3swatch.model.words import Family

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


_SADDR = {Family.IP: 12, Family.IP6: 8}  # where the source address begins in the network header
_INV_SRCIP = 8  # IPT_INV_SRCIP


def required_source(exprs: Sequence[Expr], family: Family) -> bytes | None:
    """The bytes that the source address of a packet must begin with; None when the rule does not (plainly) ask."""
    register: int | None = None
    for expr in exprs:
        if isinstance(expr, Payload):
            here = expr.base == 1 and expr.offset == _SADDR[family] and expr.length <= family.length
            register = expr.dreg if here else None
        elif isinstance(expr, Cmp):
            if expr.sreg == register and expr.op == 0:
                return expr.data
        elif isinstance(expr, XtMatch) and isinstance(expr.spec, xt.IpHeader):
            address, mask = expr.spec.source
            length = len(mask.rstrip(b"\0"))
            plain = not expr.spec.invert & _INV_SRCIP and mask[:length] == b"\xff" * length
            return address[:length] if plain and length else None
        elif not isinstance(expr, Meta | Counter):
            return None
        elif isinstance(expr, Meta):
            register = None
    return None


_TUPLE = frozenset({7, 8, 9, 10, 11, 12, 17, 19, 20, 21, 22})  # NFT_CT_*: protocols, addresses, ports, zone
_ALIKE = frozenset({0, 1, 3})  # NFT_CT_STATE, _DIRECTION, _MARK
_OWNER = (10, 11)  # NFT_META_SKUID, _SKGID: of a socket that only later packets have
_STATE, _STATUS, _EXPIRES, _DIRECTION = 1, 0x40, 0x80, 0x1000  # XT_CONNTRACK_*


def phased(exprs: Sequence[Expr], from_client: bool = True) -> bool:
    """Whether the rule looks at what differs between the packets that one end sends: what conntrack knows of the
    connection by now, whose socket has it, TCP's flags and numbers. What it counts, or a length, is a condition for the
    first already.
    """
    return any(map(_phased if from_client else _phased_answer, exprs))


def _phased(expr: Expr) -> bool:
    match expr:
        case Ct():
            return expr.key not in _TUPLE
        case Meta():
            return expr.key in _OWNER
        case Payload():
            return expr.base == 2 and expr.offset + expr.length > 4
        case Socket() | XtMatch(spec=xt.State() | xt.XtSocket()):
            return True
        case XtMatch(spec=xt.Conntrack(match=asked)):
            return bool(asked & (_STATE | _STATUS | _EXPIRES))
        case XtMatch(spec=xt.Ports(flags_mask=mask, invert_flags=inverted)):
            return bool(mask or inverted)
        case XtMatch(spec=xt.Mark(conntrack=of_connection)):
            return of_connection
        case XtTarget(spec=xt.SetMark(conntrack=True, op=op)):
            return op == 2  # restores what an earlier packet may have saved
    return False


def _phased_answer(expr: Expr) -> bool:
    """Answers are established all, and of the server's socket; the connection's mark is looked at apart."""
    match expr:
        case Ct():
            return expr.key not in _TUPLE and expr.key not in _ALIKE
        case XtMatch(spec=xt.Conntrack(match=asked)):
            return bool(asked & (_STATUS | _EXPIRES))
        case Payload() | XtMatch(spec=xt.Ports()):
            return _phased(expr)
    return False
