"""What survives a restart: open incidents and the history of what was told, in SQLite.

A thread writes, so that a slow disk delays nobody. What cannot be written now (disk full, read-only) waits, at most
1000 transitions, and is tried again; a file that is damaged is moved aside and a new one begun.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from k3swatch.clock import Clock
from k3swatch.errors import DecodeError
from k3swatch.model.finding import Observation
from k3swatch.model.incident import Event, Incident, Notice, Transition
from k3swatch.sinks.base import Report, unsaid
from k3swatch.sinks.codec import decode
from k3swatch.sinks.database import FILE, Database, open_incidents_beside_a_full_disk
from k3swatch.view.escape import escape

WAITING = 1000
RETRY = 5.0


class Store:
    """Tells the future."""

    name = "store"

    def __init__(self, directory: str, clock: Clock, report: Report = unsaid) -> None:
        """`directory` is made if need be. Never raises: without a usable file it goes on and tries again."""
        self.failures = 0
        self._path = Path(directory) / FILE
        self._clock, self._report = clock, report
        self._waiting: deque[Transition] = deque()
        self._recount: dict[
            str, Incident
        ] = {}  # by id: open ones that more connections met than were written
        self._counted: dict[str, int] = {}  # by id: connections when last passed to the thread
        self._condition = threading.Condition()
        self._stopping = False
        self._said = False
        self._loaded = self._load()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def load(self) -> tuple[Incident, ...]:
        """The incidents that were open when the last daemon stopped."""
        return self._loaded

    def publish(self, transition: Transition) -> None:
        """See Sink.publish."""
        with self._condition:
            if len(self._waiting) >= WAITING:
                self._waiting.popleft()
                self.failures += 1
            self._waiting.append(transition)
            self._recount.pop(transition.incident.id, None)  # older than what is written now
            self._condition.notify()

    def recount(self, incidents: Iterable[Incident]) -> None:
        """Keep the numbers of connections of the open incidents, where they have grown; they outlive a crash."""
        counted = {}
        with self._condition:
            for incident in incidents:
                counted[incident.id] = incident.connections
                if incident.connections > self._counted.get(incident.id, 0):
                    self._recount[incident.id] = incident
                    self._condition.notify()
            self._counted = counted

    def notify(self, event: Event) -> None:
        """Nothing: only incidents are kept."""

    def observe(self, observation: Observation) -> None:
        """Nothing: only incidents are kept."""

    def close(self, timeout: float) -> None:
        """Write what waits."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout)

    def _load(self) -> tuple[Incident, ...]:
        incidents = []
        for body in self._bodies():
            try:
                incidents.append(decode(body))
            except DecodeError as error:
                self._fail(f"one incident is forgotten: {error}")
        return tuple(incidents)

    def _bodies(self) -> list[str]:
        database = self._open()
        if database is None:
            # without its log the file may look damaged: it stays where it is, and why it could not be opened was said
            with contextlib.suppress(sqlite3.Error):
                if self._path.exists():
                    return open_incidents_beside_a_full_disk(self._path)
            return []
        try:
            return list(database.open_incidents())
        except sqlite3.Error as error:
            self._trouble(error)
            return []
        finally:
            database.close()

    def _open(self) -> Database | None:
        """The file, if it is usable; a damaged one is moved aside and a new one made."""
        for _ in range(2):
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                return Database(self._path)
            except (sqlite3.Error, OSError) as error:
                if not self._trouble(error):
                    break
        return None

    def _trouble(self, error: Exception) -> bool:
        """Count and say what went wrong. True when the file was damaged and is out of the way now."""
        if type(error) is not sqlite3.DatabaseError:  # its subclasses: locked, full, read-only, ...
            self._fail(f"{self._path}: {escape(str(error))}; kept in memory, tried again")
            return False
        aside = self._path.with_name(f"{FILE}.damaged-{int(self._clock.now())}")
        try:
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(FILE + suffix).rename(aside.with_name(aside.name + suffix))
        except OSError as obstacle:
            self._fail(f"{self._path} is damaged and cannot be moved aside: {escape(str(obstacle))}")
            return False
        self._said = False
        self._fail(
            f"{self._path} is damaged ({escape(str(error))}): moved to {aside.name}, history begins anew"
        )
        return True

    def _fail(self, message: str) -> None:
        self.failures += 1
        if not self._said:
            self._said = True
            self._report(
                Event(Notice.SINK_FAILED, "store", f"store: {message}", self._clock.now(), "df, dmesg")
            )

    def _run(self) -> None:
        database: Database | None = None
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._recount or self._stopping)
                work = self._waiting[0] if self._waiting else next(iter(self._recount.values()), None)
                if work is None:
                    break
            database = database or self._open()
            if database is not None:
                refused = self._write(database, work)
                if refused is None:
                    continue
                # closed on a full disk, it could not be opened again
                if getattr(refused, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
                    database.close()
                    database = None
            with self._condition:
                if self._stopping:
                    break
                self._condition.wait_for(lambda: self._stopping, RETRY)
        if database is not None:
            database.close()

    def _write(self, database: Database, work: Transition | Incident) -> sqlite3.Error | None:
        """Write what waits first; what was in the way."""
        try:
            if isinstance(work, Transition):
                database.write(work)
            else:
                database.recount(work)
        except sqlite3.Error as error:
            self._trouble(error)
            return error
        with self._condition:
            if self._waiting and self._waiting[0] is work:
                self._waiting.popleft()
            elif isinstance(work, Incident) and self._recount.get(work.id) is work:
                del self._recount[work.id]
        if self._said:
            self._said = False
            self._report(Event(Notice.SINK_RECOVERED, "store", "store: written again", self._clock.now()))
        return None
