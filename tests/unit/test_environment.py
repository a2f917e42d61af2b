"""What every task of the Makefile runs first, in a clone that belongs to somebody else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tools import environment


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that can be read and not written; root may write anywhere, so the answer of the system is given."""
    for lock in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        (tmp_path / lock).write_text("")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "build", lambda name: pytest.fail("something is installed"))
    writable, access = os.W_OK, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != writable and access(path, mode))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_environment_that_is_current_is_used_as_it_is(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    programs = foreign / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").touch(mode=0o755)
    environment.made_from("runtime").write_text(environment.fingerprint("runtime"))

    assert environment.main("runtime") == 0
    assert capsys.readouterr().err == ""
    assert not (foreign / ".environment.lock").exists()


def test_one_that_is_not_is_a_sentence(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert environment.main("runtime") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ragkeeper: {foreign} is somebody else's")
