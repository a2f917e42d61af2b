"""Commands that work on a home, where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from common.cli import offline
from common.cli.main import app
from common.conf.sections import MySqlSection
from common.settings import Settings
from tests.people import settings_for

OFFLINE = [("audit", "verify"), ("audit", "export"), ("recover-admin", "ann@example.org"), ("keys", "rotate")]


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Commands set that of the whole process."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def run_at(home: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    settings: Settings = settings_for(home)
    monkeypatch.setattr(offline.configuration, "load", lambda: settings)
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize("words", OFFLINE, ids=" ".join)
def test_a_home_that_is_not_there_is_refused_in_a_sentence_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"

    told = run_at(home, monkeypatch, *words)

    assert told.exit_code == 2
    assert told.stdout == ""
    assert told.stderr.startswith(f"ragkeeper: RAGKEEPER_HOME: {home}: there is no such folder; set it to ")
    assert not home.exists()


@pytest.mark.parametrize("words", OFFLINE, ids=" ".join)
def test_a_folder_that_no_plane_has_used_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    home.mkdir()

    told = run_at(home, monkeypatch, *words)

    assert told.exit_code == 2
    assert f"RAGKEEPER_HOME: {home}: its database {home / 'ragkeeper.db'} is not there" in told.stderr
    assert list(home.iterdir()) == []


def test_a_first_home_is_made_where_one_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"

    assert run_at(home, monkeypatch, "migrate").exit_code == 0
    assert run_at(home, monkeypatch, "audit", "verify").exit_code == 0


def test_a_database_that_a_home_has_had_is_still_told_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_at(tmp_path, monkeypatch, "migrate").exit_code == 0
    (tmp_path / "ragkeeper.db").unlink()

    told = run_at(tmp_path, monkeypatch, "recover-admin", "ann@example.org")

    assert told.exit_code == 1
    assert "this home has used one that was not empty" in told.stderr


@pytest.mark.parametrize("words", OFFLINE, ids=" ".join)
def test_a_folder_without_the_key_of_a_plane_on_servers_is_refused_and_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    server = MySqlSection.model_validate({"name": "ragkeeper", "user": "u", "password": "p", "port": 1})
    settings = settings_for(home).model_copy(update={"mysql": server, "redis": None})
    monkeypatch.setattr(offline.configuration, "load", lambda: settings)

    told = CliRunner().invoke(app, words)

    assert told.exit_code == 2
    assert f"RAGKEEPER_HOME: {home}: no plane has been in it" in told.stderr
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("words", OFFLINE, ids=" ".join)
def test_a_home_with_its_key_is_used_wherever_its_database_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret_key").write_text("k" * 64)
    moved = MySqlSection.model_validate({"name": "ragkeeper", "user": "u", "password": "p", "port": 1})
    settings = settings_for(home).model_copy(update={"mysql": moved, "redis": None})
    monkeypatch.setattr(offline.configuration, "load", lambda: settings)

    told = CliRunner().invoke(app, words)

    assert told.exit_code == 1
    assert "the metadata store can't be used" in told.stderr
