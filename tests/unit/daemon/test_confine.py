"""The filter, run here on every architecture's calls; and what a confined daemon does without its probe."""

from __future__ import annotations

import selectors
import struct
from dataclasses import dataclass

import pytest

from k3swatch.daemon import confine
from k3swatch.daemon.sources import LIFE, Sources
from k3swatch.errors import SourceError
from k3swatch.model.incident import Event

ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # EPERM


def decision(code: bytes, data: bytes) -> int:
    """What the kernel's interpreter would return for a struct seccomp_data."""
    program = list(struct.iter_unpack("=HBBI", code))
    accumulator = at = 0
    while True:
        operation, true, false, k = program[at]
        if operation == 0x06:
            return int(k)
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
            at += 1
        else:
            holds = accumulator == k if operation == 0x15 else accumulator >= k
            at += 1 + (true if holds else false)


def call(arch: int, number: int, first: int = 0) -> bytes:
    """struct seccomp_data."""
    return struct.pack("=iIQ6Q", number, arch, 0, first, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("abi", sorted(set(confine._ABIS.values())), ids=lambda abi: hex(abi.arch))
def test_the_filter(abi: confine._Abi) -> None:
    code = confine.assemble(abi.arch, abi.refused, abi.bpf)
    for number in range(512):
        expected = REFUSE if number in abi.refused or number == abi.bpf else ALLOW
        assert decision(code, call(abi.arch, number)) == expected, number
    allowed = {command for command in range(64) if decision(code, call(abi.arch, abi.bpf, command)) == ALLOW}
    # uapi/linux/bpf.h: elements, next key, info, what is attached where
    assert allowed == {1, 2, 3, 4, 15, 16}
    assert decision(code, call(0x40000003, 4)) == REFUSE  # another architecture's call
    assert decision(code, call(abi.arch, 0x40000000 | 1)) == REFUSE  # x32
    assert len(code) // 8 < 4096


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@dataclass
class Watch:
    """Connections are seen."""

    closed: bool = False

    def close(self) -> None:
        self.closed = True


def exhausted(sources: Sources) -> bool:
    """What it finds when it looks after its probe."""
    sources.maintain(lambda name: None)
    return sources.exhausted


def test_without_its_probe_a_confined_daemon_wants_to_be_started_again() -> None:
    """Not at once, or a probe that always fails would make a tight loop of it; and it never tries to load."""
    clock, told = Clock(), list[Event]()
    sources = Sources(selectors.DefaultSelector(), clock, told.append, lambda: None)
    sources.flows.opened(Watch())  # type: ignore[arg-type]  # it is only closed
    sources.attempted = sources.confined = True
    try:
        assert not exhausted(sources)
        clock.at += 3
        sources.flows.failed(SourceError("ring buffer consume: Bad file descriptor"))
        for clock.at in (103.0, 104.5, 100.0 + LIFE - 0.1):
            assert not exhausted(sources)
            if clock.at > 104:
                assert sources.retry_at == 100.0 + LIFE  # sleeps until then
        clock.at = 100.0 + LIFE
        assert exhausted(sources)
        assert sources._loading is None
        assert [event.message for event in told if event.subject == "connections"] == [
            "connections: ring buffer consume: Bad file descriptor"
        ]
    finally:
        sources.close()


def test_a_bug_in_what_loads_the_probe_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread must not end without a word: the loop would wait for it, and never be ready."""

    def broken() -> None:
        raise KeyError("doer")

    monkeypatch.setattr("k3swatch.daemon.sources.open_flow_watch", broken)
    told: list[Event] = []
    sources = Sources(selectors.DefaultSelector(), Clock(), told.append, lambda: None)
    sources._load()
    sources.flows.attempt(sources._take_flows)
    (event,) = told
    assert event.message.startswith("connections: a bug, KeyError: 'doer' (")
    assert "test_confine.py:" in event.message
