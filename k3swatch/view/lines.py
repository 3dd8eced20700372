"""Small helpers for text that must fit a terminal: clip, wrap, list, colour."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from k3swatch.model.words import State

WIDTH = 80
_COLOURS = {
    State.DELIVERED: "32",
    State.UNSERVED: "33",
    State.UNKNOWN: "33;1",
    State.BLOCKED: "31;1",
    State.DIVERTED: "31;1",
}


def clip(text: str, width: int) -> str:
    """`text` in at most `width` columns, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def wrap(text: str, indent: str, hanging: str, limit: int, width: int = WIDTH) -> list[str]:
    """`text` in at most `limit` lines of `width`; words longer than a line are broken, never lost silently."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=hanging,
        max_lines=limit,
        placeholder=" …",
        break_on_hyphens=False,
    )


def some(items: Sequence[str], limit: int) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def coloured(text: str, state: State, colour: bool) -> str:
    """`text` in the colour of `state`, when colour is wanted."""
    return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m" if colour else text
