"""The sink against an HTTP server that answers as it is told."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from k3swatch.clock import SystemClock
from k3swatch.model.incident import Change, Event, Notice
from k3swatch.sinks import alertmanager
from k3swatch.sinks.alertmanager import Alertmanager


class Peer:
    """Keeps what it is sent; answers with the statuses given, the last one for ever."""

    def __init__(self, *statuses: int, delay: float = 0.0) -> None:
        self.statuses, self.delay = list(statuses) or [200], delay
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.paths: list[str] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(peer.delay)
                peer.bodies.append(json.loads(body))
                peer.headers.append(self.headers)
                peer.paths.append(self.path)
                self.send_response(peer.statuses.pop(0) if len(peer.statuses) > 1 else peer.statuses[0])
                self.end_headers()
                self.wfile.write(b'"because"')

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def wait(self, count: int, timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while len(self.bodies) < count:
            assert time.monotonic() < end, f"{len(self.bodies)} messages, not {count}"
            time.sleep(0.01)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Setup:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closing: list[Callable[[], None]] = []

    def peer(self, *statuses: int, **fields: Any) -> Peer:
        peer = Peer(*statuses, **fields)
        self.closing.append(peer.close)
        return peer

    def sink(self, *urls: str, **fields: Any) -> Alertmanager:
        sink = Alertmanager(urls, "node1", SystemClock(), self.events.append, **fields)
        self.closing.append(lambda: sink.close(2))
        return sink


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    monkeypatch.setattr(alertmanager, "BACKOFF", 0.05)
    setup = Setup()
    yield setup
    for close in reversed(setup.closing):
        close()


def test_all_peers_are_told_at_once(make: Any, setup: Setup) -> None:
    peers = [setup.peer(), setup.peer()]
    sink = setup.sink(peers[0].url, peers[1].url + "/am/")
    sink.publish(make.transition(Change.OPENED))
    for peer in peers:
        peer.wait(1)
        assert peer.bodies[0][0]["labels"]["alertname"] == "K3swatchPortDiverted"
    assert [peer.paths[0] for peer in peers] == ["/api/v2/alerts", "/am/api/v2/alerts"]
    assert sink.failures == 0


def test_a_firing_alert_is_repeated(make: Any, setup: Setup) -> None:
    peer = setup.peer()
    setup.sink(peer.url, interval=0.2, incidents=[make.incident()])
    peer.wait(4)
    assert len({body[0]["endsAt"] for body in peer.bodies}) > 1


def test_a_peer_that_fails_is_tried_again_and_said_once(make: Any, setup: Setup) -> None:
    peer = setup.peer(500, 503, 429, 200)
    sink = setup.sink(peer.url)
    sink.publish(make.transition(Change.OPENED))
    peer.wait(4)
    deadline = time.monotonic() + 20
    while len(setup.events) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [event.notice for event in setup.events] == [Notice.SINK_FAILED, Notice.SINK_RECOVERED]
    assert 'does not take alerts: 500 Internal Server Error: "because"' in setup.events[0].message
    assert sink.failures == 3


def test_a_peer_that_is_not_there_is_said_in_plain_words(make: Any, setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    setup.sink(address).publish(make.transition(Change.OPENED))
    deadline = time.monotonic() + 20
    while not setup.events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert setup.events[0].message == f"alertmanager {address} does not take alerts: Connection refused"


def test_a_refusal_is_dropped_and_the_next_message_goes_out(make: Any, setup: Setup) -> None:
    peer = setup.peer(400, 200)
    sink = setup.sink(peer.url)
    sink.publish(make.transition(Change.OPENED))
    peer.wait(1)
    time.sleep(0.4)
    assert len(peer.bodies) == 1
    assert sink.failures == 1
    sink.publish(make.transition(Change.CONFIRMED))
    peer.wait(2)


def test_a_peer_that_hangs_delays_neither_the_daemon_nor_the_others(make: Any, setup: Setup) -> None:
    slow, quick = setup.peer(delay=4.0), setup.peer()
    sink = setup.sink(slow.url, quick.url, "http://127.0.0.1:1")
    start = time.monotonic()
    for _ in range(100):
        sink.publish(make.transition(Change.OPENED))
    quick.wait(1)
    assert time.monotonic() - start < slow.delay
    assert not slow.bodies
    slow.wait(1)
    assert sink.failures >= 1


def test_what_is_new_is_still_sent_when_the_daemon_stops(make: Any, setup: Setup) -> None:
    peer = setup.peer(delay=0.2)
    sink = setup.sink(peer.url)
    sink.publish(make.transition(Change.OPENED))
    peer.wait(1)
    sink.publish(make.transition(Change.RESOLVED, at=time.time()))
    sink.close(2.0)
    assert len(peer.bodies) == 2


def test_closing_does_not_wait_for_a_peer_that_hangs(make: Any, setup: Setup) -> None:
    sink = setup.sink(setup.peer(delay=8.0).url)
    sink.publish(make.transition(Change.OPENED))
    start = time.monotonic()
    sink.close(0.3)
    assert time.monotonic() - start < 6


def test_the_password_goes_into_the_header_and_nowhere_else(make: Any, setup: Setup) -> None:
    peer = setup.peer(500, 200)
    sink = setup.sink(peer.url.replace("http://", "http://us%40er:s%3Acret@"))
    sink.publish(make.transition(Change.OPENED))
    peer.wait(2)
    assert base64.b64decode(peer.headers[0]["Authorization"].split()[1]) == b"us@er:s:cret"
    assert all("cret" not in event.message for event in setup.events)


def test_an_address_that_makes_no_sense_is_a_failure_not_a_crash(make: Any, setup: Setup) -> None:
    sink = setup.sink("http://127.0.0.1:99999/")
    sink.publish(make.transition(Change.OPENED))
    deadline = time.monotonic() + 20
    while not setup.events and time.monotonic() < deadline:
        time.sleep(0.01)
    assert setup.events[0].notice is Notice.SINK_FAILED
