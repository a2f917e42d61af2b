"""The metadata store: one connection a thread, kept; short transactions that take the write lock at once."""

from __future__ import annotations

import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import peewee as orm

from common.core.errors import StoreUnavailable
from common.stores.commits import Commits
from common.stores.disk import is_full
from common.stores.network import causes
from common.stores.waiting import MustWait, on_event_loop, refuse_on_event_loop

STORE = "metadata"
BUSY_TIMEOUT_S = 5.0
_WAL_RETRY_S = 0.01
# A read asks only so often whether the file is still there: asking costs twice what the smallest look-up does.
_RECHECK_S = 0.1
# On an event loop, a statement that has taken so long is left to a thread; SQLite asks every so many steps, which it
# counts over all runs of a statement.
_AT_ONCE_S = 0.003
_ASK_EVERY_STEPS = 5_000
# So is what has more rows: to make an answer of them takes longer than to read them.
_ROWS_AT_ONCE = 100
# What SQLite says of that, and of a lock for which nobody waits there.
_MUST_WAIT = ("interrupted", "locked", "busy")
# A file that is locked against readers too won't be free in a moment.
_HEALTH_TIMEOUT_S = 0.5

# What SQLite says when the file or the disk is at fault, and not the statement.
_OUTAGES = (
    "locked",
    "busy",
    "disk",
    "readonly",
    "unable to open",
    "not a database",
    "malformed",
    "i/o error",
    # A file that was emptied or replaced; no statement here names a table that no migration makes.
    "no such table",
)
# A transaction that SQLite has undone by itself, as it does when the disk is full, can't be undone again: what counts
# is the error before.
_UNDONE = ("no transaction is active", "no such savepoint")
# What Python says of a text that is no UTF-8; nothing here writes one.
_NO_TEXT = "Could not decode to UTF-8"


class Taken(Exception):
    """A unique value is in use already."""


class Database(Protocol):
    """What use-cases may ask of the metadata store. ``?`` marks a parameter on every implementation."""

    #: What the driver raises where a statement is refused for a reason that nobody foresaw.
    defects: tuple[type[Exception], ...]

    @property
    def peewee(self) -> orm.Database:
        """The peewee database that queries are executed with."""

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row, or None."""

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row."""

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """Change rows; the number of rows changed."""

    def execute(self, query: Any) -> Any:
        """Execute a peewee query."""

    def insert(self, model: type[orm.Model], **row: Any) -> None:
        """Insert one row. Raises Taken when a unique value is in use."""

    def transaction(self) -> Any:
        """A context that commits at its end and rolls back on an exception; may be nested."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call once this thread's transaction has committed, never if it is undone; at once where there is none."""

    def lock(self, name: str) -> None:
        """Within a transaction: wait until nobody else holds the lock of this name; held until the end."""

    def hold(self, table: str, row_id: str) -> None:
        """Within a transaction: wait until nobody else changes the row of this id; nobody does until the end."""

    def migrating(self) -> Any:
        """A context in which this process alone changes the schema: a transaction, where the store has such.

        Where it has none, what broke off half-way is there when the step is repeated.
        """

    def create(self, model: type[orm.Model]) -> None:
        """Make a model's table and indexes, as far as they are missing."""

    def create_index(self, name: str, table: str, columns: str, *, unique: bool = False) -> None:
        """Make an index on one of our own tables, if it is missing."""

    def drop_index(self, name: str, table: str) -> None:
        """Remove an index of our own from one of our own tables, if it is there."""

    def by_index(self, name: str) -> str:
        """What stands behind a table's name in a SELECT that must read off this index, whatever the store estimates."""

    def add_column(self, table: str, field: orm.Field) -> None:
        """Add a model's column, which may be null, to the table of ours that lacks it."""

    def tables(self) -> set[str]:
        """Names of the tables that exist."""

    def tables_with(self, columns: Sequence[str]) -> set[str]:
        """Names of the tables that have any of these columns."""

    def health(self) -> float:
        """Ask the store for a sign of life, without writing; the milliseconds that took. Raises StoreUnavailable."""

    def close(self) -> None:
        """Close this thread's connection."""


