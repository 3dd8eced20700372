"""One look at rulesets of many sizes: the whole process `k3swatch check`, and the running daemon after a commit."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import latency
from bench.rulesets import Ruleset, rulesets
from bench.tools import K3SWATCH, Table, Tools, Usage, mb, median, ms, percentile, progress, times
from bench.watcher import Watcher
from k3swatch.demo.netns import Namespace, namespaces
from k3swatch.demo.services import Journald

PROGRAMS = {
    "k3swatch check": (*K3SWATCH, "check"),
    "nft -j list ruleset": ("nft", "-j", "list", "ruleset"),
    "nft list ruleset": ("nft", "list", "ruleset"),
    "iptables-nft-save": ("iptables-nft-save",),
}


@contextmanager
def host() -> Iterator[Namespace]:
    """A namespace with a few addresses and somebody who listens on 6443."""
    with namespaces("bench") as spaces:
        space = spaces["bench"]
        space.sysctl(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)
        space.ip(
            "link set lo up",
            "link add eth0 type veth peer name peer0",
            "addr add 192.168.1.233/24 dev eth0",
            "addr add fd00:1::233/64 dev eth0",
            "link set eth0 up",
            "link set peer0 up",
        )
        with space.inside():
            listener = socket.create_server(("::", 6443), family=socket.AF_INET6, dualstack_ipv6=True)
        with listener:
            yield space


def tables(tools: Tools, directory: Path, journald: Journald, quick: bool) -> list[Table]:
    """Both tables: the rulesets are loaded once."""
    cold = Table(
        "One look, nothing running: `k3swatch check` and what prints a ruleset today",
        "Whole processes from start to exit, output to /dev/null, run in turn; medians. Times are wall clock; "
        "in brackets how many times k3swatch's",
        ("rules", "", "time", "", "user + system", "max RSS"),
    )
    warm = Table(
        "The running daemon after a commit",
        "Its own measurement of one look, an empty chain being added or removed; then, commit to journal entry "
        "when portmap's rules for port 6443 come and go. Compare `nft -j list ruleset` above, which a poller runs",
        ("rules", "look: median", "max", "CPU", "to journal: median", "max"),
    )
    number = 1
    with host() as space, Watcher(space, directory / "look", journald) as watcher:
        for ruleset in rulesets(quick):
            progress(f"{ruleset.name}, {ruleset.rules:,} rules")
            ruleset.load(space)
            watcher.settled()
            if ruleset.cold:
                _cold(cold, tools, space, ruleset, quick)
            repeats = (2 if ruleset.cold else 1) if quick else (2 if ruleset.addresses else 5)
            _warm(warm, space, watcher, ruleset, range(number, number + repeats))
            number += repeats
    return [cold, warm]


def _cold(table: Table, tools: Tools, space: Namespace, ruleset: Ruleset, quick: bool) -> None:
    programs = PROGRAMS if ruleset.name.endswith("iptables mode") else dict(list(PROGRAMS.items())[:3])
    repeats = 3 if quick or ruleset.rules > 20_000 else 9
    runs: dict[str, list[Usage]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, argv in programs.items():
            runs[name].append(tools.timed(space, *argv))
    ours = median(run.wall for run in runs["k3swatch check"])
    for name, used in runs.items():
        first = name == "k3swatch check"
        wall = median(run.wall for run in used)
        table.add(
            f"{ruleset.rules:,} {ruleset.name}" if first else "",
            f"`{name}`",
            ms(wall),
            "" if first else f"({times(ours, wall)})",
            ms(median(run.cpu for run in used)),
            mb(max(run.rss for run in used)),
        )


def _warm(table: Table, space: Namespace, watcher: Watcher, ruleset: Ruleset, numbers: range) -> None:
    looks, cpu = [], []
    space.run("iptables-restore", "--noflush", stdin=latency.PORTMAP)
    space.run("nft", "add table ip bench")
    watcher.settled()
    with latency.kernel(space) as kernel:
        for verb in ("add", "delete") * len(numbers):
            busy = watcher.cpu()
            space.run("nft", f"{verb} chain ip bench nothing")
            time.sleep(0.005)
            looks.append(watcher.rested(next(reversed(kernel.at))))
            cpu.append(watcher.cpu() - busy)
    delays = latency.measure(space, watcher, numbers)
    told = delays.written
    table.add(
        f"{ruleset.rules:,} {ruleset.name}",
        ms(median(looks)),
        ms(max(looks)),
        ms(median(cpu)),
        ms(median(told)) if told else "never",
        ms(percentile(told, 1.0)) if not delays.missing else f"{delays.missing} not told",
    )
