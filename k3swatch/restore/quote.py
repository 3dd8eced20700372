"""Words of a shell command: whatever a name holds, it stays one word, and it cannot move a cursor."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # RFC 1123 subdomain, as Kubernetes has it


def command(*words: str) -> str:
    """The words as one line for a shell."""
    return " ".join(map(quote, words))


def quote(word: str) -> str:
    r"""One word, quoted where it must be; what does not print is written as bash's $'...' has it.

    >>> quote("svc; reboot"), quote("a\x1b[2J'\n")
    ("'svc; reboot'", "$'a\\x1b[2J\\x27\\x0a'")
    """
    if word.isprintable():
        return shlex.quote(word)
    data = word.encode("utf-8", "surrogateescape")
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in data
    )
    return f"$'{plain}'"


def named(path: str | None) -> tuple[str, str] | None:
    """`namespace/name` in two; None when it cannot be the name of a Kubernetes object."""
    first, _, second = (path or "").partition("/")
    return (first, second) if _NAME.fullmatch(first) and _NAME.fullmatch(second) else None


def joined(lines: Iterable[str | None]) -> tuple[str, ...]:
    """The lines there are, each once."""
    return tuple(dict.fromkeys(line for line in lines if line))
