"""Patterns that operators write, matched in bounded time. Pure."""

from __future__ import annotations


def glob(pattern: str, text: str) -> bool:
    """Whether `pattern` (`*` any run, `?` any one character, everything else itself) matches all of `text`.

    Not fnmatch: that makes a regular expression, and `text` may be a rule's comment. At most len(pattern) *
    len(text) steps.
    """
    p = t = 0
    star, mark = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, mark = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            p, t = p + 1, t + 1
        elif star >= 0:
            mark += 1
            p, t = star + 1, mark
        else:
            return False
    return all(character == "*" for character in pattern[p:])
