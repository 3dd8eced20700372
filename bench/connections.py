"""Ten thousand connections a second to the protected port: is each counted, and what does that cost?"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.tools import Table, Tools, median, progress
from bench.watcher import Watcher
from k3swatch.demo.lab import HOST, WEB, Lab
from k3swatch.demo.netns import Namespace
from k3swatch.demo.services import Journald
from k3swatch.errors import SourceError

PORT = 7443  # protected here, because the lab's own servers are on 6443
RATES = (0, 1_000, 5_000, 10_000)


@contextmanager
def serving(tools: Tools, *spaces: Namespace) -> Iterator[None]:
    """`hammer serve` on the port in each of these namespaces."""
    servers = []
    try:
        for space in spaces:
            with space.inside():
                argv = (tools.hammer, "serve", "0.0.0.0", str(PORT))
                servers.append(subprocess.Popen(argv, stdout=subprocess.PIPE))
        for server in servers:
            assert server.stdout is not None
            if server.stdout.readline() != b"ready\n":
                raise SourceError("hammer serve does not come up")
        yield
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def prepare(lab: Lab) -> None:
    """NAT is in force (so connections are tracked), no rule is about the port, and tables are large enough."""
    lab.host.shell(
        "nft 'table ip k3w { chain pre { type nat hook prerouting priority -100; }; "
        "chain post { type nat hook postrouting priority 100; }; }'"
    )


def divert(lab: Lab, on: bool) -> None:
    """Send the port to another pod, or no longer."""
    if on:
        lab.host.shell(f"nft add rule ip k3w pre tcp dport {PORT} dnat to {WEB}")
    else:
        lab.host.shell("nft flush chain ip k3w pre")


def dial(tools: Tools, lab: Lab, count: int, rate: int) -> tuple[int, float]:
    """Connect `count` times from the client; how many connections were made, and how many a second."""
    argv = (tools.hammer, "dial", HOST, str(PORT), str(count), str(rate))
    made, failed, seconds = lab.client.run(*argv).splitlines()[-1].split()
    if failed != "0":
        raise SourceError(f"hammer: {failed} of {count} connections failed")
    return int(made), int(made) / float(seconds)


def counted(watcher: Watcher) -> dict[str, int]:
    """Connections by outcome, as `k3swatch status` tells them."""
    found: dict[str, int] = {}
    for row in watcher.status()["connections"]:
        found[row["outcome"]] = found.get(row["outcome"], 0) + row["connections"]
    return found


@dataclass
class Load:
    """What was sent, and what k3swatch says of it."""

    made: dict[str, int]
    counted: dict[str, int]
    lost: dict[str, int]


def rates(tools: Tools, lab: Lab, watcher: Watcher, seconds: int) -> tuple[Table, Load]:
    """The daemon's share of one processor at each rate, `seconds` each, delivered and diverted."""
    table = Table(
        "Connections: the daemon's share of one processor",
        f"`hammer dial {HOST} {PORT}`, {seconds} s each; connections tracked, probe attached. "
        "The probe's own cost is in the table further down: it is paid by whoever sends the packets",
        ("connections a second", "delivered", "diverted"),
    )
    made = {"delivered": 0, "diverted": 0}
    before = counted(watcher)
    share: dict[tuple[str, int], float] = {}
    for outcome in made:
        divert(lab, outcome == "diverted")
        watcher.settled()
        for rate in RATES:
            progress(f"{rate:,} connections a second, {outcome}")
            busy, begin = watcher.cpu(), time.monotonic()
            if rate:
                made[outcome] += dial(tools, lab, rate * seconds, rate)[0]
            else:
                time.sleep(seconds)
            share[outcome, rate] = (watcher.cpu() - busy) / (time.monotonic() - begin)
    divert(lab, False)
    for rate in RATES:
        table.add(f"{rate:,}", *(f"{share[outcome, rate]:.2%}" for outcome in made))
    after = counted(watcher)
    found = {outcome: after.get(outcome, 0) - before.get(outcome, 0) for outcome in made}
    return table, Load(made, found, watcher.status()["lost"])


def counts(load: Load, conntrack: tuple[int, int, float]) -> Table:
    """Whether each connection was counted; beside `conntrack -E`."""
    lost = sum(load.lost[name] for name in load.lost if name != "connections_ring")
    table = Table(
        "Connections: each counted?",
        f"Of the run above; k3swatch's own counters of loss say {lost}",
        ("", "made", "seen", "share of them"),
    )
    for outcome, made in load.made.items():
        seen = load.counted[outcome]
        table.add(f"k3swatch: {outcome}", f"{made:,}", f"{seen:,}", f"{seen / made:.3%}")
    made, seen, share = conntrack
    name = f"`conntrack -E -e NEW -p tcp --dport {PORT}` at 10,000 a second ({share:.0%} CPU)"
    table.add(name, f"{made:,}", f"{seen:,}", f"{seen / made:.3%}")
    return table


def conntrack_events(tools: Tools, lab: Lab, seconds: int) -> tuple[int, int, float]:
    """What people use to see translated connections: (made, lines printed, share of a processor), at 10,000/s."""
    progress("conntrack -E at 10,000 connections a second")
    divert(lab, True)
    argv = ("conntrack", "-E", "-e", "NEW", "-p", "tcp", "--dport", str(PORT))
    with lab.host.inside(), open("/dev/null", "w") as nowhere:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=nowhere)
    try:
        time.sleep(0.3)
        counter = subprocess.Popen(
            ("wc", "-l"), stdin=process.stdout, stdout=subprocess.PIPE, text=True
        )  # not this Python: it would be what is too slow
        begin = time.monotonic()
        made, _ = dial(tools, lab, 10_000 * seconds, 10_000)
        stat = Path(f"/proc/{process.pid}/schedstat").read_text().split()
        share = int(stat[0]) / 1e9 / (time.monotonic() - begin)
        time.sleep(0.5)
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    lines = int(counter.communicate()[0])
    divert(lab, False)
    return made, lines, share


def throughput(
    tools: Tools, lab: Lab, directory: Path, journald: Journald, quick: bool
) -> tuple[Table, list[float]]:
    """Connections a second as fast as they go, with and without k3swatch, in turn; and the times to start."""
    rounds, count = (2, 10_000) if quick else (6, 30_000)
    without, attached, starts = [], [], []
    loader = 0
    dial(tools, lab, count, 0)
    for number in range(rounds):
        progress(f"with and without the probe, {number + 1} of {rounds}")
        without.append(dial(tools, lab, count, 0)[1])
        with Watcher(lab.host, directory / "throughput", journald, PORT) as watcher:
            watcher.settled()
            attached.append(dial(tools, lab, count, 0)[1])
            starts.append(watcher.start_seconds)
            loader = max(loader, watcher.loader_rss)
    table = Table(
        "Connections: what the probe costs each",
        f"{rounds} x {count:,} connections one after the other, as fast as they go, with and without k3swatch in turn",
        ("", "connections a second, median", "lowest", "highest", "microseconds each"),
    )
    for name, values in (("without k3swatch", without), ("with k3swatch", attached)):
        table.add(
            name,
            *(f"{x:,.0f}" for x in (median(values), min(values), max(values))),
            f"{1e6 / median(values):.1f}",
        )
    pairs = [b / a - 1 for a, b in zip(without, attached, strict=True)]
    cost = 1e6 / median(attached) - 1e6 / median(without)
    table.add(
        "difference", f"{median(pairs):+.1%}", f"{min(pairs):+.1%}", f"{max(pairs):+.1%}", f"{cost:+.1f}"
    )
    return table, [*starts, float(loader)]
