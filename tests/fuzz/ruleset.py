"""What a ruleset is made of, in pieces that can be left out one by one; and the commands that load it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

# where iptables hangs its tables: <linux/netfilter_ipv4.h>, enum nf_ip_hook_priorities
PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
NAT_SRC = 100


@dataclass(frozen=True)
class Rule:
    """Matches and, last, a statement; each clause can be left out on its own, unless the rule is to be `kept`."""

    clauses: tuple[str, ...]
    kept: bool = False

    def __str__(self) -> str:
        return " ".join(self.clauses)


@dataclass(frozen=True)
class Chain:
    """A base chain when it has a `hook` (as nft writes it)."""

    name: str
    rules: tuple[Rule, ...] = ()
    type: str = "filter"
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    device: str = ""


@dataclass(frozen=True)
class NamedSet:
    """A named set or map: `head` is all of its declaration but the elements."""

    name: str
    head: str
    elements: tuple[str, ...]

    def __str__(self) -> str:
        word = "map" if " : " in self.head else "set"
        elements = f" elements = {{ {', '.join(self.elements)} }};" if self.elements else ""
        return f"\t{word} {self.name} {{ {self.head};{elements} }}"


@dataclass(frozen=True)
class Table:
    """A table and the tool that loads it: nft, iptables or ip6tables."""

    tool: str
    family: str
    name: str
    chains: tuple[Chain, ...]
    sets: tuple[NamedSet, ...] = ()
    dormant: bool = False

    def text(self) -> str:
        """In the tool's own words."""
        return self._nft() if self.tool == "nft" else self._iptables()

    def _nft(self) -> str:
        lines = [
            f"table {self.family} {self.name} {{",
            *["\tflags dormant"] * self.dormant,
            *map(str, self.sets),
        ]
        for chain in self.chains:
            lines.append(f"\tchain {chain.name} {{")
            if chain.hook:
                device = f" device {chain.device}" if chain.device else ""
                head = f"type {chain.type} hook {chain.hook}{device} priority {chain.priority}"
                lines.append(f"\t\t{head}; policy {chain.policy};")
            lines += [f"\t\t{rule}" for rule in chain.rules]
            lines.append("\t}")
        return "\n".join([*lines, "}"])

    def _iptables(self) -> str:
        heads = [
            f":{chain.name} {chain.policy.upper() if chain.hook else '-'} [0:0]" for chain in self.chains
        ]
        rules = [f"-A {chain.name} {rule}" for chain in self.chains for rule in chain.rules]
        return "\n".join([f"*{self.name}", *heads, *rules, "COMMIT"])


@dataclass(frozen=True)
class Ruleset:
    """Tables in the order they are made. `beyond`: what is in it that nobody can foretell, by name."""

    tables: tuple[Table, ...]
    beyond: frozenset[str] = frozenset()

    def loads(self) -> Iterator[tuple[str, str]]:
        """The tool and its input, one after the other; tables of one tool in a row are one transaction."""
        for tool, tables in groupby(self.tables, key=lambda table: table.tool):
            yield tool, "\n".join(table.text() for table in tables) + "\n"

    def script(self) -> str:
        """The same as a person would type it."""
        commands = {"nft": "nft -f -", "iptables": "iptables-restore", "ip6tables": "ip6tables-restore"}
        return "\n".join(f"{commands[tool]} <<'RULES'\n{text}RULES" for tool, text in self.loads())

    @property
    def rules(self) -> int:
        """How many."""
        return sum(len(chain.rules) for table in self.tables for chain in table.chains)


def ties(tables: tuple[Table, ...]) -> bool:
    """Whether two base chains have the same place in a hook: the kernel does not show which one runs first.

    All nat chains of a hook share one place there, and are ordered among themselves by their own priority.
    """
    nat: set[tuple[str, str, int]] = set()
    others: set[tuple[str, str, int]] = set()
    for table in tables:
        if table.dormant:
            continue
        for family in ("ip", "ip6") if table.family == "inet" else (table.family,):
            for chain in filter(lambda each: each.hook, table.chains):
                known = nat if chain.type == "nat" else others
                place = (family, chain.hook, chain.priority)
                if place in known:
                    return True
                known.add(place)
    places = {
        (family, hook, -100 if hook in ("prerouting", "output") else NAT_SRC) for family, hook, _ in nat
    }
    return bool(places & others)
