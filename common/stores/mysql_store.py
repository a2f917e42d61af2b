"""The metadata store on MySQL or MariaDB, which a RAGFlow may share."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import peewee as orm
from pymysql.cursors import Cursor
from pymysql.err import MySQLError

from common.conf.sections import MySqlSection
from common.core.errors import StoreUnavailable
from common.stores.breaker import Breaker
from common.stores.commits import Commits
from common.stores.database import STORE, column_of
from common.stores.mysql_connection import LOCK_WAIT_S, BoundedConnection, Credentials, translated
from common.stores.mysql_errors import (
    DEADLOCK,
    FOREIGN,
    FULL,
    OF_ONE_SERVER,
    REFUSED_CREDENTIALS,
    TOO_LONG,
    code_of,
    meaning_of,
    was_cut,
)
from common.stores.network import failure_of
from common.stores.refused_writes import RefusedWrites
from common.stores.sockets import tls_context

_Ask = Callable[[BoundedConnection], Cursor]

# How often a single statement is sent again that was the victim of a deadlock.
_DEADLOCK_RETRIES = 3
# A read that took too long, as of a table that another session has locked, is not sent again for so many seconds: those
# who have queued up behind the first would wait for it one after the other.
_NOT_AGAIN_S = 0.25
# For work that is not a request's: while a process waits for another one's migrations, and for a step of its own.
_MIGRATION_WAIT_S = 50
_MIGRATION_STEP_S = 60.0
# Changes no row, but the server makes all the checks of a write.
_HEALTH = "UPDATE rk_state SET value = value WHERE 1 = 0"

# MySQL counts a wait for a lock as the time of a read, which it ends early; to MariaDB this is a comment.
_PATIENTLY = f"/*+ MAX_EXECUTION_TIME({(LOCK_WAIT_S + 1) * 1000}) */"


class _Thread(threading.local):
    """What one thread has open.

    ``epoch`` is the breaker's. ``depth`` counts the transactions within each other, and ``doomed`` is why they can't be
    committed any more. A ``pinned`` connection must not be replaced.
    """

    connection: BoundedConnection | None = None
    pid = 0
    credentials: Credentials | None = None
    pinned = False
    depth = 0
    epoch = 0
    doomed: StoreUnavailable | None = None


class MysqlStore:
    """The metadata store on a server: one kept connection a thread, set up for READ COMMITTED.

    Each answer comes within the section's ``timeout``; one that may have to wait for other transactions within
    LOCK_WAIT_S more. A kept connection that has died meanwhile is replaced before a transaction and before a single
    statement. Within a transaction whatever fails for a reason of the store's dooms all of it: nothing more is
    executed, and it is rolled back whatever its caller makes of the error. When the credentials are refused,
    ``reread`` gives the section as it is configured now (None: it can't be told), and they are tried once more if they
    are others. In the file ``refusals`` the processes of a home tell each other that the server is full.
    """

    defects: tuple[type[Exception], ...] = (MySQLError,)

    def __init__(
        self,
        section: MySqlSection,
        *,
        reread: Callable[[], MySqlSection | None] = lambda: None,
        refusals: Path | None = None,
    ) -> None:
        host, port = section.address()
        self._host = host or "127.0.0.1"
        self._port = port or 3306
        self._name = section.name
        self._timeout_s = section.timeout
        self._max_allowed_packet = section.max_allowed_packet or 16 << 20
        self._tls = tls_context("mysql", section)
        self._credentials = _credentials_of(section)
        self._reread = reread
        self._local = _Thread()
        self._commits = Commits()
        self._too_long: dict[str, float] = {}
        self._breaker = Breaker(STORE, self._probe)
        self._refused = RefusedWrites(STORE, FULL, refusals)
        self._peewee = _Peewee(self)

    @property
    def peewee(self) -> orm.Database:
        """See ``Database.peewee``."""
        return self._peewee

    def one(self, sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """See ``Database.one``."""
        return self._read(sql, params).fetchone()

    def all(self, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """See ``Database.all``."""
        return list(self._read(sql, params).fetchall())

    def run(self, sql: str, params: Sequence[Any] = ()) -> int:
        """See ``Database.run``."""
        return self.write(translated(sql), params).rowcount

    def execute(self, query: Any) -> Any:
        """See ``Database.execute``."""
        return query.execute(self._peewee)

    def insert(self, model: type[orm.Model], **row: Any) -> None:
        """See ``Database.insert``."""
        model.insert(**row).execute(self._peewee)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Database.transaction``."""
        with self._commits.around():
            yield from self._transaction()

    def after_commit(self, call: Callable[[], None]) -> None:
        """See ``Database.after_commit``."""
        self._commits.after(call)

    def _transaction(self) -> Iterator[None]:
        local = self._local
        if local.depth:
            yield from self._nested(local)
            return
        # Changes nothing, so it may be sent to another connection where the kept one has died.
        self._ask(lambda connection: connection.ask("BEGIN"), repeatable=True)
        local.depth = 1
        try:
            yield
            self._within(local, lambda connection: connection.ask("COMMIT", extra_s=LOCK_WAIT_S))
        except BaseException:
            _roll_back(local.connection)
            raise
        finally:
            doomed, local.depth, local.doomed = local.doomed, 0, None
            if doomed is not None:
                self._leave_if_demoted(local, doomed)

    def lock(self, name: str) -> None:
        """See ``Database.lock``. The row of a new name is locked by the statement that makes it."""
        if self.write(f"SELECT {_PATIENTLY} 1 FROM rk_lock WHERE name = %s FOR UPDATE", (name,)).fetchone() is None:
            # Not INSERT IGNORE: it would share the lock on a row that another one made meanwhile, a step to a deadlock.
            self.write("INSERT INTO rk_lock (name) VALUES (%s) ON DUPLICATE KEY UPDATE name = name", (name,))

    def hold(self, table: str, row_id: str) -> None:
        """See ``Database.hold``."""
        self.write(f"SELECT {_PATIENTLY} 1 FROM {table} WHERE id = %s FOR UPDATE", (row_id,))

    def tables(self) -> set[str]:
        """See ``Database.tables``."""
        rows = self.all("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
        return {name for (name,) in rows}

    def tables_with(self, columns: Sequence[str]) -> set[str]:
        """See ``Database.tables_with``."""
        rows = self.all(
            "SELECT DISTINCT c.table_name FROM information_schema.columns c JOIN information_schema.tables t "
            "ON t.table_schema = c.table_schema AND t.table_name = c.table_name WHERE c.table_schema = DATABASE() "
            f"AND t.table_type = 'BASE TABLE' AND c.column_name IN ({', '.join('?' * len(columns))})",
            columns,
        )
        return {name for (name,) in rows}

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """See ``Database.migrating``: what changes the schema commits by itself here, so there is no transaction.

        The lock is the connection's, so a process that dies leaves none.
        """
        local = self._local
        self._connected(local, renew=True).lift_limits(_MIGRATION_STEP_S)
        local.pinned = True
        try:
            if self.one("SELECT GET_LOCK(?, ?)", (_lock_name(self._name), _MIGRATION_WAIT_S)) != (1,):
                raise StoreUnavailable(STORE, "another process is still migrating it", lost=False)
            yield
        finally:
            # With the connection go its lock and its lifted limits.
            local.pinned = False
            self.close()

    def create(self, model: type[orm.Model]) -> None:
        """See ``Database.create``."""
        schema = _Schema(model, self._peewee, self._text_form())
        schema.create_table(safe=True)
        present = self._indexes(model._meta.table_name)
        for index in model._meta.fields_to_index():
            if index._name not in present:
                self.peewee.execute(schema.index(index))

    def create_index(self, name: str, table: str, columns: str, *, unique: bool = False) -> None:
        """See ``Database.create_index``."""
        if name not in self._indexes(table):
            self.run(f"CREATE {'UNIQUE ' if unique else ''}INDEX {name} ON {table} ({columns})")

    def drop_index(self, name: str, table: str) -> None:
        """See ``Database.drop_index``."""
        if name in self._indexes(table):
            self.run(f"DROP INDEX {name} ON {table}")

    def by_index(self, name: str) -> str:
        """See ``Database.by_index``."""
        return f"FORCE INDEX ({name})"

    def add_column(self, table: str, field: orm.Field) -> None:
        """See ``Database.add_column``."""
        self.run(f"ALTER TABLE {table} ADD COLUMN {column_of(self._peewee, field)}")

    def health(self) -> float:
        """See ``Database.health``. The server is asked even while the breaker is open, over a connection of its own:
        so one more can log in, and an UPDATE of no row is let pass. That it is full, whoever writes has found out."""
        started = time.perf_counter()
        with self._breaker.observe():
            self._look()
        self._refused.check()
        return (time.perf_counter() - started) * 1000

    def close(self) -> None:
        """See ``Database.close``."""
        local = self._local
        connection, local.connection = local.connection, None
        if connection is None:
            return
        if local.pid == os.getpid():
            connection.close()
        else:
            connection.abandon()

    def _indexes(self, table: str) -> set[str]:
        rows = self.all(
            "SELECT index_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = ?",
            (table,),
        )
        return {name for (name,) in rows}

    def _text_form(self) -> str:
        """Character set and collation of a new table: those of RAGFlow's ids, or no index of theirs serves a join."""
        found = self.one(
            "SELECT character_set_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 'user' AND column_name = 'id'"
        ) or self.one(
            "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata "
            "WHERE schema_name = DATABASE() AND default_character_set_name = 'utf8mb4'"
        )
        return "CHARACTER SET {} COLLATE {}".format(*(found or ("utf8mb4", "utf8mb4_general_ci")))

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is in a transaction."""
        return self._local.depth > 0

    def connection(self) -> BoundedConnection:
        """This thread's connection."""
        return self._connected(self._local, renew=False)

    def write(self, sql: str, params: Sequence[Any]) -> Cursor:
        """Execute a statement in PyMySQL's form that may change rows; not repeated when its outcome is unknown."""
        return self._ask(lambda connection: connection.write(sql, params), repeatable=False)

    def _read(self, sql: str, params: Sequence[Any]) -> Cursor:
        text = translated(sql)
        until = self._too_long.get(text)
        if until is not None and not self._local.depth:
            if time.monotonic() < until:
                raise StoreUnavailable(STORE, f"{TOO_LONG} just now", lost=False)
            self._too_long.pop(text, None)
        try:
            return self._ask(lambda connection: connection.ask(text, params), repeatable=True)
        except StoreUnavailable as error:
            if error.reason == TOO_LONG:
                self._too_long[text] = time.monotonic() + _NOT_AGAIN_S
            raise

    def _ask(self, ask: _Ask, *, repeatable: bool) -> Cursor:
        local = self._local
        if local.depth:
            return self._within(local, ask)
        local.epoch = self._breaker.admit()
        try:
            return self._alone(local, ask, repeatable=repeatable)
        except StoreUnavailable as error:
            self._failed(local, error)
            self._leave_if_demoted(local, error)
            raise

    def _leave_if_demoted(self, local: _Thread, error: StoreUnavailable) -> None:
        """A replica, or a node that has left its cluster, keeps its connections, while its address leads elsewhere."""
        if error.reason in OF_ONE_SERVER and not local.pinned:
            self.close()

    def _alone(self, local: _Thread, ask: _Ask, *, repeatable: bool) -> Cursor:
        """A statement outside of a transaction; the victim of a deadlock is repeated, for nothing was done then."""
        was_kept = local.connection is not None and not local.pinned
        connection = self._connected(local, renew=not repeatable)
        for last in (False,) * _DEADLOCK_RETRIES + (True,):
            try:
                return ask(connection)
            except MySQLError as error:
                if repeatable and was_kept and was_cut(error):
                    was_kept = False
                    connection = self._connected(local, renew=True)
                elif last or code_of(error) != DEADLOCK:
                    raise meaning_of(error) or error from error
        raise AssertionError("the last try returns or raises")

    def _within(self, local: _Thread, ask: _Ask) -> Cursor:
        """A statement of the running transaction. What fails for the store's sake dooms the whole."""
        if local.doomed is None and local.connection is not None:
            try:
                return ask(local.connection)
            except MySQLError as error:
                meaning = meaning_of(error)
                if not isinstance(meaning, StoreUnavailable):
                    raise meaning or error from error
                self._failed(local, meaning)
                local.doomed = meaning
                raise meaning from error
        reason = local.doomed.reason if local.doomed else "the connection was closed"
        raise StoreUnavailable(STORE, f"{reason}; nothing of this transaction is kept", lost=False)

    def _failed(self, local: _Thread, error: StoreUnavailable) -> None:
        self._breaker.failed(local.epoch, error)
        self._refused.note(error.reason)

    def _nested(self, local: _Thread) -> Iterator[None]:
        """A transaction within another one."""
        name = f"depth_{local.depth}"
        self._within(local, lambda connection: connection.ask(f"SAVEPOINT {name}"))
        local.depth += 1
        try:
            yield
            self._within(local, lambda connection: connection.ask(f"RELEASE SAVEPOINT {name}"))
        except BaseException:
            # A transaction that is doomed has no savepoints, and ends without a commit.
            with suppress(StoreUnavailable):
                self._within(local, lambda connection: connection.ask(f"ROLLBACK TO SAVEPOINT {name}"))
            raise
        finally:
            local.depth -= 1

    def _connected(self, local: _Thread, *, renew: bool) -> BoundedConnection:
        """This thread's connection; with ``renew`` another one in place of one that has died meanwhile."""
        kept = local.connection
        if local.pinned:
            if kept is None or not kept.open:
                raise StoreUnavailable(STORE, "the connection was lost in a migration", lost=False)
            return kept
        if kept is not None:
            usable = kept.open and local.pid == os.getpid() and local.credentials == self._credentials
            if usable and not (renew and kept.is_stale()):
                return kept
            self.close()
        connection, local.credentials = self._opened()
        local.connection, local.pid = connection, os.getpid()
        return connection

    def _opened(self) -> tuple[BoundedConnection, Credentials]:
        """A new connection, and what it was opened with. Raises StoreUnavailable."""
        try:
            credentials = self._credentials
            try:
                return self._opened_with(credentials), credentials
            except MySQLError as error:
                if code_of(error) != REFUSED_CREDENTIALS:
                    raise
                section = self._reread()
                if section is None or _credentials_of(section) == credentials:
                    raise
                self._credentials = credentials = _credentials_of(section)
                return self._opened_with(credentials), credentials
        except MySQLError as error:
            raise meaning_of(error, connecting=True) or error from error
        except OSError as error:
            raise StoreUnavailable(STORE, failure_of(error) or "the connection was cut") from error
        except (struct.error, IndexError, ValueError) as error:
            # PyMySQL trips over the greeting of another program's server.
            raise StoreUnavailable(STORE, FOREIGN) from error

    def _opened_with(self, credentials: Credentials) -> BoundedConnection:
        connection = BoundedConnection(
            host=self._host,
            port=self._port,
            database=self._name,
            credentials=credentials,
            timeout_s=self._timeout_s,
            tls=self._tls,
            max_allowed_packet=self._max_allowed_packet,
        )
        self._peewee.meet(connection)
        return connection

    def _probe(self) -> None:
        """The breaker's own look, from a thread of its own."""
        self._look()

    def _look(self) -> None:
        connection, _ = self._opened()
        try:
            connection.ask(_HEALTH)
        except MySQLError as error:
            raise meaning_of(error) or error from error
        finally:
            connection.close()


class _Peewee(orm.MySQLDatabase):
    """Makes the SQL of peewee's queries, and has the store execute it: there are no other connections."""

    def __init__(self, store: MysqlStore) -> None:
        self._store = store
        # Keys are compared to the character; ids have the collation of the ids that they are joined with.
        super().__init__("ragkeeper", field_types={"EXACT": "VARCHAR({}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"})

    def meet(self, connection: BoundedConnection) -> None:
        """Learn which server it is, for what MySQL and MariaDB say differently."""
        self.mariadb = connection.mariadb
        self._set_server_version(connection)  # type: ignore[attr-defined]  # peewee's stubs leave it out

    def execute_sql(self, sql: str, params: Sequence[Any] | None = None) -> Cursor:
        return self._store.write(sql, params or ())

    def connection(self) -> BoundedConnection:
        return self._store.connection()

    def in_transaction(self) -> bool:
        return self._store.in_transaction

    def _connect(self) -> Any:
        raise NotImplementedError("the store has the connections")


class _Schema(orm.SchemaManager):
    """Makes tables that are InnoDB's, in a form that is named and not the server's default."""

    def __init__(self, model: type[orm.Model], database: orm.Database, text_form: str) -> None:
        super().__init__(model, database=database)
        self._text_form = text_form

    def index(self, index: Any) -> Any:
        """The statement that makes one of the model's indexes."""
        return self._create_index(index, safe=False)  # type: ignore[attr-defined]  # peewee's stubs leave it out

    def _create_table(self, safe: bool = True, **options: Any) -> Any:
        statement = super()._create_table(safe, **options)  # type: ignore[misc]  # likewise
        return statement.literal(f" ENGINE=InnoDB {self._text_form}")


def _roll_back(connection: BoundedConnection | None) -> None:
    """End the transaction of a connection, or else the connection, with which the server ends it too."""
    if connection is not None and connection.open:
        try:
            connection.ask("ROLLBACK")
        except MySQLError:
            connection.close()


def _lock_name(database: str) -> str:
    """Advisory locks are one server's, so they are named after the database."""
    return f"ragkeeper:{hashlib.sha256(database.encode()).hexdigest()[:32]}"


def _credentials_of(section: MySqlSection) -> Credentials:
    return Credentials(section.user, section.password.reveal() if section.password else "")
