"""Small words shared by the texts of xtables matches and targets."""

from __future__ import annotations

ALL = 0xFFFFFFFF


def unless(invert: int) -> str:
    """`!= ` or nothing."""
    return "!= " if invert else ""


def span(ends: tuple[int, int]) -> str:
    """`6443` or `6400-6500`."""
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"
