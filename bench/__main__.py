"""The command: parse, measure, print, leave nothing behind."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

from bench import footprint, latency, look
from bench.tools import Table, build
from k3swatch.demo.services import Journald
from k3swatch.errors import K3swatchError

PARTS = ("look", "latency", "connections")


def main() -> int:
    """The exit status: 0, 1 when something could not be measured, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make bench", description="What k3swatch costs and how fast it is.")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no 50,000 rules: under a minute")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these of: {', '.join(PARTS)}")
    args = parser.parse_args()
    parts = args.parts or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    if os.geteuid() != 0:
        print("bench: network namespaces need root", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="k3w-") as directory:
            print(_machine(), flush=True)
            for table in _measure(Path(directory), parts, args.quick):
                print(table.text(), flush=True)
    except K3swatchError as error:
        print(f"bench: {error}", error.hint, sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted, everything is removed", file=sys.stderr)
        return 130
    print(f"Took {time.monotonic() - begin:.0f} s.")
    return 0


def _measure(directory: Path, parts: list[str] | tuple[str, ...], quick: bool) -> Iterator[Table]:
    tools = build(directory)
    with Journald(directory / "j") as journald:
        if "look" in parts:
            yield from look.tables(tools, directory, journald, quick)
        if "latency" in parts:
            yield latency.table(directory, journald, quick)
        if "connections" in parts:
            yield from footprint.tables(tools, directory, journald, quick)


def _machine() -> str:
    model = "unknown processor"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    load = os.getloadavg()[0]
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    python = f"Python {platform.python_version()}"
    return f"{when}, {os.cpu_count()} x {model}, Linux {platform.release()}, {python}, load {load:.1f} at the start\n"


def _stop(_number: int, _frame: FrameType | None) -> None:
    """Once: a second Ctrl-C must not stop the clearing up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
