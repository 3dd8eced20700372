"""A K3s-like host in a guest: the package is installed, its service runs, real connections can be made around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vm.guest import Guest

from k3swatch.view.catalog import ENTRIES, Kind

TESTS = Path(__file__).resolve().parents[1]
INSTALL_SECONDS = 900.0
POSTED, PORT = "/run/posted", 9096  # alerts sent to a stand-in for Alertmanager
ASK = """
import _socket
daemon = _socket.socket(_socket.AF_UNIX)
daemon.settimeout(5)
daemon.connect("/run/k3swatch/control.sock")
while part := daemon.recv(65536):
    print(end=part.decode())
"""
START_SECONDS = 600.0  # compiling on an emulated CPU; 15 on an idle machine


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
        self.unit("k3s", "python3 /opt/lab.py serve", "Type=notify", f"TimeoutStartSec={START_SECONDS:.0f}")
        self.unit("posted", f"python3 /opt/webhook.py {POSTED} {PORT}")
        guest.sh("systemctl enable --now k3swatch", timeout=START_SECONDS)
        self.until_up()
        self.alertmanager(f"http://127.0.0.1:{PORT}")

    def unit(self, name: str, command: str, *more: str) -> None:
        """A service that is there from now on, and after each boot."""
        lines = ("[Service]", f"ExecStart={command}", *more, "[Install]", "WantedBy=multi-user.target", "")
        self.sh(f"cat >/etc/systemd/system/{name}.service", stdin="\n".join(lines).encode())
        self.sh(f"systemctl enable --now {name}", timeout=START_SECONDS)

    def reboot(self) -> str:
        """The whole host, and wait until all of it runs; which boot it is now."""
        self.guest.reboot()
        self.until_up()
        state = "systemctl show --value -p ActiveState k3s"
        self.guest.wait("the lab", lambda: self.sh(state) == "active\n", START_SECONDS)
        return self.guest.boot_id

    def alertmanager(self, url: str) -> None:
        """Whom it is to tell from now on, in the file that the package brought."""
        file, loaded = "/etc/k3swatch/config.yaml", len(self.entries(Kind.CONFIG_LOADED))
        self.sh(f"sed -i 's#urls: \\[[^]]*\\]#urls: [\"{url}\"]#' {file}; grep -q {url} {file}")
        self.sh("systemctl reload k3swatch")
        self.guest.wait("the new configuration", lambda: len(self.entries(Kind.CONFIG_LOADED)) > loaded)

    def until_up(self) -> dict[str, Any]:
        """Wait until the service runs and connections are seen; its status."""

        def up() -> dict[str, Any] | None:
            status = self.status()
            return status if status.get("daemon", {}).get("confined") else None

        status: dict[str, Any] = self.guest.wait("k3swatch is up", up, START_SECONDS)
        return status

    def status(self) -> dict[str, Any]:
        """What `k3swatch status` gets, which is slow to import there; empty while nobody answers."""
        text = self.guest.run("python3", "-SEc", ASK, check=False).stdout
        return dict(json.loads(text)) if text.startswith("{") else {}

    def check(self) -> int:
        """The exit status of `k3swatch check`."""
        return self.guest.run("k3swatch", "check", check=False).status

    def findings(self) -> list[dict[str, Any]]:
        """What `k3swatch check` finds on the port."""
        text = self.guest.run("k3swatch", "check", "--format", "json", check=False).stdout
        return list(json.loads(text)["ports"][0]["findings"])

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.sh(f"systemctl show --value -p {name} k3swatch").strip()

    def entries(self, kind: Kind) -> list[dict[str, Any]]:
        """Its journal entries of one kind, oldest first, over all boots."""
        text = self.sh(f"journalctl --output=json --all MESSAGE_ID={ENTRIES[kind].id}")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def only(self, kind: Kind) -> dict[str, Any]:
        """Wait for an entry of this kind; there must be one only."""
        entries = self.guest.wait(f"journal entry: {kind}", lambda: self.entries(kind))
        assert len(entries) == 1, entries
        return dict(entries[0])

    def journal(self) -> str:
        """All that the service said, and systemd about it."""
        return self.sh("journalctl --no-pager -u k3swatch")

    def posted(self, path: str = POSTED) -> list[dict[str, Any]]:
        """What webhook.py was sent there, oldest first."""
        return [json.loads(line) for line in self.sh(f"cat {path} 2>/dev/null || true").splitlines()]

    def dial(self, space: str, *addresses: str, timeout: int = 60) -> list[str]:
        """Who answers on 6443; nobody does when there is no answer in `timeout` seconds."""
        words = ("dial", str(timeout), space, *addresses)
        return self.guest.run("python3", "/opt/lab.py", *words).stdout.split()

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
