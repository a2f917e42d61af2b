"""The stored logins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from common.cli import profile
from common.cli.profile import Profile

ONE = Profile("http://127.0.0.1:9381", "http://127.0.0.1:9380", "a@example.org", "wire-of-one")
OTHER = Profile("https://rag.example.org", "https://rag.example.org", "b@example.org", "wire-of-other")


@pytest.fixture(autouse=True)
def config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for the profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_a_login_is_kept_for_its_owner_only() -> None:
    profile.save(ONE)
    assert profile.load() == ONE
    assert profile.path().stat().st_mode & 0o777 == 0o600
    assert profile.path().parent.stat().st_mode & 0o777 == 0o700
    assert "wire-of-one" not in repr(ONE)


def test_each_name_has_a_login_of_its_own() -> None:
    profile.save(ONE)
    token = profile.chosen.set("other")
    try:
        assert profile.find() is None
        profile.save(OTHER)
        assert profile.load() == OTHER
        profile.forget()
        assert profile.find() is None
    finally:
        profile.chosen.reset(token)
    assert profile.load() == ONE


def test_without_a_login_it_says_how_to_log_in(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        profile.load()
    assert "run `ragkeeper login" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", json.dumps({"default": {"url": 1}}), "\udcff"])
def test_a_broken_file_is_a_sentence(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    profile.path().parent.mkdir()
    profile.path().write_text(content, errors="surrogateescape")
    with pytest.raises(typer.Exit):
        profile.load()
    assert "log in again" in capsys.readouterr().err
