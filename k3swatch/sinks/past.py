"""The store's file, read by somebody else: beside a running daemon, or when there is none. It is never written.

A daemon that has the file open keeps a write-ahead log beside it, and SQLite must share that with the writer. Without
one the file is complete in itself and is read as it stands (`immutable`): otherwise SQLite would leave a log of its
own in the daemon's directory. <https://sqlite.org/wal.html#readonly>
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from k3swatch.errors import DecodeError, NotPermitted, SourceError
from k3swatch.model.history import History, Past, Told
from k3swatch.sinks.codec import decode
from k3swatch.sinks.database import FILE, VERSION

LIMIT = 1000  # incidents
END_OF_TIME = 253402300800.0  # the year 10000: what calendars and JSON can show
WAIT = 2.0  # seconds for a writer that has the file locked


def past(directory: str, since: float = 0.0, limit: int = LIMIT) -> History:
    """The newest `limit` incidents that are open, or to which something happened at or after `since`.

    Raises NotPermitted, and SourceError when there is no file or it cannot be understood.
    """
    path = Path(directory) / FILE
    if not os.access(path, os.R_OK):
        _explain(path)
    for attempt in (1, 2):
        try:
            return _read(path, since, limit)
        except sqlite3.Error as error:
            if (
                attempt == 2
            ):  # the first may have met a daemon that was just starting, or moving a damaged file aside
                hint = f"a running daemon moves a damaged file aside ({FILE}.damaged-*) and begins anew"
                raise SourceError(f"history: {path}: {error}", hint) from None
    raise AssertionError


def _explain(path: Path) -> None:
    """Raise what fits a file that cannot be opened."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        hint = "the daemon writes it: does it run, and is state.path of its configuration this directory?"
        raise SourceError(f"history: {path}: there is none", hint) from None
    except OSError as error:
        raise NotPermitted(f"history: {path}: {error.strerror}", "run as root") from None
    raise NotPermitted(f"history: {path}: may not be read", "run as root")


def _read(path: Path, since: float, limit: int) -> History:
    alone = not path.with_name(f"{FILE}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if alone else ''}"
    with closing(sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)) as connection:
        connection.execute("BEGIN")  # everything as of one moment
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise sqlite3.DatabaseError(f"written by a newer version (schema {version})")
        chosen = "resolved_at IS NULL OR updated_at >= :since OR resolved_at >= :since"
        values: dict[str, float] = {"since": since, "limit": limit}
        (total,) = connection.execute(f"SELECT count(*) FROM incidents WHERE {chosen}", values).fetchone()
        rows = connection.execute(
            f"SELECT id, body FROM incidents WHERE {chosen} ORDER BY opened_at DESC, rowid DESC LIMIT :limit",
            values,
        ).fetchall()
        pasts, unreadable = [], 0
        for name, body in reversed(rows):
            try:
                one = Past(decode(body), _told(connection, name))
                _check_times(one)
                pasts.append(one)
            except DecodeError:
                unreadable += 1
    return History(tuple(pasts), total - len(rows), unreadable)


def _told(connection: sqlite3.Connection, incident: str) -> tuple[Told, ...]:
    rows = connection.execute(
        "SELECT at, incident, port, change, state, message FROM transitions WHERE incident = ? ORDER BY number",
        (incident,),
    )
    try:
        return tuple(Told(float(at), *map(str, words)) for at, *words in rows)
    except (TypeError, ValueError) as error:
        raise DecodeError(f"stored transition: {error}") from None


def _check_times(past: Past) -> None:
    one = past.incident
    times = (
        one.opened_at,
        one.updated_at,
        one.confirmed_at,
        one.resolved_at,
        *(told.at for told in past.told),
    )
    if not all(at is None or 0 <= at < END_OF_TIME for at in times):
        raise DecodeError("stored incident: impossible time")
