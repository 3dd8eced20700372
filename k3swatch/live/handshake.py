"""Who answers TLS at an address: a handshake, and what the certificate says. Nothing is sent after it.

Python's ssl shows the contents of a certificate only when it has verified it. Without the CA the certificate that was
shown is made its own trust anchor (X509_V_FLAG_PARTIAL_CHAIN) for a second handshake: that proves nothing, but reads
it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k3swatch.model.port import Address

if TYPE_CHECKING:
    import ssl

TRAFFIC, PART = 128 << 10, 4 << 10  # bytes of a handshake, and between two looks at the clock
NAMES, LENGTH = 8, 128  # subject alternative names, characters of one
_PARTIAL_CHAIN = 0x80000  # openssl/x509_vfy.h; ssl.VERIFY_X509_PARTIAL_CHAIN


@dataclass(frozen=True, slots=True)
class Shown:
    """What a server showed. `verified` None: there was no CA to check it with."""

    verified: bool | None
    issuer: str | None = None
    names: tuple[str, ...] = ()


def handshake(
    address: Address, port: int, ca: str | None, seconds: float, dialling: Callable[[int], None]
) -> Shown:
    """Dial, shake hands, close. `ca`: PEM of the CA that its certificate should be of. `dialling` is told the local
    port of each connection before it is made.

    Raises OSError: refused, timed out, no TLS. Each connection takes at most `seconds`.
    """
    import ssl  # only when a port is taken: 3 MB

    def shake(context: ssl.SSLContext) -> tuple[bytes | None, dict[str, object]]:
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as plain:
            plain.settimeout(seconds)
            plain.bind(("", 0))
            dialling(plain.getsockname()[1])
            plain.connect((str(address), port))
            return _shake(plain, context, time.monotonic() + seconds)

    def trusting(anchor: str | bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # by which address it was dialled says nothing
        context.load_verify_locations(cadata=anchor)
        return context

    verified: bool | None = None
    with suppress(ssl.SSLError, ValueError):  # a damaged CA file is none
        context = trusting(ca) if ca is not None else None
        if context is not None:
            try:
                return _shown(shake(context)[1], True)
            except ssl.SSLCertVerificationError:
                verified = False
            except ssl.SSLError:
                pass  # whatever it was, it is the same without a CA
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    certificate, _ = shake(anybody)
    if certificate is None:
        return Shown(verified)
    try:
        itself = trusting(certificate)
        itself.verify_flags |= ssl.VerifyFlags(_PARTIAL_CHAIN)
        return _shown(shake(itself)[1], verified)
    except OSError:  # expired, or another one the second time
        return Shown(verified)


def _shake(
    plain: socket.socket, context: ssl.SSLContext, until: float
) -> tuple[bytes | None, dict[str, object]]:
    """The peer's certificate, as DER, and as the words of it when it was verified. Bytes are counted and the clock is
    looked at between them: OpenSSL itself goes on for as long as the peer sends."""
    import ssl

    incoming, outgoing, read = ssl.MemoryBIO(), ssl.MemoryBIO(), 0
    stream = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            stream.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        else:
            done = True
        _wait(plain, until)
        plain.sendall(outgoing.read())
        if done:
            return stream.getpeercert(binary_form=True), dict(stream.getpeercert() or {})
        _wait(plain, until)
        part = plain.recv(PART)
        read += len(part)
        if not part or read > TRAFFIC:
            raise ConnectionResetError("cut off" if not part else "too much was sent")
        incoming.write(part)


def _wait(plain: socket.socket, until: float) -> None:
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    plain.settimeout(seconds)


def _shown(certificate: dict[str, object], verified: bool | None) -> Shown:
    issuer = None
    parts = certificate.get("issuer")
    for part in parts if isinstance(parts, tuple) else ():
        for key, value in part:
            issuer = str(value)[:LENGTH] if key == "commonName" else issuer
    found = certificate.get("subjectAltName")
    names = tuple(str(value)[:LENGTH] for _, value in (found if isinstance(found, tuple) else ())[:NAMES])
    return Shown(verified, issuer, names)
