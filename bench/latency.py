"""From the commit of a diversion to the journal entry about it, over and over, beside `nft monitor`.

The clock starts when the kernel says that a generation is in force: a thread of ours with real-time priority gets
the same NEWGEN message as k3swatch. It stops when journald was handed the entry (the time the kernel stamps on the
datagram) and when journald wrote it. Every diversion is a chain of its own: the same one over and over would
be told as flapping once, which is what people want and what a benchmark does not.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.tools import Table, median, ms, percentile, progress
from bench.watcher import Watcher
from k3swatch.decode.generation import decode_newgen
from k3swatch.demo import kubernetes
from k3swatch.demo.lab import lab
from k3swatch.demo.netns import Namespace
from k3swatch.demo.services import Journald
from k3swatch.errors import SourceError
from k3swatch.sources.nftables import GenerationEvents

PORTMAP = """*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
COMMIT
"""


class Kernel:
    """When each generation came into force, as told by the kernel; independent of k3swatch."""

    def __init__(self, space: Namespace) -> None:
        with space.inside():
            self._events = GenerationEvents()
        self.at: dict[int, float] = {}  # CLOCK_REALTIME seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(PermissionError):  # a container may not allow it: then the clock starts a little later
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while not self._end.is_set():
            ready, _, _ = select.select([self._events], [], [], 0.2)
            now = time.time()
            for message in self._events.read() if ready else ():
                self.at[decode_newgen(message).id] = now

    def close(self) -> None:
        """Stop listening."""
        self._end.set()
        self._thread.join(2)
        self._events.close()


@contextmanager
def kernel(space: Namespace) -> Iterator[Kernel]:
    """A Kernel that listens until the block ends."""
    listening = Kernel(space)
    try:
        yield listening
    finally:
        listening.close()


@contextmanager
def nft_monitor(space: Namespace) -> Iterator[dict[int, float]]:
    """`nft monitor`: when its line about each generation could be read."""
    at: dict[int, float] = {}

    def read(stream: Iterator[bytes]) -> None:
        for line in stream:
            if line.startswith(b"# new generation "):
                at[int(line.split()[3])] = time.time()

    with space.inside():
        process = subprocess.Popen(("nft", "monitor"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    thread = threading.Thread(target=read, args=(process.stdout,), daemon=True)
    thread.start()
    try:
        time.sleep(0.3)
        yield at
    finally:
        process.kill()
        process.wait()
        thread.join(2)
        process.stdout.close()


@dataclass
class Delays:
    """Seconds after the commit, one for each that was told."""

    handed: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    monitor: list[float] = field(default_factory=list)
    missing: int = 0


def portmap(space: Namespace, number: int, on: bool) -> None:
    """The rules that the CNI plugin portmap makes for a pod with hostPort 6443, or their removal; one commit."""
    chain, pod = f"CNI-DN-{number:021x}", _pod(number)
    jump = (
        "CNI-HOSTPORT-DNAT -p tcp -m comment --comment "
        f'"dnat name: \\"cbr0\\" id: \\"{number:064x}\\"" -m multiport --destination-ports 6443 -j {chain}'
    )
    to_port = "-p tcp -m tcp --dport 6443 -j"
    lines = [f"-D {jump}", f"-F {chain}", f"-X {chain}"]
    if on:
        lines = [
            f":{chain} - [0:0]",
            f"-A {jump}",
            f"-A {chain} -s 10.42.0.0/24 {to_port} CNI-HOSTPORT-SETMARK",
            f"-A {chain} -s 127.0.0.1/32 {to_port} CNI-HOSTPORT-SETMARK",
            f"-A {chain} {to_port} DNAT --to-destination {pod}:6443",
        ]
    space.run("iptables-restore", "--noflush", stdin="\n".join(["*nat", *lines, "COMMIT", ""]))


def _pod(number: int) -> str:
    return f"10.42.{1 + (number >> 8)}.{number & 255}"  # none of them an address of the host's


def measure(
    space: Namespace,
    watcher: Watcher,
    numbers: Sequence[int],
    monitor: bool = False,
) -> Delays:
    """Divert the port and give it back once for each of `numbers` (never used before).

    The next commit waits until k3swatch has looked: what is undone before that, nobody could tell of.
    """
    committed: dict[tuple[str, str], int] = {}
    began = time.time()
    with kernel(space) as told, nft_monitor(space) if monitor else _nobody() as lines:
        for number in numbers:
            for on, change in ((True, "opened"), (False, "resolved")):
                known = len(told.at)
                portmap(space, number, on)
                time.sleep(random.uniform(0.03, 0.05))  # so that asking does not disturb what is measured
                watcher.rested(next(reversed(told.at)))
                if len(told.at) != known + 1:
                    raise SourceError(f"{len(told.at) - known} commits told by the kernel, want one")
                committed[f"{_pod(number)}:6443", change] = next(reversed(told.at))
        entries = _entries(watcher.journald, began, committed.keys())
        delays = Delays(missing=len(committed) - len(entries))
        for key, entry in entries.items():
            at = told.at[committed[key]]
            delays.handed.append(int(entry["_SOURCE_REALTIME_TIMESTAMP"]) / 1e6 - at)
            delays.written.append(int(entry["__REALTIME_TIMESTAMP"]) / 1e6 - at)
        delays.monitor = [
            lines[generation] - told.at[generation]
            for generation in committed.values()
            if generation in lines
        ]
    return delays


@contextmanager
def _nobody() -> Iterator[dict[int, float]]:
    yield {}


def _entries(
    journald: Journald, since: float, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], dict[str, str]]:
    """The journal entries about these (destination, change), as far as they come within two seconds."""
    keys = set(wanted)

    def read() -> dict[tuple[str, str], dict[str, str]]:
        entries = journald.entries("SYSLOG_IDENTIFIER=k3swatch", f"--since=@{since:.6f}")
        named = {(e.get("K3SWATCH_DESTINATION"), e.get("K3SWATCH_CHANGE")): e for e in entries}
        return {key: named[key] for key in keys & named.keys()}

    found = read()
    end = time.monotonic() + 2
    while len(found) < len(keys) and time.monotonic() < end:
        time.sleep(0.2)
        found = read()
    return found


def table(directory: Path, journald: Journald, quick: bool) -> Table:
    """The demo's host: two Services, and portmap's rules come and go."""
    pairs = 25 if quick else 150
    progress(f"commit to journal, {2 * pairs} commits")
    with lab(kubernetes.CLUSTER_IP) as made:
        kubernetes.kube_proxy(made.host)
        made.host.run("iptables-restore", "--noflush", stdin=PORTMAP)
        with Watcher(made.host, directory / "latency", journald) as watcher:
            watcher.settled()
            delays = measure(made.host, watcher, range(1, pairs + 1), monitor=True)
    result = Table(
        f"From commit to journal: {2 * pairs} commits, {delays.missing} not told",
        "The demo's rules; `iptables-restore --noflush` adds or removes what portmap makes for a pod with "
        "hostPort 6443. Time after the kernel's own NEWGEN message about the commit",
        ("", "median", "p99", "max"),
    )
    for name, values in (
        ("k3swatch: verdict, journal entry handed to journald", delays.handed),
        ("k3swatch: entry received by journald", delays.written),
        ("`nft monitor`: its line (says which rule, not what it does)", delays.monitor),
    ):
        result.add(name, *(ms(x) for x in (median(values), percentile(values, 0.99), max(values))))
    return result
