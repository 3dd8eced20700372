"""A K3s-like host in a guest: the package is installed, its service runs, real connections can be made around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vm.guest import Guest

from k3swatch.view.catalog import ENTRIES, Kind

TESTS = Path(__file__).resolve().parents[1]
INSTALL_SECONDS = 300.0
START_SECONDS = 180.0  # compiling on an emulated CPU; 15 on an idle machine


class K3sHost:
    """The guest's own network namespace is the lab's host."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.sh = guest.sh

    def install(self, package: Path) -> None:
        """With apt, as anybody would. The service is up and the lab answers when this returns."""
        guest = self.guest
        guest.put("/root", [package], package.parent)
        apt = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"
        guest.sh(f"{apt} /root/{package.name}", timeout=INSTALL_SECONDS)
        guest.put("/opt", [TESTS / "vm/inside/lab.py", TESTS / "vm/inside/webhook.py"], TESTS / "vm/inside")
        guest.put("/opt", [TESTS / "netns/labctl.py"], TESTS / "netns")
        guest.sh("systemd-run --quiet --unit=lab --property=Type=notify python3 /opt/lab.py serve")
        guest.sh("systemctl enable --now k3swatch", timeout=START_SECONDS)
        self.until_up()

    def until_up(self) -> dict[str, Any]:
        """Wait until the service runs and connections are seen; its status."""

        def up() -> dict[str, Any] | None:
            status = self.status()
            return status if status.get("daemon", {}).get("confined") else None

        status: dict[str, Any] = self.guest.wait("k3swatch is up", up, START_SECONDS)
        return status

    def status(self) -> dict[str, Any]:
        """`k3swatch status`; empty while nobody answers."""
        text = self.guest.run("k3swatch", "status", "--format", "json", check=False).stdout
        return dict(json.loads(text)) if text.startswith("{") else {}

    def check(self) -> int:
        """The exit status of `k3swatch check`."""
        return self.guest.run("k3swatch", "check", check=False).status

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.sh(f"systemctl show --value -p {name} k3swatch").strip()

    def entries(self, kind: Kind) -> list[dict[str, Any]]:
        """Its journal entries of one kind, oldest first, over all boots."""
        text = self.sh(f"journalctl --output=json --all MESSAGE_ID={ENTRIES[kind].id}")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def only(self, kind: Kind, timeout: float = 60) -> dict[str, Any]:
        """Wait for an entry of this kind; there must be one only."""
        entries = self.guest.wait(f"journal entry: {kind}", lambda: self.entries(kind), timeout)
        assert len(entries) == 1, entries
        return dict(entries[0])

    def journal(self) -> str:
        """All that the service said, and systemd about it."""
        return self.sh("journalctl --no-pager -u k3swatch")

    def dial(self, space: str, *addresses: str) -> list[str]:
        """Who answers on 6443."""
        return self.guest.run("python3", "/opt/lab.py", "dial", space, *addresses).stdout.split()

    def lab(self, *words: str) -> None:
        """What kubelet or kube-proxy would do: tests/netns/labctl.py."""
        self.sh(f"set -a; . /run/lab.env; python3 /opt/labctl.py {' '.join(words)}")

    def connections(self, outcome: str) -> dict[str | None, int]:
        """How many were counted, by destination."""
        rows = self.status()["connections"]
        return {
            row["destination"]: row["connections"]
            for row in rows
            if row["outcome"] == outcome and row["connections"]
        }
