"""The command line: the only room that prints and exits.

Exit status: 0 delivered or unserved, 1 diverted or blocked (or `run` could not start), 2 unknown, 64 usage,
77 not permitted, 78 bad configuration; 130 on Ctrl-C. Errors go to stderr: one line, then a hint. A bug, or a disk
that is full, is `unknown`: Python's own status for it, 1, would say that the port is diverted.
Everything but argparse is imported by the command that needs it, so that `check` starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from k3swatch.cli.parser import parser
from k3swatch.cli.terminal import BAD, CONFIG, NOPERM, OK, UNKNOWN, USAGE, close_stdout, complain, exit_status
from k3swatch.errors import ConfigError, K3swatchError, NotPermitted, UsageError

__all__ = ["BAD", "CONFIG", "NOPERM", "OK", "UNKNOWN", "USAGE", "entry", "exit_status", "main", "parser"]


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed by who started us
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        args = parser().parse_args(argv)
        status: int = args.command(args)
        print(end="", flush=True)
    except UsageError as error:
        complain(str(error))
        complain(error.hint, "hint")
        return USAGE
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
        complain(error.hint, "hint")
        return CONFIG
    except NotPermitted as error:
        complain(str(error))
        complain(error.hint or "run as root, or with CAP_NET_ADMIN", "hint")
        return NOPERM
    except K3swatchError as error:
        complain(str(error))
        complain(error.hint, "hint")
        return BAD if "run" in argv[:1] else UNKNOWN
    except BrokenPipeError:
        close_stdout()
        return 128 + 13  # as if SIGPIPE had ended us
    except KeyboardInterrupt:
        return 128 + 2
    except Exception:  # noqa: BLE001  see above: it must not end with 1
        _trace()
        complain(
            "this is a bug in k3swatch, not an answer: please report the lines above, with `k3swatch snapshot -o FILE`"
        )
        return BAD if "run" in argv[:1] else UNKNOWN
    return status


def _trace() -> None:
    """The traceback; what it quotes may be anybody's text."""
    import traceback

    from k3swatch.view.escape import escape

    for line in traceback.format_exc().splitlines():
        print(escape(line), file=sys.stderr)
