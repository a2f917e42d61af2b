"""A real MariaDB server in a folder of its own, on a free loopback port, ended by its own pid."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from tests.backends.child import PATH, START_LIMIT_S, ConfiguredServer

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


class MariadbServer(ConfiguredServer):
    """One MariaDB; a start finds what it had stored."""

    def __init__(self, folder: Path, **options: str | int | Path) -> None:
        super().__init__(folder, **options)
        self._root_password = uuid4().hex

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

    def start(self) -> None:
        if not self._data.exists():
            self._install()
        super().start()

    def command(self) -> list[str]:
        binary = shutil.which("mariadbd", path=PATH)
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
            "character-set-server": "utf8mb4",
            # RAGFlow's own deployment says so.
            "collation-server": "utf8mb4_unicode_ci",
            "init-file": self._accounts(),
            **({"user": "root"} if os.geteuid() == 0 else {}),
            **self._options,
        }
        file = self.folder / "my.cnf"
        file.write_text("[mariadbd]\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))
        return [binary, f"--defaults-file={file}"]

    def answers(self) -> bool:
        try:
            return bool(self.ask("SELECT 1"))
        except pymysql.err.OperationalError:
            return False

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

    def _install(self) -> None:
        installer = shutil.which("mariadb-install-db", path=PATH)
        assert installer, "no MariaDB: apt-get install mariadb-server"
        options = ["--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"]
        if os.geteuid() == 0:
            options.append("--user=root")
        done = subprocess.run(
            [installer, *options, "--skip-test-db", "--innodb-log-file-size=32M"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": PATH, "LANG": "C.UTF-8", "TMPDIR": str(self.folder)},
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


@dataclass(frozen=True)
class _Content:
    """What a schema had when it was made: each table's definition, and its rows."""

    definitions: dict[str, str]
    rows: dict[str, list[tuple[object, ...]]]


class Schemas:
    """Schemas that begin alike, for one test after the other.

    Making tables takes longer than most tests, so a schema is made once (``make`` fills an empty one of this name),
    put back after its use, and used again.
    """

    def __init__(self, server: MariadbServer, make: Callable[[str], None]) -> None:
        self._server = server
        self._make = make
        self._made: dict[str, _Content] = {}
        self._free: list[str] = []

    def take(self) -> str:
        """The name of a schema that is as ``make`` left it, and nobody else's until it is given back."""
        if self._free:
            return self._free.pop()
        name = self._server.make_schema()
        self._make(name)
        with self._server.root(name) as cursor:
            rows = {table: _rows(cursor, f"SELECT * FROM `{table}`") for table in _tables(cursor)}
            self._made[name] = _Content(_definitions(cursor), rows)
        return name

    def give_back(self, name: str) -> None:
        """Put a schema back, and end what a test has left open of it; one with altered tables is dropped."""
        self._server.end_connections(name)
        made = self._made[name]
        with self._server.root(name) as cursor:
            more = [f"`{table}`" for table in _tables(cursor) if table not in made.rows]
            if more:
                cursor.execute(f"DROP TABLE {', '.join(more)}")
            if _definitions(cursor) == made.definitions:
                _write(cursor, made.rows)
                self._free.append(name)
                return
        del self._made[name]
        self._server.drop_schema(name)


def _tables(cursor: Cursor) -> list[str]:
    return [str(name) for (name,) in _rows(cursor, "SHOW TABLES")]


def _definitions(cursor: Cursor) -> dict[str, str]:
    """By table, without the number that the next row will have."""
    found = {table: _rows(cursor, f"SHOW CREATE TABLE `{table}`")[0][1] for table in _tables(cursor)}
    return {table: re.sub(r" AUTO_INCREMENT=\d+", "", str(sql)) for table, sql in found.items()}


def _rows(cursor: Cursor, sql: str) -> list[tuple[object, ...]]:
    cursor.execute(sql)
    return list(cursor.fetchall())


def _write(cursor: Cursor, rows: dict[str, list[tuple[object, ...]]]) -> None:
    """Let the tables have these rows, and no others."""
    cursor.execute("BEGIN")
    for table, of_table in rows.items():
        cursor.execute(f"DELETE FROM `{table}`")
        if of_table:
            marks = ", ".join(["%s"] * len(of_table[0]))
            cursor.executemany(f"INSERT INTO `{table}` VALUES ({marks})", of_table)
    cursor.execute("COMMIT")


class MariadbHomes:
    """A server with a schema for each home; see ``tests.backends.stores.Backend``."""

    def __init__(self, folder: Path) -> None:
        self._server = MariadbServer(folder)
        self._server.start()
        self._schemas = Schemas(self._server, self._migrate)
        self._used: dict[Path, str] = {}

    def described(self) -> str:
        """See ``Backend``."""
        return f"MariaDB {self._server.version()}"

    def environment(self, home: Path) -> dict[str, str]:
        """See ``Backend``."""
        if home not in self._used:
            self._used[home] = self._schemas.take()
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
            self._schemas.give_back(schema)

    def stop(self) -> None:
        """See ``Backend``."""
        self._server.stop()

    def _migrate(self, schema: str) -> None:
        store = MysqlStore(self._server.section(schema))
        migrate(store, START_MS)
        store.close()
