"""Whoever hooks into netfilter beside nf_tables and iptables: told where the kernel lists its hooks, as 6.12 does.

The connections are the truth: they end where nothing that anybody could list says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vm.host import K3sHost

from k3swatch.demo.lab import API, CNI0, HOST

TESTS = Path(__file__).resolve().parents[1]
FROM_PORT = "-p IPv4 --ip-protocol tcp --ip-destination-port 6443 -j DROP"
TIMEOUT = "timeout"
NOBODY = 10  # seconds until that is believed


def until(host: K3sHost, state: str) -> dict[str, Any]:
    """Wait until the service says so of the port; its first finding."""
    status = host.guest.wait(state, lambda: (s := host.status()).get("state") == state and s)
    return dict((status["ports"][0]["findings"] or [{}])[0])


def test_ebtables_legacy(host: K3sHost) -> None:
    """Its tables are of no interest while they are empty, and stay when their rules go."""
    assert host.dial("web", CNI0) == [API]
    host.sh(f"ebtables-legacy -t filter -A INPUT {FROM_PORT}")
    finding = until(host, "unknown")
    assert host.dial("web", CNI0, timeout=NOBODY) == [TIMEOUT]
    assert host.dial("client", HOST) == [API]  # it comes by no bridge
    assert (finding["vantage"], finding["conditions"]) == ("external", ["through a bridge"])
    (step,) = finding["path"]
    assert (step["family"], step["table"], step["chain"]) == ("module", "netfilter bridge", "ebtables filter")
    assert host.check() == 2
    host.sh("ebtables-legacy -t filter -D INPUT 1")
    until(host, "delivered")
    if (
        host.guest.image.suite != "bookworm"
    ):  # whose kernel does not list its hooks: a policy is not looked for
        host.sh("ebtables-legacy -t filter -P INPUT DROP")
        until(host, "unknown")
        host.sh("ebtables-legacy -t filter -P INPUT ACCEPT")
        until(host, "delivered")
    assert host.check() == 0
    assert host.dial("web", CNI0) == [API]


def test_a_bpf_program(host: K3sHost) -> None:
    """Since Linux 6.4; the service may not ask for its name, root may."""
    if host.guest.image.suite == "bookworm":
        assert host.sh("uname -r").startswith("6.1.")
        return
    host.guest.put("/opt", [TESTS / "support/bpfload.py"], TESTS)
    host.guest.put("/opt", [TESTS / "vm/inside/hook.py"], TESTS / "vm/inside")
    host.unit("hooked", "python3 /opt/hook.py", "Type=notify")
    finding = until(host, "unknown")
    assert host.dial("client", HOST, timeout=NOBODY) == [TIMEOUT]
    assert finding["family"] == "ip"
    (step,) = finding["path"]
    assert (step["family"], step["table"], step["chain"]) == ("bpf", "netfilter ip", "prerouting")
    assert step["handle"] > 0
    (named,) = host.findings()[0]["path"]
    assert (named["handle"], named["rule"].partition(" ")[0]) == (step["handle"], "k3w_drop")
    host.sh("systemctl stop hooked")
    until(host, "delivered")
    assert host.dial("client", HOST) == [API]
