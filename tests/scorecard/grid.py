"""Results as the tables of docs/scorecard.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from scorecard.others import TOOLS
from scorecard.run import Result

GROUPS = ("taken", "detected", "named exactly", "seen live", "named live", "look-alikes", "false alarms")

GROUP = "whose rules"


def grid(results: Sequence[Result]) -> list[list[str]]:
    """One row for each folder of cases, then the totals; a cell of k of n says both."""
    rows = [_row(group, [one for one in results if one.case.group == group]) for group in _groups(results)]
    return [[GROUP, *GROUPS], *rows, _row("all", results)]


def _groups(results: Iterable[Result]) -> list[str]:
    return sorted({one.case.group for one in results})


def _row(name: str, results: Sequence[Result]) -> list[str]:
    taken = [one for one in results if not one.case.fine]
    fine = [one for one in results if one.case.fine]
    diverted = [one for one in taken if one.case.diverts]
    return [
        name,
        str(len(taken)),
        _of(taken, lambda one: one.detected),
        _of(taken, lambda one: one.named),
        _of(taken, lambda one: one.live),
        _of(diverted, lambda one: one.live_named),
        str(len(fine)),
        str(sum(one.alarm or not one.detected for one in fine)),
    ]


def _of(results: Sequence[Result], good: Callable[[Result], bool]) -> str:
    number = sum(map(good, results))
    return str(number) if number == len(results) else f"{number} of {len(results)}"


def tools(results: Sequence[Result]) -> list[list[str]]:
    """How many of the taken ports each tool misses, and how many look-alikes it takes for one."""
    taken = [one for one in results if not one.case.fine]
    fine = [one for one in results if one.case.fine]
    rows = [["", f"misses, of {len(taken)}", f"false alarms, of {len(fine)}"]]
    rows.append(
        [
            "k3swatch check",
            str(sum(not one.detected for one in taken)),
            str(sum(one.alarm or not one.detected for one in fine)),
        ]
    )
    for tool in TOOLS:
        misses = sum(not one.tools.get(tool.name, False) for one in taken)
        rows.append([tool.typed, str(misses), str(sum(one.tools.get(tool.name, True) for one in fine))])
    return rows


def failures(results: Iterable[Result]) -> Iterable[Result]:
    """Those that are not as their file says."""
    return [one for one in results if not one.named or (one.case.fine and one.alarm)]


def unseen(results: Iterable[Result]) -> list[Result]:
    """Taken, and no connection told so: known from the rules alone."""
    return [one for one in results if not one.case.fine and not one.live]


def unlaid(results: Iterable[Result]) -> list[Result]:
    """Diverted, and no connection was laid to the rule."""
    return [
        one for one in results if not one.case.fine and one.case.diverts and one.live and not one.live_named
    ]


def restricted(results: Iterable[Result]) -> list[Result]:
    """Taken for some, by a block that is what firewalls are for: told by `check`, and no alarm."""
    return [one for one in results if not one.case.fine and not one.alarm]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; numbers to the right."""
    head, *body = rows
    rule = ["---", *("--:" for _ in head[1:])]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in [head, rule, *body]
    )


def plain(rows: Sequence[Sequence[str]]) -> str:
    """The same for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