class _WalDatabase(orm.SqliteDatabase):
    """With ``make`` it makes the file when it first connects, and never again: one that has gone since is an outage.

    Connects also while another process switches a new file to WAL: SQLite applies no busy timeout to that.
    """

    def __init__(self, path: Path, *, make: bool, **options: Any) -> None:
        self._uri = path.absolute().as_uri()
        self._path = path.absolute()
        self._opened = threading.local()
        super().__init__(f"{self._uri}?mode={'rwc' if make else 'rw'}", uri=True, **options)
        # peewee has threads open and close their connections in turn. They share nothing, and whoever waits for a file
        # that is locked would keep everybody else waiting, an event loop too.
        self._lock = nullcontext()

    def has_moved(self, recheck_s: float) -> bool:
        """Whether this thread's connection is to another file than the one that is there now.

        Looked at when ``recheck_s`` have passed since the last look, or the connection is new. Raises OSError where
        there is no file.
        """
        now = self._opened.asked_at = time.monotonic()
        if now < self._opened.looked_at + recheck_s:
            return False
        moved = bool(self._file_now() != self._opened.file)
        self._opened.looked_at = now
        return moved

    def _file_now(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_dev, found.st_ino

    def _connect(self) -> Any:
        connection = self._connect_at_once() if on_event_loop() else self._connect_patiently()
        self.database = f"{self._uri}?mode=rw"
        self._opened.looked_at, self._opened.asked_at, self._opened.file = -math.inf, time.monotonic(), None
        with suppress(OSError):
            self._opened.file = self._file_now()
        return connection

    def _connect_at_once(self) -> Any:
        """For an event loop: waits for no lock, and works on no statement for long."""
        connection = sqlite3.connect(self.database, timeout=0, isolation_level=None, **self.connect_params)
        try:
            self._add_conn_hooks(connection)  # type: ignore[attr-defined]  # peewee's stubs leave it out
        except sqlite3.Error:
            connection.close()
            raise
        opened = self._opened
        connection.set_progress_handler(lambda: time.monotonic() > opened.asked_at + _AT_ONCE_S, _ASK_EVERY_STEPS)
        return connection

    def _connect_patiently(self) -> Any:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                return super()._connect()  # type: ignore[misc]  # as above
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_WAL_RETRY_S)


