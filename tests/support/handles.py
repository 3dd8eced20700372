"""Which handle a rule really has, asked of the tools of other people: `nft -a list`, `iptables-legacy -S`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from support.cases import Cause

from k3swatch.demo.netns import Namespace

LEGACY = {"legacy ip": "iptables-legacy", "legacy ip6": "ip6tables-legacy"}


@dataclass
class Chain:
    """Its rules in their order: handle and line; and the line that hooks it."""

    rules: list[tuple[int, str]] = field(default_factory=list)
    policy: str = ""


class Handles:
    """What `nft -a list ruleset` prints now, by chain; and of legacy tables, the chains that `causes` name."""

    def __init__(self, space: Namespace, causes: Iterable[Cause] = ()) -> None:
        self.chains: dict[tuple[str, str, str], Chain] = {}
        self._read(space.run("nft", "-a", "list", "ruleset"))
        for cause in causes:
            if cause.family in LEGACY:
                self.chains[cause.place] = _legacy(space, cause)

    def _read(self, listing: str) -> None:
        table = ("", "")
        chain: Chain | None = None
        for line in listing.splitlines():
            words = line.split()
            depth = len(line) - len(line.lstrip("\t"))
            text, mark, handle = line.rpartition(" # handle ")
            if depth == 0 and words[:1] == ["table"]:
                table = (words[1], words[2])
            elif depth == 1 and words[:1] == ["chain"]:
                chain = self.chains.setdefault((*table, words[1]), Chain())
            elif depth == 1:
                chain = None  # a set, a map, the end of a chain
            elif depth == 2 and chain is not None:
                if words[0] == "type":
                    chain.policy = line.strip()
                elif mark:
                    chain.rules.append((int(handle), text.strip()))

    def of(self, cause: Cause) -> int | None:
        """The handle of the rule that a case names; None where handles are no matter. LookupError: no such rule."""
        if cause.family in ("socket", "bpf", "route", "sysctl"):
            return None
        chain = self.chains.get(cause.place)
        if chain is None:
            raise LookupError(f"nft lists no chain {' '.join(cause.place)}")
        if cause.text == "policy drop":
            if "policy drop" not in chain.policy:
                raise LookupError(f"nft lists {' '.join(cause.place)} as: {chain.policy}")
            return 0
        return _pick(cause, chain.rules)


def _legacy(space: Namespace, cause: Cause) -> Chain:
    """A legacy rule has no handle: its number, which is what `iptables -D` takes."""
    listing = space.run(LEGACY[cause.family], "-t", cause.table, "-S", cause.chain, check=False)
    lines = [line for line in listing.splitlines() if line.startswith("-A ")]
    return Chain(list(enumerate(lines, 1)))


def _pick(cause: Cause, rules: list[tuple[int, str]]) -> int:
    if cause.text.startswith("#"):
        number = int(cause.text[1:])
        if number > len(rules):
            raise LookupError(f"{cause.chain} has only {len(rules)} rules")
        return rules[number - 1][0]
    found = [handle for handle, line in rules if cause.text in line]
    if len(found) != 1:
        listed = "".join(f"\n    {line}" for _, line in rules)
        raise LookupError(f"{len(found)} rules of {cause.chain} say {cause.text!r}:{listed}")
    return found[0]
