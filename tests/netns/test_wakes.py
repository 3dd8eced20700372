"""What netlink does not tell of, seen at once all the same: a listener on a protected port, a legacy table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon
from support.onehost import one_host

from k3swatch.demo.netns import Namespace

# seconds; by polling it is anything up to 1.0, so that five in a row below this are no luck. tests/vm: an emulated CPU
AT_ONCE = float(os.environ.get("K3SWATCH_AT_ONCE", "0.4"))
SERVER = """
import socket, sys, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.bind((sys.argv[1], 6443))
at = time.time()
server.listen(8)
print(at, flush=True)
sys.stdin.read()
"""
DNAT = "-t nat -A PREROUTING -p tcp --dport 6443 -j DNAT --to-destination 10.9.9.9:443"


@pytest.fixture
def space(root: None) -> Iterator[Namespace]:
    """A host with one address, where nobody listens."""
    with one_host() as space:
        yield space


@contextmanager
def listening(space: Namespace, program: str, address: str) -> Iterator[tuple[int, float]]:
    """A process of `program` that listens on 6443 of `address`: its pid, and when it began to."""
    with space.inside():
        server = subprocess.Popen(
            [program, "-c", SERVER, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with server:
        assert server.stdout is not None
        yield server.pid, float(server.stdout.readline())
        server.kill()


def diverted(daemon: Daemon) -> dict[str, Any]:
    """The finding that is a diversion, when there is one."""
    findings = daemon.status()["ports"][0]["findings"]
    return next((each for each in findings if each["state"] == "diverted"), {})


def test_a_listener_that_takes_the_port_is_told_at_once_with_who_opened_it(
    space: Namespace, tmp_path: Path
) -> None:
    taker = str(tmp_path / "taker")
    shutil.copy(os.path.realpath(sys.executable), taker)
    with listening(space, sys.executable, "0.0.0.0"), Daemon(space, tmp_path / "k") as daemon:
        assert "listeners" in daemon.status()["doer"]["wakes"]
        first = 0
        for pause in (0.0, 0.15, 0.3, 0.45, 0.6):
            time.sleep(pause)
            with listening(space, taker, "192.0.2.1") as (pid, at):
                first = first or pid
                daemon.until(lambda: diverted(daemon), "told of the taker")
                assert time.time() - at < AT_ONCE
                by = diverted(daemon)["culprit"]["committed"]
                others = [
                    each for each in daemon.status()["ports"][0]["findings"] if each["state"] == "unknown"
                ]
                assert {each["culprit"] for each in others} == {None}  # that socket is the owner's
                assert (by["pid"], by["exe"], by["parents"][0]["pid"]) == (pid, taker, os.getpid())
            ended = time.monotonic()
            daemon.until(lambda: not diverted(daemon), "told that it is gone")
            assert time.monotonic() - ended < AT_ONCE
        assert f", opened by taker (pid {first}: {taker} -c" in daemon.said()
        others = [each for each in daemon.status()["incidents"] if each["state"] == "unknown"]
        assert [each["findings"][0]["culprit"] for each in others] in (
            [],
            [None],
        )  # that socket is the owner's


def test_iptables_legacy_is_told_at_once_where_it_can_be_watched(space: Namespace, tmp_path: Path) -> None:
    """Where the kernel lets nobody trace its functions, within a second, and nobody is named."""
    space.run("iptables-legacy", "-t", "nat", "-N", "first")
    space.run("nft", "add", "table", "ip", "before")
    with Daemon(space, tmp_path / "k") as daemon:
        doer = daemon.status()["doer"]
        watched = "iptables-legacy" in doer["wakes"]
        assert watched != any(line.startswith("iptables-legacy by kprobe: ") for line in doer["refused"])
        for pause in (0.0, 0.15, 0.3, 0.45, 0.6):
            time.sleep(pause)
            with space.inside():
                tool = subprocess.Popen(["iptables-legacy", *DNAT.split()])
                assert tool.wait() == 0
            at = time.time()
            space.run("nft", "add", "table", "ip", f"later{int(pause * 100)}")  # not who did it
            daemon.until(lambda: diverted(daemon), "told of the table")
            by = (diverted(daemon)["culprit"] or {}).get("committed")
            if watched:
                assert time.time() - at < AT_ONCE
                assert by is not None
                assert (by["pid"], by["parents"][0]["pid"]) == (tool.pid, os.getpid())
                assert by["arguments"][1:] == DNAT.split()
            else:
                assert by is None
            space.run("iptables-legacy", "-t", "nat", "-F")
            daemon.until(lambda: not diverted(daemon), "told that it is gone")
