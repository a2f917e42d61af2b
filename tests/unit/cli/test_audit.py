"""``ragkeeper audit verify`` and ``export`` on a home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from common.cli import offline
from common.cli.main import app
from common.services import audit_sealing
from common.services.plane import Plane
from tests.trail import happen, sealed, uids


@pytest.fixture(autouse=True)
def at_home(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's home is the plane's."""
    monkeypatch.setattr(offline.configuration, "load", lambda: plane.settings)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words])


def test_a_whole_trail_is_said_to_be_whole_with_what_waits(plane: Plane) -> None:
    sealed(plane, 3)
    happen(plane, 2)

    told = run("verify")
    as_json = run("verify", "--json")

    assert told.exit_code == as_json.exit_code == 0, told.output
    assert "The audit trail is whole." in told.stdout
    assert json.loads(as_json.stdout) == {
        "whole": True, "problem": None, "sealed": 3, "dropped": 0, "unsealed": 2, "anchors": 1, "notes": [],
    }  # fmt: skip


def test_the_first_event_that_is_not_as_it_was_is_named_and_the_exit_status_is_1(plane: Plane) -> None:
    uid = sealed(plane, 4)[2]
    plane.database.run("UPDATE rk_audit_event SET target = 'nobody' WHERE uid = ?", (uid,))

    told = run("verify")
    as_json = run("verify", "--json")

    assert told.exit_code == as_json.exit_code == 1
    assert f"the audit trail is not whole: event {uid} was changed" in told.stderr
    problem = json.loads(as_json.stdout)["problem"]
    assert (problem["kind"], problem["uid"], problem["seq"]) == ("broken", uid, 3)


@pytest.mark.parametrize("uid", ["x''", "x'ff00'", "CAST(x'ff' AS TEXT)"])
def test_what_has_bytes_for_an_id_is_named_as_json_too(plane: Plane, uid: str) -> None:
    sealed(plane, 1)
    plane.database.run(f"UPDATE rk_audit_seal SET uid = {uid}")

    as_json = run("verify", "--json")

    assert json.loads(as_json.stdout)["problem"]["kind"] == "missing"


def test_an_anchor_with_bytes_for_its_number_in_the_chain_is_named_as_json_too(plane: Plane) -> None:
    sealed(plane, 1)
    plane.database.run("UPDATE rk_audit_anchor SET seq = x'ff'")

    as_json = run("verify", "--json")

    assert json.loads(as_json.stdout)["problem"]["kind"] == "anchor"


def test_an_export_is_a_new_private_file_and_an_event(plane: Plane, tmp_path: Path) -> None:
    sealed(plane, 3)
    path = tmp_path / "trail.jsonl"

    first = run("export", "--out", str(path))
    again = run("export", "--out", str(path))

    assert first.exit_code == 0, first.output
    assert "3 events" in first.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == uids(plane)
    assert path.stat().st_mode & 0o777 == 0o600
    assert again.exit_code == 1
    assert "overwrites nothing" in again.stderr
    (after,) = plane.database.one("SELECT `after` FROM rk_audit_event WHERE tag = 'audit:export'") or ("{}",)
    assert json.loads(after)["events"] == 3


def test_an_export_goes_to_standard_output_and_keeps_to_its_moments(plane: Plane) -> None:
    sealed(plane, 2)

    everything = run("export", "--format", "csv")
    nothing = run("export", "--from", "2030-01-01T00:00:00Z")
    wrong = run("export", "--from", "tomorrow")

    assert len(everything.stdout.splitlines()) == 3
    assert everything.stdout.startswith("id,seq,at,tag,")
    assert nothing.stdout == ""
    assert wrong.exit_code == 2
    assert "--from: A moment looks like" in wrong.stderr
    audit_sealing.seal_all(plane)
    assert run("verify").exit_code == 0
