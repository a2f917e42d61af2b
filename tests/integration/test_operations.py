"""What docs/operations.md says to do with a database on a server, done as it is printed there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.backends.mariadb import USER, MariadbServer
from tests.people import new_password
from tests.servers import Live, running

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
ROOT = "admin@ragflow.io"
# Into which nothing is written by itself while a plane runs.
STEADY = (
    "user",
    "tenant",
    "user_tenant",
    "api_token",
    "rk_account",
    "rk_membership",
    "rk_session",
    "rk_token",
    "rk_role",
)


def printed(kind: str, sign: str) -> str:
    """The one block of this kind in the document that has this text in it."""
    blocks = re.findall(rf"^ *```{kind}\n(.*?)^ *```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if sign in block]
    return str(found)


class Operator:
    """Somebody with a shell, and an option file for the server."""

    def __init__(self, server: MariadbServer, schema: str, folder: Path) -> None:
        self._schema = schema
        self._folder = folder
        options = folder / "ops.cnf"
        options.touch(mode=0o600)
        options.write_text(
            f"[client]\nhost = {server.host}\nport = {server.port}\nuser = {USER}\npassword = {server.password}\n"
        )

    def does(self, script: str, given: str = "") -> None:
        """Run what the document prints, on the schema of the test."""
        done = subprocess.run(
            ["sh", "-ec", script.replace("rag_flow", self._schema)],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")


def counts(server: MariadbServer, schema: str) -> dict[str, int]:
    tables = [str(name) for (name,) in server.ask("SHOW TABLES", schema=schema)]
    return {name: int(str(server.ask(f"SELECT COUNT(*) FROM `{name}`", schema=schema)[0][0])) for name in tables}


def log_in(live: Live, password: str) -> dict[str, str]:
    answer = httpx.post(f"{live.api_url}/v1/user/login", json={"email": ROOT, "password": password}, timeout=20)
    assert answer.json()["code"] == 0
    return {"Authorization": answer.headers["Authorization"]}


def test_a_database_that_is_gone_is_played_back_and_lets_people_in_and_no_session(
    tmp_path: Path, mariadb_server: MariadbServer, schema: str
) -> None:
    operator, password = Operator(mariadb_server, schema, tmp_path), new_password()
    home, url = tmp_path / "home", mariadb_server.url(schema)
    with running(home, RAGKEEPER_DB_URL=url, RAGKEEPER_ADMIN_PASSWORD=password) as live:
        session = log_in(live, password)
        made = httpx.post(f"{live.api_url}/api/v1/system/tokens", headers=session, timeout=20).json()["data"]["token"]
        operator.does(printed("sh", "mariadb-dump"))
    dump = tmp_path / f"{schema}.sql"
    assert dump.stat().st_mode & 0o077 == 0
    assert "-- Dump completed" in dump.read_text().splitlines()[-1]

    before = counts(mariadb_server, schema)
    mariadb_server.drop_schema(schema)
    operator.does(printed("sh", "CREATE DATABASE"))
    after = counts(mariadb_server, schema)
    assert after.keys() == before.keys()
    assert {name: after[name] for name in STEADY} == {name: before[name] for name in STEADY}
    operator.does("mariadb --defaults-extra-file=ops.cnf rag_flow", printed("sql", "rk_session"))

    with running(home, RAGKEEPER_DB_URL=url) as live:
        assert "Generated password" not in live.printed()
        assert httpx.get(f"{live.api_url}/v1/user/info", headers=session, timeout=20).status_code == 401
        assert log_in(live, password)
        token = {"Authorization": f"Bearer {made}"}
        assert httpx.get(f"{live.api_url}/v1/user/info", headers=token, timeout=20).json()["code"] == 0
