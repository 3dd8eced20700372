"""Hostile text made harmless for a terminal or a journal MESSAGE: what does not print is shown as an escape.

Rule comments, chain names, process names and container labels are written by whoever can write them. Shown as they
are they could move the cursor, start a new log line, or turn the reading direction round.
"""

from __future__ import annotations

ELLIPSIS = "…"
SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str, limit: int = 1000) -> str:
    r"""`text` on one line, at most `limit` characters (limit >= 1), an ellipsis where it was cut.

    Controls, format characters (bidi overrides, zero widths), separators other than a space, unassigned and private
    characters become `\n`, `\x1b`, `\u202e`, `\U000e0001`; a surrogate that stands for an undecodable byte becomes
    that byte, `\xff`. A backslash stays: this is for reading, not for reading back.

    >>> escape("evil\x1b[2J\n\u202etxt")
    'evil\\x1b[2J\\n\\u202etxt'
    """
    if len(text) <= limit and text.isprintable():
        return text
    parts: list[str] = []
    room = limit
    for character in text[: limit + 1]:
        part = character if character.isprintable() else _visible(character)
        room -= len(part)
        parts.append(part)
        if room < 0:
            break
    else:
        return "".join(parts)
    while parts and room < len(ELLIPSIS):
        room += len(parts.pop())
    return "".join(parts) + ELLIPSIS


def _visible(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: os.fsdecode, errors="surrogateescape"
        return f"\\x{code - 0xDC00:02x}"
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return SHORT.get(character) or (f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}")
