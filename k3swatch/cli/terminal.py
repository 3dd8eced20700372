"""What is said on standard output and standard error, and the exit statuses."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from k3swatch.errors import SourceError

if TYPE_CHECKING:
    from k3swatch.model.words import State

OK, BAD, UNKNOWN, USAGE, NOPERM, CONFIG = 0, 1, 2, 64, 77, 78  # 64.. as in <sysexits.h>


def say(text: str) -> None:
    """Print an answer. SourceError when nobody can read it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        close_stdout()
        raise SourceError(f"standard output: {error.strerror}") from error


def close_stdout() -> None:
    """What is still buffered goes nowhere; else the interpreter tries it again at its end, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str, who: str = "k3swatch") -> None:
    """One line for standard error; nothing for an empty hint."""
    if text:
        print(f"{who}: {text}", file=sys.stderr)


def exit_status(state: State) -> int:
    """0 delivered or unserved, 1 diverted or blocked, 2 unknown: what node-problem-detector expects, too."""
    return {"diverted": BAD, "blocked": BAD, "unknown": UNKNOWN}.get(state, OK)


def colour() -> bool:
    """Whether a person looks at it, who has not asked for plain text."""
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )
