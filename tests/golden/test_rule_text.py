"""Real rulesets in our words against `nft -a list ruleset` of the same (nft-a.txt, never rewritten by us)."""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.rules import plain

from k3swatch.evaluate.text import rule_text
from k3swatch.live.snapshot import SnapshotRuleset
from k3swatch.model.ruleset import SET_ANONYMOUS, ChainRef, Element
from k3swatch.sources.netlink import frames

DATA = Path(__file__).parent / "data" / "rulesets"
NAMES = sorted(path.name for path in DATA.iterdir())
DONE = 3

# nft's words for an xtables extension, and ours. Native rules must be equal to the letter.
TRANSLATED = {
    # nft translates one test of the blob and is silent about `! --ctstate RELATED,ESTABLISHED`
    "ct status dnat": "ct state != established,related,dnat",
    "meta mark set mark or 0x2000": "meta mark set meta mark | 0x00002000",
    "meta mark set mark or 0x4000": "meta mark set meta mark | 0x00004000",
    "meta mark set mark xor 0x4000": "meta mark set meta mark ^ 0x00004000",
    "meta random & 2147483647 < 1073741824": "xt statistic random probability 0.5",
    "xt match recent": 'xt recent "KUBE-SEP-A3QN7N5UBH2U4VQF" source seen in 10800s',
}


def messages(path: Path) -> list[str]:
    """The messages of a dump as a snapshot has them, without the DONE at its end."""
    raws = frames(path.read_bytes() if path.exists() else b"")
    kept = [raw for raw in raws if int.from_bytes(raw[4:6], sys.byteorder) != DONE]
    return [base64.b64encode(raw).decode() for raw in kept]


def load(name: str) -> SnapshotRuleset:
    files = {"tables": "tables", "chains": "chains", "rules": "rules", "sets": "sets", "elements": "setelems"}
    tables = {part: messages(DATA / name / f"raw.{file}.nl") for part, file in files.items()}
    host = {"name": name, "unreadable": []}
    return SnapshotRuleset(
        {"schema": 1, "kind": "k3swatch-snapshot", "legacy": [], "nf_tables": tables, "host": host}
    )


def anonymous(ruleset: SnapshotRuleset, ref: ChainRef) -> Callable[[str], Sequence[Element] | None]:
    """What nft shows in braces."""

    def members(name: str) -> Sequence[Element] | None:
        info = ruleset.set_info(ref.family, ref.table, name)
        return ruleset.elements(info, 16) if info.flags & SET_ANONYMOUS else None

    return members


def listed(name: str) -> dict[tuple[str, str, int], str]:
    """nft's line for every rule."""
    found, table = {}, ("", "")
    for line in (DATA / name / "nft-a.txt").read_text().splitlines():
        if heading := re.match(r"table (\S+) (\S+) \{", line):
            table = (heading[1], heading[2])
        elif line.startswith("\t\t") and " # handle " in line:
            found[*table, int(line.rsplit(" ", 1)[1])] = plain(line)
    return found


def as_we_say(line: str) -> str:
    """nft's line with what it says of xtables blobs in our words."""
    for theirs, ours in TRANSLATED.items():
        line = line.replace(theirs, ours)
    # a dependency that the following xt match implies: nft does not look into the match
    return re.sub(r"^meta l4proto (tcp|udp) (.*\b\1 [sd]port)", r"\2", line)


@pytest.mark.parametrize("name", NAMES)
def test_rules_read_as_nft_prints_them(name: str) -> None:
    ruleset, expected = load(name), listed(name)
    got = {
        (ref.family, ref.table, rule.handle): rule_text(
            ruleset.expressions(rule), ref.family, anonymous(ruleset, ref)
        )
        for ref in ruleset.chains()
        for rule in ruleset.rules(ref)
    }
    assert len(expected) >= 3
    # members of a map of data are not shown: what they are is known to the map alone
    expected = {key: re.sub(r" map \{[^}]*\}", " map @__map0", line) for key, line in expected.items()}
    native = "nftables" in name or name == "plain-nft"
    assert got == (expected if native else {key: as_we_say(line) for key, line in expected.items()})
