"""Signals, and calls from other threads, as something the loop can wait on."""

from __future__ import annotations

import contextlib
import signal
import socket

_WANTED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """`fileno()` is readable after SIGTERM, SIGINT, SIGHUP or `wake()`."""

    def __init__(self) -> None:
        """Take over the three signals. Main thread only."""
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        # the byte in the socket is what counts; a Python handler must exist for it to be written
        self._old = {number: signal.signal(number, lambda *_: None) for number in _WANTED}

    def fileno(self) -> int:
        """To wait on."""
        return self._ours.fileno()

    def wake(self) -> None:
        """End a wait of the loop. From any thread; never blocks."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: there is no loop any more
            self._theirs.send(b"\0")

    def read(self) -> list[str]:
        """The names of the signals that came, oldest first; empty after a mere `wake()`."""
        try:
            numbers = self._ours.recv(256)
        except BlockingIOError:
            return []
        return [signal.Signals(number).name for number in numbers if number in _WANTED]

    def close(self) -> None:
        """Give the signals back."""
        for number, old in self._old.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(self._old_fd)
        self._ours.close()
        self._theirs.close()
