"""Connections that are diverted to where nobody is: why they are dropped reaches everybody who is told."""

from __future__ import annotations

from pathlib import Path

from support.daemon import Daemon

from k3swatch.demo.lab import HOST, Lab

DEAD_POD = "10.42.0.77"
LOST = "dropped on the way there: NEIGH_FAILED (nobody has that address: no answer to ARP)"


def test_a_pod_that_is_gone(private_lab: Lab, tmp_path: Path) -> None:
    with Daemon(private_lab.host, tmp_path / "k") as daemon:
        private_lab.host.shell(
            f"iptables -t nat -A PREROUTING -p tcp --dport 6443 -j DNAT --to-destination {DEAD_POD}:6443"
        )
        daemon.until_said(f"is DIVERTED to {DEAD_POD}:6443")
        private_lab.client.run("timeout", "8", "bash", "-c", f"exec 3<>/dev/tcp/{HOST}/6443", check=False)
        daemon.until_said(LOST)
        (incident,) = daemon.status()["incidents"]
        assert incident["drops"] == ["NEIGH_FAILED"]
        assert incident["connections"] == 1
        assert daemon.said().count(LOST) == 1
