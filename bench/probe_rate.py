"""What the connection probe counts, and what that costs the daemon, at several connection rates.

    sudo .venv/bin/python bench/probe_rate.py

In the lab's network namespaces: a client connects to the host's port 7443 at a given rate for some seconds, first
delivered, then diverted to a pod, while this process does what the daemon does: waits for the ring buffer, reads it,
reads the counters once a second. `exact` compares the count with the connections the client says it made. `CPU` is
this process's share of one core. The last lines give the fastest the client can go, without and with the probe.
"""

from __future__ import annotations

import ipaddress
import resource
import select
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k3swatch.demo.lab import HOST, POD, Lab, lab
from k3swatch.demo.netns import Namespace
from k3swatch.live.flows import FlowWatch, open_flow_watch
from k3swatch.model.port import ProtectedPort

PORT, SECONDS = 7443, 3
RATES = (0, 100, 1000, 5000, 10000)


def cpu_seconds() -> float:
    """CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory(field: str) -> float:
    """Rss or Pss of this process in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


@contextmanager
def serving(hammer: Path, space: Namespace, address: str) -> Iterator[None]:
    """A server in a namespace, while the block lasts."""
    with space.inside():
        server = subprocess.Popen([hammer, "serve", address, str(PORT)], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield
    finally:
        server.kill()
        server.communicate()


def start(hammer: Path, space: Namespace, count: int, rate: int) -> subprocess.Popen[str]:
    """A client that connects `count` times."""
    with space.inside():
        argv: list[str | Path] = [hammer, "dial", HOST, str(PORT), str(count), str(rate)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def measure(watch: FlowWatch, hammer: Path, made: Lab, what: str, rate: int) -> None:
    """One line of the table."""
    before = sum(row.connections for row in watch.counts())
    lost_before = watch.lost()["ring"]
    events, ticks = 0, 0
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    spent = cpu_seconds()
    client = start(hammer, made.client, rate * SECONDS, rate) if rate else None
    while client.poll() is None if client else ticks < SECONDS * 10:
        # a poll that the ring buffer keeps waking must not read the counters more often
        ticks += 1
        if poll.poll(100):
            events += len(watch.read())
        if ticks % 10 == 0:
            watch.counts()
    spent = cpu_seconds() - spent
    connections, seconds = 0, float(SECONDS)
    if client:
        output = client.communicate()[0].split()
        connections, seconds = int(output[0]), float(output[2])
    events += len(watch.read())
    counted = sum(row.connections for row in watch.counts()) - before
    print(
        f"{what:10} {connections / seconds:8.0f}/s {connections:9} {counted:9} "
        f"{'yes' if counted == connections else 'NO':>6} {events:7} {watch.lost()['ring'] - lost_before:5} "
        f"{spent / seconds:7.2%}",
        flush=True,
    )


def fastest(hammer: Path, made: Lab) -> float:
    """Connections a second when the client does not wait."""
    output = start(hammer, made.client, 60000, 0).communicate()[0].split()
    return int(output[0]) / float(output[2])


def main() -> None:
    """Print the table."""
    addresses = frozenset(map(ipaddress.ip_address, ("127.0.0.1", HOST)))
    with tempfile.TemporaryDirectory() as directory, lab() as made:
        hammer = Path(directory) / "hammer"
        subprocess.run(["gcc", "-O2", "-o", hammer, Path(__file__).with_name("hammer.c")], check=True)
        with serving(hammer, made.host, "0.0.0.0"), serving(hammer, made.pod, POD):
            made.host.shell(
                "nft add table ip t; nft 'add chain ip t n {type nat hook prerouting priority -100;}'"
            )
            bare = [fastest(hammer, made) for _ in range(3)]
            with made.host.inside():
                watch = open_flow_watch()
                watch.protect([ProtectedPort("api", PORT)], addresses)
            print(f"attached: {watch.attach}")
            print("connections            rate      made   counted  exact  events  lost     CPU")
            for rate in RATES:
                measure(watch, hammer, made, "delivered", rate)
            made.host.shell(f"nft add rule ip t n ip daddr {HOST} tcp dport {PORT} dnat to {POD}")
            for rate in RATES[1:]:
                measure(watch, hammer, made, "diverted", rate)
            made.host.shell("nft flush chain ip t n")
            probed = [fastest(hammer, made) for _ in range(3)]
            print(f"memory of this process: RSS {memory('Rss'):.1f} MB, PSS {memory('Pss'):.1f} MB")
            print(f"fastest without the probe: {max(bare):.0f}/s, with it: {max(probed):.0f}/s (best of 3)")
            print(f"lost: {watch.lost()}")
            watch.close()


if __name__ == "__main__":
    main()
