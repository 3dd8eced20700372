"""The command: a guest for each Debian release, each watcher in it, one table.

The guest has one processor that executes one instruction each nanosecond of its own time (QEMU's -icount): however
busy the machine is that emulates it, a connection takes as long as the instructions that it costs. So ratios can be
trusted, and times are those of no real machine. A measurement must be long: what the daemon itself does for connections
is bounded for each second, not for each connection, and in a short one it looks like much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vm.guest import Guest
from vm.image import Image

from bench.tools import HERE, REPO, Table, mb, median, progress
from bench.vm import inside

PROCESSORS = "-accel tcg,thread=single,tb-size=512 -icount shift=0 -smp 1"
SUITES = {"bookworm": "Debian 12", "trixie": "Debian 13"}
WATCHERS = (*(f"k3swatch {attach}" for attach in inside.ATTACHMENTS), *inside.PEERS)
SECONDS = 7200.0  # an hour and more of emulation is no error


def main() -> int:
    """The exit status: 1 when something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="make bench-vm", description="k3swatch beside its peers, in one guest."
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this release; may be repeated")
    parser.add_argument("--count", type=int, default=5000, help="connections in one measurement (5000)")
    parser.add_argument(
        "--repeats", type=int, default=1, help="measurements before, with and after a watcher (1)"
    )
    parser.add_argument("--rounds", type=int, default=2, help="how often each watcher is started (2)")
    parser.add_argument(
        "watchers", nargs="*", metavar="WATCHER", help=f"only these of: {', '.join(WATCHERS)}"
    )
    args = parser.parse_args()
    watchers = args.watchers or list(WATCHERS)
    if not set(watchers) <= set(WATCHERS):
        parser.error(f"watchers are {', '.join(WATCHERS)}")
    if os.geteuid() != 0:
        print("bench-vm: the images are built as root", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="k3w-") as directory:
        failed, package = False, build(Path(directory))
        for suite in args.suite or SUITES:
            guest = Guest(Image.of(suite, "bench"), Path(directory, suite), processors=PROCESSORS)
            results: dict[str, list[dict[str, Any]]] = {watcher: [] for watcher in watchers}
            try:
                kernel = prepare(guest, package)
                for number in range(args.rounds):
                    for watcher in watchers if number % 2 == 0 else reversed(watchers):
                        progress(f"{suite}: {watcher}, {number + 1} of {args.rounds}")
                        try:
                            result = measure(guest, watcher, args.count, args.repeats)
                        except AssertionError as error:
                            failed = True
                            progress(f"{watcher}: {error}")
                            continue
                        results[watcher].append(result)
                        seen = (f"{way} {median(relative(result, way)):.0%}" for way in inside.WAYS)
                        progress(
                            f"{watcher}: {', '.join(seen)}, itself {own(result):.1%}, {mb(result['rss'])}"
                        )
            finally:
                guest.close()
                if any(results.values()):  # also after Ctrl-C: a run takes long
                    print(table(f"{SUITES[suite]}, Linux {kernel}", args, results).text(), flush=True)
    return int(failed)


def build(directory: Path) -> Path:
    """The Debian package of this tree."""
    subprocess.run([REPO / "packaging/deb/build", directory], check=True, stdout=subprocess.DEVNULL)
    (made,) = directory.glob("*.deb")
    return made


def prepare(guest: Guest, package: Path) -> str:
    """Install the package and what measures; the kernel's release."""
    guest.put("/root", [package], package.parent)
    guest.sh(f"dpkg -i /root/{package.name}; systemctl stop k3swatch", timeout=SECONDS)
    guest.put("/opt", [HERE / "hammer.c", HERE / "vm" / "inside.py"], HERE)
    guest.sh(f"gcc -O2 -o {inside.HAMMER} /opt/hammer.c", timeout=SECONDS)
    return guest.sh("uname -r").strip()


def measure(guest: Guest, watcher: str, count: int, repeats: int) -> dict[str, Any]:
    """One session of inside.py."""
    argv = ("python3", "/opt/vm/inside.py", str(count), str(repeats), watcher)
    return dict(json.loads(guest.run(*argv, timeout=SECONDS).stdout))


def relative(result: dict[str, Any], way: str) -> list[float]:
    """Connections a second with the watcher, in those without it: each measurement with those before and after."""
    trios = zip(*(result[when][way] for when in ("before", "during", "after")), strict=True)
    return [(before + after) / 2 / during for before, during, after in trios]


def own(result: dict[str, Any]) -> float:
    """Its own processor time for each connection, in the time that one takes without it."""
    without = median(
        seconds for when in ("before", "after") for each in result[when].values() for seconds in each
    )
    return float(result["own"] / without)


def table(where: str, args: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> Table:
    """What all of them cost."""
    made = Table(
        f"Beside the peers: {where}",
        f"`make bench-vm`: {args.rounds} x {args.repeats} x {args.count} connections from a client's namespace, as "
        "fast as they go, through a port that nobody protects (7443), through 6443 to its owner, and through 6443 "
        "diverted to a pod. Connections a second in those without a watcher (100%) on one processor, which has the "
        "watcher's own work to do as well; median, and with several the lowest and highest",
        ("", *inside.WAYS, "its own processor time", "RSS", "PSS"),
    )
    for watcher, sessions in results.items():
        if not sessions:
            made.add(watcher, *["?"] * (len(made.columns) - 1))
            continue
        cells = []
        for way in inside.WAYS:
            values = [value for result in sessions for value in relative(result, way)]
            spread = f" ({min(values):.0%} to {max(values):.0%})" if len(values) > 1 else ""
            cells.append(f"{median(values):.0%}{spread}")
        sizes = (mb(median(result[name] for result in sessions)) for name in ("rss", "pss"))
        made.add(watcher, *cells, f"+{median(map(own, sessions)):.0%}", *sizes)
    return made


if __name__ == "__main__":
    sys.exit(main())
