"""`k3s: auto` with a stand-in: a real process of that name with real sockets, found, lost and found otherwise."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.daemon import Daemon

from k3swatch.demo.lab import Lab
from k3swatch.demo.netns import Namespace

STAND_IN = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"k3s-server", 0, 0, 0)
https = int(sys.argv[2].partition("=")[2])
sockets = []
for address, port in (("0.0.0.0", https), ("127.0.0.1", https + 1), ("0.0.0.0", 10250)):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    sockets.append(listener)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def k3s(space: Namespace, directory: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """K3s, as far as a host can tell it from outside."""
    script = directory / "k3s"
    script.write_text(STAND_IN)
    with space.inside():
        process = subprocess.Popen(
            [sys.executable, str(script), "server", f"--https-listen-port={port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


@pytest.fixture
def daemon(private_lab: Lab, tmp_path: Path) -> Iterator[Daemon]:
    """It listens to nobody but the kernel, and looks for K3s."""
    made = Daemon(private_lab.host, tmp_path / "k")
    made.configure(k3s="auto")
    with made:
        yield made


def watched(daemon: Daemon) -> dict[str, tuple[int, str]]:
    return {port["name"]: (port["port"], port["state"]) for port in daemon.status()["ports"]}


def test_k3s_comes_is_taken_goes_and_comes_otherwise(
    daemon: Daemon, private_lab: Lab, tmp_path: Path
) -> None:
    assert watched(daemon) == {"k3s-api": (6443, "delivered")}
    with k3s(private_lab.host, tmp_path, 7443) as process:
        daemon.until_said(f"k3s server, pid {process.pid} found: watches tcp/7443, tcp/7444, tcp/10250")
        delivered = {
            "k3s-api": (7443, "delivered"),
            "k3s-apiserver": (7444, "delivered"),
            "kubelet": (10250, "delivered"),
        }
        daemon.until(lambda: watched(daemon) == delivered, "all delivered")
        assert daemon.status()["k3s"]["pid"] == process.pid
        private_lab.host.shell(
            "iptables -t nat -A PREROUTING -p tcp --dport 10250 -j REDIRECT --to-ports 8443"
        )
        daemon.until_said("tcp/10250 (kubelet) is DIVERTED")
    gone = (7443, "unserved")
    daemon.until(lambda: watched(daemon)["k3s-api"] == gone, "it is gone, its port is not forgotten")
    thief = tmp_path / "thief"  # another program, and not the one that must have the port
    shutil.copy(os.path.realpath(sys.executable), thief)
    script = "import socket, sys; s = socket.create_server(('', 7443)); sys.stdin.read()"
    with private_lab.host.inside():
        process = subprocess.Popen([thief, "-c", script], stdin=subprocess.PIPE, text=True)
    with process:
        daemon.until_said("tcp/7443 (k3s-api) is DIVERTED")
        process.kill()
    daemon.until_said("tcp/7443 (k3s-api) is no longer DIVERTED")
    with k3s(private_lab.host, tmp_path, 8543):
        daemon.until(lambda: watched(daemon)["k3s-api"] == (8543, "delivered"), "the other port")
    daemon.configure(k3s="off")
    daemon.send(signal.SIGHUP)
    daemon.until(lambda: list(watched(daemon)) == ["k3s-api"], "off: the default")
    assert watched(daemon)["k3s-api"][0] == 6443
