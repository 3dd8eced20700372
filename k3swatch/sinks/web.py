"""A small HTTP/1.0 server for a few pages, that no client can hang, crowd out or make large.

One thread accepts; each connection gets a thread, at most 16 at a time: beyond that the oldest is closed, so that a
scrape, which takes milliseconds, is always served. A connection lives ten seconds and sends 16 kB at most.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from k3swatch.clock import Clock
from k3swatch.errors import NotPermitted, SourceError

CONNECTIONS, LIFETIME, REQUEST, PATIENCE = 16, 10.0, 16_384, 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: status, media type, body."""

    status: int
    type: str
    body: bytes


App = Callable[[str, str], Page]  # path without query, Accept header


class _Bounded:
    """The client's lines, REQUEST bytes of them; then the answer is 431."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, REQUEST

    def readline(self, limit: int = -1) -> bytes:
        if self._left <= 0:
            raise HTTPException(f"more than {REQUEST} bytes")
        line: bytes = self._file.readline(self._left if limit < 0 else min(limit, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    """Reads one request and answers it."""

    timeout = PATIENCE
    app: App

    def setup(self) -> None:
        super().setup()
        self.rfile = cast("Any", _Bounded(self.rfile))

    def do_GET(self) -> None:
        page = self.app(self.path.partition("?")[0], self.headers.get("Accept") or "")
        self._answer(page)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._answer(Page(405, "text/plain; charset=utf-8", b"GET or HEAD\n"))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.type)
        self.send_header("Content-Length", str(len(page.body)))
        if page.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def version_string(self) -> str:
        return "k3swatch"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: scrapes are no news."""


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    since: float

    def cut(self) -> None:
        """End it from another thread: its reads and writes return at once. Not SSLSocket.shutdown: not thread-safe."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class WebServer:
    """Serves `app` on every address of `listen`. `tls`: paths of certificate and key, read again when they change."""

    def __init__(
        self, listen: Sequence[tuple[str, int]], app: App, clock: Clock, tls: tuple[str, str] | None = None
    ) -> None:
        """Binds and starts. SourceError says which address is taken or not ours; port 0 takes a free one."""
        self._handler = type("Handler", (_Handler,), {"app": staticmethod(app)})
        self._clock, self._tls = clock, tls
        self._stamp: tuple[int, ...] = ()
        self._context = self._load() if tls else None
        self._live: set[_Connection] = set()
        self._room = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._listeners: list[socket.socket] = []
        try:
            for host, port in listen:
                self._listeners.append(
                    _bind(host, port, any(h == "0.0.0.0" and p == port for h, p in listen))
                )
        except SourceError:
            self._release()
            raise
        self._selector.register(self._woken, selectors.EVENT_READ)
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it really listens."""
        return [listener.getsockname()[:2] for listener in self._listeners]

    def close(self, timeout: float) -> None:
        """Stop accepting, cut what is open."""
        self._wake.send(b"x")
        self._thread.join(timeout)
        with self._room:
            for connection in self._live:
                connection.cut()
        self._release()

    def _release(self) -> None:
        for each in (*self._listeners, self._wake, self._woken):
            each.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(1.0 if self._live else None):
                if key.fileobj is self._woken:
                    return
                with contextlib.suppress(OSError):
                    self._accept(cast("socket.socket", key.fileobj).accept()[0])
            with self._room:
                overdue = [each for each in self._live if self._clock.monotonic() - each.since > LIFETIME]
            for connection in overdue:
                connection.cut()

    def _accept(self, accepted: socket.socket) -> None:
        connection = _Connection(accepted, self._clock.monotonic())
        with self._room:
            for _ in range(
                40
            ):  # a cut one ends within a millisecond; the queue of the listener waits meanwhile
                if len(self._live) < CONNECTIONS:
                    break
                min(self._live, key=lambda each: each.since).cut()
                self._room.wait(0.05)
            else:
                accepted.close()
                return
            self._live.add(connection)
        try:
            threading.Thread(
                target=self._converse, args=(connection,), name="web-client", daemon=True
            ).start()
        except RuntimeError:  # no more threads
            self._end(connection)

    def _converse(self, connection: _Connection) -> None:
        # OSError: the client went away or was cut; ValueError: what it sent is no HTTP
        with contextlib.suppress(OSError, ValueError):
            connection.socket.settimeout(PATIENCE)
            context = self._current()
            if context is not None:
                plain = connection.socket
                connection.socket = secure = context.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
                secure.do_handshake()  # only now: it can be cut
            self._handler(connection.socket, ("", 0), None)
        self._end(connection)

    def _end(self, connection: _Connection) -> None:
        connection.cut()
        connection.socket.close()
        with self._room:
            self._live.discard(connection)
            self._room.notify()

    def _current(self) -> ssl.SSLContext | None:
        if self._tls is not None:
            with contextlib.suppress(SourceError):  # half written: the old one still serves
                self._context = self._load()
        return self._context

    def _load(self) -> ssl.SSLContext | None:
        assert self._tls is not None
        try:
            stamp = tuple(os.stat(path).st_mtime_ns for path in self._tls)
            if stamp == self._stamp:
                return self._context
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(*self._tls)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(f"metrics: certificate {self._tls[0]}: {error}", "see metrics.tls") from None
        self._stamp = stamp
        return context


def _bind(host: str, port: int, v6only: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
        listener.bind((host, port))
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        place = f"metrics: cannot listen on {f'[{host}]' if ':' in host else host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise SourceError(f"{place}: taken", f"`ss -ltnp sport = :{port}` shows by whom") from None
        if error.errno == errno.EACCES:
            raise NotPermitted(f"{place}: {error.strerror}", "use a port above 1023") from None
        raise SourceError(f"{place}: {error.strerror}", "see metrics.listen in the configuration") from None
    return listener
