"""From one daemon to the next: what happens while none runs is seen all the same, and told once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import REPO, Daemon
from support.onehost import one_host

from k3swatch.demo.netns import Namespace

NFT = "table ip evil { chain out { type nat hook output priority -100; tcp dport 6443 dnat to 192.0.2.1:7443; }; }"

# hands descriptors over as a service manager does: from 3 on, with their names
HANDED = """
import fcntl, os, sys
names, numbers, *command = sys.argv[1].split(":"), sys.argv[2].split(","), *sys.argv[3:]
copies = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 100) for number in numbers]
for target, copy in enumerate(copies, 3):
    os.dup2(copy, target, inheritable=True)
    os.close(copy)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
os.execv(command[0], command)
"""


class Manager:
    """A service manager's end of NOTIFY_SOCKET, with its store of descriptors."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.store: dict[str, list[int]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    def read(self) -> None:
        """Take what was sent."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 4096, 8)
                words = dict(line.split("=", 1) for line in data.decode().splitlines())
                if "FDSTORE" in words:
                    self.store[words["FDNAME"]] = descriptors
                elif "FDSTOREREMOVE" in words:
                    self._close(words["FDNAME"])

    def kept(self) -> dict[str, list[int]]:
        """The store, with what was sent."""
        self.read()
        return self.store

    def close(self) -> None:
        """Let all go."""
        self._socket.close()
        for name in list(self.store):
            self._close(name)

    def _close(self, name: str) -> None:
        for descriptor in self.store.pop(name):
            os.close(descriptor)


@pytest.fixture
def host(root: None) -> Iterator[Namespace]:
    """A host that serves 6443, and another thing on 7443."""
    with one_host(6443, 7443) as host:
        yield host


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """The manager, gone afterwards."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def connect(space: Namespace) -> None:
    with space.inside():
        socket.create_connection(("192.0.2.1", 6443), timeout=5).close()


def start_again(daemon: Daemon, manager: Manager) -> None:
    """As a manager does after a restart: with what was kept."""
    manager.read()
    names = [name for name, kept in manager.store.items() for _ in kept]
    numbers = [descriptor for kept in manager.store.values() for descriptor in reversed(kept)]
    command = [sys.executable, "-m", "k3swatch.cli", "run", "--config", str(daemon.config)]
    handing = [sys.executable, "-c", HANDED, ":".join(names), ",".join(map(str, numbers))]
    with daemon.space.inside(), daemon.stderr.open("ab") as log:
        daemon.process = subprocess.Popen(
            [*handing, *command],
            cwd=REPO,
            stdout=log,
            stderr=log,
            pass_fds=numbers,
            env={**os.environ, **daemon.environment},
        )
    daemon.until(lambda: daemon.status().get("daemon", {}).get("confined"), "it runs again")


def short_hijack(space: Namespace) -> None:
    """One connection is diverted, and nothing is left to see."""
    space.run("nft", NFT)
    connect(space)
    space.run("nft", "delete", "table", "ip", "evil")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_hijack_that_comes_and_goes_while_none_runs(
    host: Namespace, manager: Manager, tmp_path: Path, number: signal.Signals
) -> None:
    daemon = Daemon(host, tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": manager.address}
    with daemon:
        daemon.until(lambda: daemon.status()["daemon"]["confined"], "confined")
        if daemon.status()["probe"] == "conntrack":
            pytest.fail("without a probe there is nothing to hand over")
        connect(host)
        manager.read()
        first = dict(manager.store)
        assert [len(kept) >= 4 for kept in first.values()] == [True]
        daemon.stop(number)
        short_hijack(host)
        before = daemon.said()
        assert "DIVERTED" not in before

        start_again(daemon, manager)
        daemon.until_said("is DIVERTED to 192.0.2.1:7443 for 192.0.2.1 from this host: no rule explains it")
        said = daemon.said().removeprefix(before)
        assert "(seen while no k3swatch ran: the rule may be gone since)" in said
        assert said.count("is DIVERTED to") == 1
        (incident,) = daemon.status()["incidents"]
        assert incident["connections"] == 1
        assert incident["confirmed_at"] is not None
        daemon.until(
            lambda: len(manager.kept()) == 1 and not set(first) & set(manager.store),
            "the new one instead of the old",
        )


def test_what_the_process_before_has_told_is_not_told_again(
    host: Namespace, manager: Manager, tmp_path: Path
) -> None:
    daemon = Daemon(host, tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": manager.address}
    with daemon:
        daemon.until(lambda: daemon.status()["daemon"]["confined"], "confined")
        host.run("nft", NFT)
        daemon.until_said("is DIVERTED to")
        connect(host)
        daemon.until_said("and this is real: 1 connection went there")
        before, (incident,) = daemon.said(), daemon.status()["incidents"]
        daemon.stop()
        connect(host)
        start_again(daemon, manager)
        daemon.until(lambda: daemon.status()["incidents"][0]["connections"] == 2, "the one meanwhile counts")
        assert daemon.status()["incidents"][0]["id"] == incident["id"]
        assert "this is real" not in daemon.said().removeprefix(before)


def test_of_another_version(host: Namespace, manager: Manager, tmp_path: Path) -> None:
    """Records that this program cannot read: said, and nothing else is worse for it."""
    daemon = Daemon(host, tmp_path)
    daemon.environment = {"NOTIFY_SOCKET": manager.address}
    with daemon:
        daemon.until(lambda: daemon.status()["daemon"]["confined"], "confined")
        daemon.stop()
        manager.read()
        ((about, *_),) = manager.store.values()
        os.pwrite(about, json.dumps({"layout": [1], "reasons": {}}).encode().ljust(1 << 15), 0)
        start_again(daemon, manager)
        daemon.until_said("those of the restart are not known: probe: struct layout [1]")
        daemon.until(lambda: len(manager.kept()) == 1, "the old one goes")
        assert daemon.status()["daemon"]["healthy"] is True
