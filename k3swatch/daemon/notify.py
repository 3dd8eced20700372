"""sd_notify(3): tells the service manager how it goes. Without NOTIFY_SOCKET every call does nothing."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """The service manager's socket, from NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID of the environment."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        env = dict(os.environ) if environ is None else environ
        address = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = env.get("WATCHDOG_USEC", "")
        # seconds between two signs of life, half of what the manager allows; None: it does not ask for any
        self.watchdog_interval = int(usec) / 2e6 if mine and usec.isdigit() and int(usec) else None

    @property
    def managed(self) -> bool:
        """Whether there is a service manager, who starts us again when we end."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Reading the configuration again; `ready` follows. Type=notify-reload wants the time."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """On the way out."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError:
            pass  # the manager's loss; there is nobody else to tell
