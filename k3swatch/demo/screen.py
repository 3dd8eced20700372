"""The demo's voice: headings, sentences, tables and facts on 92 columns; colour on a terminal only."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import TextIO

WIDTH = 92
GOOD, BAD, DIM, BOLD, COMMAND = "32", "31;1", "2", "1", "36"


class Screen:
    """Writes to `stream`. Everything that came from outside is printed with control characters escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def line(self, text: str = "") -> None:
        """One line, at once."""
        print(text, file=self._stream, flush=True)

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour, where there are any."""
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and text else text

    def heading(self, text: str) -> None:
        """What comes now."""
        self.line()
        self.line(self.paint(f"── {text} " + "─" * max(0, WIDTH - len(text) - 4), BOLD))

    def say(self, text: str) -> None:
        """Prose, wrapped."""
        for line in textwrap.wrap(text, WIDTH - 2):
            self.line(f"  {line}")

    def command(self, text: str) -> None:
        """What is typed, or done by somebody's program."""
        self.line(f"  {self.paint('$ ' + clip(text, WIDTH - 4), COMMAND)}")

    def table(self, head: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> None:
        """Aligned rows, each with whether it is as it should be."""
        widths = [max(len(row[n]) for row in [head, *(cells for cells, _ in rows)]) for n in range(len(head))]

        def aligned(cells: Sequence[str]) -> str:
            return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

        self.line("    " + self.paint(aligned(head), DIM))
        for cells, right in rows:
            self.line(f"  {self.mark(right)} {aligned(cells)}")

    def fact(self, source: str, text: str, right: bool = True) -> None:
        """What a source of truth holds (a journal entry, a metric, an alert), and whether it is as it should be."""
        width, safe = WIDTH - 17, printable(text)
        first, *rest = textwrap.wrap(safe, width, max_lines=5, placeholder=" …", break_on_hyphens=False)
        self.line(f"  {self.mark(right)} {self.paint(source.ljust(12), DIM)} {first}")
        for line in rest:
            self.line(" " * 17 + line)

    def note(self, text: str) -> None:
        """An aside, on one line."""
        self.line(f"    {self.paint(clip(text, WIDTH - 4), DIM)}")

    def mark(self, right: bool) -> str:
        """A tick or a cross."""
        return self.paint("✓", GOOD) if right else self.paint("✗", BAD)


def clip(text: str, width: int) -> str:
    """`text` in at most `width` columns."""
    return text if len(text) <= width else text[: width - 1] + "…"


def printable(text: str) -> str:
    """`text` on one line, without a character that a terminal would act upon."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
