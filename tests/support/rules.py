"""The samples of whole rules: text files written from a real kernel, iptables and nft, read by the unit tests.

A sample is the rule as it was typed, its NFTA_RULE_EXPRESSIONS (`(n)` stands for n zero bytes), how nft lists it,
how we write it where that differs, and what its xtables blobs say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import NamedTuple

from k3swatch.decode.message import NFPROTO
from k3swatch.decode.nft.expression import decode_expressions
from k3swatch.evaluate.text import comment_of, rule_text
from k3swatch.model.expr import Expr, Opaque, XtMatch, XtTarget
from k3swatch.model.xt import XtSpec

UNIT = Path(__file__).parents[1] / "unit"
IPTABLES_FILE = UNIT / "decode" / "xt" / "iptables_rules.txt"
NFT_FILE = UNIT / "evaluate" / "data" / "nft_rules.txt"
HEADER = (
    "# written by tests/netns/test_xt_blobs.py --update-golden; read the difference before you commit it\n\n"
)
ZEROS = re.compile("(?:00){6,}")


class Sample(NamedTuple):
    """One rule: family, as typed, its bytes, as nft lists it (without counter and comment)."""

    family: str
    rule: str
    raw: bytes
    nft: str

    @property
    def exprs(self) -> tuple[Expr, ...]:
        """The rule decoded."""
        return decode_expressions(self.raw, NFPROTO[self.family])


def pack(raw: bytes) -> str:
    """Hexadecimal, long runs of zeros counted."""
    aligned = "".join(f"{byte:02x}" for byte in raw)
    return ZEROS.sub(lambda run: f"({len(run[0]) // 2})" if run.start() % 2 == 0 else run[0], aligned)


def unpack(text: str) -> bytes:
    """Back to bytes."""
    return bytes.fromhex(re.sub(r"\((\d+)\)", lambda run: "00" * int(run[1]), text))


def spec_text(spec: XtSpec | None) -> str:
    """`Addrtype(source=0, destination=4)`: fields that are not their default, addresses and other bytes in hex."""
    if spec is None:
        return "None"
    shown = []
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.default is MISSING or value != field.default:
            shown.append(f"{field.name}={_plain(value)}")
    return f"{type(spec).__name__}({', '.join(shown)})"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_plain, value)) + ")"
    return repr(value)


def blobs(exprs: Sequence[Expr]) -> list[str]:
    """What each xtables blob of the rule says, and what the decoder could not read."""
    found = []
    for expr in exprs:
        if isinstance(expr, XtMatch | XtTarget):
            kind = "match" if isinstance(expr, XtMatch) else "target"
            found.append(f"{kind} {expr.name} {expr.revision}: {spec_text(expr.spec)}")
        elif isinstance(expr, Opaque):
            found.append(f"opaque {expr.kind}: {expr.why}")
    return found


def plain(listed: str) -> str:
    """A line of `nft -a list` without handle, counter and comment."""
    text = re.sub(r" # handle \d+$", "", listed.strip())
    text = re.sub(r"counter packets \d+ bytes \d+", "", text)
    text = re.sub(r'( |^)comment ".*?"', "", text)
    return " ".join(text.split())


def show(sample: Sample) -> str:
    """A sample as its block of the file."""
    text = rule_text(sample.exprs, sample.family)
    lines = [f"{sample.family}: {sample.rule}", f"  raw   {pack(sample.raw)}"]
    lines.append(f"  nft   {sample.nft}" if sample.nft else "  nft")
    if text != sample.nft:
        lines.append(f"  ours  {text}" if text else "  ours")
    comment = comment_of(sample.exprs)
    if comment is not None:
        lines.append(f"  said  {comment}")
    lines += [f"  {blob}" for blob in blobs(sample.exprs)]
    return "\n".join(lines) + "\n"


def write(samples: Sequence[Sample]) -> str:
    """The file for these samples."""
    return HEADER + "\n".join(map(show, samples))


def typed(file: Path) -> list[tuple[str, str]]:
    """Family and rule as typed, of every sample of the file."""
    blocks = file.read_text().removeprefix(HEADER).split("\n\n")
    return [
        (family, rule)
        for family, _, rule in (block.strip("\n").split("\n")[0].partition(": ") for block in blocks)
    ]


def read(file: Path) -> list[tuple[Sample, str]]:
    """Every sample of the file, and its block as it is there."""
    found = []
    for block in file.read_text().removeprefix(HEADER).split("\n\n"):
        head, raw, nft, *_ = block.strip("\n").split("\n")
        family, _, rule = head.partition(": ")
        sample = Sample(family, rule, unpack(raw.split()[1]), nft.removeprefix("  nft").strip())
        found.append((sample, block.rstrip("\n") + "\n"))
    return found
