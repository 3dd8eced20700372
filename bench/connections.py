"""Ten thousand connections a second to the protected port: is each counted, and what does that cost?"""

from __future__ import annotations

import os
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
def serving(tools: Tools, *spaces: Namespace) -> Iterator[list[int]]:
    """`hammer serve` on the port in each of these namespaces; their process ids."""
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
        yield [server.pid for server in servers]
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


@dataclass(frozen=True)
class Dialled:
    """What `hammer dial` says, and the processor time it took, in seconds."""

    made: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Connections a second."""
        return self.made / self.seconds


def dial(tools: Tools, lab: Lab, count: int, rate: int) -> Dialled:
    """Connect `count` times from the client, `rate` times a second (0: as fast as it goes)."""
    argv = (tools.hammer, "dial", HOST, str(PORT), str(count), str(rate))
    with lab.client.inside():
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with process.stdout as stream:
            made, failed, seconds = stream.read().split()
    except BaseException:  # Ctrl-C
        process.kill()
        raise
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if int(failed):
        raise SourceError(f"hammer: {int(failed)} of {count} connections failed")
    return Dialled(int(made), float(seconds), usage.ru_utime + usage.ru_stime)


def run_time(pid: int) -> float:
    """Seconds a process has been on a processor so far, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def counted(watcher: Watcher) -> dict[str, int]:
    """Connections by outcome, as `k3swatch status` tells them."""
    found: dict[str, int] = {}
    for row in watcher.status()["connections"]:
        found[row["outcome"]] = found.get(row["outcome"], 0) + row["connections"]
    return found


@dataclass
class Tally:
    """What became of the connections of one run: what the client made, what k3swatch counted."""

    made: int = 0
    seen: int = 0
    dropped: int = (
        0  # by k3swatch's count: the first SYN was dropped; one that is repeated is not counted again
    )
    repeated: int = 0  # SYNs, by the client's kernel (TcpExt TCPSynRetrans)


def syns_repeated(space: Namespace) -> int:
    """How many SYNs this namespace has sent again so far."""
    with space.inside():
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("TCPSynRetrans")])


def rates(tools: Tools, lab: Lab, watcher: Watcher, seconds: int) -> tuple[Table, dict[str, Tally]]:
    """The daemon's share of one processor at each rate, `seconds` each, delivered and diverted."""
    table = Table(
        "Connections: the daemon's share of one processor",
        f"`hammer dial {HOST} {PORT}`, {seconds} s each; connections tracked, probe attached. "
        "The probe's own cost is in the table further down: it is paid by whoever sends the packets",
        ("connections a second", "delivered", "diverted"),
    )
    tallies = {"delivered": Tally(), "diverted": Tally()}
    share: dict[tuple[str, int], float] = {}
    for outcome, tally in tallies.items():
        divert(lab, outcome == "diverted")
        watcher.settled()
        before, repeated = counted(watcher), syns_repeated(lab.client)
        for rate in RATES:
            progress(f"{rate:,} connections a second, {outcome}")
            busy, begin = watcher.cpu(), time.monotonic()
            if rate:
                tally.made += dial(tools, lab, rate * seconds, rate).made
            else:
                time.sleep(seconds)
            share[outcome, rate] = (watcher.cpu() - busy) / (time.monotonic() - begin)
        after = counted(watcher)
        tally.seen = after.get(outcome, 0) - before.get(outcome, 0)
        tally.dropped = after["dropped"] - before["dropped"]
        tally.repeated = syns_repeated(lab.client) - repeated
    divert(lab, False)
    for rate in RATES:
        table.add(f"{rate:,}", *(f"{share[outcome, rate]:.2%}" for outcome in tallies))
    return table, tallies


def counts(tallies: dict[str, Tally], lost: dict[str, int], conntrack: tuple[int, int, float]) -> Table:
    """Whether each connection was counted; beside `conntrack -E`."""
    uncounted = sum(number for name, number in lost.items() if name != "connections_ring")
    table = Table(
        "Connections: each counted?",
        "Of the run above. A connection whose first SYN is dropped (by conntrack, when a port is used again too soon) "
        "counts as dropped, and as nothing else when the repeated SYN arrives; the client's kernel counts "
        f"the SYNs it repeats. k3swatch's own counters of loss say {uncounted}",
        ("", "made", "seen", "dropped", "SYNs repeated", "missing"),
    )
    for outcome, tally in tallies.items():
        missing = tally.made - tally.seen - (tally.dropped if outcome == "delivered" else 0)
        figures = (tally.made, tally.seen, tally.dropped, tally.repeated, missing)
        table.add(f"k3swatch: {outcome}", *(f"{figure:,}" for figure in figures))
    made, seen, share = conntrack
    name = f"`conntrack -E -e NEW -p tcp --dport {PORT}` at 10,000 a second ({share:.0%} CPU)"
    table.add(name, f"{made:,}", f"{seen:,}", "", "", f"{made - seen:,}")
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
        made = dial(tools, lab, 10_000 * seconds, 10_000).made
        share = run_time(process.pid) / (time.monotonic() - begin)
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
    tools: Tools, lab: Lab, server: int, directory: Path, journald: Journald, quick: bool
) -> tuple[Table, list[Watcher]]:
    """Connections as fast as they go, with and without k3swatch in turn; and the daemons that were started for it.

    `server` is the process that accepts them.
    """
    rounds, count = (2, 10_000) if quick else (6, 30_000)
    speeds: dict[bool, list[float]] = {False: [], True: []}
    costs: dict[bool, list[float]] = {False: [], True: []}
    watchers = []

    def measure(watched: bool) -> None:
        before = run_time(server)
        dialled = dial(tools, lab, count, 0)
        speeds[watched].append(dialled.rate)
        costs[watched].append((dialled.cpu + run_time(server) - before) / count * 1e6)

    dial(tools, lab, count, 0)
    for number in range(rounds):
        progress(f"with and without the probe, {number + 1} of {rounds}")
        measure(False)
        with Watcher(lab.host, directory / "throughput", journald, PORT) as watcher:
            watcher.settled()
            measure(True)
            watchers.append(watcher)
    table = Table(
        "Connections: what the probe costs each",
        f"{rounds} x {count:,} connections one after the other, as fast as they go, with and without k3swatch in turn. "
        "Processor time is that of client and server together, in whose name the kernel does the rest; the probe sees "
        "each packet in all three namespaces it passes",
        ("", "connections a second: median", "highest", "processor time each: median", "lowest"),
    )
    for name, watched in (("without k3swatch", False), ("with k3swatch", True)):
        speed, cost = speeds[watched], costs[watched]
        figures = (f"{median(cost):.1f} us", f"{min(cost):.1f} us")
        table.add(name, f"{median(speed):,.0f}", f"{max(speed):,.0f}", *figures)
    slower = median(b / a - 1 for a, b in zip(speeds[False], speeds[True], strict=True))
    dearer = median(b - a for a, b in zip(costs[False], costs[True], strict=True))
    least = min(costs[True]) - min(costs[False])
    table.add("difference (median of pairs)", f"{slower:+.1%}", "", f"{dearer:+.1f} us", f"{least:+.1f} us")
    return table, watchers
