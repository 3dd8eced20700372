"""Real rulesets decoded: raw netlink dumps (raw.*.nl) against what we say of them, and against what libnftnl says.

tests/golden/data/rulesets/NAME/ holds the dumps, `nft --debug=netlink list ruleset` of the same ruleset
(nft-debug-netlink.txt) and our words for it (decoded.txt, rewritten by --update-golden).
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
from support.expressions import value

from k3swatch.decode.element import elements_of
from k3swatch.decode.message import NFPROTO
from k3swatch.live.snapshot import SnapshotRuleset
from k3swatch.model.expr import Code, Expr, Immediate, Lookup, Opaque, Payload, XtMatch, XtTarget
from k3swatch.model.ruleset import ChainRef
from k3swatch.sources.netlink import frames

DATA = Path(__file__).parent / "data" / "rulesets"
NAMES = sorted(path.name for path in DATA.iterdir())
DONE = 3


def messages(path: Path) -> list[bytes]:
    """The messages of a dump, without the DONE at its end."""
    raw = path.read_bytes() if path.exists() else b""
    return [message for message in frames(raw) if int.from_bytes(message[4:6], sys.byteorder) != DONE]


def load(name: str) -> tuple[SnapshotRuleset, dict[str, list[bytes]]]:
    files = {"tables": "tables", "chains": "chains", "rules": "rules", "sets": "sets", "elements": "setelems"}
    parts = {part: messages(DATA / name / f"raw.{file}.nl") for part, file in files.items()}
    document: dict[str, Any] = {
        "schema": 1,
        "kind": "k3swatch-snapshot",
        "legacy": [],
        "nf_tables": {part: [base64.b64encode(raw).decode() for raw in raws] for part, raws in parts.items()},
        "host": {"name": name, "unreadable": []},
    }
    return SnapshotRuleset(document), parts


def describe(name: str) -> str:
    """Everything of a ruleset in words."""
    ruleset, parts = load(name)
    lines: list[str] = []
    for nfproto in sorted(NFPROTO.values()):
        for hook in range(6):
            for base in ruleset.base_chains(hook, nfproto):
                where = f"{base.ref.family} {base.ref.table} {base.ref.chain}"
                lines.append(
                    f"seen by family {nfproto} in hook {hook}: {where}: {base.type}, "
                    f"priority {base.priority}, policy {Code(base.policy).name}"
                )
    for ref in ruleset.chains():
        lines += ["", f"{ref.family} {ref.table} {ref.chain}"]
        for rule in ruleset.rules(ref):
            comment = f" # {rule.comment}" if rule.comment else ""
            only = f" [only {rule.daddr.hex('.', 1)}]" if rule.daddr else ""
            lines.append(f"  {rule.handle}{only}{comment}")
            lines += [f"    {value(expr)}" for expr in ruleset.expressions(rule)]
    for key in dict.fromkeys(map(elements_of, parts["elements"])):
        info = ruleset.set_info(*key)
        lines += ["", f"{info.family} {info.table} @{info.name}: flags {info.flags:#x}, fields {info.fields}"]
        for element in ruleset.elements(info, 1000) or ():
            ends = (
                "*"
                if element.catchall
                else " - ".join(dict.fromkeys([element.low.hex(), element.high.hex()]))
            )
            what = element.verdict or (element.data.hex() if element.data is not None else "")
            lines.append(f"  {ends}{' : ' if what else ''}{what}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_ruleset_decodes_to_what_it_did(name: str, update_golden: bool) -> None:
    path = DATA / name / "decoded.txt"
    said = describe(name)
    if update_golden:
        path.write_text(said)
    assert said == path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_real_ruleset_is_opaque(name: str) -> None:
    ruleset, _ = load(name)
    for ref in ruleset.chains():
        for rule in ruleset.rules(ref):
            found = ruleset.expressions(rule)
            assert not [expr for expr in found if isinstance(expr, Opaque)]
            assert not [expr for expr in found if isinstance(expr, XtMatch | XtTarget) and expr.spec is None]


HEADERS = {0: "link header", 1: "network header", 2: "transport header"}


def as_libnftnl_says(expr: Expr, said: str) -> str:
    """The line of nft --debug=netlink for what we decoded; for other kinds what it said, as far as the kind."""
    if isinstance(expr, Payload):
        place = f"{HEADERS[expr.base]} + {expr.offset} => reg {expr.dreg}"
        return f"payload load {expr.length}b @ {place}"
    if isinstance(expr, Lookup):
        dreg = "" if expr.dreg is None else f" dreg {expr.dreg}"
        return f"lookup reg {expr.sreg} set {expr.set}{dreg} {expr.flags:#x}"
    if isinstance(expr, Immediate) and expr.verdict:
        chain = f" -> {expr.verdict.chain}" if expr.verdict.chain else ""
        return f"immediate reg 0 {Code(expr.verdict.code).name.lower()}{chain}"
    if isinstance(expr, XtMatch | XtTarget):
        return f"{'match' if isinstance(expr, XtMatch) else 'target'} name {expr.name} rev {expr.revision}"
    kind = type(expr).__name__.removesuffix("Set").lower()
    return said if said.startswith(kind) else f"{kind} ..."


@pytest.mark.parametrize("name", NAMES)
def test_libnftnl_says_the_same(name: str) -> None:
    """An independent reader of the same messages: same rules, same expressions in the same order."""
    ruleset, _ = load(name)
    rules = {
        (ref, rule.handle): ruleset.expressions(rule)
        for ref in ruleset.chains()
        for rule in ruleset.rules(ref)
    }
    said: dict[tuple[ChainRef, int], list[str]] = {}
    lines: list[str] = []
    for line in (DATA / name / "nft-debug-netlink.txt").read_text().splitlines():
        words = line.split()
        if line.startswith("  ["):
            lines.append(line.strip("[] "))
        elif line.startswith(("table ", "#")):
            break  # what follows is the ruleset as nft prints it
        elif len(words) >= 4 and not line.startswith("\t") and words[3].isdecimal():
            lines = said.setdefault((ChainRef(*words[:3]), int(words[3])), [])
    assert said.keys() == rules.keys()
    for where, lines in said.items():
        pairs = zip(rules[where], lines, strict=True)
        assert [as_libnftnl_says(expr, line) for expr, line in pairs] == lines
