"""The faults, each as something that lasts while a context is open, and what is to be seen meanwhile."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

import pymysql

from tests.backends.mariadb import USER
from tests.backends.s3 import S3Server
from tests.faults.ground import Servers

STORES = ("metadata", "cache", "documents", "objects")
#: Those that `make test` tries too.
FIRST = ("refusing", "killed", "hanging", "hanging-mid-answer", "slow", "cut", "wrong-password")
REST = ("out-of-connections", "read-only", "disk-full", "restarted-empty", "slow-but-in-time")
KINDS = FIRST + REST

#: Longer than the stores' deadline, and so much shorter that an exchange with all its steps ends in time.
SLOW_S, IN_TIME_S = 2.0, 0.03
Fault = Callable[[Servers], AbstractContextManager[None]]


class Expected(NamedTuple):
    """``shown``: whether health names the store. ``stopped``: what fails of that which needs it."""

    shown: bool
    stopped: Literal["all", "writes", "nothing"]


def expected_of(store: str, kind: str) -> Expected:
    """What is to be seen.

    Health checks write nothing. So a store that reads and no longer writes shows where it checks a write that changes
    nothing as it would any other one (MariaDB when it is read-only, Redis also when it is full), where it says so
    (Elasticsearch), and where a change was refused a moment ago: one of somebody's, or on S3 a trial of the worker's. A
    full S3 still deletes, and the plane needs no more. A database that came up without its tables is down; what the
    other stores lose is made anew.
    """
    if kind == "slow-but-in-time" or (kind == "restarted-empty" and store != "metadata"):
        return Expected(False, "nothing")
    if kind in ("read-only", "disk-full"):
        return Expected(True, "nothing" if store in ("documents", "objects") else "writes")
    return Expected(True, "all")


def fault(store: str, kind: str) -> Fault:
    """The fault of that name."""
    if kind in _OF_THE_NETWORK:
        return lambda servers: _network(servers, store, kind)
    return _OF_THE_SERVER[store, kind]


@contextmanager
def _network(servers: Servers, store: str, kind: str) -> Iterator[None]:
    proxy = servers.proxies[store]
    begin = {
        "refusing": proxy.refuse,
        "hanging": proxy.hang,
        "hanging-mid-answer": lambda: proxy.hang_mid_answer(1),
        "slow": lambda: proxy.slow(SLOW_S),
        "slow-but-in-time": lambda: proxy.slow(IN_TIME_S),
        "cut": proxy.cut,
    }[kind]
    begin()
    try:
        yield
    finally:
        proxy.pass_through()


_OF_THE_NETWORK = ("refusing", "hanging", "hanging-mid-answer", "slow", "slow-but-in-time", "cut")


@contextmanager
def _killed(servers: Servers, store: str) -> Iterator[None]:
    server = {
        "metadata": servers.mariadb,
        "cache": servers.redis,
        "documents": servers.elasticsearch.osmem,
        "objects": servers.s3,
    }[store]
    server.kill()
    # As the system refuses where nobody listens any more.
    servers.proxies[store].refuse()
    try:
        yield
    finally:
        server.start()
        servers.proxies[store].pass_through()


# The database


@contextmanager
def _other_password(servers: Servers) -> Iterator[None]:
    set_database_password(servers, uuid4().hex)
    try:
        yield
    finally:
        set_database_password(servers, servers.mariadb.password)


def set_database_password(servers: Servers, password: str) -> None:
    """Change it on the server, and have everybody log in anew."""
    servers.mariadb.ask(f"ALTER USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{password}'")
    servers.end_connections()


@contextmanager
def _no_connections(servers: Servers) -> Iterator[None]:
    """Others have every connection that it allows; the plane's own were ended, and come not back."""
    with ExitStack() as stack:
        ours = stack.enter_context(servers.mariadb.root())
        # The least that it takes.
        ours.execute("SET GLOBAL max_connections = 10")
        while True:
            ours.execute("SELECT id FROM information_schema.processlist WHERE user = %s", (USER,))
            theirs = [row[0] for row in ours.fetchall()]
            for each in theirs:
                try:
                    ours.execute(f"KILL {each}")
                except pymysql.err.OperationalError:
                    continue
            try:
                stack.enter_context(servers.mariadb.root())
            except pymysql.err.OperationalError:
                if not theirs:
                    break
        try:
            yield
        finally:
            ours.execute("SET GLOBAL max_connections = 151")


@contextmanager
def _read_only_database(servers: Servers) -> Iterator[None]:
    servers.mariadb.ask("SET GLOBAL read_only = 1")
    try:
        yield
    finally:
        servers.mariadb.ask("SET GLOBAL read_only = 0")


@contextmanager
def _full_database(servers: Servers) -> Iterator[None]:
    """The one file that its tables are in has grown as far as it may."""
    server = servers.mariadb
    server.ask("CREATE DATABASE filler")
    server.ask("CREATE TABLE filler.filler (content LONGBLOB NOT NULL) ENGINE=InnoDB")
    try:
        for size in (1 << 20, 1 << 16, 1 << 13, 1 << 8):
            _fill(servers, size)
        yield
    finally:
        # It has no room even to note that something was dropped: it gets more, as an operator would give it.
        server.stop()
        server.configure(innodb_data_file_path="ibdata1:12M:autoextend:max:256M")
        server.start()
        server.ask("DROP DATABASE filler")


def _fill(servers: Servers, size: int) -> None:
    with servers.mariadb.root("filler") as cursor:
        try:
            while True:
                cursor.execute("INSERT INTO filler VALUES (REPEAT('x', %s))", (size,))
        except pymysql.err.OperationalError as error:
            assert error.args[0] == pymysql.constants.ER.RECORD_FILE_FULL, error  # noqa: PT017 - it ends the filling


