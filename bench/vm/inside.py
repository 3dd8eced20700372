"""Runs in the guest: connections through a port that nobody protects and through 6443, with each watcher in turn.

A client and a pod in namespaces beside the guest's own, which is the host. `hammer` serves in the host and in the pod
and dials from the client. What a connection costs is measured without a watcher, with it, and without it again; printed
is one line of JSON for each of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from k3swatch.demo.netns import Namespace, namespaces, run

HAMMER = "/tmp/hammer"
OUTPUT = Path("/run/watcher")  # what a watcher prints: in memory, as nothing reads it
BATCH = 250
WARM = 250  # connections before it counts: the incident is told, and is news no more
PLAIN, DIVERTED, POD = "192.0.2.1", "192.0.2.2", "10.42.0.9"
WAYS = {"other port": (PLAIN, 7443), "delivered": (PLAIN, 6443), "diverted": (DIVERTED, 6443)}
RULES = f"""
table ip bench {{
    chain pre {{
        type nat hook prerouting priority -100;
        ip daddr {DIVERTED} tcp dport 6443 dnat to {POD};
    }}
    chain post {{
        type nat hook postrouting priority 100;
    }}
}}
"""
DROP_IN = Path("/etc/systemd/system/k3swatch.service.d/bench.conf")
ATTACHMENTS = {  # what the unit leaves out, see docs/adr/0009
    "tracepoint": "",
    "kprobe": "SystemCallFilter=perf_event_open\n",
    "fentry": "AmbientCapabilities=CAP_SYS_ADMIN\nCapabilityBoundingSet=CAP_SYS_ADMIN\n",
}
PEERS = {
    "tcptracer": ["tcptracer-bpfcc"],
    "tcpconnect": ["tcpconnect-bpfcc"],
    "bpftrace, printing": [
        "bpftrace",
        "-B",
        "line",
        "-e",
        'kprobe:nf_nat_setup_info { printf("%d %s\\n", pid, comm); }',
    ],
    "bpftrace, counting": ["bpftrace", "-e", "kprobe:nf_nat_setup_info { @[comm] = count(); }"],
    "conntrack -E": ["conntrack", "-E", "-e", "NEW", "-p", "tcp"],
}


@contextmanager
def around() -> Iterator[Namespace]:
    """Host, client and pod, servers and rules; the client."""
    host = Namespace("host")
    if not host.path.exists():  # since an earlier run
        run(("ip", "netns", "attach", host.name, "1"))
    with ExitStack() as stack:
        spaces = stack.enter_context(namespaces("client", "pod"))
        client, pod = spaces["client"], spaces["pod"]
        for space, near, far, address in (
            (client, "lan0", [f"{PLAIN}/24", f"{DIVERTED}/24"], "192.0.2.50/24"),
            (pod, "cni0", ["10.42.0.1/24"], f"{POD}/24"),
        ):
            host.ip(
                f"link add {near} type veth peer name eth0 netns {space.name}",
                *(f"addr add {one} dev {near}" for one in far),
                f"link set {near} up",
            )
            space.ip("link set lo up", f"addr add {address} dev eth0", "link set eth0 up")
        pod.ip("route add default via 10.42.0.1")
        host.sysctl(ipv4__ip_forward=1)
        host.run("nft", "-f", "-", stdin=RULES)
        for space, port in ((host, 7443), (host, 6443), (pod, 6443)):
            with space.inside():
                server = subprocess.Popen([HAMMER, "serve", "0.0.0.0", str(port)], stdout=subprocess.PIPE)
            stack.callback(server.wait)
            stack.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
        yield client


def dial(client: Namespace, way: str, count: int) -> float:
    """Seconds that one connection takes, one after the other as fast as they go.

    The machine has one processor and nothing else to do: it is all that kernel, client, server and watcher compute. The
    median of batches: where a port is used again too soon, one connection waits a second for its SYN to be repeated.
    """
    address, port = WAYS[way]
    each = []
    for _ in range(max(1, count // BATCH)):
        made, failed, seconds = client.run(HAMMER, "dial", address, str(port), str(BATCH), "0").split()
        assert int(failed) == 0, f"{failed} of {BATCH} connections failed"
        each.append(float(seconds) / int(made))
    return statistics.median(each)


def busy(pids: Sequence[int]) -> float:
    """Processor time of these processes so far, in seconds."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pids: Sequence[int]) -> dict[str, int]:
    """RSS and PSS in bytes."""
    sizes = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, value, *_ = line.split()
            sizes[name] = sizes.get(name, 0) + (int(value) << 10) if name in sizes else 0
    return {"rss": sizes["Rss:"], "pss": sizes["Pss:"]}


