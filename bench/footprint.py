"""Memory and start: after a start, and after 1,000 commits and all the connections of the run."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from bench import connections
from bench.tools import PYTHON, Table, Tools, mb, median, ms, progress
from bench.watcher import Watcher
from k3swatch.demo.lab import Lab, lab
from k3swatch.demo.services import Journald

COMMITS = 1_000


def tables(tools: Tools, directory: Path, journald: Journald, quick: bool) -> list[Table]:
    """Everything about connections, then memory and start times, from the same daemons."""
    seconds, gap = (1, 0.004) if quick else (3, 0.012)
    with lab() as made, connections.serving(tools, made.host, made.web) as servers:
        connections.prepare(made)
        throughput, watchers = connections.throughput(tools, made, servers[0], directory, journald, quick)
        with Watcher(made.host, directory / "footprint", journald, connections.PORT) as watcher:
            watcher.settled()
            fresh = watcher.memory()
            rates, tallies = connections.rates(tools, made, watcher, seconds)
            looks = commits(made, watcher, gap)
            watcher.settled()
            later = watcher.memory()
            children = len(watcher.children())
            status = watcher.status()
        seen = connections.conntrack_events(tools, made, seconds)
        bcc = tools.timed(made.host, PYTHON, "-c", "from bcc import BPF").rss
    ready = [watcher.start_seconds for watcher in watchers]
    loader = max(watcher.loader_rss for watcher in watchers)
    table = Table(
        "Memory and start",
        f"`/proc/PID/smaps_rollup`; probe attached by {status['probe']}; a start is from exec to READY=1",
        ("", "", ""),
    )
    table.add("after the start", f"{mb(fresh[0])} RSS", f"{mb(fresh[1])} PSS")
    sent = sum(tally.made for tally in tallies.values())
    table.add(
        f"after {COMMITS:,} commits ({looks:,} looks) and {sent:,} connections",
        f"{mb(later[0])} RSS",
        f"{mb(later[1])} PSS",
    )
    table.add("beside it: `python3 -c 'from bcc import BPF'`, nothing compiled yet", f"{mb(bcc)} RSS", "")
    table.add("child processes", str(children), "")
    table.add("the loader child (LLVM), gone before READY", f"{mb(loader)} RSS", "")
    table.add(
        f"start to READY=1, {len(ready)} starts", f"{ms(median(ready))} median", f"{ms(max(ready))} max"
    )
    return [rates, connections.counts(tallies, status["lost"], seen), throughput, table]


def commits(made: Lab, watcher: Watcher, gap: float) -> int:
    """Commit a thousand times, `gap` seconds apart, each an empty chain more or less; how often the daemon looked."""
    progress(f"{COMMITS:,} commits")
    before = watcher.evaluations()
    with made.host.inside():
        nft = subprocess.Popen(("nft", "-i"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert nft.stdin is not None
    for number in range(COMMITS):
        verb = "delete" if number % 2 else "add"
        nft.stdin.write(f"{verb} chain ip k3w nothing\n".encode())
        nft.stdin.flush()
        time.sleep(gap)
    nft.stdin.close()
    nft.wait()
    watcher.settled()
    return watcher.evaluations() - before
