"""K3s's datastore, when it is SQLite (kine) and this is a server: what owns a pod, and whether a Service still exists.

Read-only and short: a reader holds up WAL checkpoints. One key at a time through kine's index on (name, id); the
newest row of a key counts, and `deleted` makes it a tombstone (k3s-io/kine, pkg/drivers/sqlite). A table without that
index, or a slow disk, runs into the time limit and is no answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from k3swatch.attribute.root import SIZE, Root
from k3swatch.attribute.wire import Meta, metadata
from k3swatch.errors import DecodeError

if TYPE_CHECKING:
    import sqlite3

FILE = "/var/lib/rancher/k3s/server/db/state.db"
_SECONDS = 0.2
_NEWEST = (
    "SELECT deleted, length(value), substr(value, 1, ?) FROM kine WHERE name = ? ORDER BY id DESC LIMIT 1"
)


_NOTHING = Meta()


@dataclass(frozen=True, slots=True)
class Object:
    """The newest row of a key. `exists` is False for a tombstone and for a key that was never there."""

    exists: bool
    meta: Meta = _NOTHING


class Kine:
    """One look into the datastore. `open` is False on agents, with etcd, and where it cannot be read."""

    def __init__(self, root: Root) -> None:
        self._database: sqlite3.Connection | None = None
        self._root = root
        path = root.locate(FILE)
        if path is None:
            return
        import sqlite3  # only a K3s server has something to open; `check` elsewhere does not pay for it

        try:
            # immutable would not see the WAL, where the newest rows are; but without one only that makes no files
            beside = "readonly_shm=1" if root.exists(f"{FILE}-wal") is not False else "immutable=1"
            uri = f"file:{quote(path)}?mode=ro&{beside}"
            self._database = sqlite3.connect(uri, uri=True, timeout=_SECONDS, isolation_level=None)
            for pragma in ("query_only=1", "cache_size=-256", "mmap_size=0", "trusted_schema=0"):
                self._database.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            self._failed(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._database is not None:
            self._database.close()

    @property
    def open(self) -> bool:
        """Whether it can be asked."""
        return self._database is not None

    def pod(self, namespace: str, name: str) -> Object | None:
        """A pod; None: not known."""
        return self._newest(f"/registry/pods/{namespace}/{name}")

    def daemon_set(self, namespace: str, name: str) -> Object | None:
        """A DaemonSet; None: not known."""
        return self._newest(f"/registry/daemonsets/{namespace}/{name}")

    def service(self, namespace: str, name: str) -> Object | None:
        """A Service; None: not known."""
        return self._newest(f"/registry/services/specs/{namespace}/{name}")

    def _newest(self, key: str) -> Object | None:
        if self._database is None:
            return None
        import sqlite3

        until = time.monotonic() + _SECONDS
        self._database.set_progress_handler(lambda: time.monotonic() > until, 5000)
        try:
            row = self._database.execute(_NEWEST, (SIZE, key)).fetchone()
        except (sqlite3.Error, UnicodeError) as error:
            self._failed(error)
            return None
        if row is None or row[0]:
            return Object(False)
        try:
            return Object(True, metadata(bytes(row[2] or b"") if row[1] <= SIZE else b""))
        except (DecodeError, TypeError):
            return Object(True)  # it is there; what it says could not be read

    def _failed(self, error: Exception) -> None:
        self._root.troubles.append(f"{FILE}: {error}")
        if self._database is not None:
            self._database.close()
        self._database = None
