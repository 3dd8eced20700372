"""Stand-ins for API servers, which say who they are, and the question that decides: who answers?

Each listens with TLS, as kube-apiserver does, and answers `/ping` with pong and anything else with its name.
`who_answers` really connects. It is the ground truth that k3swatch's verdicts are compared with.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from k3swatch.demo.netns import Namespace, run

REFUSED, TIMEOUT, RESET, UNREACHABLE = "refused", "timeout", "reset", "unreachable"

IP_TRANSPARENT = 19  # <linux/in.h>
IPV6_TRANSPARENT = 75  # <linux/in6.h>


@cache
def server_context() -> ssl.SSLContext:
    """TLS with a certificate made now by openssl and forgotten at once."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="k3w-") as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "cert.pem")
        made = f"-nodes -days 2 -subj /CN=k3swatch-lab -keyout {key} -out {certificate}"
        run(f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 {made}".split())
        context.load_cert_chain(certificate, key)
    return context


@cache
def client_context() -> ssl.SSLContext:
    """TLS that believes everybody: the question is who answers, not whether it may."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class ApiServer:
    """A listener in a namespace that answers with its name. With no address it listens on all, v4 and v6."""

    def __init__(
        self, space: Namespace, name: str, port: int, address: str = "", transparent: bool = False
    ) -> None:
        """`transparent` makes it a possible target of TPROXY."""
        self.name = name
        family = socket.AF_INET if "." in address else socket.AF_INET6
        with space.inside():
            self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, bool(address))
        if transparent:
            self._socket.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        self._socket.bind((address, port))
        self._socket.listen(64)
        self._context = server_context()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):  # close() shuts the socket down
            while True:
                connection, peer = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection, peer[0]), daemon=True).start()

    def _answer(self, connection: socket.socket, peer: str) -> None:
        with suppress(OSError), connection:
            connection.settimeout(20)  # an emulated machine on a busy one
            with self._context.wrap_socket(connection, server_side=True) as stream:
                request = stream.recv(4096)
                body = b"pong" if request.startswith(b"GET /ping ") else f"{self.name} from={peer}".encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                stream.sendall(head.encode() + body)

    def close(self) -> None:
        """Stop listening."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def who_answers(space: Namespace, address: str, port: int, timeout: float = 1.0, source: str = "") -> str:
    """The name of the server that a TLS connection from `space` reaches; or how it failed: `refused`, `timeout`,
    `reset` or `unreachable`. `source` is the address to connect from, `timeout` in seconds.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with space.inside():
        plain = socket.socket(family, socket.SOCK_STREAM)
    with plain:
        plain.settimeout(timeout)
        if source:
            plain.bind((source, 0))
        try:
            plain.connect((address, port))
            with client_context().wrap_socket(plain) as stream:
                stream.sendall(b"GET /whoami HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                answer = b""
                while block := stream.recv(4096):
                    answer += block
        except ConnectionRefusedError:
            return REFUSED
        except TimeoutError:
            return TIMEOUT
        except (ConnectionResetError, ConnectionAbortedError, ssl.SSLError, BrokenPipeError):
            return RESET
        except OSError:
            return UNREACHABLE
    body = answer.partition(b"\r\n\r\n")[2].decode(errors="replace")
    return body.partition(" from=")[0]
