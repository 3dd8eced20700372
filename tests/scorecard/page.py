"""docs/scorecard.md: the tables, and in words what they do not show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from scorecard import grid
from scorecard.run import Result

PAGE = Path(__file__).with_name("page.md")


def page(results: Sequence[Result], when: str, machine: str, seconds: float) -> str:
    """The whole file."""
    failed = [f"* `{one.case.group}/{one.case.name}`: {one.case.title}" for one in grid.failures(results)]
    notes = "\nNot as their files say:\n\n" + "\n".join(failed) + "\n" if failed else ""
    text = PAGE.read_text().format(
        when=when,
        machine=machine,
        seconds=seconds,
        taken=sum(not one.case.fine for one in results),
        fine=sum(one.case.fine for one in results),
        grid=grid.markdown(grid.grid(results)),
        tools=grid.markdown(grid.tools(results)),
        unseen=_names(grid.unseen(results)),
        unlaid=_names(grid.unlaid(results)),
        restricted=_names(grid.restricted(results)),
    )
    return text + notes


def _names(results: Iterable[Result]) -> str:
    return ", ".join(f"`{one.case.group}/{one.case.name}`" for one in results) + "." if results else "none."
