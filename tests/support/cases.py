"""Case files (netns/cases/README): a ruleset, who connects, who answers, what must be said, which rule decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "netns" / "cases"


@dataclass(frozen=True)
class Cause:
    """The indented lines: what decides (`by`), for whom (`if`), and whether it may be doubted (`unsure`).

    `text` is a part of the rule's line in `nft -a list`, or `#2`: the second rule of its chain.
    """

    family: str = ""
    table: str = ""
    chain: str = ""
    text: str = ""
    conditions: tuple[str, ...] = ()
    unsure: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        """Family, table and chain, as in the JSON."""
        return self.family, self.table, self.chain


@dataclass(frozen=True)
class Row:
    """One connection: who dials what, who answers, what `check` says (alternatives separated by `|`).

    `diverted` is unconditional and certain, `diverted?` is conditional or uncertain, `diverted*` is either.
    """

    start: str
    address: str
    answers: str
    state: str
    mechanism: str = ""
    destination: str = ""
    causes: tuple[Cause, ...] = ()

    @property
    def states(self) -> list[str]:
        """Every state that may be said, without its mark."""
        return [word.rstrip("*?") for word in self.state.split("|")]

    @property
    def fine(self) -> bool:
        """Nobody's hijack: nothing may be said, or only whom a firewall keeps out."""
        return "delivered" in self.states


@dataclass(frozen=True)
class Case:
    """One file. `group` is the folder it lies in: whose rules these are."""

    path: Path
    script: str
    rows: tuple[Row, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def group(self) -> str:
        return self.path.parent.name

    @property
    def title(self) -> str:
        """Its first comment."""
        return self.script.partition("\n")[0].removeprefix("#").strip()

    @property
    def fine(self) -> bool:
        """A look-alike: every connection is delivered."""
        return all(row.fine for row in self.rows)

    @property
    def diverts(self) -> bool:
        """Some connection is sent elsewhere: where it went says which rule did it, as no drop does."""
        return any("diverted" in row.states for row in self.rows)

    @cached_property
    def commands(self) -> str:
        """The script without its comments."""
        return "\n".join(line for line in self.script.splitlines() if not line.startswith("#"))


def read(path: Path) -> Case:
    """A case file. ValueError says which line cannot be meant."""
    script, _, table = path.read_text().partition("\n---\n")
    return Case(path, script, tuple(_rows(path, table)))


def _rows(path: Path, table: str) -> Iterator[Row]:
    """Indented lines tell about all rows since the last indented line."""
    rows: list[Row] = []
    causes: list[Cause] = []
    for line in filter(str.strip, table.splitlines()):
        if line[0].isspace():
            _cause(path, line.strip(), causes)
            continue
        if causes:
            yield from _with(rows, causes)
            rows, causes = [], []
        words = line.split()
        if not 4 <= len(words) <= 6:
            raise ValueError(f"{path.name}: {line!r}: 4 to 6 words")
        start, address, answers, state, mechanism, destination = [*words, "", ""][:6]
        rows.append(Row(start, address, answers, state, mechanism, destination))
    yield from _with(rows, causes)


def _with(rows: Iterable[Row], causes: list[Cause]) -> Iterator[Row]:
    for row in rows:
        yield row if row.state == "delivered" else Row(*_words(row), tuple(causes))


def _words(row: Row) -> tuple[str, str, str, str, str, str]:
    return row.start, row.address, row.answers, row.state, row.mechanism, row.destination


def _cause(path: Path, line: str, causes: list[Cause]) -> None:
    """One indented line; `if` and `unsure` belong to the `by` above them, if there is one."""
    word, _, rest = line.partition(" ")
    if word == "by":
        place, colon, text = rest.partition(": ")
        if not colon or len(place.split()) < 3:
            raise ValueError(f"{path.name}: {line!r}: by FAMILY TABLE CHAIN: TEXT")
        *family, table, chain = place.split()
        causes.append(Cause(" ".join(family), table, chain, text.strip()))
        return
    last = causes.pop() if causes else Cause()
    if word == "if":
        conditions = (*last.conditions, rest.strip())
        causes.append(Cause(*last.place, last.text, conditions, last.unsure))
    elif line == "unsure":
        causes.append(Cause(*last.place, last.text, last.conditions, True))
    else:
        raise ValueError(f"{path.name}: {line!r}: by, if or unsure")


CASES = [read(path) for path in sorted(HERE.rglob("*.case"))]
