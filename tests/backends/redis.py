"""A real Redis server in a folder of its own, on a free loopback port, ended by its own pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.exceptions import ConnectionError as Unreachable
from redis.retry import Retry

from tests.servers import free_ports
from tests.waiting import pause

#: Whichever is installed; both speak the same protocol.
BINARIES = ("redis-server", "valkey-server")
START_LIMIT_S = 10.0
STOP_LIMIT_S = 5.0
_DATABASES = 64


class RedisServer:
    """A server that can be stopped, killed, frozen and started again on the same port, with what it had stored."""

    def __init__(self, folder: Path, **options: str | int | Path) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_ports(1)[0]
        self.password = uuid4().hex
        self._options: dict[str, str] = {}
        self.configure(**options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``host:port``, as the configuration file has it."""
        return f"{self.host}:{self.port}"

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

    def configure(self, **options: str | int | Path) -> None:
        """Settings of redis.conf (``tls_port`` for tls-port) from the next start on."""
        self._options.update({name.replace("_", "-"): str(value) for name, value in options.items()})

    def start(self) -> None:
        """Start it, on the port that it had before if there was one; returns when it answers."""
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            self.launch()
            if self._answers(deadline):
                return
            # Another process took the port between the choice and the start.
            self.port = free_ports(1)[0]
            assert time.monotonic() < deadline, self.log()

    def launch(self) -> None:
        """Begin to start it; it may have to load its data before it answers."""
        binary = next(filter(None, map(shutil.which, BINARIES)), None)
        assert binary, "no Redis: apt-get install redis-server"
        settings = {
            "port": self.port,
            "bind": self.host,
            "requirepass": self.password,
            "dir": self.folder,
            "logfile": self.folder / "redis.log",
            "save": '""',
            "appendonly": "yes",
            "daemonize": "no",
            **self._options,
        }
        configuration = self.folder / "redis.conf"
        # A file, so that the password stands in no process list.
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self._process = subprocess.Popen(
            [binary, str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        )

    def stop(self) -> None:
        """End it in good order, by force if that takes too long; one that has ended is fine too."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it hang: its connections stay open, the system accepts new ones, and nothing is answered."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._running.send_signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._running.poll() is None

    def log(self) -> str:
        """What it has logged."""
        path = self.folder / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _answers(self, deadline: float) -> bool:
        """Whether it came up; False when it ended instead."""
        while self._running.poll() is None:
            assert time.monotonic() < deadline, f"Redis did not start:\n{self.log()}"
            with self.client() as client:
                try:
                    return bool(client.ping())
                except (Unreachable, BusyLoadingError):
                    pause(0.01)
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        # One that is frozen hears of its end only when it goes on.
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


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
