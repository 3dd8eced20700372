"""The command behind `make fuzz-kernel`: cases without end, a line of progress, a file for every disagreement."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from fuzz.campaign import RATE, Tally, campaign
from fuzz.mutants import MUTANTS, noticed
from fuzz.rig import Rig
from k3swatch.demo.lab import wired
from k3swatch.errors import K3swatchError

CASES = Path(__file__).resolve().parents[1] / "netns" / "cases" / "found"


def main() -> int:
    """The exit status: 0, 1 when something disagreed or could not be run, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make fuzz-kernel", description=__doc__)
    parser.add_argument("-n", "--connections", type=int, default=10_000, help="stop after so many")
    parser.add_argument("--seed", default=f"{int(time.time())}-", help="what every case's seed begins with")
    parser.add_argument("--cases", type=Path, default=CASES, help="where case files go")
    parser.add_argument("--mutants", action="store_true", help="is every mistake in `mutants` noticed?")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("fuzz-kernel: network namespaces need root", file=sys.stderr)
        return 1
    if args.mutants:
        return _mutants(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin, tally, status = time.monotonic(), Tally(), 0
    print(f"seeds {args.seed}0, {args.seed}1, ...", flush=True)
    try:
        with closing(campaign(_seeds(args.seed), shrinking=True)) as running:
            for some in running:
                tally.add(some)
                _tell(args, some)
                _progress(tally, args.connections, time.monotonic() - begin)
                if tally.connections >= args.connections:
                    break
    except K3swatchError as error:
        print(f"\nfuzz-kernel: {error}", error.hint, sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        status = 130
    print(f"\n{tally.text()}\nin {time.monotonic() - begin:.0f} s")
    if tally.rate > RATE:
        print(f"maybe must stay below {RATE:.0%}")
    return status or int(bool(tally.disagreements) or tally.rate > RATE)


def _mutants(args: argparse.Namespace) -> int:
    """Break the evaluator in every way, and see whether that is noticed."""
    alive = dict.fromkeys(MUTANTS)
    with wired() as spaces, closing(Rig(spaces)) as rig:
        print(f"{'mistake':<40} rulesets connections  noticed by")
        seeds = islice(_seeds(args.seed), args.connections // 8)
        for name, rulesets, connections, complaint in noticed(rig, MUTANTS, seeds):
            alive.pop(name)
            print(f"{name:<40} {rulesets:>8} {connections:>11}  {complaint[:70]}", flush=True)
    for name in alive:
        print(f"{name:<40} not noticed")
    return int(bool(alive))


def _seeds(begin: str) -> Iterator[str]:
    number = 0
    while True:
        yield f"{begin}{number}"
        number += 1


def _tell(args: argparse.Namespace, some: Tally) -> None:
    """Write down what disagreed, and say where."""
    for text, file in some.disagreements:
        print(f"\n{text}")
        if file:
            args.cases.mkdir(parents=True, exist_ok=True)
            seed = text.partition(":")[0].removeprefix("seed ")
            path = args.cases / f"found-{seed}.case"
            path.write_text(file)
            print(f"kept as {path}\n\n{file}", flush=True)


def _progress(tally: Tally, wanted: int, seconds: float) -> None:
    rate = tally.connections / max(seconds, 0.001)
    line = (
        f"{tally.connections:,} of {wanted:,} connections, {tally.rulesets:,} rulesets, {rate:.0f}/s, "
        f"maybe {tally.rate:.1%}, {len(tally.disagreements)} disagreements"
    )
    terminal = sys.stdout.isatty()
    print(f"\r{line:<100}" if terminal else line, end="" if terminal else "\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
