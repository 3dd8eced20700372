"""The journal: every transition and event, with its fields, and a line on stderr when journald is not there.

Never waits: an entry that journald does not take now is kept (the last 64 of them) and offered again with the next
one; when journald is absent it goes to stderr at once. On a terminal every line is shown there as well. Safe to call
from several threads.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from typing import IO

from k3swatch.model.finding import Observation
from k3swatch.model.incident import Event, Transition
from k3swatch.sinks.fields import IDENTIFIER, WARNING, Field, of_event, of_transition
from k3swatch.sinks.native import SOCKET, JournalSocket, encode
from k3swatch.view.escape import escape

KEPT = 64  # entries that wait for a journald that does not read
LINE = 1000  # characters of a line on stderr: less than PIPE_BUF in any case, so that it is written whole or not at all


class Journald:
    """Tells the journal of this host."""

    name = "journald"

    def __init__(
        self, path: str = SOCKET, stderr: IO[str] | None = None, enabled: bool = True, watched: bool = False
    ) -> None:
        """`stderr`: where lines go while journald is absent, or always when not `enabled`; None: nowhere. `watched`:
        somebody looks at stderr; lines always go there, for people: with the time, without a priority."""
        self.failures = 0
        self._watched = watched
        self._socket = JournalSocket(path) if enabled else None
        self._stderr = stderr
        self._waiting: deque[bytes] = deque(maxlen=KEPT)
        self._absent = False
        self._lock = threading.Lock()

    def publish(self, transition: Transition) -> None:
        """See Sink.publish."""
        self._tell(of_transition(transition), transition.at)

    def notify(self, event: Event) -> None:
        """See Sink.notify."""
        self._tell(of_event(event), event.at)

    def observe(self, observation: Observation) -> None:
        """Says nothing; offers again what journald did not take."""
        with self._lock:
            self._flush()

    def close(self, timeout: float) -> None:
        """Offer once more what waits; `timeout` is not needed."""
        with self._lock:
            self._flush()
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def _tell(self, fields: list[Field], at: float) -> None:
        with self._lock:
            if self._watched or self._socket is None:
                self._line(fields, at)
            if self._socket is None:
                return
            self._flush()
            entry = encode(fields)
            try:
                self._socket.send(entry)
                self._absent = False
            except BlockingIOError:
                self.failures += len(self._waiting) == KEPT  # the oldest is lost
                self._waiting.append(entry)
            except OSError as error:
                self.failures += 1
                if not self._absent:
                    self._absent = True
                    lost = (
                        f"journald cannot be told ({self._socket.path}: {error.strerror}); lines go to stderr"
                    )
                    self._line([("MESSAGE", lost), ("PRIORITY", str(WARNING))], at)
                if not self._watched:
                    self._line(fields, at)

    def _flush(self) -> None:
        while self._socket is not None and self._waiting:
            try:
                self._socket.send(self._waiting[0])
            except OSError:
                return
            self._waiting.popleft()

    def _line(self, fields: list[Field], at: float) -> None:
        """One line, with an sd-daemon(3) priority for programs, written only if stderr takes it without waiting."""
        if self._stderr is None:
            return
        values = dict(reversed(fields))  # the first of a name counts
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        head = clock if self._watched else f"<{values['PRIORITY']}>{IDENTIFIER}:"
        line = f"{head} {escape(values['MESSAGE'], LINE)}\n"
        try:
            _, ready, _ = select.select([], [self._stderr], [], 0)
            if ready:
                self._stderr.write(line)
                self._stderr.flush()
            else:
                self.failures += 1
        except (OSError, ValueError):  # closed, or gone
            self.failures += 1
