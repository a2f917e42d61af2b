"""How the embedded stores open a SQLite file that many processes share, keep it and report its failures."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.core.errors import StoreUnavailable
from common.stores.disk import is_full
from common.stores.waiting import refuse_on_event_loop

_WAL_RETRY_S = 0.01


@dataclass(slots=True)
class _Kept:
    """A connection together with the process and the file that it belongs to."""

    connection: sqlite3.Connection
    pid: int
    file: tuple[int, int]


class SqliteFile:
    """A SQLite file in WAL mode: one kept connection per thread, failures as ``StoreUnavailable``.

    ``store`` is the name that errors carry, ``schema`` the statements that make the tables. No call waits
    longer than ``busy_timeout_s`` (at most 5 seconds) for other writers. Commits are
    ``synchronous=NORMAL``: a crash of the process loses nothing, a power cut may lose the last commits but
    never the file's integrity.
    """

    def __init__(self, store: str, path: Path, schema: tuple[str, ...], *, busy_timeout_s: float = 5.0) -> None:
        if not 0 < busy_timeout_s <= 5:
            raise ValueError("busy_timeout_s must be over 0 and at most 5 seconds.")
        self._store = store
        self._path = path.absolute()
        self._schema = schema
        self._busy_timeout_s = busy_timeout_s
        self._local = threading.local()
        self._inherited: list[_Kept] = []

    def prepare(self) -> None:
        """Makes the file and its tables where they are missing; raises ``StoreUnavailable``."""
        with self.connection(create=True):
            pass

    @contextmanager
    def connection(self, *, create: bool) -> Iterator[sqlite3.Connection]:
        """This thread's connection, for single statements (each its own transaction).

        ``create`` tells what a missing file means: True makes a new one, False is ``StoreUnavailable``. What
        SQLite raises because of the file or its disk becomes ``StoreUnavailable`` too. Raises MustWait on an event
        loop.
        """
        refuse_on_event_loop()
        try:
            yield self._connection(create)
        except sqlite3.DatabaseError as error:
            if not _is_about_the_file(error):
                raise
            if not _is_busy(error):
                self.close()
            raise StoreUnavailable(self._store, error.sqlite_errorname) from error
        except OSError as error:
            raise StoreUnavailable(self._store, type(error).__name__) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start, so that nobody can overtake it half-way."""
        with self.connection(create=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def check(self) -> float:
        """Reads from the file, writes nothing and waits for no writer; the milliseconds that took.

        Raises ``StoreUnavailable`` also when the file could be read but not be written to.
        """
        started = time.perf_counter()
        with self.connection(create=False) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            for path in (self._path, self._path.parent):
                if not os.access(path, os.W_OK):
                    raise StoreUnavailable(self._store, "not writable")
            if is_full(self._path):
                raise StoreUnavailable(self._store, "its disk is full")
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        """Closes this thread's connection; the next call opens another."""
        kept: _Kept | None = getattr(self._local, "kept", None)
        self._local.kept = None
        if kept is None:
            return
        if kept.pid == os.getpid():
            kept.connection.close()
        else:
            # SQLite forbids even closing a connection that was opened before a fork: it is left alone.
            self._inherited.append(kept)

    def _connection(self, create: bool) -> sqlite3.Connection:
        kept: _Kept | None = getattr(self._local, "kept", None)
        if kept is not None:
            # A file that was removed or replaced leaves the old one open: writes would go to nowhere.
            if kept.pid == os.getpid() and kept.file == self._identity():
                return kept.connection
            self.close()
        return self._open(create)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _open(self, create: bool) -> sqlite3.Connection:
        if create:
            self._make_private_file()
        file = self._identity()
        if file is None:
            raise StoreUnavailable(self._store, "its file is missing")
        connection = sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            # One thread uses it, but a store that is dropped closes it from wherever that happens.
            check_same_thread=False,
        )
        try:
            self._set_up(connection, create)
        except BaseException:
            connection.close()
            raise
        self._local.kept = _Kept(connection, os.getpid(), file)
        return connection

    def _make_private_file(self) -> None:
        # O_EXCL, so that an existing file is never opened here: closing any descriptor of a file drops all
        # the locks that SQLite holds on it in this process.
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            pass

    def _set_up(self, connection: sqlite3.Connection, create: bool) -> None:
        if not _has_tables(connection):
            if not create:
                raise StoreUnavailable(self._store, "its file has no tables")
            self._switch_to_wal(connection)
            self._make_tables(connection)
        connection.execute("PRAGMA synchronous = NORMAL")

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        # Another process may have made them while this one waited for its turn.
        if not _has_tables(connection):
            for statement in self._schema:
                connection.execute(statement)
            connection.execute("PRAGMA user_version = 1")
        connection.execute("COMMIT")

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite doesn't apply its busy timeout to this switch; two processes starting together both make it.
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not _is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_WAL_RETRY_S)


def _has_tables(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_about_the_file(error: sqlite3.DatabaseError) -> bool:
    return type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError, sqlite3.InternalError)


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
