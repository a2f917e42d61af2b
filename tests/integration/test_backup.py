"""``ragkeeper backup`` beside a running plane that is written to, and ``ragkeeper restore`` into another home."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.people import new_password
from tests.servers import COMMAND, Live, environment_for, running, set_variables, until

pytestmark = pytest.mark.slow

ROOT = "admin@ragflow.io"
# Rows that are written in one transaction with a token; each of them has to be there for each.
OF_A_TOKEN = ("api_token", "rk_token")


def run(home: Path, *words: str, **given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *words],
        env=environment_for(home, **given),
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def log_in(live: Live, password: str) -> dict[str, str]:
    account = {"email": ROOT, "password": password}
    answer = httpx.post(f"{live.api_url}/v1/user/login", json=account, timeout=20)
    assert answer.json()["code"] == 0
    return {"Authorization": answer.headers["Authorization"]}


def make_tokens(live: Live, session: dict[str, str], made: list[int], stop: threading.Event) -> None:
    """Go on making tokens; ``made`` gets an entry for each that was acknowledged."""
    with httpx.Client(base_url=live.api_url, headers=session, timeout=20) as client:
        while not stop.is_set():
            assert client.post("/api/v1/system/tokens").json()["code"] == 0
            made.append(1)


def counts(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as database:
        return {table: database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in OF_A_TOKEN}


def audited(path: Path, tag: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        [count] = database.execute("SELECT COUNT(*) FROM rk_audit_event WHERE tag = ?", (tag,)).fetchone()
        return int(count)


def test_a_backup_that_was_made_under_writes_is_restored_whole_and_lets_people_in(tmp_path: Path) -> None:
    password, archive = new_password(), tmp_path / "kept.tar"
    stop, made = threading.Event(), []
    with running(tmp_path / "home", RAGKEEPER_ADMIN_PASSWORD=password) as live, ThreadPoolExecutor(2) as pool:
        bucket = live.home / "objects" / "bucket"
        bucket.mkdir(mode=0o700)
        (bucket / "object").write_bytes(b"content")
        set_variables(live.home, limit_token_creation="0")
        session = log_in(live, password)
        writing = [pool.submit(make_tokens, live, session, made, stop) for _ in range(2)]
        try:
            until(lambda: len(made) > 20, live)
            before = len(made)
            done = run(live.home, "backup", str(archive))
            after = len(made) + len(writing)
        finally:
            stop.set()
        for each in writing:
            each.result(30)
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 objects" in done.stdout
        assert audited(live.home / "ragkeeper.db", "plane:backup") == 1
        assert before < len(made)

        again = run(live.home, "backup", str(archive))
        assert (again.returncode, again.stdout) == (1, "")
        assert "overwrites nothing" in again.stderr
        assert "is not empty" in run(live.home, "restore", str(archive)).stderr
        assert "another `ragkeeper serve` runs" in run(live.home, "restore", str(archive), "--force").stderr
        assert httpx.get(f"{live.api_url}/v1/user/info", headers=session).json()["code"] == 0

    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    home = tmp_path / "other" / "home"
    home.parent.mkdir()
    restored = run(home, "restore", str(archive))
    assert (restored.returncode, restored.stderr) == (0, "")
    found = counts(home / "ragkeeper.db")
    assert found == {table: manifest["rows"]["ragkeeper.db"][table] for table in OF_A_TOKEN}
    assert found["api_token"] == found["rk_token"]
    assert before <= found["rk_token"] <= after

    with running(home) as live:
        assert "Generated password" not in live.printed()
        assert httpx.get(f"{live.api_url}/v1/user/info", headers=session).status_code == 401
        tokens = httpx.get(f"{live.api_url}/api/v1/system/tokens", headers=log_in(live, password), timeout=20)
        assert len(tokens.json()["data"]) == found["rk_token"]
        assert (home / "objects" / "bucket" / "object").read_bytes() == b"content"
        assert json.loads(run(home, "doctor", "--json").stdout)["healthy"] is True


def test_a_home_without_a_plane_and_a_file_that_is_no_archive_are_a_sentence_each(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    for words, said in (
        (("backup", "kept.tar"), "there is no such folder"),
        (("restore", "notes.txt"), "is no whole backup"),
        (("restore", "missing.tar"), "missing.tar: No such file or directory"),
    ):
        done = run(tmp_path / "home", *words)
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.startswith("ragkeeper: ")
        assert done.stderr.count("\n") == 1


def test_what_is_on_a_server_is_said_not_to_be_in_the_backup(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run(home, "migrate").returncode == 0
    done = run(home, "backup", str(tmp_path / "kept.tar"), RAGKEEPER_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 0
    assert done.stderr == "Not in the archive: cache (on a server).\n"


def test_a_backup_of_a_home_that_can_not_be_written_is_whole_and_says_what_is_missing(tmp_path: Path) -> None:
    home, archive = tmp_path / "home", tmp_path / "kept.tar"
    assert run(home, "migrate").returncode == 0
    with closing(sqlite3.connect(home / "ragkeeper.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        done = run(home, "backup", str(archive))
    assert done.returncode == 0
    assert "The backup is whole, but the audit trail does not tell of it: database is locked." in done.stderr
    assert run(tmp_path / "other", "restore", str(archive)).returncode == 0
