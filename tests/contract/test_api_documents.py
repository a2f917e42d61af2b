"""schemathesis drives both servers by their own documents, with a live key and the server's egress closed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.people import ROOT_EMAIL, new_password
from tests.servers import Live, running

CLOSED_EGRESS = Path(__file__).parent / "closed_egress"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# What would end the session that the run depends on, change the password that the next run logs in with, or make that
# wait after too many wrong ones.
KEEP_OUT = "(logout|/docs|/password|/reauthenticate)"


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, str]]:
    """A throw-away plane, and the password of its superuser."""
    password = new_password()
    environment = {
        "RAGKEEPER_ADMIN_EMAIL": ROOT_EMAIL,
        "RAGKEEPER_ADMIN_PASSWORD": password,
        "PYTHONPATH": str(CLOSED_EGRESS),
    }
    with running(tmp_path_factory.mktemp("fuzz") / "home", **environment) as live:
        yield live, password


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", ["admin", "api"])
def test_no_document_is_contradicted_and_no_request_is_a_500(
    fuzzed: tuple[Live, str], tmp_path: Path, server: str
) -> None:
    live, password = fuzzed
    url = live.admin_url if server == "admin" else live.api_url
    login = "/api/v1/admin/login" if server == "admin" else "/v1/user/login"
    opened = httpx.post(url + login, json={"email": ROOT_EMAIL, "password": password})
    report = tmp_path / "report.har"

    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json",
            "--url", url,
            "--header", f"Authorization: {opened.headers['Authorization']}",
            "--header", "Accept: application/json",
            "--checks", CHECKS,
            "--phases", "examples,coverage,fuzzing",
            "--max-examples", "8",
            "--seed", "1",
            "--generation-database", "none",
            "--exclude-path-regex", KEEP_OUT,
            "--request-timeout", "10",
            "--no-shrink",
            "--report", "har",
            "--report-har-path", str(report),
        ],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=560,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    entries = json.loads(report.read_text())["log"]["entries"]
    statuses = Counter(entry["response"]["status"] for entry in entries)
    assert statuses[200] > 100, "without a live key everything would be refused and nothing tested"
