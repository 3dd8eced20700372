"""journald's native protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.

Not python-systemd: sd_journal_sendv(3) blocks while journald's queue is full, keeps silent when journald is absent,
and its socket's path is fixed. All three would make a watchdog that lies.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
from collections.abc import Iterable

SOCKET = "/run/systemd/journal/socket"
FIELD = 8192  # bytes of one field's value that are sent
_NAME = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

Fields = Iterable[tuple[str, str]]


def valid(name: str) -> bool:
    """Whether journald takes a field of this name from a client."""
    key = name.encode(errors="replace")
    return 0 < len(key) <= 64 and _NAME.issuperset(key) and key[0] not in b"_0123456789"


def encode(fields: Fields) -> bytes:
    """One entry. Every value is framed by its length, so that no line end in it can begin a field.

    ValueError for a field name that journald would not take; names are ours, never somebody else's text.
    """
    parts = []
    for name, value in fields:
        if not valid(name):
            raise ValueError(f"journal field name {name!r}")
        key = name.encode()
        data = value.encode(errors="backslashreplace")[:FIELD]
        parts.append(b"%s\n%s%s\n" % (key, len(data).to_bytes(8, "little"), data))
    return b"".join(parts)


class JournalSocket:
    """A datagram socket that never blocks. It has no peer: each entry finds journald anew, restarted or not."""

    def __init__(self, path: str = SOCKET) -> None:
        self.path = path
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        # what systemd's own clients ask for; more fits into the queue before journald must have read it
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)

    def send(self, entry: bytes) -> None:
        """Hand over one encoded entry. OSError when journald is not there, or does not read (BlockingIOError)."""
        try:
            self._socket.sendto(entry, self.path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_sealed(entry)

    def _send_sealed(self, entry: bytes) -> None:
        """An entry that is too large for a datagram goes as a sealed memfd, its descriptor as the only content."""
        descriptor = os.memfd_create("k3swatch-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(entry)
            fcntl.fcntl(
                descriptor,
                fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL,
            )
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            self._socket.sendmsg([b""], rights, 0, self.path)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()
