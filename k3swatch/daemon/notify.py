"""sd_notify(3): tells the service manager how it goes. Without NOTIFY_SOCKET every call does nothing."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import socket
import time
from collections.abc import Mapping, Sequence

from k3swatch.errors import SourceError

_FIRST = 3  # SD_LISTEN_FDS_START, sd-daemon.h
PATIENCE = 1.0  # seconds that what is told only once waits for a manager that does not read


class Notifier:
    """The service manager, by NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID of the environment.

    Speaks through systemd-python, which is imported only where there is a manager: it brings 2 MB of libsystemd.
    A manager that stands still must not stop the watch: sd_notify(3) waits while the socket's queue is full, so it is
    asked first whether there is room; what comes again every second is then left out.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """SourceError when there is a manager and no systemd-python to tell it anything."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address:
            try:
                # by name: in a checkout mypy takes the folder systemd/ for the package
                self._notify = importlib.import_module("systemd.daemon").notify
            except ImportError as error:
                hint = "apt install python3-systemd, or do not set NOTIFY_SOCKET"
                raise SourceError(f"started by a service manager, but {error}", hint) from error
        names = environ.get("LISTEN_FDNAMES", "").split(":")
        handed = environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS") == str(
            len(names)
        )
        self._names = names if handed else []
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        # seconds between two signs of life, half of what the manager allows; None: it does not ask for any
        self.watchdog_interval = int(usec) / 2e6 if mine and usec.isdigit() and int(usec) else None

    @property
    def managed(self) -> bool:
        """Whether there is a service manager, who starts us again when we end."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._send(f"READY=1\nSTATUS={status}", PATIENCE)

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Reading the configuration again; `ready` follows. Type=notify-reload wants the time."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", PATIENCE)

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1", PATIENCE)

    def watchdog(self) -> None:
        """Alive."""
        self._send("WATCHDOG=1")

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Hold copies of `descriptors` for the process that is started after this one. A name has no colon."""
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", PATIENCE, descriptors)

    def forget(self, name: str) -> bool:
        """Close all that is kept under `name`; whether the manager was told, which may be busy."""
        return self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def inherited(self) -> list[tuple[str, int]]:
        """What was kept of a process before, by name: the caller's from now on. See sd_listen_fds(3)."""
        names, self._names = self._names, []
        for descriptor in range(_FIRST, _FIRST + len(names)):
            os.set_inheritable(descriptor, False)
        return [(name, descriptor) for descriptor, name in enumerate(names, _FIRST)]

    def _send(self, message: str, patience: float = 0.0, descriptors: Sequence[int] = ()) -> bool:
        if self._address:
            with contextlib.suppress(OSError):  # the manager's loss; there is nobody else to tell
                if not self._has_room(patience):
                    return False
                self._notify(message, fds=list(descriptors)) if descriptors else self._notify(message)
        return True

    def _has_room(self, patience: float) -> bool:
        """Whether the manager's queue takes a message: only a connected socket is told."""
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            return bool(select.select([], [sock], [], patience)[1])
