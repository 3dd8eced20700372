"""The thread that tries the ways to the API: what it learns, that it rests, and which connections are its own."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from k3swatch.clock import SystemClock
from k3swatch.daemon.ways import RECENT, Ways
from k3swatch.k3s.settings import Settings
from k3swatch.k3s.ways import Candidate
from k3swatch.model.flow import Flow, Outcome
from k3swatch.model.way import Answer
from k3swatch.model.words import Protocol

LOCALHOST = ipaddress.ip_address("127.0.0.1")


class Clock(SystemClock):
    """The system's, set forward by a test."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Listener:
    """Accepts, remembers who dialled, and says something that is no TLS."""

    def __init__(self) -> None:
        self.dialled: list[int] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            while True:
                connection, (_, port) = self.socket.accept()
                self.dialled.append(port)
                with connection:
                    connection.sendall(b"no TLS")
        except OSError:
            return


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.socket.close()


def flow(port: int) -> Flow:
    pod = ipaddress.ip_address("10.42.0.244")
    return Flow(Protocol.TCP, LOCALHOST, port, LOCALHOST, 6443, pod, 6443, Outcome.DIVERTED, 1.0)


def test_tried_once_until_it_is_time_or_something_else_is_wanted(listener: Listener) -> None:
    woken = threading.Event()
    clock = Clock()
    ways = Ways("/nonexistent", clock, woken.set)
    candidate = Candidate(LOCALHOST, listener.port, "/x/admin.kubeconfig")

    def tried() -> tuple[Answer, ...]:
        assert woken.wait(10)
        woken.clear()
        return tuple(way.answer for way in ways.learned() or ())

    try:
        assert ways.learned() is None
        ways.want(Settings(), [candidate], False)
        assert tried() == (Answer.SILENT,)
        ways.want(Settings(), [candidate], False)
        assert not woken.wait(0.3)
        ways.want(Settings(), [candidate], True)  # an incident changed
        assert tried() == (Answer.SILENT,)
        ways.want(Settings(), [candidate, replace(candidate, port=1)], False)  # something else is left alone
        assert len(tried()) == 2
        ways.rest()
        dialled = len(listener.dialled)
        assert not woken.wait(0.3)
        assert len(listener.dialled) == dialled
        assert all(ways.ours(flow(port)) for port in listener.dialled)
        assert not ways.ours(flow(1))
        clock.ahead = RECENT + 1  # the kernel gives the port to others
        assert not any(ways.ours(flow(port)) for port in listener.dialled)
    finally:
        ways.close()