class SqliteStore:
    """The embedded twin: SQLite in WAL mode, every commit on disk before it is acknowledged.

    A file that is missing is made at first use, or with ``make`` off an outage. On an event loop ``one`` and ``all``
    raise MustWait where the answer is no matter of a moment, and everything else does.
    """

    defects: tuple[type[Exception], ...] = (sqlite3.Error, orm.PeeweeException)

    def __init__(self, path: Path, *, make: bool = True, recheck_s: float = _RECHECK_S) -> None:
        self.path = path
        self._recheck_s = recheck_s
        self._commits = Commits()
        self._peewee: Any = _WalDatabase(
            path,
            make=make,
            timeout=BUSY_TIMEOUT_S,
            pragmas={"journal_mode": "wal", "synchronous": "full", "cache_size": -2000, "foreign_keys": 0},
        )

    @property
    def peewee(self) -> orm.Database:
        database: orm.Database = self._peewee
        return database

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        # Here and in ``all`` without the context manager: every request passes here, and it costs as much as a look-up.
        try:
            row: tuple[Any, ...] | None = self._connection(self._recheck_s).execute(sql, params).fetchone()
        except (sqlite3.Error, orm.DatabaseError) as error:
            self._leave_to_a_thread(error)
            if _NO_TEXT in str(error):
                return next(iter(self._all_as_it_is(sql, params)), None)
            _tell(error)
            raise
        except UnicodeEncodeError:
            return next(iter(self._all_as_it_is(sql, params)), None)
        return row

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._connection(self._recheck_s).execute(sql, params).fetchall()
        except (sqlite3.Error, orm.DatabaseError) as error:
            self._leave_to_a_thread(error)
            if _NO_TEXT in str(error):
                return self._all_as_it_is(sql, params)
            _tell(error)
            raise
        except UnicodeEncodeError:
            return self._all_as_it_is(sql, params)
        if len(rows) > _ROWS_AT_ONCE:
            refuse_on_event_loop()
        return rows

    def _leave_to_a_thread(self, error: BaseException) -> None:
        """Raises MustWait on an event loop where the error says that the statement would have taken longer."""
        if on_event_loop() and any(sign in str(error) for sign in _MUST_WAIT):
            # Python would keep the statement as one that is in use, and have it parsed anew at each further run.
            self.close()
            raise MustWait from error

    def _all_as_it_is(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """``all`` where somebody has put bytes into a text that are none: each stands as half of a surrogate pair, also
        in what is asked for.
        """
        escaped = [isinstance(each, str) and not each.isascii() for each in params]
        marks = iter("CAST(? AS TEXT)" if each else "?" for each in escaped)
        sql = re.sub(r"\?", lambda _: next(marks), sql)
        params = [
            each.encode("utf-8", "surrogateescape") if cast else each
            for each, cast in zip(params, escaped, strict=True)
        ]
        with _outages():
            connection = self._connection()
            connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
            try:
                rows: list[tuple[Any, ...]] = connection.execute(sql, params).fetchall()
            finally:
                connection.text_factory = str
        return rows

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        with _outages():
            changed: int = self._connection().execute(sql, params).rowcount
            return changed

    def execute(self, query: Any) -> Any:
        with _outages():
            self._connection()
            return query.execute(self.peewee)

    def insert(self, model: type[orm.Model], **row: Any) -> None:
        with _outages():
            self._connection()
            model.insert(**row).execute(self.peewee)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        # A plain BEGIN that reads first fails at once under contention; taking the lock first waits its turn.
        with _outages():
            self._connection()
            with self._commits.around(), self.peewee.atomic("IMMEDIATE"):
                yield

    def after_commit(self, call: Callable[[], None]) -> None:
        self._commits.after(call)

    def _connection(self, recheck_s: float = 0.0) -> Any:
        """This thread's connection, to the file that is there now: into one that was moved away, writes would be lost.

        Within a transaction there is no way back, and none is looked for.
        """
        connection = self._peewee.connection()
        try:
            if connection.in_transaction or not self._peewee.has_moved(recheck_s):
                return connection
        except OSError as error:
            self.close()
            raise StoreUnavailable(STORE, "its file is missing") from error
        self.close()
        return self._peewee.connection()

    def lock(self, name: str) -> None:
        """Nothing to do: BEGIN IMMEDIATE lets one writer in at a time."""

    def hold(self, table: str, row_id: str) -> None:
        """Nothing to do, as with ``lock``."""

    def migrating(self) -> Any:
        """A transaction, which here undoes changes of the schema too."""
        return self.transaction()

    def create(self, model: type[orm.Model]) -> None:
        with _outages():
            orm.SchemaManager(model, database=self.peewee).create_all(safe=True)

    def create_index(self, name: str, table: str, columns: str, *, unique: bool = False) -> None:
        self.run(f"CREATE {'UNIQUE ' if unique else ''}INDEX IF NOT EXISTS {name} ON {table} ({columns})")

    def drop_index(self, name: str, table: str) -> None:
        self.run(f"DROP INDEX IF EXISTS {name}")

    def by_index(self, name: str) -> str:
        return f"INDEXED BY {name}"

    def add_column(self, table: str, field: orm.Field) -> None:
        self.run(f"ALTER TABLE {table} ADD COLUMN {column_of(self.peewee, field)}")

    def tables(self) -> set[str]:
        return {name for (name,) in self.all("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def tables_with(self, columns: Sequence[str]) -> set[str]:
        rows = self.all(
            "SELECT DISTINCT t.name FROM sqlite_master t JOIN pragma_table_info(t.name) c "
            f"WHERE t.type = 'table' AND c.name IN ({', '.join('?' * len(columns))})",
            columns,
        )
        return {name for (name,) in rows}

    def health(self) -> float:
        """A connection of its own sees the file that is there now; it waits for no writer and makes no file.

        Raises StoreUnavailable also where what is read could not be changed.
        """
        started = time.perf_counter()
        with _outages():
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=_HEALTH_TIMEOUT_S, isolation_level=None
            )
            try:
                migrated = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'rk_migration'").fetchone()
            finally:
                connection.close()
        if migrated is None:
            raise StoreUnavailable(STORE, "its tables are missing")
        if not all(os.access(place, os.W_OK) for place in (self.path, self.path.parent)):
            raise StoreUnavailable(STORE, "not writable")
        try:
            if is_full(self.path):
                raise StoreUnavailable(STORE, "its disk is full")
        except OSError as error:
            raise StoreUnavailable(STORE, type(error).__name__) from error
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        if not self.peewee.is_closed():
            self.peewee.close()


def column_of(database: orm.Database, field: orm.Field) -> str:
    """A column's name and type as they stand in a statement of this database."""
    context = database.get_sql_context()
    sql, _ = context.sql(orm.NodeList((orm.Entity(field.column_name), field.ddl_datatype(context)))).query()
    return str(sql)


@contextmanager
def _outages() -> Iterator[None]:
    """Tell an unreachable store and a taken value apart from a wrong statement. Raises MustWait on an event loop."""
    refuse_on_event_loop()
    try:
        yield
    except (sqlite3.Error, orm.DatabaseError) as error:
        for each in causes(error):
            if not any(sign in str(each) for sign in _UNDONE):
                if isinstance(each, StoreUnavailable):
                    raise each from error
                _tell(each)
                break
        raise


def _tell(error: BaseException) -> None:
    """Raises Taken or StoreUnavailable where that is what the error means; else returns."""
    text = str(error).lower()
    if isinstance(error, (sqlite3.IntegrityError, orm.IntegrityError)):
        if "unique" in text:
            raise Taken(str(error)) from error
    elif isinstance(error, (sqlite3.DatabaseError, orm.DatabaseError)) and any(sign in text for sign in _OUTAGES):
        raise StoreUnavailable(STORE, str(error)) from error
