"""The cache store: short-lived values, counters, leases and the heartbeats of task executors.

Everything in it may be lost without harm to accounts or data. All processes of an installation share one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from common.core.errors import StoreUnavailable
from common.stores.sqlite_file import SqliteFile

#: How long a heartbeat is kept, in seconds; RAGFlow's own executors prune theirs after the same time.
HEARTBEATS_KEPT_S = 1800


class Count(NamedTuple):
    """A counter's value after an increment, and in how many seconds it starts again from nothing."""

    value: int
    resets_in: float


class Cache(Protocol):
    """What the plane asks of a cache. Every method raises ``StoreUnavailable`` (store ``cache``)."""

    def prepare(self) -> None:
        """Makes what the store needs before its first use; repeating it changes nothing."""

    def get(self, key: str) -> str | None:
        """The value under the key, or None when there is none or its time is over."""

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """Stores a value, for ``ttl_s`` seconds or until it is deleted; replaces the one that was there."""

    def delete(self, key: str) -> bool:
        """Removes a value or a counter; True when there was one."""

    def redeem(self, key: str, into: str, value: str, ttl_s: float) -> bool:
        """In one step removes what is under ``key`` and stores a value under ``into`` for ``ttl_s`` seconds.

        False, and nothing is stored, when there was nothing to remove.
        """

    def incr(self, key: str, window_s: float, by: int = 1) -> Count:
        """Adds to a counter, atomically among all processes.

        The window begins with the first increment and isn't prolonged by later ones.
        """

    def counted(self, key: str) -> int:
        """A counter's value now, 0 when there is none or its window is over; also a value that was set and is a number.

        What is no number somebody else has stored there: StoreUnavailable, as ``incr`` says.
        """

    def acquire_lease(self, name: str, owner: str, ttl_s: float, longest_s: float = 0) -> bool:
        """Takes a lease that is free or expired, or prolongs the owner's own; True when it is held now.

        Nobody takes it for longer than ``ttl_s``, or ``longest_s`` if that is more: where another has more left, the
        clock was put back, and it is cut to that.
        """

    def release_lease(self, name: str, owner: str | None) -> bool:
        """Gives a lease back, or with None whoever's it is; False when the owner didn't hold it any more."""

    def beat(self, executor: str, beat: Mapping[str, Any], at: float) -> None:
        """Registers the executor and stores its heartbeat of ``at`` (Unix seconds).

        Its heartbeats that were over 30 minutes old at that time are dropped.
        """

    def heartbeats(self, since: float) -> dict[str, list[dict[str, Any]]]:
        """Every registered executor with its heartbeats from ``since`` (Unix seconds) on, oldest first."""

    def remove_executor(self, executor: str) -> None:
        """Forgets an executor and its heartbeats."""

    def purge_expired(self, limit: int = 1000) -> int:
        """Deletes at most ``limit`` expired values and as many leases; how many went (0: all)."""

    def shared_secret(self, offer: str) -> str | None:
        """The secret that all programs on this store sign with: ``offer``, if there was none before.

        None where the store belongs to one home, whose own file is shared enough.
        """

    def replace_shared_secret(self, old: str, new: str) -> bool:
        """Makes ``new`` that secret, if it is ``old`` still; whether it was."""

    def health(self) -> float:
        """Asks the store for a sign of life, without writing; the milliseconds that took."""

    def info(self) -> dict[str, Any]:
        """What the store says of itself, without secrets; empty where it says nothing."""

    def close(self) -> None:
        """Closes what this thread holds open."""


_SCHEMA = (
    "CREATE TABLE entry (key TEXT PRIMARY KEY, value, expires_at REAL) WITHOUT ROWID",
    "CREATE INDEX entry_expires_at ON entry (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE lease (name TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX lease_expires_at ON lease (expires_at)",
    "CREATE TABLE executor (name TEXT PRIMARY KEY) WITHOUT ROWID",
    """CREATE TABLE heartbeat (
        executor TEXT NOT NULL, at REAL NOT NULL, beat TEXT NOT NULL, PRIMARY KEY (executor, at, beat)
    ) WITHOUT ROWID""",
)

# A counter that would outlive its window (the clock was put back) is cut to it, so nobody stays locked out.
_INCR = """
    INSERT INTO entry (key, value, expires_at) VALUES (:key, :by, :until)
    ON CONFLICT (key) DO UPDATE SET
        value = CASE WHEN expires_at <= :now THEN :by ELSE CAST(value AS INTEGER) + :by END,
        expires_at = CASE WHEN expires_at <= :now THEN :until
                          ELSE min(coalesce(expires_at, :until), :until) END
    RETURNING value, expires_at
"""

_ACQUIRE = """
    INSERT INTO lease (name, owner, expires_at) VALUES (:name, :owner, :until)
    ON CONFLICT (name) DO UPDATE SET
        owner = CASE WHEN expires_at <= :now THEN :owner ELSE owner END,
        expires_at = CASE WHEN expires_at <= :now OR owner = :owner THEN :until ELSE :latest END
        WHERE expires_at <= :now OR owner = :owner OR expires_at > :latest
    RETURNING owner
"""

_PURGES = (
    "DELETE FROM entry WHERE key IN (SELECT key FROM entry WHERE expires_at <= ? LIMIT ?) RETURNING 1",
    "DELETE FROM lease WHERE name IN (SELECT name FROM lease WHERE expires_at <= ? LIMIT ?) RETURNING 1",
)


