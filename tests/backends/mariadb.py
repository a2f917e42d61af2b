"""A real MariaDB server in a folder of its own, on a free loopback port, ended by its own pid."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymysql
import pytest
from pymysql.cursors import Cursor

from common.conf.sections import MySqlSection
from common.migrations.runner import migrate
from common.secret import Secret
from common.stores.mysql_store import MysqlStore
from tests.servers import free_ports
from tests.waiting import pause

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0
START_MS = 1_790_000_000_000
#: The user that a plane logs in as; it may do everything in schemas whose names begin so, and nothing else.
USER = "keeper"
_SCHEMAS = "rk_test_"
#: For speed: a test's data need not survive the machine, only the server's processes.
_FAST = {
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "32M",
    "innodb-doublewrite": "0",
    "innodb-flush-method": "nosync",
    "performance-schema": "OFF",
    "innodb-file-per-table": "0",
}


class MariadbServer:
    """A server that can be stopped, killed, frozen and started again on the same port, with what it had stored."""

    def __init__(self, folder: Path, **options: str | int | Path) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_ports(1)[0]
        self.password = uuid4().hex
        self._root_password = uuid4().hex
        self._options: dict[str, str] = {}
        self.configure(**options)
        self._process: subprocess.Popen[bytes] | None = None

    def section(self, schema: str, **changed: object) -> MySqlSection:
        """The section of the configuration file that leads to a schema of this server."""
        given = {"name": schema, "user": USER, "password": Secret(self.password), "host": self.host, "port": self.port}
        return MySqlSection.model_validate({**given, **changed})

    def url(self, schema: str) -> str:
        """What RAGKEEPER_DB_URL takes."""
        return f"mysql://{USER}:{self.password}@{self.host}:{self.port}/{schema}"

    def ask(self, sql: str, *params: object, schema: str | None = None) -> list[tuple[object, ...]]:
        """The rows of a statement of the test's own, which may do everything."""
        with self.root(schema) as cursor:
            cursor.execute(sql, params or None)
            return list(cursor.fetchall())

    def version(self) -> str:
        """What it says of itself."""
        return str(self.ask("SELECT VERSION()")[0][0])

    def configure(self, **options: str | int | Path) -> None:
        """Options of mariadbd (``ssl_ca`` for --ssl-ca) from the next start on."""
        self._options.update({name.replace("_", "-"): str(value) for name, value in options.items()})

    def start(self) -> None:
        """Start it, on the port that it had before if there was one; returns when it answers."""
        if not self._data.exists():
            self._install()
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            self.launch()
            if self._answers(deadline):
                return
            # Another process took the port between the choice and the start.
            self.port = free_ports(1)[0]
            assert time.monotonic() < deadline, self.log()

    def launch(self) -> None:
        """Begin to start it; it may have to recover its data before it answers."""
        binary = shutil.which("mariadbd", path=_PATH)
        assert binary, "no MariaDB: apt-get install mariadb-server"
        settings = {
            **_FAST,
            "datadir": self._data,
            "socket": self.folder / "s",
            "port": self.port,
            "bind-address": self.host,
            "skip-networking": 0,
            "skip-name-resolve": 1,
            "skip-log-bin": 1,
            "pid-file": self.folder / "pid",
            # Not the machine's, in which servers of other namespaces choose the same names.
            "tmpdir": self.folder,
            "log-error": self.folder / "mariadb.log",
            "character-set-server": "utf8mb4",
            # RAGFlow's own deployment says so.
            "collation-server": "utf8mb4_unicode_ci",
            "init-file": self._accounts(),
            **({"user": "root"} if os.geteuid() == 0 else {}),
            **self._options,
        }
        file = self.folder / "my.cnf"
        file.write_text("[mariadbd]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))
        self._process = subprocess.Popen(
            [binary, f"--defaults-file={file}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": _PATH, "LANG": "C.UTF-8"},
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
        path = self.folder / "mariadb.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def make_schema(self) -> str:
        """A new schema, empty; its name."""
        name = f"{_SCHEMAS}{uuid4().hex[:12]}"
        self.ask(f"CREATE DATABASE {name}")
        return name

    def drop_schema(self, name: str) -> None:
        """Remove a schema, and end what a test has left open of it."""
        self.end_connections(name)
        self.ask(f"DROP DATABASE IF EXISTS {name}")

    def end_connections(self, name: str) -> None:
        """End every connection to a schema, with what it holds."""
        for (process,) in self.ask("SELECT id FROM information_schema.processlist WHERE db = %s", name):
            # It may have ended by itself.
            with suppress(pymysql.err.OperationalError):
                self.ask(f"KILL {process}")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the server was not started"
        return self._process

    def _install(self) -> None:
        installer = shutil.which("mariadb-install-db", path=_PATH)
        assert installer, "no MariaDB: apt-get install mariadb-server"
        options = ["--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"]
        if os.geteuid() == 0:
            options.append("--user=root")
        done = subprocess.run(
            [installer, *options, "--skip-test-db", "--innodb-log-file-size=32M"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": _PATH, "LANG": "C.UTF-8", "TMPDIR": str(self.folder)},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _accounts(self) -> Path:
        """Executed at each start; a file, so that no password stands in a process list."""
        file = self.folder / "accounts.sql"
        file.touch(mode=0o600)
        file.write_text(
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self._root_password}';\n"
            f"CREATE OR REPLACE USER 'root'@'127.0.0.1' IDENTIFIED BY '{self._root_password}';\n"
            "GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n"
            f"CREATE OR REPLACE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON `{_SCHEMAS.replace('_', chr(92) + '_')}%`.* TO '{USER}'@'127.0.0.1';\n"
        )
        return file

    @contextmanager
    def root(self, schema: str | None = None) -> Iterator[Cursor]:
        """A connection of the test's own, which may do everything."""
        connection = pymysql.connect(
            host=self.host,
            port=self.port,
            user="root",
            password=self._root_password,
            database=schema,
            autocommit=True,
            connect_timeout=int(START_LIMIT_S),
            read_timeout=START_LIMIT_S,
            ssl_disabled=True,
        )
        with connection, connection.cursor() as cursor:
            yield cursor

    def _answers(self, deadline: float) -> bool:
        """Whether it came up; False when it ended instead."""
        while self._running.poll() is None:
            assert time.monotonic() < deadline, f"MariaDB did not start:\n{self.log()}"
            try:
                return bool(self.ask("SELECT 1"))
            except pymysql.err.OperationalError:
                pause(0.02)
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


# Where Debian has the server, which is in no PATH of an ordinary user.
_PATH = f"{os.environ['PATH']}:/usr/sbin"


@contextmanager
def running_mariadb(folder: Path, **options: str | int | Path) -> Iterator[MariadbServer]:
    """A server for one test alone, with options of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    server = MariadbServer(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbServer]:
    """The one server of the whole run; tests take a schema of their own on it."""
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def schema(mariadb_server: MariadbServer) -> Iterator[str]:
    """The name of an empty schema, dropped afterwards."""
    name = mariadb_server.make_schema()
    yield name
    mariadb_server.drop_schema(name)


class MariadbHomes:
    """A server with a schema for each home; see ``tests.backends.stores.Backend``.

    Making a schema's tables takes longer than most tests, so schemas are migrated once, emptied, and used again.
    """

    def __init__(self, folder: Path) -> None:
        self._server = MariadbServer(folder)
        self._server.start()
        self._used: dict[Path, str] = {}
        self._free: list[str] = []
        self._tables: dict[str, list[tuple[object, ...]]] = {}

    def described(self) -> str:
        """See ``Backend``."""
        return f"MariaDB {self._server.version()}"

    def environment(self, home: Path) -> dict[str, str]:
        """See ``Backend``."""
        if home not in self._used:
            self._used[home] = self._free.pop() if self._free else self._migrated()
        return {"RAGKEEPER_DB_URL": self._server.url(self._used[home])}

    def sections(self) -> dict[str, Any]:
        """See ``Backend``."""
        return {}

    def take_down(self) -> None:
        """See ``Backend``."""
        self._server.kill()

    def forward(self, seconds: float) -> None:
        """See ``Backend``. Nothing to do: its clock counts nothing."""

    def forget(self) -> None:
        """See ``Backend``."""
        if not self._server.is_running:
            self._server.start()
        while self._used:
            _, schema = self._used.popitem()
            self._server.end_connections(schema)
            if self._is_whole(schema):
                self._empty(schema)
                self._free.append(schema)
            else:
                self._server.drop_schema(schema)

    def stop(self) -> None:
        """See ``Backend``."""
        self._server.stop()

    def _migrated(self) -> str:
        schema = self._server.make_schema()
        store = MysqlStore(self._server.section(schema))
        migrate(store, START_MS)
        store.close()
        if not self._tables:
            self._tables = {
                str(name): self._server.ask(f"SELECT * FROM `{name}`", schema=schema)
                for (name,) in self._server.ask("SHOW TABLES", schema=schema)
            }
        return schema

    def _is_whole(self, schema: str) -> bool:
        return self._tables.keys() <= {str(name) for (name,) in self._server.ask("SHOW TABLES", schema=schema)}

    def _empty(self, schema: str) -> None:
        """As it was when it had just been migrated."""
        with self._server.root(schema) as cursor:
            cursor.execute("SHOW TABLES")
            for name in {str(name) for (name,) in cursor.fetchall()} - self._tables.keys():
                cursor.execute(f"DROP TABLE `{name}`")
            cursor.execute("BEGIN")
            for name, rows in self._tables.items():
                cursor.execute(f"DELETE FROM `{name}`")
                if rows:
                    marks = ", ".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO `{name}` VALUES ({marks})", rows)
            cursor.execute("COMMIT")
