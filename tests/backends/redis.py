"""A real Redis server in a folder of its own, on a free loopback port, ended by its own pid."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as Unreachable
from redis.retry import Retry

from tests.backends.child import START_LIMIT_S, ConfiguredServer

#: Whichever is installed; both speak the same protocol.
BINARIES = ("redis-server", "valkey-server")
_DATABASES = 64


class RedisServer(ConfiguredServer):
    """One Redis; a start finds what it had stored."""

    def url(self, db: int = 0) -> str:
        """What RAGKEEPER_REDIS_URL takes."""
        return f"redis://:{self.password}@{self.address}/{db}"

    def client(self, db: int = 0) -> Redis:
        """A client of the test's own, to look at what is stored and to change the server's settings."""
        return Redis(
            host=self.host,
            port=self.port,
            db=db,
            password=self.password,
            decode_responses=True,
            socket_timeout=START_LIMIT_S,
            socket_connect_timeout=START_LIMIT_S,
            retry=Retry(NoBackoff(), 0),
        )

    def command(self) -> list[str]:
        binary = next(filter(None, map(shutil.which, BINARIES)), None)
        assert binary, "no Redis: apt-get install redis-server"
        settings = {
            "port": self.port,
            "bind": self.host,
            "requirepass": self.password,
            "dir": self.folder,
            "save": '""',
            "appendonly": "yes",
            "daemonize": "no",
            **self._options,
        }
        configuration = self.folder / "redis.conf"
        # A file, so that the password stands in no process list.
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return [binary, str(configuration)]

    def answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except (Unreachable, BusyLoadingError):
                return False


@contextmanager
def running_redis(folder: Path, **options: str | int | Path) -> Iterator[RedisServer]:
    """A server for one test alone, with settings of its own (``maxclients=2``)."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The one server of the whole run. Tests take ``redis_server``, which is empty."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The run's server, emptied, with nobody's connection left over from another test."""
    with shared_redis.client() as client:
        client.flushall()
        for each in client.client_list():
            try:
                client.client_kill_filter(_id=each["id"], skipme=True)
            except RedisError:
                continue
    return shared_redis


class RedisHomes:
    """A server with a database for each home; see ``tests.backends.stores.Backend``."""

    def __init__(self, folder: Path) -> None:
        self._server = RedisServer(folder, databases=_DATABASES, appendonly="no")
        self._server.start()
        self._numbers: dict[Path, int] = {}

    def described(self) -> str:
        """See ``Backend``."""
        with self._server.client() as client:
            return f"Redis {client.info('server')['redis_version']}"

    def environment(self, home: Path) -> dict[str, str]:
        """See ``Backend``."""
        number = self._numbers.setdefault(home, len(self._numbers))
        return {"RAGKEEPER_REDIS_URL": self._server.url(number)}

    def sections(self) -> dict[str, Any]:
        """See ``Backend``."""
        return {}

    def take_down(self) -> None:
        """See ``Backend``."""
        self._server.kill()

    def forward(self, seconds: float) -> None:
        """See ``Backend``."""
        for number in self._numbers.values():
            with self._server.client(number) as client:
                for key in client.scan_iter():
                    left_ms = client.pttl(key)
                    if left_ms >= 0:
                        client.pexpire(key, max(0, left_ms - int(seconds * 1000)))

    def forget(self) -> None:
        """See ``Backend``."""
        if not self._server.is_running:
            self._server.start()
        if self._numbers:
            self._numbers.clear()
            with self._server.client() as client:
                client.flushall()

    def stop(self) -> None:
        """See ``Backend``."""
        self._server.stop()