def number_of(value: str | None) -> int:
    """A stored number, 0 for None. Raises StoreUnavailable for what is none."""
    try:
        number = int(value or 0)
    except ValueError:
        number = None
    if number is None or number.bit_length() > 63:
        # Whatever it is, it may be somebody's secret.
        raise StoreUnavailable("cache", "a value that is no number", lost=False)
    return number


class SqliteCache:
    """The embedded cache: tables in a SQLite file of its own, so that metadata never waits for it.

    ``clock`` gives Unix seconds. A missing file is made anew by any call but ``health``; a missing folder
    is an error.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, busy_timeout_s: float = 5.0) -> None:
        self._file = SqliteFile("cache", path, _SCHEMA, busy_timeout_s=busy_timeout_s)
        self._clock = clock

    def prepare(self) -> None:
        """See ``Cache.prepare``."""
        self._file.prepare()

    def get(self, key: str) -> str | None:
        """See ``Cache.get``."""
        rows = self._run(
            "SELECT value FROM entry WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)",
            (key, self._clock()),
        )
        return str(rows[0][0]) if rows else None

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """See ``Cache.set``."""
        until = None if ttl_s is None else self._clock() + ttl_s
        self._run("INSERT OR REPLACE INTO entry (key, value, expires_at) VALUES (?, ?, ?)", (key, value, until))

    def delete(self, key: str) -> bool:
        """See ``Cache.delete``."""
        rows = self._run("DELETE FROM entry WHERE key = ? RETURNING expires_at", (key,))
        return bool(rows) and (rows[0][0] is None or rows[0][0] > self._clock())

    def redeem(self, key: str, into: str, value: str, ttl_s: float) -> bool:
        """See ``Cache.redeem``."""
        now = self._clock()
        with self._file.transaction() as connection:
            rows = connection.execute("DELETE FROM entry WHERE key = ? RETURNING expires_at", (key,)).fetchall()
            there = bool(rows) and (rows[0][0] is None or rows[0][0] > now)
            if there:
                connection.execute(
                    "INSERT OR REPLACE INTO entry (key, value, expires_at) VALUES (?, ?, ?)", (into, value, now + ttl_s)
                )
        return there

    def incr(self, key: str, window_s: float, by: int = 1) -> Count:
        """See ``Cache.incr``."""
        now = self._clock()
        value, until = self._run(_INCR, {"key": key, "by": by, "now": now, "until": now + window_s})[0]
        return Count(value, until - now)

    def counted(self, key: str) -> int:
        """See ``Cache.counted``."""
        return number_of(self.get(key))

    def acquire_lease(self, name: str, owner: str, ttl_s: float, longest_s: float = 0) -> bool:
        """See ``Cache.acquire_lease``."""
        now = self._clock()
        until, latest = now + ttl_s, now + max(ttl_s, longest_s)
        rows = self._run(_ACQUIRE, {"name": name, "owner": owner, "now": now, "until": until, "latest": latest})
        return bool(rows) and rows[0][0] == owner

    def release_lease(self, name: str, owner: str | None) -> bool:
        """See ``Cache.release_lease``."""
        rows = self._run(
            "DELETE FROM lease WHERE name = ? AND owner = COALESCE(?, owner) RETURNING expires_at",
            (name, owner),
        )
        return bool(rows) and rows[0][0] > self._clock()

    def beat(self, executor: str, beat: Mapping[str, Any], at: float) -> None:
        """See ``Cache.beat``."""
        text = json.dumps(dict(beat), separators=(",", ":"))
        with self._file.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO executor (name) VALUES (?)", (executor,))
            connection.execute("INSERT OR REPLACE INTO heartbeat VALUES (?, ?, ?)", (executor, at, text))
            connection.execute(
                "DELETE FROM heartbeat WHERE executor = ? AND at < ?", (executor, at - HEARTBEATS_KEPT_S)
            )

    def heartbeats(self, since: float) -> dict[str, list[dict[str, Any]]]:
        """See ``Cache.heartbeats``."""
        rows = self._run(
            "SELECT executor.name, beat FROM executor LEFT JOIN heartbeat"
            " ON heartbeat.executor = executor.name AND at >= ? ORDER BY executor.name, at",
            (since,),
        )
        found: dict[str, list[dict[str, Any]]] = {}
        for name, beat in rows:
            beats = found.setdefault(name, [])
            if beat is not None:
                beats.append(json.loads(beat))
        return found

    def remove_executor(self, executor: str) -> None:
        """See ``Cache.remove_executor``."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM heartbeat WHERE executor = ?", (executor,))
            connection.execute("DELETE FROM executor WHERE name = ?", (executor,))

    def purge_expired(self, limit: int = 1000) -> int:
        """See ``Cache.purge_expired``."""
        now = self._clock()
        return sum(len(self._run(purge, (now, limit))) for purge in _PURGES)

    def shared_secret(self, offer: str) -> str | None:
        """See ``Cache.shared_secret``."""
        return None

    def replace_shared_secret(self, old: str, new: str) -> bool:
        """See ``Cache.replace_shared_secret``; there is none to replace."""
        return False

    def health(self) -> float:
        """See ``Cache.health``."""
        return self._file.check()

    def info(self) -> dict[str, Any]:
        """See ``Cache.info``."""
        return {}

    def close(self) -> None:
        """See ``Cache.close``."""
        self._file.close()

    def _run(self, sql: str, params: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        with self._file.connection(create=True) as connection:
            return connection.execute(sql, params).fetchall()
