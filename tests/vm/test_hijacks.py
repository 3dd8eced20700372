"""Every file of hijacks/ on the K3s-like host: told with its cure, confirmed by whom it meets, and its end told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from vm.host import K3sHost

from k3swatch.demo.lab import API, HOST
from k3swatch.view.catalog import Kind

CASES = sorted(Path(__file__).with_name("hijacks").glob("*.case"))
SHELL = 'lab() { (set -a; . /run/lab.env; python3 /opt/labctl.py "$@"); }\n'
TIMES = 3  # connections for each row
# the rest needs what both kernels have
ONE_KERNEL = {"ipvs": "bookworm", "iptables-legacy": "bookworm", "kube-proxy": "trixie", "tproxy": "trixie"}


@dataclass(frozen=True)
class Row:
    """See hijacks/README."""

    mechanism: str
    destination: str
    start: str
    address: str
    answers: str


def _case(path: Path) -> Any:
    kernel = ONE_KERNEL.get(path.stem)
    return pytest.param(path, id=path.stem, marks=[pytest.mark.only(kernel)] if kernel else [])


@pytest.mark.parametrize("path", [_case(path) for path in CASES])
def test_it_is_told_with_its_cure(host: K3sHost, path: Path) -> None:
    take, give_back, table = path.read_text().split("\n---\n")
    rows = [Row(*line.split()) for line in table.splitlines()]
    seen = Counter[str]()
    for row in rows:
        seen[row.destination] += TIMES
    assert host.dial("client", HOST) == [API]

    host.sh(SHELL + take)
    entry = host.only(Kind.DIVERTED)
    assert entry["K3SWATCH_MECHANISM"] == rows[0].mechanism
    assert "6443" in entry["K3SWATCH_RULE"]
    for row in rows:
        assert row.destination in entry["K3SWATCH_DESTINATION"]
    assert "kubectl get services" in host.sh(f"journalctl --no-pager -x MESSAGE_ID={entry['MESSAGE_ID']}")
    assert host.check() == 1
    findings = host.findings()

    for row in rows:
        assert host.dial(row.start, *[row.address] * TIMES) == [row.answers] * TIMES
        vantage = "local" if row.start == "host" else "external"
        (said,) = [f for f in findings if f["vantage"] == vantage and row.address in f["addresses"]]
        assert (said["state"], said["mechanism"], said["destination"], said["certain"]) == (
            "diverted",
            row.mechanism,
            row.destination,
            True,
        )
    assert host.only(Kind.CONFIRMED)["K3SWATCH_INCIDENT"] == entry["K3SWATCH_INCIDENT"]
    # those delivered are not compared: the daemon's own are among them, it tries the ways to the API (docs/ways.md)
    assert host.connections("diverted") == seen

    host.sh(SHELL + give_back)
    assert host.only(Kind.RESTORED)["K3SWATCH_INCIDENT"] == entry["K3SWATCH_INCIDENT"]
    assert host.dial("client", HOST) == [API]
    status = host.status()
    assert (status["state"], status["incidents"]) == ("delivered", [])
    assert len(host.entries(Kind.DIVERTED)) == 1
