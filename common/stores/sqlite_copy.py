"""A copy of a SQLite file that others are using, and what stands in such a copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from common.core.errors import StoreUnavailable

_BUSY_S = 5.0


def copy_running(store: str, source: Path, copy: Path) -> None:
    """Copy a file as it is at one moment, while others read it and write to it; nobody waits for this.

    Raises StoreUnavailable.
    """
    with _outages(store, source), closing(_opened(source)) as live, closing(sqlite3.connect(copy)) as kept:
        # A copy that is not whole is made anew, so nothing need be safe on the disk before its end.
        kept.execute("PRAGMA synchronous = OFF")
        # All pages in one step: in several, each write of another process would begin it anew.
        live.backup(kept, pages=-1)


def rows_of_whole(store: str, path: Path) -> dict[str, int]:
    """How many rows each table has, once SQLite has found the file to be sound. Raises StoreUnavailable."""
    with _outages(store, path), closing(_opened(path)) as connection:
        [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreUnavailable(store, f"{path.name} is damaged: {verdict}")
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@' ORDER BY name"
        ).fetchall()
        counts = {}
        for (table,) in tables:
            quoted = table.replace('"', '""')
            [counts[table]] = connection.execute(f'SELECT COUNT(*) FROM "{quoted}"').fetchone()
        return counts


def _opened(path: Path) -> sqlite3.Connection:
    # Not to be made where it is missing.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None)


@contextmanager
def _outages(store: str, path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable(store, f"{path.name}: {error}") from error
