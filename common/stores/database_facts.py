"""What a metadata store says of itself and its tables, before anything of ours is in it; reads only.

A look has a connection of its own that can't write, and more time than a request's.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from common.conf.sections import MySqlSection
from common.core.errors import StoreUnavailable
from common.stores.database import STORE
from common.stores.mysql_store import MysqlStore

#: Tables with more rows than this are estimated, not counted.
COUNTED_AT_MOST = 100_000
# Seconds for each question; grouping a million addresses takes a few.
_PATIENCE_S = 60.0
# What a plane does to its database. SELECT … FOR UPDATE asks for SELECT and UPDATE.
_NEEDED = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "INDEX")
_GRANT = re.compile(r"GRANT (?P<rights>.+?) ON (?P<schema>\*|`(?:[^`]|``)+`)\.\* TO ")


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table: its rows (``exact``, or estimated), its columns, the columns of its unique indexes, its collation."""

    name: str
    rows: int
    exact: bool
    columns: frozenset[str]
    unique: frozenset[tuple[str, ...]]
    collation: str | None = None


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What keeps the store. ``kind`` is ``sqlite``, ``mysql`` or ``mariadb``; the last five are a server's alone.

    ``clock_ms`` is the server's time (UTC milliseconds). ``missing_rights`` are those of its user, who may have
    further ones by roles, which can't be told.
    """

    kind: str
    version: str
    place: str
    user: str | None = None
    charset: str | None = None
    collation: str | None = None
    clock_ms: int | None = None
    read_only: bool = False
    missing_rights: tuple[str, ...] = field(default=())


class Look(Protocol):
    """An open look at a store."""

    def server(self) -> ServerFacts:
        """What keeps it."""

    def tables(self) -> dict[str, TableFacts]:
        """Every table by its name."""

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a SELECT. Raises StoreUnavailable, also when it takes too long."""


class _SqliteLook:
    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    def server(self) -> ServerFacts:
        return ServerFacts("sqlite", sqlite3.sqlite_version, str(self._path))

    def tables(self) -> dict[str, TableFacts]:
        names = [name for (name,) in self.all("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {name: self._table(name) for name in names if not name.startswith("sqlite_")}

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._connection.execute(sql, params).fetchall()
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(STORE, str(error)) from error
        return rows

    def _table(self, name: str) -> TableFacts:
        quoted = '"{}"'.format(name.replace('"', '""'))
        ((rows,),) = self.all(f"SELECT COUNT(*) FROM (SELECT 1 FROM {quoted} LIMIT {COUNTED_AT_MOST + 1})")
        exact = rows <= COUNTED_AT_MOST
        if not exact:
            ((rows,),) = self.all(f"SELECT MAX(rowid) FROM {quoted}")
        columns = frozenset(row[1] for row in self.all(f"PRAGMA table_info({quoted})"))
        unique = frozenset(
            tuple(str(column[2]) for column in self.all(f'PRAGMA index_info("{index[1]}")'))
            for index in self.all(f"PRAGMA index_list({quoted})")
            if index[2]
        )
        return TableFacts(name, rows, exact, columns, unique)


class _ServerLook:
    def __init__(self, section: MySqlSection, store: MysqlStore) -> None:
        self._section = section
        self._store = store

    def server(self) -> ServerFacts:
        ((version, user, clock_s, read_only, charset, collation),) = self.all(
            "SELECT VERSION(), CURRENT_USER(), UNIX_TIMESTAMP(NOW(6)), @@global.read_only, default_character_set_name, "
            "default_collation_name FROM information_schema.schemata WHERE schema_name = DATABASE()"
        )
        host, port = self._section.address()
        return ServerFacts(
            kind="mariadb" if "mariadb" in version.lower() else "mysql",
            version=version,
            place=f"{host}:{port or 3306}/{self._section.name}",
            user=user,
            charset=charset,
            collation=collation,
            clock_ms=round(float(clock_s) * 1000),
            read_only=bool(read_only),
            missing_rights=self._missing_rights(),
        )

    def tables(self) -> dict[str, TableFacts]:
        found = self.all(
            "SELECT table_name, COALESCE(table_rows, 0), table_collation FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' ORDER BY table_name"
        )
        columns: dict[str, set[str]] = {}
        for table, column in self.all(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        ):
            columns.setdefault(table, set()).add(column)
        unique: dict[str, dict[str, list[str]]] = {}
        for table, index, column in self.all(
            "SELECT table_name, index_name, column_name FROM information_schema.statistics "
            "WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index"
        ):
            unique.setdefault(table, {}).setdefault(index, []).append(column)
        return {
            name: self._table(name, int(rows), collation, columns[name], unique.get(name, {}))
            for name, rows, collation in found
        }

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._store.all(sql, params)

    def _table(
        self, name: str, rows: int, collation: str | None, columns: set[str], unique: dict[str, list[str]]
    ) -> TableFacts:
        exact = rows <= COUNTED_AT_MOST
        if exact:
            ((rows,),) = self.all(f"SELECT COUNT(*) FROM `{name}`")
        keys = frozenset(tuple(of) for of in unique.values())
        return TableFacts(name, rows, exact, frozenset(columns), keys, collation)

    def _missing_rights(self) -> tuple[str, ...]:
        held: set[str] = set()
        for (line,) in self.all("SHOW GRANTS FOR CURRENT_USER()"):
            grant = _GRANT.match(line)
            if grant is not None and _covers(grant["schema"], self._section.name):
                held |= {right.strip() for right in grant["rights"].split(",")}
        if "ALL PRIVILEGES" in held:
            return ()
        return tuple(right for right in _NEEDED if right not in held)


def _covers(pattern: str, schema: str) -> bool:
    """Whether what stands before ``.*`` in a grant means this schema: ``*``, or a name with MySQL's wildcards."""
    if pattern == "*":
        return True
    name = pattern[1:-1].replace("``", "`")
    wildcards = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|.", name, re.DOTALL)
    expression = "".join(wildcards.get(part) or re.escape(part[-1]) for part in parts)
    return re.fullmatch(expression, schema, re.DOTALL) is not None


@contextmanager
def looking_at(section: MySqlSection | None, path: Path) -> Iterator[Look]:
    """A look at the server of the section, or at the file where there is none. Raises StoreUnavailable."""
    if section is None:
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S / 12)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(STORE, str(error)) from error
        with closing(connection):
            yield _SqliteLook(path, connection)
        return
    store = MysqlStore(section.model_copy(update={"timeout": max(section.timeout, _PATIENCE_S)}))
    try:
        store.connection().ask("SET SESSION TRANSACTION READ ONLY")
        yield _ServerLook(section, store)
    finally:
        store.close()
