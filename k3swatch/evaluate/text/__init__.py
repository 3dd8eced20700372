"""The text of a rule as nft would print it: expressions -> words for a person. Pure, bounded, never raises.

xtables matches and targets are said in nft's words where they have one, else as `xt ...`; what is not understood is
said to be: `opaque(name)`. Counters and comments are no part of it: `packets_of`, `comment_of`. The text may hold
hostile names: escape it where it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

from k3swatch.evaluate.text import compare, statements, xt
from k3swatch.evaluate.text.loads import load
from k3swatch.evaluate.text.writer import Members, Writer
from k3swatch.model.expr import Cmp, Counter, Expr, Lookup, Opaque, Range, XtMatch, XtTarget
from k3swatch.model.xt import Comment

LIMIT = 500
ELLIPSIS = "…"


def rule_text(exprs: Sequence[Expr], family: str, members: Members | None = None) -> str:
    """`tcp dport 6443 dnat to 10.42.0.244:6443`. `family` is the table's (ip, ip6, inet, ...), legacy ones too.

    `members` is asked for the elements of every set and verdict map the rule looks into; where it answers None (and
    when it is not given) the set's name is shown: `tcp dport @__set0`. What it raises passes through.
    """
    writer = Writer(family.removeprefix("legacy "), members)
    for expr in exprs:
        _write(expr, writer)
    text = writer.text()
    return text if len(text) <= LIMIT else text[: LIMIT - len(ELLIPSIS)] + ELLIPSIS


def comment_of(exprs: Sequence[Expr]) -> str | None:
    """The text of the first xt comment match; a native comment is with the rule itself. Hostile."""
    for expr in exprs:
        if isinstance(expr, XtMatch) and isinstance(expr.spec, Comment):
            return expr.spec.text
    return None


def packets_of(exprs: Sequence[Expr]) -> int | None:
    """How many packets the rule's counter has seen; None when it has none."""
    for expr in exprs:
        if isinstance(expr, Counter):
            return expr.packets
    return None


def _write(expr: Expr, writer: Writer) -> None:
    match expr:
        case Cmp():
            compare.cmp(expr, writer)
        case Range():
            compare.range_(expr, writer)
        case Lookup() if not expr.dreg:
            compare.lookup(expr, writer)
        case XtMatch() | XtTarget():
            xt.write(expr, writer)
        case Opaque():
            writer.say(f"opaque({expr.kind})")
        case _ if not load(expr, writer):
            text = statements.statement(expr, writer)
            writer.say(f"opaque({type(expr).__name__.lower()})" if text is None else text)
