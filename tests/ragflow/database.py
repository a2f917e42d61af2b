"""A database as a RAGFlow of some version has made it, reached past the product: made, written, compared."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid1

import pymysql

from common.services.plane import Plane
from tests.backends.mariadb import MariadbServer
from tests.ragflow.schema import KEYS, Dialect, Version, columns, statements

_ZERO = {"int": 0, "bigint": 0, "float": 0.0, "bool": 0, "date": "2025-01-02 03:04:05"}


@dataclass(frozen=True)
class RagflowDatabase:
    """Rows are written whole: nothing has a default. ``execute`` gives the rows of a statement with ``?`` in it."""

    version: Version
    dialect: Dialect
    execute: Callable[[str, Sequence[Any]], Sequence[tuple[Any, ...]]]

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row; ``?`` marks a parameter."""
        return list(self.execute(sql, params))

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""
        rows = self.all(sql, params)
        return rows[0] if rows else None

    def insert(self, table: str, **values: Any) -> str:
        """Write a row, with an empty value in each column that is neither given nor nullable; its id, where it has one.

        Columns that this version lacks are left out, so that callers need not know versions apart.
        """
        of_table = columns(self.version)[table]
        if any(column.name == "id" for column in of_table):
            values = {"id": uuid1().hex, **values}
        for column in of_table:
            if not column.nullable and column.name not in values:
                values[column.name] = _ZERO.get(column.type, "")
        known = {column.name: values[column.name] for column in of_table if column.name in values}
        marks = ", ".join("?" * len(known))
        self.all(f"INSERT INTO {table} ({_quoted(known)}) VALUES ({marks})", list(known.values()))
        return str(values.get("id", ""))

    def make_tables(self, *, collation: str | None = "utf8mb4_general_ci", but: Sequence[str] = ()) -> None:
        """Make the tables of this version, but for some; without a collation they have the database's."""
        for statement in statements(self.version, self.dialect, collation):
            if not any(f" {name} (" in statement for name in but):
                self.all(statement)

    def tables(self) -> list[str]:
        """RAGFlow's tables that exist."""
        if self.dialect == "sqlite":
            names = self.all("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        else:
            names = self.all("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
        return sorted(name for (name,) in names if not name.startswith(("rk_", "sqlite_")))

    def definitions(self) -> dict[str, str]:
        """Every table of RAGFlow's with its indexes, as the database describes it."""
        if self.dialect == "sqlite":
            found = self.all("SELECT tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY tbl_name, name")
            names = self.tables()
            return {name: "\n".join(sql for table, sql in found if table == name) for name in names}
        return {name: str(self.all(f"SHOW CREATE TABLE {name}")[0][1]) for name in self.tables()}

    def rows(self) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
        """Every row of every table of RAGFlow's: by table and key, its columns."""
        found: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
        for table in self.tables():
            names = [column.name for column in columns(self.version)[table]]
            rows = [dict(zip(names, row, strict=True)) for row in self.all(f"SELECT {_quoted(names)} FROM {table}")]
            found[table] = {tuple(row[name] for name in KEYS.get(table, ("id",))): row for row in rows}
        return found


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


@contextmanager
def on_sqlite(path: Path, version: Version) -> Iterator[RagflowDatabase]:
    """A database file, as a RAGFlow would have it if it ran on SQLite."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    try:
        yield RagflowDatabase(version, "sqlite", lambda sql, params: connection.execute(sql, params).fetchall())
    finally:
        connection.close()


def beside(plane: Plane) -> RagflowDatabase:
    """The database of a plane, reached through the plane, so that rows are written within its transactions."""

    def execute(sql: str, params: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        if sql.startswith("SELECT"):
            return plane.database.all(sql, params)
        plane.database.run(sql, params)
        return ()

    return RagflowDatabase("0.22", "mysql" if plane.settings.mysql else "sqlite", execute)


@contextmanager
def on_mariadb(server: MariadbServer, schema: str, version: Version) -> Iterator[RagflowDatabase]:
    """A schema of a server, reached as the user that RAGFlow logs in as."""
    section = server.section(schema)
    connection = pymysql.connect(
        host=server.host,
        port=server.port,
        user=section.user,
        password=section.password.reveal(),
        database=schema,
        charset="utf8mb4",
        autocommit=True,
    )

    def execute(sql: str, params: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), tuple(params))
            return cursor.fetchall()

    try:
        yield RagflowDatabase(version, "mysql", execute)
    finally:
        connection.close()
