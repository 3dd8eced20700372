"""The command: try every case, print the grid, write docs/scorecard.md when all cases were tried."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

from support.cases import CASES
from support.labs import LABS

from scorecard import grid
from scorecard.page import page
from scorecard.run import results

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scorecard.md"


def main() -> int:
    """The exit status: 0 when every case is as its file says, else 1."""
    parser = argparse.ArgumentParser(
        prog="make scorecard", description="k3swatch, and others, on every case."
    )
    parser.add_argument("--labs", type=int, default=LABS, help=f"how many labs at once; default {LABS}")
    parser.add_argument("--why", action="store_true", help="say which tool missed what")
    parser.add_argument(
        "cases", nargs="*", metavar="GROUP/NAME", help="only cases that begin so; writes no page"
    )
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("scorecard: network namespaces need root", file=sys.stderr)
        return 1
    cases = [case for case in CASES if f"{case.group}/{case.name}".startswith(tuple(args.cases) or "")]
    begin = time.monotonic()
    found = []
    for one in results(cases, args.labs):
        found.append(one)
        if args.why:
            alarms = ", ".join(name for name, alarm in one.tools.items() if alarm)
            print(
                f"{one.case.group}/{one.case.name}: {'look-alike' if one.case.fine else 'taken'}; alarms: {alarms}"
            )
        if not one.named:
            print(f"\n{one.case.path}: {one.case.title}\n{one.report}\n", flush=True)
    seconds = time.monotonic() - begin
    print(grid.plain(grid.grid(found)), grid.plain(grid.tools(found)), f"Took {seconds:.0f} s.", sep="\n\n")
    if len(cases) == len(CASES):
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        machine = f"{os.cpu_count()} processors, Linux {platform.release()}"
        PAGE.write_text(page(found, when, machine, seconds))
    return 1 if list(grid.failures(found)) else 0


if __name__ == "__main__":
    sys.exit(main())
