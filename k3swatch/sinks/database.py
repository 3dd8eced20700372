"""The SQLite file of the store: its tables, bounds and questions. Blocks, and raises sqlite3.Error.

Bounded: ROWS transitions and as many incidents, and BYTES of all of it, oldest resolved ones first out. WAL and
synchronous NORMAL: a power cut may lose the last seconds, never the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from k3swatch.model.incident import Incident, Transition
from k3swatch.sinks.codec import encode
from k3swatch.view.message import message

FILE = "incidents.db"
VERSION = 1
ROWS = 5000
BYTES = 64 << 20  # an incident may name thousands of addresses
_SPILL = 8  # beyond BYTES, so much of the rows goes at once: one in eight

SCHEMA = """
CREATE TABLE IF NOT EXISTS incidents (
    id TEXT PRIMARY KEY, port TEXT NOT NULL, state TEXT NOT NULL,
    opened_at REAL NOT NULL, updated_at REAL NOT NULL, resolved_at REAL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS transitions (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, incident TEXT NOT NULL,
    port TEXT NOT NULL, change TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS transitions_at ON transitions (at);
"""
OPEN_INCIDENTS = "SELECT body FROM incidents WHERE resolved_at IS NULL ORDER BY opened_at"


class Database:
    """One connection. Made and used in one thread only."""

    def __init__(self, path: Path) -> None:
        """Opens and checks the file, and makes the tables."""
        self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute("PRAGMA cache_size=-512")
            self._connection.execute("PRAGMA journal_size_limit=1048576")
            (sound,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if sound != "ok":
                raise sqlite3.DatabaseError(sound)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise sqlite3.DatabaseError(f"written by a newer version (schema {version})")
            if version < VERSION:  # or it would write, and a full disk would hide what is known
                self._connection.executescript(SCHEMA)
                self._connection.execute(f"PRAGMA user_version={VERSION}")
        except sqlite3.Error:
            self._connection.close()
            raise

    def open_incidents(self) -> Iterator[str]:
        """The bodies of all open incidents, oldest first."""
        for (body,) in self._connection.execute(OPEN_INCIDENTS):
            yield body

    def write(self, transition: Transition) -> None:
        """Keep one transition and the incident as it is now, both or neither."""
        incident = transition.incident
        with self._transaction():
            self._connection.execute(
                "INSERT INTO incidents VALUES (?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET state=excluded.state, "
                "updated_at=excluded.updated_at, resolved_at=excluded.resolved_at, body=excluded.body",
                (
                    incident.id,
                    incident.port,
                    incident.state,
                    incident.opened_at,
                    incident.updated_at,
                    incident.resolved_at,
                    encode(incident),
                ),
            )
            cursor = self._connection.execute(
                "INSERT INTO transitions (at, incident, port, change, state, message) VALUES (?,?,?,?,?,?)",
                (
                    transition.at,
                    incident.id,
                    incident.port,
                    transition.change,
                    transition.verdict.state,
                    message(transition),
                ),
            )
            if (cursor.lastrowid or 0) % 100 == 0:
                self._trim()
            self._spill()

    def recount(self, incident: Incident) -> None:
        """Keep how many connections an open incident has by now; nothing was told, so there is no transition."""
        self._connection.execute(
            "UPDATE incidents SET body=? WHERE id=? AND resolved_at IS NULL", (encode(incident), incident.id)
        )

    def _trim(self) -> None:
        self._connection.execute(
            "DELETE FROM transitions WHERE number <= (SELECT max(number) FROM transitions) - ?", (ROWS,)
        )
        self._connection.execute(
            "DELETE FROM incidents WHERE resolved_at IS NOT NULL AND id NOT IN "
            "(SELECT id FROM incidents ORDER BY resolved_at IS NULL DESC, updated_at DESC LIMIT ?)",
            (ROWS,),
        )

    def _spill(self) -> None:
        """Delete until what is kept is small enough; open incidents stay. The file's free pages are used again."""
        while self._size() > BYTES:
            before = self._connection.total_changes
            for table, order, which in (
                ("transitions", "number", "1"),
                ("incidents", "updated_at", "resolved_at IS NOT NULL"),
            ):
                self._connection.execute(
                    f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {which} ORDER BY {order} "
                    f"LIMIT 1 + (SELECT count(*) FROM {table} WHERE {which}) / {_SPILL})"
                )
            if self._connection.total_changes == before:
                return

    def _size(self) -> int:
        """Bytes of the pages in use."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _transaction(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection  # commits, or rolls back when the block raises

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()


def open_incidents_beside_a_full_disk(path: Path) -> list[str]:
    """The bodies of all open incidents from a file that cannot be opened for writing, oldest first.

    As its only user SQLite needs no room for shared memory (<https://sqlite.org/wal.html#noshm>). Where it may not lock
    the file either (a file system that is mounted read-only), what is still in the write-ahead log only is not seen.
    """
    uri = path.absolute().as_uri()
    try:
        return _open_incidents(uri, "PRAGMA locking_mode=EXCLUSIVE")
    except sqlite3.Error:
        return _open_incidents(f"{uri}?mode=ro&immutable=1")


def _open_incidents(uri: str, *pragmas: str) -> list[str]:
    connection = sqlite3.connect(uri, uri=True, timeout=1.0, isolation_level=None)
    try:
        for pragma in pragmas:
            connection.execute(pragma)
        rows = connection.execute(OPEN_INCIDENTS).fetchall()
    finally:
        connection.close()
    return [body for (body,) in rows]
