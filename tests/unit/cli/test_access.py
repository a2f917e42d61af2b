"""What ``ragkeeper apply`` reads, before it asks a server for anything, and in which form ``export`` writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from common.cli import access
from common.cli.main import app

LONG = "a.rather.long.name@department.example.org"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version: 1\nroles: {}\nsettings: {}\nroles: {}\n", "line 4: the key 'roles' stands in line 2 already."),
        (
            f"version: 1\nassignments:\n  {LONG}: viewer\n  b@x.test: member\n  '{LONG}': member\n",
            f"line 5: the key '{LONG}' stands in line 3 already.",
        ),
        ("version: 1\nroles:\n  a: {grants: {user: [read], user: [write]}}\n", "line 3: the key 'user' stands in line"),
        ("version: 1\nsettings: {probe.timeout: 5, probe.timeout: 6}\n", "the key 'probe.timeout' stands in line 2"),
    ],
)
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path, source: str, text: str, told: str) -> None:
    path = tmp_path / "access.yaml"
    path.write_text(text)

    done = CliRunner().invoke(app, ["apply", "--dry-run", "-f", str(path) if source == "file" else "-"], input=text)

    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nroles: {a: {description: x}, b: {description: x}}\n",
        "version: 1\nroles:\n  a: &a {description: x}\n  b: {<<: *a, description: y}\n  c: {<<: *a}\n",
    ],
)
def test_a_key_of_another_mapping_or_of_one_that_is_merged_in_stands_there_by_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    done = CliRunner().invoke(app, ["apply", "--dry-run", "-f", "-"], input=text)

    assert "you are not logged in" in done.stderr


def test_a_date_that_there_is_not_is_a_sentence() -> None:
    done = CliRunner().invoke(app, ["apply", "--dry-run", "-f", "-"], input="version: 2026-99-99\n")

    assert (done.exit_code, "is no YAML" in done.stderr) == (1, True)


@pytest.mark.parametrize("description", ["für Ω", "one\x85two", "\ufeffx\u2028", " a: b # c\r\n", "on", "~"])
def test_an_export_is_what_there_is_in_UTF_8_wherever_it_is_made(
    monkeypatch: pytest.MonkeyPatch, description: str
) -> None:
    flag = {"name": "x", "state": "on", "tenants": [], "description": description}
    answers = {
        "/settings": {"settings": []},
        "/roles_with_permission": {"roles": []},
        "/roles": {"roles": []},
        "/features": {"features": [flag]},
    }
    monkeypatch.setattr(access, "admin", lambda method, path: {"data": answers[path]})

    done = CliRunner(charset="latin-1").invoke(app, ["export"])

    assert done.exit_code == 0
    assert yaml.safe_load(done.stdout_bytes.decode())["features"]["x"]["description"] == description
