"""Who answers TLS: servers with every kind of certificate, and peers that speak none, on loopback."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from k3swatch.live.handshake import LENGTH, NAMES, Shown, handshake

LOCALHOST = ipaddress.ip_address("127.0.0.1")
SECONDS = 2.0


def certificate(folder: Path, name: str, subject: str, names: str, days: int = 2, of: str = "") -> Path:
    """Key and certificate in one file, made by openssl; `of`: the name of the CA that signs it, itself else."""
    file = folder / f"{name}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", str(days), "-subj", subject, "-addext", f"subjectAltName={names}", "-utf8"]
    command += ["-keyout", str(folder / f"{name}.key"), "-out", str(file)]
    if of:
        command += ["-CA", str(folder / f"{of}.pem"), "-CAkey", str(folder / f"{of}.key")]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    return file


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a listener that gives each connection to `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(3)


def tls(folder: Path, name: str) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")

    def answer(connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        with context.wrap_socket(connection, server_side=True) as stream:
            stream.recv(1)

    return answer


def dial(port: int, ca: str | None = None, seconds: float = SECONDS) -> tuple[Shown, list[int]]:
    ports: list[int] = []
    return handshake(LOCALHOST, port, ca, seconds, ports.append), ports


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster's CA with a server, as K3s names them, and another's; one that has expired."""
    made = tmp_path_factory.mktemp("pki")
    certificate(made, "ca", "/CN=k3s-server-ca@1735201000", "DNS:ca")
    certificate(made, "server", "/O=k3s/CN=k3s", "DNS:kubernetes,IP:127.0.0.1,IP:10.43.0.1", of="ca")
    certificate(made, "other", "/CN=somebody", "DNS:other")
    evil = "/CN=e\u202evil\x1b[2J" + "x" * 30
    certificate(made, "evil", evil, ",".join(f"DNS:n{number}.example" for number in range(200)))
    return made


def test_verified_by_the_ca_in_one_connection(folder: Path) -> None:
    with listening(tls(folder, "server")) as port:
        shown, ports = dial(port, (folder / "ca.pem").read_text())
    assert shown == Shown(True, "k3s-server-ca@1735201000", ("kubernetes", "127.0.0.1", "10.43.0.1"))
    assert len(ports) == 1


@pytest.mark.parametrize(
    "ca", [None, "", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_without_a_ca_or_with_a_damaged_one_the_issuer_is_told(folder: Path, ca: str | None) -> None:
    with listening(tls(folder, "server")) as port:
        shown, ports = dial(port, ca)
    assert shown == Shown(None, "k3s-server-ca@1735201000", ("kubernetes", "127.0.0.1", "10.43.0.1"))
    assert len(ports) == 2


def test_another_ca_is_another_cluster(folder: Path) -> None:
    with listening(tls(folder, "other")) as port:
        shown, _ = dial(port, (folder / "ca.pem").read_text())
    assert (shown.verified, shown.issuer) == (False, "somebody")


def test_hostile_names_are_bounded(folder: Path) -> None:
    with listening(tls(folder, "evil")) as port:
        shown, _ = dial(port)
    assert shown.verified is None
    assert len(shown.names) == NAMES
    assert shown.issuer is not None
    assert len(shown.issuer) <= LENGTH


def trickle(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"\x16")
        time.sleep(0.05)


def endless(connection: socket.socket) -> None:
    """Handshake records without end."""
    while True:
        connection.sendall(b"\x16\x03\x03\x40\x00" + b"\0" * 16384)


SILENT = {
    "closes": lambda connection: None,
    "http": lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "silent": lambda connection: time.sleep(1),
    "trickle": trickle,
    "endless": endless,
}


@pytest.mark.parametrize("answer", SILENT.values(), ids=SILENT.keys())
def test_what_is_no_tls_ends_in_time(answer: Callable[[socket.socket], None]) -> None:
    begin = time.monotonic()
    with listening(answer) as port, pytest.raises(OSError):  # noqa: PT011  ssl.SSLError, ConnectionError, TimeoutError
        dial(port, seconds=0.3)
    assert time.monotonic() - begin < 4.0  # the peers of this test take their time to end


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        dial(port)
