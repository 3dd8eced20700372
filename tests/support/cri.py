"""A container runtime's end of the CRI: a Unix socket and what speaks at it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from k3swatch.attribute.wire import delimited

SOCKET = "run/k3s/containerd/containerd.sock"
Peer = Callable[[socket.socket], None]


class Runtime:
    """A listener at the socket that gives every connection to `peer`."""

    def __init__(self, directory: Path, peer: Peer, path: str = SOCKET) -> None:
        self.asked = 0
        self._peer = peer
        self._socket = socket.socket(socket.AF_UNIX)
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        self._socket.bind(str(file))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.asked += 1
                with connection, suppress(OSError):
                    self._peer(connection)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(3)
        self._socket.close()


def sandbox(
    identifier: str, name: str, uid: str, namespace: str, labels: Mapping[str, str], state: int = 0
) -> bytes:
    """A PodSandbox message."""
    meta = delimited(1, name.encode()) + delimited(2, uid.encode()) + delimited(3, namespace.encode())
    entries = (delimited(1, k.encode()) + delimited(2, v.encode()) for k, v in labels.items())
    flag = bytes([3 << 3, state]) if state else b""
    return (
        delimited(1, identifier.encode())
        + delimited(2, meta)
        + flag
        + b"".join(delimited(5, each) for each in entries)
    )


def speaks(*items: bytes, status: str = "0") -> Peer:
    """A peer that speaks HTTP/2 and lists these, whatever it is asked for."""

    def peer(connection: socket.socket) -> None:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        answer = b"".join(delimited(1, item) for item in items)
        body, stream = b"\0" + len(answer).to_bytes(4, "big") + answer, 0
        while body:
            connection.sendall(http.data_to_send())
            part = connection.recv(65536)
            if not part:
                return
            for event in http.receive_data(part):
                if isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            while body and stream and (room := min(http.local_flow_control_window(stream), 16384)):
                http.send_data(stream, body[:room])
                body = body[room:]
        http.send_headers(stream, [("grpc-status", status)], end_stream=True)
        connection.sendall(http.data_to_send())
        connection.recv(65536)

    return peer
