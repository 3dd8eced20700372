"""One unary gRPC call over a connected Unix socket: bytes of a message out, bytes of a message in.

HTTP/2 is spoken by h2, which Debian packages; gRPC on top of it is a handful of headers and a five-byte prefix
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). grpcio would cost the daemon 20 MB and threads of its
own. The peer may be anybody who could bind the socket: it gets so many seconds and bytes, whatever it sends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from k3swatch.errors import SourceError, Unsupported

if TYPE_CHECKING:
    from h2.connection import H2Connection

ANSWER = 256 << 10  # bytes of a message
TRAFFIC = 1 << 20  # bytes that are read for it
PART = 8 << 10  # bytes between two looks at the clock: a thousand of the smallest frames
_PREFIX = 5  # compressed flag and length
_HEADERS = (
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)


def unary(connection: socket.socket, method: str, message: bytes, left: Callable[[], float]) -> bytes:
    """The answer of `method` (`/package.Service/Method`) to one message. `left`: the seconds that it still may take.

    Raises SourceError when there is none in time or it says no; Unsupported where h2 is not installed.
    """
    try:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.exceptions import ProtocolError
    except ImportError as error:
        raise Unsupported("gRPC needs python3-h2", "apt install python3-h2") from error
    http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    try:
        http.initiate_connection()
        stream = http.get_next_available_stream_id()
        http.send_headers(stream, [*_HEADERS[:2], (":path", method), *_HEADERS[2:]])
        http.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        return _exchange(connection, http, stream, left)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise SourceError(f"gRPC: {reason}") from error
    except (ProtocolError, ValueError, LookupError) as error:  # h2 and hpack on hostile bytes
        raise SourceError(f"gRPC: not HTTP/2: {type(error).__name__}") from error


def _exchange(connection: socket.socket, http: H2Connection, stream: int, left: Callable[[], float]) -> bytes:
    from h2 import events

    answer, status, read = bytearray(), "", 0
    while True:
        _wait(connection, left)
        connection.sendall(http.data_to_send())
        part = connection.recv(PART)
        read += len(part)
        if not part or read > TRAFFIC:
            raise SourceError(f"gRPC: {'too much was sent' if part else 'cut off'}")
        for event in http.receive_data(part):
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                status = dict(event.headers).get("grpc-status", status)
            elif isinstance(event, events.DataReceived):
                answer += event.data
                if len(answer) > ANSWER + _PREFIX:
                    raise SourceError(f"gRPC: an answer of more than {ANSWER >> 10} KB")
                if event.flow_controlled_length:
                    http.acknowledge_received_data(event.flow_controlled_length, stream)
            elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                raise SourceError(f"gRPC: refused, HTTP/2 error {event.error_code}")
            if getattr(event, "stream_ended", None) is not None or isinstance(event, events.StreamEnded):
                return _message(bytes(answer), status)


def _wait(connection: socket.socket, left: Callable[[], float]) -> None:
    seconds = left()
    if seconds <= 0:
        raise TimeoutError
    connection.settimeout(seconds)


def _message(answer: bytes, status: str) -> bytes:
    if status != "0":
        raise SourceError(f"gRPC: status {status[:16] if status.isprintable() else '?'}")
    if (
        len(answer) < _PREFIX
        or answer[0]
        or int.from_bytes(answer[1:_PREFIX], "big") != len(answer) - _PREFIX
    ):
        raise SourceError("gRPC: the answer is no single message")
    return answer[_PREFIX:]
