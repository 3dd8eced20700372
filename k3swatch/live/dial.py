"""Who answers: a real connection to a protected port, and whether its other end is a socket of this host.

The handshake alone proves nothing: a hijacker completes it, too. A socket of this network namespace that has just
these two ends does: it is the listener's child, whether or not the program has accepted it.
"""

from __future__ import annotations

import socket
import time

from k3swatch.model.plan import Answer
from k3swatch.sources.sockdiag import has_socket

PATIENCE = 2.0  # seconds for a handshake
_TRIES = 5


def dial(address: str, port: int) -> Answer:
    """Connect over TCP and look at both ends; nothing is sent. Raises NotPermitted, Unsupported, SourceError."""
    try:
        with socket.create_connection((address, port), PATIENCE) as connection:
            own = connection.getsockname()
            for attempt in range(_TRIES):
                if has_socket(socket.IPPROTO_TCP, (address, port), (own[0], own[1])):
                    return Answer.HERE
                time.sleep(0.01 * attempt)
            return Answer.ELSEWHERE
    except ConnectionRefusedError:
        return Answer.REFUSED
    except OSError:
        return Answer.NONE
