"""When the kernel has no IPVS it is not asked for it; what it has is read for the ports that matter."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from k3swatch.errors import SourceError
from k3swatch.live import ipvs
from k3swatch.live.host import decode_host, read_raw_host
from k3swatch.sources import ipvs as source

DATA = Path(__file__).parents[1] / "decode" / "data" / "ipvs.json"
MESSAGES = [base64.b64decode(text) for text in json.loads(DATA.read_text())]


class Kernel:
    """Answers as sources.ipvs.Ipvs does, from the messages of a real one."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def services(self) -> list[bytes]:
        return MESSAGES[::2]

    def destinations(self, family: int, protocol: int, address: bytes, port: int, fwmark: int) -> list[bytes]:
        self.asked.append(fwmark or port)
        return [MESSAGES[1]]

    def close(self) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(source, "present", lambda: True)
    monkeypatch.setattr(source, "Ipvs", lambda: made)
    return made


def test_nothing_is_asked_of_a_kernel_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "present", lambda: False)
    monkeypatch.setattr(source, "Ipvs", lambda: pytest.fail("that loads the module"))
    assert ipvs.read() == []


def test_real_servers_are_read_where_they_matter(kernel: Kernel) -> None:
    assert len(ipvs.read([6443])) == 6
    assert kernel.asked.count(6443) == 2
    assert len(ipvs.read([7443])) == 2  # the one for a mark may take any port
    assert len(ipvs.read()) == 6


def test_one_that_cannot_be_read_is_unknown_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise SourceError("ipvs: not today")

    monkeypatch.setattr(source, "present", lambda: True)
    monkeypatch.setattr(source, "Ipvs", refuse)
    host = decode_host(read_raw_host())
    assert host.services is None
    assert "IPVS: ipvs: not today" in host.unreadable


def test_one_that_does_not_decode_is_unknown_and_said() -> None:
    raw = read_raw_host()._replace(ipvs=[MESSAGES[1]])
    host = decode_host(raw)
    assert host.services is None
    assert any(line.startswith("IPVS: ") for line in host.unreadable)