def until(happened: Callable[[], object], what: str, seconds: float = 600) -> None:
    """Wait; an emulated processor compiles for minutes."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not in {seconds:.0f} s"
        time.sleep(0.5)


def show(name: str) -> str:
    """A property of the service."""
    return run(("systemctl", "show", "--value", "-p", name, "k3swatch")).strip()


@contextmanager
def k3swatch(attach: str) -> Iterator[list[int]]:
    """The service with one of its attachments; its process."""
    DROP_IN.parent.mkdir(exist_ok=True)
    DROP_IN.write_text(f"[Service]\n{ATTACHMENTS[attach]}")
    Path("/proc/sys/kernel/perf_event_paranoid").write_text("2" if attach == "kprobe" else "3")
    run(("systemctl", "daemon-reload"))
    subprocess.run(["systemctl", "start", "k3swatch"], check=True)

    def status() -> dict[str, object]:
        text = run(("k3swatch", "status", "--format", "json"), check=False)
        return dict(json.loads(text)) if text.startswith("{") else {}

    try:
        until(lambda: status().get("probe"), "k3swatch answers")
        until(lambda: status()["probe"] != "none", "k3swatch sees connections")
        assert status()["probe"] == attach, status()["refused"]
        yield [int(show("MainPID"))]
    finally:
        subprocess.run(["systemctl", "stop", "k3swatch"], check=True)


@contextmanager
def peer(name: str) -> Iterator[list[int]]:
    """Another program; its process. It must have printed something when it ends, else it watched nothing."""
    with OUTPUT.open("wb") as output, open("/dev/null") as nothing:
        # as on a terminal: a line is written when it is there
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            PEERS[name], stdin=nothing, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        if name != "conntrack -E":
            until(lambda: attached(process), f"{name} is attached")
        time.sleep(2)
        yield [process.pid]
    finally:
        process.terminate()
        process.wait(600)
    said = OUTPUT.read_text(errors="replace")
    assert "hammer" in said or len(said.splitlines()) > 20, f"{name} saw nothing:\n{said[-2000:]}"


def attached(process: subprocess.Popen[bytes]) -> bool:
    """Whether it holds perf events or BPF links, and computes no more."""
    assert process.poll() is None, f"ended: {OUTPUT.read_text(errors='replace')[-2000:]}"
    folder = Path(f"/proc/{process.pid}/fd")
    kinds = {os.readlink(fd) for fd in folder.iterdir() if fd.is_symlink()}
    if not kinds & {"anon_inode:[perf_event]", "anon_inode:bpf_link", "anon_inode:bpf-link"}:
        return False
    return idle([process.pid])


def idle(pids: Sequence[int]) -> bool:
    """Whether they compute next to nothing."""
    before = busy(pids)
    time.sleep(3)
    return busy(pids) - before < 0.15


def session(
    client: Namespace, count: int, repeats: int, pids: Sequence[int] = ()
) -> tuple[dict[str, list[float]], float]:
    """Seconds of a connection on each way, `repeats` times in turn; what the watcher itself computed for each."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    own = 0.0
    for _ in range(repeats):
        for way, seconds in found.items():
            if pids:
                until(lambda: idle(pids), "the watcher comes to rest")
            before = busy(pids)
            seconds.append(dial(client, way, count))
            own += busy(pids) - before
    return found, own / (count * repeats * len(WAYS))


def main() -> None:
    """inside.py COUNT REPEATS WATCHER..."""
    count, repeats = map(int, sys.argv[1:3])
    with around() as client:
        session(client, WARM, 1)  # caches
        for name in sys.argv[3:]:
            before, _ = session(client, count, repeats)
            watched = k3swatch(name.removeprefix("k3swatch ")) if name.startswith("k3swatch ") else peer(name)
            with watched as pids:
                session(client, WARM, 1, pids)
                during, own = session(client, count, repeats, pids)
                sizes = memory(pids)
            after, _ = session(client, count, repeats)
            result = {"name": name, "before": before, "during": during, "after": after, "own": own}
            print(json.dumps(result | sizes), flush=True)


if __name__ == "__main__":
    main()
