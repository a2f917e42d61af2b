"""The bench in its quick form: not for its numbers, only to see that it still runs to its end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import GROUPS

pytestmark = pytest.mark.slow

CASES = {
    "reads": {
        "GET /v1/system/version",
        "GET /api/v1/admin/users/{email}",
        "GET /api/v1/system/tokens",
        "memory of all processes after the reads",
    },
    "reads on MariaDB": {": GET /v1/system/version"},
    "roles": {"GET /v1/system/version, a chain 32 deep among 1,000 roles", "a permission check"},
    "health": {"GET /v1/system/healthz, all well"},
    "pages": {"page of 100 by email", "page of 100 by q of nicknames"},
    "whole list": {"whole list of 600 users, time", "whole list of 600 users, weight"},
    "logins": {
        "memory of all processes after 32 logins on each port",
        "a read while 32 clients log in without end",
        "a write while 32 clients log in without end",
    },
    "limits": {"a call counted for its token and its tenant, 10,000 a minute, in Redis"},
    "starts": {"second start, until both servers are ready"},
    "audit writes": {"SQLite: audited changes by 4 processes, with two sealers"},
    "audit pages": {
        "page of 50 audit events of 3,000 by actor and tag and target",
        "page of 50 audit events of 3,000 by q of every name, from and to",
    },
}


@pytest.mark.parametrize("group", GROUPS)
def test_the_bench_measures_every_case_and_writes_both_forms(tmp_path: Path, group: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--only", group, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads((tmp_path / "bench.json").read_text())["lines"]
    # On MariaDB they begin with its version.
    assert [case for case in CASES[group] if not any(line["case"].endswith(case) for line in lines)] == []
    assert not [line["case"] for line in lines if line["target"] and line["met"] is None]
    assert (tmp_path / "bench.md").read_text() in done.stdout


def test_a_short_soak_fails_no_request_and_leaves_its_samples_and_curves(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.soak", "--minutes", "0.25", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
    )

    heard = json.loads((tmp_path / "soak.json").read_text())
    assert heard["failures"] == {}, done.stdout + done.stderr
    assert len(heard["answers"]) > 15
    assert len((tmp_path / "soak.csv").read_text().splitlines()) > 10
    assert (tmp_path / "soak.svg").read_text().count("<polyline") == 4
