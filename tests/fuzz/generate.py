"""A seed makes a case: a ruleset, and the connections to judge it by. The same seed makes the same case.

The switches in `switches` say what is left out because it is not foretold yet.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from support.dialer import Dial

from fuzz.native import Native
from fuzz.places import V4, V6, connections
from fuzz.ruleset import Ruleset, Table, ties
from fuzz.xt import Xtables

CONNECTIONS = (6, 9)  # a ruleset
# what a ruleset may have more of than others
THEMES = ("marks", "states", "sources", "jumps", "interfaces", "users")


@dataclass(frozen=True)
class Case:
    """One ruleset and who connects."""

    seed: str
    ruleset: Ruleset
    dials: tuple[Dial, ...]


def case(seed: str) -> Case:
    """The case of this seed."""
    rng = random.Random(seed)
    beyond: set[str] = set()
    wild = rng.choice(("chance", "environment", "dynamic")) if rng.random() < 0.2 else ""
    tied = rng.random() < 0.1
    theme = rng.choice(("", "", "", *THEMES))
    families = rng.choice(((V4,), (V4,), (V6,), (V4, V6)))
    parts: list[list[Table]] = []
    if rng.random() < 0.6:
        xtables = Xtables(rng, beyond, wild, theme)
        parts += [xtables.tables(places) for places in families if rng.random() < 0.9]
    if not parts or rng.random() < 0.7:
        native = Native(rng, beyond, wild, theme)
        pool = [n for n in range(-155, -55, 5) if n != -100] if not tied else [-100, -100, -90, -110]
        priorities = rng.sample(pool * 4 if tied else pool, 14)
        for name in ("one", "two")[: rng.choice((1, 1, 1, 2))]:
            family = "inet" if len(families) > 1 or rng.random() < 0.6 else families[0].ip
            parts.append([native.table(family, name, families, priorities)])
    rng.shuffle(parts)
    tables = tuple(table for part in parts for table in part)
    if ties(tables):
        beyond.add("ties")
    dials = []
    for places in families:
        dials += connections(rng, places, rng.randint(*CONNECTIONS) // len(families))
    return Case(seed, Ruleset(tables, frozenset(beyond)), tuple(dials))
