"""The Unix socket that `k3swatch status` asks.

A client connects and gets one JSON document; nothing is read from it, so there is nothing to parse and no
request to get wrong. Local only, mode 0660, a few clients at a time; the daemon never waits for one.
"""

from __future__ import annotations

import os
import socket
import stat

from k3swatch.errors import NotPermitted, SourceError

MAX_ANSWER = 1 << 20
_TIMEOUT = 5.0
# `uapi/asm-generic/socket.h`: past net.core.wmem_max, so that the document fits in the buffer whole
_SO_SNDBUFFORCE = 32


class ControlSocket:
    """The daemon's end. `fileno()` is readable when a client waits."""

    def __init__(self, path: str) -> None:
        """Listen at `path`; a stale socket of a daemon that died is replaced. Raises SourceError."""
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._bind()
            self._inode = os.stat(path).st_ino
        except OSError as error:
            self._socket.close()
            raise SourceError(
                f"control socket {path}: {error.strerror}",
                "`k3swatch status` will not work; see control.socket",
            ) from error
        self._socket.setblocking(False)

    def _bind(self) -> None:
        os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
        umask = os.umask(0o117)
        try:
            if _stale(self.path):
                os.unlink(self.path)
            self._socket.bind(self.path)
        finally:
            os.umask(umask)
        self._socket.listen(8)

    def fileno(self) -> int:
        """Readable when a client waits."""
        return self._socket.fileno()

    def answer(self, document: bytes) -> None:
        """Give every waiting client the document and close. Never blocks, never raises."""
        for _ in range(8):
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                try:
                    client.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, MAX_ANSWER)
                    client.setblocking(False)
                    client.send(document)
                except OSError:
                    continue

    def close(self) -> None:
        """Stop listening and remove the socket, unless another daemon has put its own there."""
        self._socket.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except OSError:
            pass


def _stale(path: str) -> bool:
    """Whether `path` is a socket nobody listens at."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def ask(path: str) -> bytes:
    """The running daemon's document. Raises NotPermitted or SourceError when there is none to be had."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(_TIMEOUT)
            sock.connect(path)
            answer = bytearray()
            while len(answer) <= MAX_ANSWER and (part := sock.recv(65536)):
                answer += part
            return bytes(answer)
    except PermissionError as error:
        raise NotPermitted(
            f"{path}: {error.strerror}", "run as root, or as a member of the socket's group"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceError(
            f"{path}: {reason}", "is the daemon running? `systemctl status k3swatch`"
        ) from error
