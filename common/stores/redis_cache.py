"""The cache on a Redis or Valkey server, which a RAGFlow may share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from common.conf.sections import RedisSection
from common.core.errors import StoreUnavailable
from common.stores.breaker import Breaker
from common.stores.cache import HEARTBEATS_KEPT_S, Count, number_of
from common.stores.redis_connection import BoundedConnection, Command, is_read_only, reason_of
from common.stores.sockets import tls_context

STORE = "cache"
#: Where RAGFlow keeps the key that its processes sign with, since 0.25.
SHARED_SECRET = "ragflow:system:secret_key"
#: RAGFlow's set of the names of task executors; each name is the key of that executor's heartbeats.
_EXECUTORS = "TASKEXE"
# Leases that RAGFlow's executors take too, under this very name.
_RAGFLOWS_LEASES = frozenset({"clean_task_executor"})
# Nothing is ever stored here.
_HEALTH_KEY = "ragkeeper:health"
# Two a minute for 30 minutes, four times over: a list that another program filled is not read whole.
_MOST_BEATS = 240

# A counter without an end, or one beyond the window, is cut to it, so nobody stays locked out.
_INCR = """
local value = redis.call('INCRBY', KEYS[1], ARGV[2])
local left = redis.call('PTTL', KEYS[1])
local window = tonumber(ARGV[1])
if left < 0 or left > window then
    redis.call('PEXPIRE', KEYS[1], window)
    left = window