@contextmanager
def _empty_database(servers: Servers) -> Iterator[None]:
    """Another server came up in its place, which knows the user, and has the schema without a table."""
    server = servers.mariadb
    data, kept = server.folder / "data", server.folder / "kept"
    server.stop()
    data.rename(kept)
    server.start()
    server.ask(f"CREATE DATABASE {servers.schema}")
    try:
        yield
    finally:
        server.stop()
        shutil.rmtree(data)
        kept.rename(data)
        server.start()


# The cache


@contextmanager
def _redis_setting(servers: Servers, name: str, value: str, well: str, *, anew: bool) -> Iterator[None]:
    """While it is set so; with ``anew`` everybody else has to connect again."""
    with servers.redis.client() as client:
        client.config_set(name, value)
        if anew:
            client.client_kill_filter(_type="normal", skipme=True)
        try:
            yield
        finally:
            client.config_set(name, well)


def _empty_cache(servers: Servers) -> AbstractContextManager[None]:
    return _restarted(servers.redis.kill, servers.redis.folder / "appendonlydir", servers.redis.start)


# Objects and documents


@contextmanager
def _restarted(kill: Callable[[], None], data: Path, start: Callable[[], None]) -> Iterator[None]:
    """It was killed, lost what it had stored, and is back."""
    kill()
    shutil.rmtree(data)
    start()
    yield


@contextmanager
def _empty_documents(servers: Servers) -> Iterator[None]:
    # It keeps everything in memory.
    servers.elasticsearch.osmem.kill()
    servers.elasticsearch.osmem.start()
    yield


@contextmanager
def _other_keys(servers: Servers) -> Iterator[None]:
    secret = servers.s3.secret_key
    restart_with(servers.s3, uuid4().hex)
    try:
        yield
    finally:
        restart_with(servers.s3, secret)


def restart_with(server: S3Server, secret_key: str) -> None:
    """End it, and start it with another secret key."""
    server.stop()
    server.secret_key = secret_key
    server.start()


@contextmanager
def _other_documents_password(servers: Servers) -> Iterator[None]:
    password, servers.elasticsearch.password = servers.elasticsearch.password, uuid4().hex
    try:
        yield
    finally:
        servers.elasticsearch.password = password


@contextmanager
def _one_connection(servers: Servers, store: str) -> Iterator[None]:
    """It lets one connection in, and that is another program's."""
    proxy = servers.proxies[store]
    with ExitStack() as stack:
        while True:
            proxy.limit(1)
            try:
                ours = stack.enter_context(socket.create_connection((proxy.host, proxy.port)))
                ours.settimeout(0.05)
                ours.recv(1)
            except TimeoutError:
                break
            except ConnectionError:
                # The plane was quicker.
                continue
        try:
            yield
        finally:
            proxy.pass_through()


@contextmanager
def _documents_refuse_writes(servers: Servers, status: int, reason: str) -> Iterator[None]:
    servers.elasticsearch.refuse_writes(status, "cluster_block_exception", f"index [x] blocked by: [{reason}];")
    try:
        yield
    finally:
        servers.elasticsearch.well()


@contextmanager
def _objects_refuse(servers: Servers, methods: str, status: int, code: str) -> Iterator[None]:
    servers.front.refuse(methods, status, code)
    try:
        yield
    finally:
        servers.front.well()


_FLOOD = "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block"
_OF_THE_SERVER: dict[tuple[str, str], Fault] = {
    ("metadata", "killed"): lambda servers: _killed(servers, "metadata"),
    ("metadata", "wrong-password"): _other_password,
    ("metadata", "out-of-connections"): _no_connections,
    ("metadata", "read-only"): _read_only_database,
    ("metadata", "disk-full"): _full_database,
    ("metadata", "restarted-empty"): _empty_database,
    ("cache", "killed"): lambda servers: _killed(servers, "cache"),
    ("cache", "wrong-password"): lambda servers: _redis_setting(
        servers, "requirepass", uuid4().hex, servers.redis.password, anew=True
    ),
    ("cache", "out-of-connections"): lambda servers: _redis_setting(servers, "maxclients", "1", "10000", anew=True),
    ("cache", "read-only"): lambda servers: _redis_setting(servers, "min-replicas-to-write", "1", "0", anew=False),
    ("cache", "disk-full"): lambda servers: _redis_setting(servers, "maxmemory", "1", "0", anew=False),
    ("cache", "restarted-empty"): _empty_cache,
    ("documents", "killed"): lambda servers: _killed(servers, "documents"),
    ("documents", "wrong-password"): _other_documents_password,
    ("documents", "out-of-connections"): lambda servers: _one_connection(servers, "documents"),
    ("documents", "read-only"): lambda servers: _documents_refuse_writes(
        servers, 403, "FORBIDDEN/5/index read-only (api)"
    ),
    ("documents", "disk-full"): lambda servers: _documents_refuse_writes(servers, 429, _FLOOD),
    ("documents", "restarted-empty"): _empty_documents,
    ("objects", "killed"): lambda servers: _killed(servers, "objects"),
    ("objects", "wrong-password"): _other_keys,
    ("objects", "out-of-connections"): lambda servers: _one_connection(servers, "objects"),
    ("objects", "read-only"): lambda servers: _objects_refuse(servers, "PUT|POST|DELETE", 403, "AccessDenied"),
    ("objects", "disk-full"): lambda servers: _objects_refuse(servers, "PUT", 507, "XMinioStorageFull"),
    ("objects", "restarted-empty"): lambda servers: _restarted(
        servers.s3.kill, servers.s3.folder / "data", servers.s3.start
    ),
}
