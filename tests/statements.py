"""What a plane asks of its metadata store: statements, connections, and rows looked at; alike on every store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from common.services.plane import Plane
from common.stores import mysql_store

Handler = Callable[..., Any]


def kept_connection(plane: Plane) -> Any:
    """The connection of this thread, in which the test client runs the apps."""
    return plane.database.peewee.connection()


@contextmanager
def statements(plane: Plane) -> Iterator[list[str]]:
    """Every statement that the kept connection executes meanwhile, with its values."""
    heard: list[str] = []

    def hear(sql: str) -> None:
        # A look at the settings' version is due once a second, whichever request meets it.
        if "'variables_version'" not in sql or not sql.startswith("SELECT value FROM rk_state"):
            heard.append(sql)

    connection = kept_connection(plane)
    if isinstance(connection, sqlite3.Connection):
        connection.set_trace_callback(hear)
        yield heard
        connection.set_trace_callback(None)
        return
    query = connection.query

    def listening(sql: str, unbuffered: bool = False) -> int:
        hear(sql)
        return int(query(sql, unbuffered))

    connection.query = listening
    yield heard
    del connection.query


@contextmanager
def connects(plane: Plane, patch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every connection that is opened meanwhile."""
    opened: list[object] = []
    owner, name = (
        (sqlite3, "connect")
        if isinstance(kept_connection(plane), sqlite3.Connection)
        else (mysql_store, "BoundedConnection")
    )
    connect: Handler = getattr(owner, name)

    def noted(*args: Any, **more: Any) -> Any:
        opened.append(args)
        return connect(*args, **more)

    with patch.context() as patched:
        patched.setattr(owner, name, noted)
        yield opened


def looked_at(plane: Plane, read: Callable[[], object]) -> int:
    """How much the store has to look at for a read: instructions of SQLite's machine, or rows that MariaDB reads."""
    connection = kept_connection(plane)
    if not isinstance(connection, sqlite3.Connection):
        # Its statistics follow a test's many rows in the background, some seconds late.
        plane.database.all(f"ANALYZE TABLE {', '.join(f'`{name}`' for name in sorted(plane.database.tables()))}")
        before = _rows_read(plane)
        read()
        return _rows_read(plane) - before
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    connection.set_progress_handler(step, 1)
    try:
        read()
    finally:
        connection.set_progress_handler(None, 0)
    return taken


def _rows_read(plane: Plane) -> int:
    rows = plane.database.all("SHOW SESSION STATUS WHERE Variable_name LIKE 'Handler_read%'")
    return sum(int(count) for _, count in rows)
