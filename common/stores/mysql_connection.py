"""A connection to MySQL or MariaDB on which no exchange outlives its deadline, set up as this plane expects it."""

from __future__ import annotations

import math
import select
import ssl
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pymysql.connections import Connection
from pymysql.constants import CLIENT
from pymysql.cursors import Cursor

from common.stores.sockets import TimedSocket, TimedTls, reached

#: Seconds that a change waits for rows that another transaction has changed, or for a table that is locked.
LOCK_WAIT_S = 5
#: Seconds after which the server ends a transaction whose process is stopped, with what that has locked. MySQL has a
#: limit for all idle connections alike; another one is opened unseen.
IDLE_IN_TRANSACTION_S = 15
IDLE_S = 60
#: The longest GROUP_CONCAT in bytes; MySQL's default of 1,024 would cut the roles of an account without a word.
_CONCAT_BYTES = 1 << 20
# What MySQL 8 does by default. MariaDB would take one row's value for a whole group.
_SQL_MODE = (
    "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,"
    "NO_ENGINE_SUBSTITUTION"
)
# A server ends a read that takes this share of its deadline, so that it is told from a server that hangs.
_READ_SHARE = 0.9
_GOODBYE_S = 0.2


class Credentials(NamedTuple):
    """What the server is told at log-in; the password may be empty."""

    user: str
    password: str


class BoundedConnection(Connection):
    """One connection, used by one thread. ``timeout_s`` is for name look-up, connect, TLS, log-in and the first
    answer together, then for each answer of its own. PyMySQL's limits are for each read, so a server that drips would
    never meet them.

    Raises PyMySQL's errors.
    """

    # Not in the stubs of PyMySQL.
    server_version: str
    _sock: TimedSocket | None

    def __init__(
        self,
        *,
        host: str,
        port: int,
        database: str,
        credentials: Credentials,
        timeout_s: float,
        tls: ssl.SSLContext | None,
        max_allowed_packet: int,
    ) -> None:
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._is_new = True
        super().__init__(
            host=host,
            port=port,
            user=credentials.user,
            # As bytes, or it would have to be Latin-1.
            password=credentials.password.encode(),
            database=database,
            charset="utf8mb4",
            autocommit=True,
            # An UPDATE that writes what is there already counts its row, as on every other store.
            client_flag=CLIENT.FOUND_ROWS,
            max_allowed_packet=max_allowed_packet,
            ssl=tls,
            ssl_disabled=tls is None,
            program_name="ragkeeper",
            defer_connect=True,
        )
        self.connect(reached(host, port, self._left_s))  # type: ignore[arg-type]  # as much of a socket as it uses
        self._set_up()
        self._is_new = True

    @property
    def mariadb(self) -> bool:
        """Whether it is MariaDB, which is not MySQL in all."""
        return "mariadb" in self.server_version.lower()

    def ask(self, sql: str, params: Sequence[Any] = (), extra_s: float = 0.0) -> Cursor:
        """Execute a statement with ``%s`` for its parameters; it may take ``extra_s`` beyond the deadline."""
        self._renew(extra_s)
        cursor = self.cursor()
        cursor.execute(sql, params)
        return cursor

    def write(self, sql: str, params: Sequence[Any] = ()) -> Cursor:
        """``ask`` for a statement that may have to wait for what others have locked.

        A row and its table may both be locked. MariaDB ends that wait too before the deadline; MySQL has no such limit
        for changes.
        """
        if self.mariadb:
            limit_s = self._timeout_s * _READ_SHARE + LOCK_WAIT_S
            sql = f"SET STATEMENT max_statement_time={limit_s:.3f} FOR {sql}"
        return self.ask(sql, params, LOCK_WAIT_S)

    def is_stale(self) -> bool:
        """Whether the server has closed the connection, or said something that nobody asked for."""
        if self._sock is None:
            return True
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def lift_limits(self, seconds: float) -> None:
        """Give each statement so long, for work that is not a request's; not to be kept for one afterwards."""
        self._timeout_s = seconds
        limit = "max_statement_time" if self.mariadb else "max_execution_time"
        self.ask(f"SET SESSION {limit} = 0, lock_wait_timeout = {math.ceil(seconds)}")

    def close(self) -> None:
        """End it, with a word to the server if it listens; again is fine."""
        if self._sock is not None:
            self._ends_at = time.monotonic() + _GOODBYE_S
            super().close()

    def abandon(self) -> None:
        """Close the descriptor alone: after a fork the parent goes on with the connection."""
        self._force_close()  # type: ignore[attr-defined]  # PyMySQL's own __del__, not in its stubs

    def _set_up(self) -> None:
        limit_s = self._timeout_s * _READ_SHARE
        if self.mariadb:
            limits = f"max_statement_time={limit_s:.3f}, idle_transaction_timeout={IDLE_IN_TRANSACTION_S}"
        else:
            # For reads alone, which spares the prefix of ``write``.
            limits = f"max_execution_time={limit_s * 1000:.0f}, wait_timeout={IDLE_S}"
        with self.cursor() as cursor:
            # What was read before a lock was waited for must be read anew afterwards, and not from a snapshot.
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                f"SET SESSION sql_mode='{_SQL_MODE}', innodb_lock_wait_timeout={LOCK_WAIT_S}, "
                f"lock_wait_timeout={LOCK_WAIT_S}, group_concat_max_len={_CONCAT_BYTES}, {limits}"
            )

    def _renew(self, extra_s: float) -> None:
        if self._is_new:
            # Connecting and the first answer share one deadline.
            self._is_new = False
            self._ends_at += extra_s
        else:
            self._ends_at = time.monotonic() + self._timeout_s + extra_s

    def _left_s(self) -> float:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline is over")
        return left_s

    def _create_ssl_ctx(self, context: ssl.SSLContext) -> TimedTls:
        return TimedTls(context)


@lru_cache(maxsize=2048)
def translated(sql: str) -> str:
    """A statement with ``?`` for its parameters in the form that PyMySQL takes: ``%s``, and ``%%`` for a per cent sign.

    What stands in quotes is left alone, but for per cent signs.
    """
    pieces = []
    quote = ""
    for character in sql:
        if character == "%":
            pieces.append("%%")
        elif character == "?" and not quote:
            pieces.append("%s")
        else:
            pieces.append(character)
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"`":
                quote = character
    return "".join(pieces)
