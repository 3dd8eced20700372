"""Everything the story needs, running: the lab, journald, Prometheus, Alertmanager, and k3swatch as a daemon.

All of it lives in the lab's host namespace and in one temporary directory, and ends with the `with` block.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import k3swatch
from k3swatch.demo import kubernetes
from k3swatch.demo.lab import Lab, lab
from k3swatch.demo.netns import Namespace, run
from k3swatch.demo.node import Node
from k3swatch.demo.services import Alertmanager, Journald, Prometheus, Service, Webhook, get_json, wait_until
from k3swatch.errors import SourceError

METRICS = "127.0.0.1:10643"
RULES = "packaging/prometheus"
_LONGEST = 60
_NEWGEN = (10 << 8) | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN (`uapi/linux/netfilter/nf_tables.h`)
_NFTA_GEN_ID = 1
_NETLINK_NETFILTER = 12  # `uapi/linux/netlink.h`; the socket module has no name for it
_NFNLGRP_NFTABLES = 7  # `uapi/linux/netfilter/nfnetlink.h`


class Daemon(Service):
    """`k3swatch run` beside its journald: that one's /run is this one's /run."""

    name = "k3swatch"

    def __init__(self, directory: Path, journald: Journald, alertmanager: str, node: Node) -> None:
        super().__init__(directory)
        self.journald, self.node = journald, node
        self.config = directory / "config.yaml"
        settings = {
            "alertmanager": {"urls": [alertmanager]},
            "metrics": {"listen": [METRICS]},
            "state": {"path": str(directory / "state")},
        }
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        (directory / "state").mkdir(exist_ok=True)

    def _beside_journald(self, *arguments: str) -> list[str]:
        run_directory, proc = str(self.journald.directory / "run"), str(self.node.directory / "proc")
        script = 'mount --bind "$1" /run && mount --rbind /proc "$2" && shift 2 && exec "$@"'
        inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        inside += [run_directory, proc]
        return [*inside, sys.executable, "-m", "k3swatch.cli", *arguments]

    def command(self) -> Sequence[str]:
        """`k3swatch run` with the demo's configuration, which reads the node's files where the demo writes them."""
        return self._beside_journald("run", "--config", str(self.config), "--root", str(self.node.directory))

    def ready(self) -> bool:
        """Whether it can be scraped and asked."""
        with socket.socket() as probe:
            host, _, port = METRICS.partition(":")
            return probe.connect_ex((host, int(port))) == 0 and bool(self.status())

    def status(self) -> dict[str, Any]:
        """`k3swatch status --format json`: what the running daemon says; empty while it says nothing."""
        text = run(
            self._beside_journald("status", "--format", "json", "--config", str(self.config)), check=False
        )
        with suppress(ValueError):
            return dict(json.loads(text))
        return {}

    def ask(self, *arguments: str) -> str:
        """What another command of k3swatch prints on this host, with the demo's files: `restore`, `history`."""
        return run(self._beside_journald(*arguments, "--config", str(self.config)), check=False)

    def probe(self) -> str:
        """How the connection probe is attached; empty while it is not."""
        attach = str(self.status().get("probe") or "none")
        return "" if attach == "none" else attach


class Commits:
    """When each commit to a namespace's nf_tables was told by the kernel: independent of k3swatch."""

    def __init__(self, space: Namespace) -> None:
        self.at: dict[int, float] = {}  # generation -> CLOCK_REALTIME seconds
        with space.inside():
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        self._socket.settimeout(0.2)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._end.is_set():
            with suppress(
                OSError
            ):  # a time-out, or more messages than fit: the NEWGEN that counts comes last
                data = self._socket.recv(1 << 16)
                now = time.time()
                if len(data) >= 28 and struct.unpack_from("=IH", data)[1] == _NEWGEN:
                    length, kind, generation = struct.unpack_from(
                        "=HH4s", data, 20
                    )  # after nlmsghdr, nfgenmsg
                    if (length, kind) == (8, _NFTA_GEN_ID):
                        self.at[int.from_bytes(generation, "big")] = now

    def close(self) -> None:
        """Stop listening."""
        self._end.set()
        self._thread.join(2)
        self._socket.close()


@dataclass
class Stage:
    """What runs."""

    lab: Lab
    node: Node
    journald: Journald
    alertmanager: Alertmanager
    prometheus: Prometheus
    daemon: Daemon
    commits: Commits
    took: dict[str, float]  # seconds each took to start
    said: dict[str, Any] = field(default_factory=dict)  # what `restore` planned and did

    def entries(self, since: float) -> list[dict[str, Any]]:
        """k3swatch's journal entries since a moment, oldest first."""
        entries = self.journald.entries("SYSLOG_IDENTIFIER=k3swatch")
        return [entry for entry in entries if entry_time(entry) >= since]

    def alerts(self) -> list[dict[str, Any]]:
        """What Alertmanager holds as firing."""
        with self.lab.host.inside():
            return get_json(f"{self.alertmanager.url}/api/v2/alerts?active=true") or []

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers."""
        with self.lab.host.inside():
            return self.prometheus.query(expression)


def entry_time(entry: dict[str, Any]) -> float:
    """When journald received an entry, in seconds since the epoch."""
    return int(entry["__REALTIME_TIMESTAMP"]) / 1e6


@contextmanager
def stage() -> Iterator[Stage]:
    """A healthy K3s host, watched, with everything that people are told through."""
    took: dict[str, float] = {}
    begin = time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="k3w-", dir=_place())))
        made = stack.enter_context(lab(kubernetes.CLUSTER_IP))
        kubernetes.kube_proxy(made.host)
        took["lab"] = time.monotonic() - begin
        with made.host.inside():
            webhook = stack.enter_context(Webhook())
            journald = Journald(directory / "j")
            alertmanager = Alertmanager(directory / "am", webhook.url, port=9093)
            rules = sorted((Path(k3swatch.__file__).resolve().parents[1] / RULES).glob("*.rules.y*ml"))
            # the instance is the host's name, as in packaging/prometheus/scrape.example.yaml
            name = socket.gethostname()
            prometheus = Prometheus(
                directory / "p", [METRICS], rules, ["127.0.0.1:9093"], port=9090, instance=name
            )
        node = Node(directory / "node")
        node.server()
        daemon = Daemon(directory / "k", journald, alertmanager.url, node)

        def start(service: Service) -> None:
            with made.host.inside():
                took[service.name] = _seconds(service.start)

        for service in (journald, alertmanager, prometheus, daemon):
            stack.callback(service.stop)
        with ThreadPoolExecutor(3) as pool:
            for _ in pool.map(start, (journald, alertmanager, prometheus)):
                pass
        start(daemon)
        with suppress(
            SourceError
        ):  # a kernel that refuses BPF: said in `status`, and everything else still works
            took["probe"] = _seconds(lambda: wait_until(daemon.probe, "probe"))
        commits = Commits(made.host)
        stack.callback(commits.close)
        yield Stage(made, node, journald, alertmanager, prometheus, daemon, commits, took)


def _place() -> str | None:
    """Where temporary files are, unless the names of sockets there would be too long (unix(7): 107 bytes)."""
    return None if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST else "/tmp"


def _seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
