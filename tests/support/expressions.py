"""The samples of nf_tables expressions: one text file, written from a real kernel, read by the unit tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from k3swatch.decode.attributes import walk
from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import decode_expression
from k3swatch.model.expr import Expr, Opaque, XtMatch, XtTarget

FILE = Path(__file__).parents[1] / "unit" / "decode" / "data" / "expressions.txt"
HEADER = "# family: rule as nft or iptables was told; each expression's bytes, and its value\n"


class Sample(NamedTuple):
    """One rule and its NFTA_RULE_EXPRESSIONS."""

    family: str
    rule: str
    raw: bytes


def value(expr: Expr) -> str:
    """The value in words; what an xt blob means is tested elsewhere."""
    if isinstance(expr, XtMatch | XtTarget):
        info = expr.info.rstrip(b"\0").hex()
        return f"{type(expr).__name__}(name={expr.name!r}, revision={expr.revision}, info={info})"
    if isinstance(expr, Opaque):
        return f"Opaque(kind={expr.kind!r}, why={expr.why!r})"
    return repr(expr)


def write(samples: list[Sample]) -> str:
    """The file for these samples."""
    blocks = []
    for sample in samples:
        lines = [f"{sample.family}: {sample.rule}"]
        for _, each in walk(sample.raw, "expressions"):
            lines += [f"  {each.hex()}", f"    {value(decode_expression(each, NFPROTO[sample.family]))}"]
        blocks.append("\n".join(lines) + "\n")
    return HEADER + "\n" + "\n".join(blocks)


def read() -> list[tuple[str, str, bytes, str]]:
    """Family, rule, bytes and expected value of every expression in the file."""
    found = []
    for block in FILE.read_text().split("\n\n")[1:]:
        head, *lines = block.strip("\n").split("\n")
        family, _, rule = head.partition(": ")
        found += [
            (family, rule, bytes.fromhex(raw.strip()), text.strip())
            for raw, text in zip(lines[::2], lines[1::2], strict=True)
        ]
    return found
