"""Tells every Alertmanager (API v2). Each peer has a thread of its own: one that hangs delays nobody else.

Peers are never balanced: each must know everything, they agree among themselves whom to notify. What is sent is
always the whole board (alerts.py), so nothing queues up and a peer that was away, or restarted, is current again with
the first message it takes.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import ssl
import threading
from collections.abc import Iterable, Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from k3swatch.clock import Clock
from k3swatch.model.finding import Observation
from k3swatch.model.incident import Event, Incident, Notice, Transition
from k3swatch.sinks.alerts import Board
from k3swatch.sinks.base import Report, unsaid
from k3swatch.view.escape import escape

INTERVAL = 60.0  # seconds until everything is sent again
HOLD = 4  # intervals after which Alertmanager resolves an alert that is not sent again
TIMEOUT = 10.0
BACKOFF, SLOWEST = 1.0, 30.0


class Alertmanager:
    """Tells whoever Alertmanager tells."""

    name = "alertmanager"

    def __init__(
        self,
        urls: Sequence[str],
        host: str,
        clock: Clock,
        report: Report = unsaid,
        incidents: Iterable[Incident] = (),
        interval: float = INTERVAL,
    ) -> None:
        """`host` becomes the label `instance`; `incidents` are the open ones from before a restart."""
        self._board = Board(host, incidents)
        self._lock = threading.Lock()
        self._refused = 0
        self._clock, self._hold = clock, HOLD * interval
        # last: their threads ask for the board at once
        self._peers = [_Peer(url, self, clock, report, interval) for url in urls]

    @property
    def failures(self) -> int:
        """See Sink.failures."""
        return self._refused + sum(peer.failures for peer in self._peers)

    def publish(self, transition: Transition) -> None:
        """See Sink.publish."""
        with self._lock:
            self._refused += not self._board.take(transition)
        for peer in self._peers:
            peer.wake()

    def notify(self, event: Event) -> None:
        """Nothing: events are for the journal, and for the rules in packaging/prometheus/."""

    def observe(self, observation: Observation) -> None:
        """Nothing: alerts are about incidents."""

    def body(self) -> bytes | None:
        """What to send now; None when there is nothing to say. For the peers' threads."""
        with self._lock:
            alerts = self._board.payload(self._clock.now(), self._hold)
        return json.dumps(alerts).encode() if alerts else None

    def close(self, timeout: float) -> None:
        """Send what was not sent yet. Firing alerts are not resolved: that the watch ends is no good news."""
        for peer in self._peers:
            peer.stop()
        end = self._clock.monotonic() + timeout
        for peer in self._peers:
            peer.join(max(0.0, end - self._clock.monotonic()))


class _Peer:
    """One Alertmanager: sends when woken or due, and waits longer after each failure."""

    def __init__(self, url: str, sink: Alertmanager, clock: Clock, report: Report, interval: float) -> None:
        self.failures = 0
        self._url = urlsplit(url)
        self._sink, self._clock, self._report, self._interval = sink, clock, report, interval
        self._news, self._stopping = True, False
        self._failed = 0  # times in a row
        self._said = False  # that it does not take them
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="alertmanager", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is news."""
        with self._condition:
            self._news = True
            self._condition.notify()

    def stop(self) -> None:
        """Send what is new, once, and end."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def join(self, timeout: float) -> None:
        """Wait for that."""
        self._thread.join(timeout)

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._condition:
                # news end a wait, but not the pause after a failure
                self._condition.wait_for(lambda: self._stopping or (self._news and not self._failed), pause)
                if self._stopping and not self._news:
                    return
                stopping, self._news = self._stopping, False
            body = self._sink.body()
            pause = self._judge(*self._post(body)) if body is not None else self._interval
            if stopping:
                return

    def _judge(self, status: int, trouble: str) -> float:
        """What an answer means (status 0: none came): the seconds to wait before everything is sent again."""
        if status // 100 == 2:
            if self._said:
                self._say(Notice.SINK_RECOVERED, f"{self._shown()} takes alerts again")
            self._failed, self._said = 0, False
            return self._interval
        self.failures += 1
        if not self._said:
            self._say(Notice.SINK_FAILED, f"{self._shown()} does not take alerts: {escape(trouble)}")
        self._said = True
        if status // 100 == 4 and status not in (408, 429):
            self._failed = 0  # it would refuse the same again: dropped, the next message is another one
            return self._interval
        self._failed += 1
        with self._condition:
            self._news = True
        return min(SLOWEST, self._interval, BACKOFF * 2.0 ** min(self._failed - 1, 16)) * random.uniform(
            0.5, 1.0
        )

    def _post(self, body: bytes) -> tuple[int, str]:
        """Send; the status of the answer (0: none came) and what went wrong."""
        headers = {"Content-Type": "application/json", "User-Agent": "k3swatch", "Connection": "close"}
        if self._url.username is not None:
            pair = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        connection = None
        try:
            connection = _connect(self._url)
            connection.request("POST", f"{self._url.path.rstrip('/')}/api/v2/alerts", body, headers)
            answer = connection.getresponse()
            return (
                answer.status,
                f"{answer.status} {answer.reason}: {answer.read(300).decode(errors='replace')}",
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            return 0, getattr(error, "strerror", None) or str(error) or type(error).__name__
        finally:
            if connection is not None:
                connection.close()

    def _shown(self) -> str:
        """The URL without its password."""
        return escape(
            f"alertmanager {self._url.scheme}://{self._url.netloc.rpartition('@')[2]}{self._url.path}"
        )

    def _say(self, notice: Notice, message: str) -> None:
        self._report(Event(notice, "alertmanager", message, self._clock.now()))


def _connect(url: SplitResult) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "https":
        return http.client.HTTPSConnection(
            host, url.port, timeout=TIMEOUT, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(host, url.port, timeout=TIMEOUT)