end
return {value, left}
"""
_REDEEM = """
if redis.call('DEL', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
"""
_ACQUIRE = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
    local longest = tonumber(ARGV[3])
    if longest > 0 and redis.call('PTTL', KEYS[1]) > longest then redis.call('PEXPIRE', KEYS[1], longest) end
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_REPLACE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""


class Credentials(NamedTuple):
    """What the server is told at log-in; both may be empty."""

    username: str
    password: str


class _Kept(NamedTuple):
    """A connection, the process that it belongs to, and what it was opened with."""

    connection: BoundedConnection
    pid: int
    credentials: Credentials


class RedisCache:
    """The cache on a server: one kept connection a thread, each call within the section's ``timeout`` in all.

    Our keys begin with ``ragkeeper:``; heartbeats are under RAGFlow's keys and in its format, so each program sees
    the other's executors. The server's clock counts the times. When the credentials are refused, ``reread`` gives the
    section as it is configured now (None: it can't be told), and they are tried once more if they are others.
    """

    def __init__(self, section: RedisSection, *, reread: Callable[[], RedisSection | None] = lambda: None) -> None:
        host, port = section.address()
        self._host = host or "127.0.0.1"
        self._port = port or 6379
        self._db = section.db
        self._timeout_s = section.timeout
        self._tls = tls_context("redis", section)
        self._credentials = _credentials_of(section)
        self._reread = reread
        self._local = threading.local()
        self._breaker = Breaker(STORE, self._probe)

    def prepare(self) -> None:
        """Nothing to make, so a server that is down delays no start."""

    def get(self, key: str) -> str | None:
        """See ``Cache.get``."""
        value = self._ask("GET", _value_key(key))
        return None if value is None else _text(value)

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """See ``Cache.set``."""
        self._ask("SET", _value_key(key), value, *(() if ttl_s is None else ("PX", _milliseconds(ttl_s))))

    def delete(self, key: str) -> bool:
        """See ``Cache.delete``."""
        return bool(self._ask("DEL", _value_key(key)))

    def redeem(self, key: str, into: str, value: str, ttl_s: float) -> bool:
        """See ``Cache.redeem``."""
        return bool(self._ask("EVAL", _REDEEM, 2, _value_key(key), _value_key(into), value, _milliseconds(ttl_s)))

    def incr(self, key: str, window_s: float, by: int = 1) -> Count:
        """See ``Cache.incr``."""
        value, left_ms = self._ask("EVAL", _INCR, 1, _value_key(key), _milliseconds(window_s), by)
        return Count(value, left_ms / 1000)

    def counted(self, key: str) -> int:
        """See ``Cache.counted``."""
        return number_of(self.get(key))

    def acquire_lease(self, name: str, owner: str, ttl_s: float, longest_s: float = 0) -> bool:
        """See ``Cache.acquire_lease``; for how long RAGFlow takes one of its own is its matter."""
        longest_ms = 0 if name in _RAGFLOWS_LEASES else _milliseconds(max(ttl_s, longest_s))
        return bool(self._ask("EVAL", _ACQUIRE, 1, _lease_key(name), owner, _milliseconds(ttl_s), longest_ms))

    def release_lease(self, name: str, owner: str | None) -> bool:
        """See ``Cache.release_lease``."""
        if owner is None:
            return bool(self._ask("DEL", _lease_key(name)))
        return bool(self._ask("EVAL", _RELEASE, 1, _lease_key(name), owner))

    def beat(self, executor: str, beat: Mapping[str, Any], at: float) -> None:
        """See ``Cache.beat``."""
        self._ask_all(
            ("MULTI",),
            ("SADD", _EXECUTORS, executor),
            ("ZADD", executor, repr(at), orjson.dumps(dict(beat))),
            ("ZREMRANGEBYSCORE", executor, "-inf", f"({at - HEARTBEATS_KEPT_S!r}"),
            ("EXEC",),
        )

    def heartbeats(self, since: float) -> dict[str, list[dict[str, Any]]]:
        """See ``Cache.heartbeats``. What another program left there that is no heartbeat is passed over."""
        names = self._names()
        if not names:
            return {}
        found = self._exchange(
            [("ZREVRANGEBYSCORE", name, "+inf", repr(since), "LIMIT", 0, _MOST_BEATS) for name in names]
        )
        return {_text(name): _beats(answer) for name, answer in zip(names, found, strict=True)}

    def remove_executor(self, executor: str) -> None:
        """See ``Cache.remove_executor``."""
        self._ask_all(("MULTI",), ("SREM", _EXECUTORS, executor), ("DEL", executor), ("EXEC",))

    def purge_expired(self, limit: int = 1000) -> int:
        """Nothing to do: the server removes what has expired."""
        return 0

    def shared_secret(self, offer: str) -> str | None:
        """See ``Cache.shared_secret``; RAGFlow's processes agree on theirs under the same key, in the same way."""
        held = self._ask("GET", SHARED_SECRET)
        if held is None:
            # Whoever is first wins; everybody, the loser too, takes what is there afterwards.
            self._ask("SET", SHARED_SECRET, offer, "NX")
            held = self._ask("GET", SHARED_SECRET)
        return None if held is None else _text(held)

    def replace_shared_secret(self, old: str, new: str) -> bool:
        """See ``Cache.replace_shared_secret``. RAGFlow's processes go on with the one that they have read."""
        return bool(self._ask("EVAL", _REPLACE, 1, SHARED_SECRET, old, new))

    def health(self) -> float:
        """See ``Cache.health``. The server is asked even while the breaker is open.

        Writing nothing to the start of a text changes nothing, but the server makes all the checks of a write: a
        replica, a full memory and a broken disk refuse it.
        """
        started = time.perf_counter()
        with self._breaker.observe():
            self._look()
        return (time.perf_counter() - started) * 1000

    def info(self) -> dict[str, Any]:
        """See ``Cache.info``; RAGFlow's selection of the server's INFO, without what this user may not see."""
        (answer,) = self._exchange([("INFO",)])
        return {} if isinstance(answer, ResponseError) else _selected(_text(answer))

    def close(self) -> None:
        """See ``Cache.close``."""
        kept: _Kept | None = getattr(self._local, "kept", None)
        self._local.kept = None
        if kept is not None:
            # In a forked process it closes the descriptor only: the parent goes on with the connection.
            kept.connection.disconnect()  # type: ignore[no-untyped-call]

    def _probe(self) -> None:
        """The breaker's own look, from a thread of its own."""
        try:
            self._look()
        finally:
            self.close()

    def _look(self) -> None:
        _checked(self._exchanged([("SETRANGE", _HEALTH_KEY, 0, "")]))

    def _names(self) -> list[bytes]:
        """The keys of the registered executors, sorted; none where another program keeps something else there."""
        (answer,) = self._exchange([("SMEMBERS", _EXECUTORS)])
        if isinstance(answer, ResponseError):
            if str(answer).startswith("WRONGTYPE"):
                return []
            raise _refused(answer)
        return sorted(answer)

    def _ask(self, *command: str | bytes | float) -> Any:
        return self._ask_all(command)[0]

    def _ask_all(self, *commands: Command) -> list[Any]:
        """The answers. Raises StoreUnavailable for the first command that was refused."""
        return _checked(self._exchange(commands))

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        with self._breaker.guard():
            return self._exchanged(commands)

    def _exchanged(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, a ResponseError for what was refused. Raises StoreUnavailable when the server is lost."""
        ends_at = time.monotonic() + self._timeout_s
        try:
            try:
                answers = self._connection().exchange(commands, ends_at)
            except AuthenticationError:
                if not self._credentials_changed():
                    raise
                answers = self._connection().exchange(commands, ends_at)
        except (RedisError, OSError) as error:
            raise StoreUnavailable(STORE, reason_of(error)) from error
        if any(is_read_only(answer) for answer in answers):
            # Made a replica, it keeps its connections, while its address leads to another one by now.
            self.close()
        return answers

    def _connection(self) -> BoundedConnection:
        """This thread's connection; it connects at its first exchange."""
        kept: _Kept | None = getattr(self._local, "kept", None)
        if kept is not None:
            if kept.pid == os.getpid() and kept.credentials == self._credentials:
                return kept.connection
            self.close()
        connection = BoundedConnection(
            host=self._host,
            port=self._port,
            db=self._db,
            username=self._credentials.username,
            password=self._credentials.password,
            timeout_s=self._timeout_s,
            tls=self._tls,
        )
        self._local.kept = _Kept(connection, os.getpid(), self._credentials)
        return connection

    def _credentials_changed(self) -> bool:
        """Whether other credentials are configured than those that were refused; they are used from now on."""
        refused: _Kept = self._local.kept
        section = self._reread()
        if section is not None:
            self._credentials = _credentials_of(section)
        return self._credentials != refused.credentials


def _credentials_of(section: RedisSection) -> Credentials:
    return Credentials(section.username, section.password.reveal() if section.password else "")


def _value_key(key: str) -> str:
    return f"ragkeeper:value:{key}"


def _lease_key(name: str) -> str:
    return name if name in _RAGFLOWS_LEASES else f"ragkeeper:lease:{name}"


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _text(value: bytes) -> str:
    return value.decode(errors="replace")


def _checked(answers: list[Any]) -> list[Any]:
    for answer in answers:
        # What was refused inside a transaction stands in the answer to its end.
        for each in answer if isinstance(answer, list) else (answer,):
            if isinstance(each, ResponseError):
                raise _refused(each)
    return answers


def _refused(error: ResponseError) -> StoreUnavailable:
    """The server answers, so the breaker stays closed: a full one can still be read."""
    return StoreUnavailable(STORE, reason_of(error), lost=False)


def _beats(answer: list[bytes] | ResponseError) -> list[dict[str, Any]]:
    """The heartbeats in an answer that has the newest first; returned oldest first."""
    if isinstance(answer, ResponseError):
        return []
    return [beat for member in reversed(answer) if (beat := _beat(member)) is not None]


def _beat(member: bytes) -> dict[str, Any] | None:
    """The heartbeat as it was written, None for what is none or could not be part of an answer."""
    try:
        found = orjson.loads(member)
        # What can be read may still be too deep to be part of an answer.
        orjson.dumps([[[[[[found]]]]]])
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return found if isinstance(found, dict) else None


def _selected(text: str) -> dict[str, Any]:
    """The part of INFO that RAGFlow shows; sizes are texts such as ``1.02M``, as the server writes them."""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    said = {name: value for name, _, value in lines}
    chosen = {
        "redis_version": said.get("redis_version"),
        "server_mode": said.get("server_mode") or said.get("redis_mode"),
        "used_memory": said.get("used_memory_human"),
        "total_system_memory": said.get("total_system_memory_human"),
        "mem_fragmentation_ratio": _number(said.get("mem_fragmentation_ratio"), float),
        "connected_clients": _number(said.get("connected_clients"), int),
        "blocked_clients": _number(said.get("blocked_clients"), int),
        "instantaneous_ops_per_sec": _number(said.get("instantaneous_ops_per_sec"), int),
        "total_commands_processed": _number(said.get("total_commands_processed"), int),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _number(text: str | None, kind: type[int] | type[float]) -> float | None:
    try:
        return None if text is None else kind(text)
    except ValueError:
        return None
