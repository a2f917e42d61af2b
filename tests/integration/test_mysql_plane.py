"""A whole plane on a real MariaDB that dies, hangs, or is not there yet."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.backends.mariadb import MariadbServer, running_mariadb
from tests.backends.redis import running_redis
from tests.backends.s3 import running_s3
from tests.people import new_password
from tests.servers import Live, end, running, start, until

pytestmark = [pytest.mark.slow, pytest.mark.alone]

ADMINISTRATOR = "admin@ragflow.io"
# No restart, and back within this of the server.
RECOVERY_S = 10.0
# ``serve`` waits for half a second, then its programs side by side for 2 s; the rest is ample time for a busy machine.
LIVE_S = 15.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbServer]:
    """A server that may be ended, which that of the whole run may not."""
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def server(made: MariadbServer) -> MariadbServer:
    """The same, running whatever became of the test before."""
    if made.is_running:
        made.thaw()
    else:
        made.start()
    return made


def answer(live: Live, path: str, port: int | None = None) -> httpx.Response | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port or live.admin_port}{path}", timeout=5)
    except httpx.TransportError:
        return None


def readiness(live: Live) -> tuple[int, object] | None:
    said = answer(live, "/readyz")
    return (said.status_code, said.json()["down"]) if said is not None else None


def log_in(live: Live, password: str) -> httpx.Response:
    account = {"email": ADMINISTRATOR, "password": password}
    return httpx.post(f"{live.admin_url}/api/v1/admin/login", json=account, timeout=10)


def seconds_until(condition: Callable[[], bool], live: Live) -> float:
    began = time.monotonic()
    until(condition, live)
    return time.monotonic() - began


def test_it_serves_unready_until_its_database_is_there_and_then_makes_the_administrator_once(
    tmp_path: Path, server: MariadbServer
) -> None:
    schema = server.make_schema()
    server.stop()
    live = start(tmp_path / "home", RAGKEEPER_DB_URL=server.url(schema))
    try:
        until(lambda: readiness(live) == (503, ["metadata"]), live)
        until(lambda: answer(live, "/readyz", live.api_port) is not None, live)
        said = live.printed()
        assert "Not ready: the metadata store can't be used: the connection was refused." in said
        assert "Generated password" not in said
        livez = answer(live, "/livez")
        assert livez is not None
        assert livez.status_code == 200
        assert log_in(live, "whatever it may be").status_code == 503

        server.start()
        assert seconds_until(lambda: readiness(live) == (200, []), live) < RECOVERY_S
        until(lambda: "Generated password" in live.printed(), live)
        [password] = re.findall(r"Generated password +(\S+)", live.printed())
        assert log_in(live, password).status_code == 200
        assert server.ask("SELECT COUNT(*) FROM user", schema=schema) == [(1,)]
        until(lambda: "task_executor_" in live.printed(), live)
        assert server.password not in live.printed()
    finally:
        end(live.process)


def test_a_start_while_every_store_hangs_waits_for_each_once_and_side_by_side(
    tmp_path: Path, server: MariadbServer
) -> None:
    schema = server.make_schema()
    with running_redis(tmp_path / "redis") as redis, running_s3(tmp_path / "s3") as objects:
        (tmp_path / "conf").mkdir()
        (tmp_path / "conf" / "service_conf.yaml").write_text(json.dumps({"minio": objects.section()}))
        frozen = (server, redis, objects)
        for each in frozen:
            each.freeze()
        live = start(tmp_path / "home", RAGKEEPER_DB_URL=server.url(schema), RAGKEEPER_REDIS_URL=redis.url())
        try:
            ports = (live.admin_port, live.api_port)
            waited_s = seconds_until(lambda: all(answer(live, "/livez", port) is not None for port in ports), live)
            assert waited_s < LIVE_S
            until(lambda: readiness(live) == (503, ["metadata", "cache", "objects"]), live)
            for each in frozen:
                each.thaw()
            assert seconds_until(lambda: readiness(live) == (200, []), live) < RECOVERY_S
            said = re.findall(r"WARNING \S+: not ready: the metadata store can't be used: (.*)", live.printed())
            assert said == ["no answer in time"] * 2
        finally:
            for each in frozen:
                each.thaw()
            end(live.process)


def test_a_password_that_was_given_is_still_known_when_the_database_comes(
    tmp_path: Path, server: MariadbServer
) -> None:
    schema, given = server.make_schema(), new_password()
    server.stop()
    live = start(tmp_path / "home", RAGKEEPER_DB_URL=server.url(schema), RAGKEEPER_ADMIN_PASSWORD=given)
    try:
        until(lambda: readiness(live) == (503, ["metadata"]), live)
        server.start()
        until(lambda: log_in(live, given).status_code == 200, live)
        assert given not in live.printed()
    finally:
        end(live.process)


def test_a_database_that_there_is_not_is_named_and_waited_for(tmp_path: Path, server: MariadbServer) -> None:
    live = start(tmp_path / "home", RAGKEEPER_DB_URL=server.url("rk_test_later"))
    try:
        until(lambda: readiness(live) == (503, ["metadata"]), live)
        assert "it has no database of this name" in live.printed()
        server.ask("CREATE DATABASE rk_test_later")
        assert seconds_until(lambda: readiness(live) == (200, []), live) < RECOVERY_S
    finally:
        end(live.process)


def test_a_start_on_an_emptied_database_waits_for_its_data_and_makes_no_administrator(
    tmp_path: Path, server: MariadbServer
) -> None:
    schema, aside, given = server.make_schema(), server.make_schema(), new_password()
    home, url = tmp_path / "home", server.url(schema)
    with running(home, RAGKEEPER_DB_URL=url, RAGKEEPER_ADMIN_PASSWORD=given):
        pass
    tables = [str(name) for (name,) in server.ask("SHOW TABLES", schema=schema)]
    server.ask("RENAME TABLE " + ", ".join(f"{schema}.{name} TO {aside}.{name}" for name in tables))
    live = start(home, RAGKEEPER_DB_URL=url, RAGKEEPER_ADMIN_PASSWORD=new_password())
    try:
        ports = (live.admin_port, live.api_port)
        until(lambda: all(answer(live, "/livez", port) is not None for port in ports), live)
        until(
            lambda: "worker.process: the metadata store is unavailable (the database has none" in live.printed(), live
        )
        assert readiness(live) == (503, ["metadata"])
        said = re.findall("Not ready: the metadata store can't be used: (the database has none .*)", live.printed())
        assert len(said) == 1
        assert f"remove {home / 'database_id'}" in said[0]
        assert log_in(live, given).status_code == 503
        assert server.ask("SHOW TABLES", schema=schema) == []

        server.ask("RENAME TABLE " + ", ".join(f"{aside}.{name} TO {schema}.{name}" for name in tables))
        assert seconds_until(lambda: readiness(live) == (200, []), live) < RECOVERY_S
        until(lambda: log_in(live, given).status_code == 200, live)
        assert server.ask("SELECT COUNT(*) FROM user", schema=schema) == [(1,)]
        assert "Generated password" not in live.printed()
    finally:
        end(live.process)


def test_a_database_that_dies_or_hangs_takes_only_what_needs_it_and_comes_back(
    tmp_path: Path, server: MariadbServer
) -> None:
    given = new_password()
    url = server.url(server.make_schema())
    with running(tmp_path / "home", RAGKEEPER_DB_URL=url, RAGKEEPER_ADMIN_PASSWORD=given) as live:
        session = {"Authorization": log_in(live, given).headers["Authorization"]}
        users = f"{live.admin_url}/api/v1/admin/users"
        assert httpx.get(users, headers=session).status_code == 200

        def works() -> bool:
            return httpx.get(users, headers=session, timeout=10).status_code == 200

        for stop, go_on in ((server.kill, server.start), (server.freeze, server.thaw)):
            stop()
            until(lambda: readiness(live) == (503, ["metadata"]), live)
            refused = httpx.get(users, headers=session, timeout=10)
            assert refused.status_code == 503
            assert refused.json()["message"].startswith("The metadata store")
            began = time.monotonic()
            assert answer(live, "/livez") is not None
            assert time.monotonic() - began < 0.5
            go_on()
            assert seconds_until(works, live) < RECOVERY_S
            assert seconds_until(lambda: readiness(live) == (200, []), live) < RECOVERY_S
