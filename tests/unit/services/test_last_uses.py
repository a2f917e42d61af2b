"""When things were last used: written beside the requests, late, and never backwards."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from common.core.errors import StoreUnavailable
from common.services import last_uses
from common.services.last_uses import LastUses
from common.services.plane import Plane


@pytest.fixture
def uses(plane: Plane) -> LastUses:
    """Of one session, ``s``."""
    plane.database.run(
        "INSERT INTO rk_session (id, user_id, token_hash, realm, created_at, last_seen_at, expires_at) "
        "VALUES ('s', 'u', 'h', 'user', 0, 0, 0)"
    )
    return plane.session_uses


def last_seen(plane: Plane) -> int:
    row = plane.database.one("SELECT last_seen_at FROM rk_session WHERE id = 's'")
    assert row
    return int(row[0])


def test_a_use_is_written(plane: Plane, uses: LastUses) -> None:
    uses.note(plane.database, "s", 5)
    uses.wait(10)

    assert last_seen(plane) == 5
    assert uses.unwritten("s") == 0


def test_a_use_that_another_process_overtook_is_not(plane: Plane, uses: LastUses) -> None:
    uses.note(plane.database, "s", 9)
    uses.wait(10)
    uses.note(plane.database, "s", 5)
    uses.wait(10)

    assert last_seen(plane) == 9


def test_a_use_is_known_while_it_is_being_written(
    plane: Plane, uses: LastUses, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, writing, go_on = type(plane.database), threading.Event(), threading.Event()
    run = kind.run

    def slow(*values: Any) -> int:
        writing.set()
        assert go_on.wait(10)
        return int(run(*values))

    monkeypatch.setattr(kind, "run", slow)
    uses.note(plane.database, "s", 5)
    assert writing.wait(10)

    assert uses.unwritten("s") == 5
    go_on.set()
    uses.wait(10)
    assert uses.unwritten("s") == 0


def test_a_use_that_could_not_be_written_is_kept_and_written_with_the_next_one(
    plane: Plane, uses: LastUses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> int:
        raise StoreUnavailable("metadata", "read-only")

    with monkeypatch.context() as patched:
        patched.setattr(type(plane.database), "run", down)
        uses.note(plane.database, "s", 5)
        uses.wait(10)
        assert uses.unwritten("s") == 5
        assert "last use of 1 sessions not written: read-only" in caplog.text

    uses.note(plane.database, "other", 6)
    uses.wait(10)

    assert last_seen(plane) == 5
    assert uses.unwritten("s") == 0


def test_while_nothing_can_be_written_it_is_not_tried_before_it_is_due(
    plane: Plane, uses: LastUses, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy process would write five lines of log a second."""

    def down(*_: object) -> int:
        raise StoreUnavailable("metadata", "read-only")

    with monkeypatch.context() as patched:
        patched.setattr(type(plane.database), "run", down)
        for at_ms in (10_000, 20_000, 30_000):
            uses.note_early(plane.database, "s", at_ms)
            uses.wait(10)
        assert caplog.text.count("not written") == 1

    uses.note_early(plane.database, "s", 75_000)
    uses.wait(10)

    assert last_seen(plane) == 75_000


def test_uses_that_are_left_out_are_remembered_but_not_without_end(
    plane: Plane, uses: LastUses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_uses, "_MOST_KEPT", 3)
    uses._early_until = 1_000_000
    for number, used in enumerate(["a", "b", "c", "a", "d"]):
        uses.note_early(plane.database, used, 100 + number)

    assert [uses.last(used) for used in "abcd"] == [103, 0, 102, 104]
    assert uses.unwritten("d") == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_an_error_that_nobody_foresaw_uses_are_written_again(
    plane: Plane, uses: LastUses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise LookupError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr(type(plane.database), "run", broken)
        uses.note(plane.database, "s", 5)
        uses.wait(10)

    uses.note(plane.database, "other", 6)
    uses.wait(10)

    assert last_seen(plane) == 5
