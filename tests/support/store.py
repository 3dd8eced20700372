"""The rows of the store's file as they are, for tests of who writes them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from k3swatch.model.history import Told
from k3swatch.sinks.database import FILE


def rows(directory: Path) -> list[Told]:
    """Every transition in the order it was written; none while there is no file or no table."""
    path = directory / FILE
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='transitions'").fetchone():
            return []
        found = connection.execute(
            "SELECT at, incident, port, change, state, message FROM transitions ORDER BY number"
        )
        return [Told(*row) for row in found]
