"""Text from the kernel, made safe for one line of a log: bounded, no control characters, always encodable. Pure."""

from __future__ import annotations


def plain(text: str, limit: int = 200) -> str:
    """`text` on one line of at most `limit` characters; what is not printable is written as `\\x1b`, `\\u202e`, ...

    A rule's comment, a chain's or a process's name may hold anything: line ends that forge entries, terminal
    sequences, bytes that are no UTF-8.
    """
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    if cut.isprintable():
        return cut
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)
