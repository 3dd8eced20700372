"""Running, timing, and putting figures in words."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k3swatch.demo.netns import Namespace, run
from k3swatch.errors import SourceError

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
# what an installed k3swatch runs on: Debian's interpreter, not the virtualenv, whose editable install costs 15 ms
PYTHON = f"{sys.base_prefix}/bin/python3"
K3SWATCH = (PYTHON, "-m", "k3swatch.cli")


@dataclass(frozen=True)
class Usage:
    """What one run of a program took: seconds, seconds of user and system time, bytes at most resident."""

    wall: float
    cpu: float
    rss: int


@dataclass(frozen=True)
class Tools:
    """The two C programs, compiled."""

    hammer: str
    once: str

    def timed(self, space: Namespace, *argv: str) -> Usage:
        """Run a program to its end inside a namespace. What it prints is thrown away."""
        with space.inside():
            done = subprocess.run((self.once, *argv), cwd=REPO, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SourceError(f"{' '.join(argv)}: exit {done.returncode}", done.stderr[-2000:])
        wall, cpu, kilobytes = done.stdout.split()
        return Usage(float(wall), float(cpu), int(kilobytes) << 10)


def build(directory: Path) -> Tools:
    """Compile hammer.c and once.c."""
    for name in ("hammer", "once"):
        run(("gcc", "-O2", "-o", str(directory / name), str(HERE / f"{name}.c")))
    return Tools(str(directory / "hammer"), str(directory / "once"))


@dataclass
class Table:
    """One part of the result. `how` is what was run, word for word where that fits."""

    title: str
    how: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """One more row."""
        self.rows.append(cells)

    def text(self) -> str:
        """As Markdown that also reads well in a terminal: words to the left, figures to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]

        def row(cells: Sequence[str]) -> str:
            first = cells[0].ljust(widths[0])
            rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
            return f"| {' | '.join((first, *rest))} |"

        ruler = "|".join(f"{'-' * (width + 1)}{':' if i else '-'}" for i, width in enumerate(widths))
        body = "\n".join((row(self.columns), f"|{ruler}|", *map(row, self.rows)))
        return f"### {self.title}\n\n{self.how}\n\n{body}\n"


def median(values: Iterable[float]) -> float:
    """The middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed (nearest rank; no interpolation between outliers)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ms(seconds: float) -> str:
    """Milliseconds, as many digits as mean something."""
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def mb(size: float) -> str:
    """Megabytes of 10^6 bytes."""
    return f"{size / 1e6:.1f} MB"


def times(ours: float, theirs: float) -> str:
    """Theirs measured in ours."""
    return f"{theirs / ours:.1f}x"


_BEGAN = time.monotonic()


def progress(text: str) -> None:
    """What is measured now, on stderr."""
    print(f"bench: {time.monotonic() - _BEGAN:4.0f} s  {text}", file=sys.stderr, flush=True)
