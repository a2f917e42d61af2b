"""What a start does about a metadata store that is down: asked once, said once, done when it is there."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.core.errors import BadField, StoreUnavailable
from common.services import claims, first_start, opening
from common.services.plane import Plane
from tests.people import settings_for


@pytest.fixture
def hanging_ports() -> Iterator[list[int]]:
    """Two ports whose connections are accepted by the system, and never answered."""
    with ExitStack() as held:
        yield [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(2)]


def test_a_database_and_a_cache_that_hang_take_one_time_limit_together(
    tmp_path: Path, hanging_ports: list[int]
) -> None:
    database, cache = hanging_ports
    settings = settings_for(
        tmp_path / "home",
        RAGKEEPER_DB_URL=f"mysql://somebody@127.0.0.1:{database}/nothing",
        RAGKEEPER_REDIS_URL=f"redis://127.0.0.1:{cache}/0",
    )
    assert settings.mysql is not None
    began = time.monotonic()
    plane, down = opening.open_unready(settings)
    assert time.monotonic() - began < 1.8 * settings.mysql.timeout
    assert down is not None
    assert (down.store, down.why) == ("metadata", "no answer in time")
    with pytest.raises(StoreUnavailable) as turned_away:
        plane.cache.get("anything")
    assert turned_away.value.reason == "no answer in time; not asked again before a probe succeeds"
    assert turned_away.value.why == "no answer in time"


def test_who_is_in_a_hurry_leaves_servers_that_hang_to_others(tmp_path: Path, hanging_ports: list[int]) -> None:
    database, cache = hanging_ports
    settings = settings_for(
        tmp_path / "home",
        RAGKEEPER_DB_URL=f"mysql://somebody@127.0.0.1:{database}/nothing",
        RAGKEEPER_REDIS_URL=f"redis://127.0.0.1:{cache}/0",
    )
    assert settings.mysql is not None
    began = time.monotonic()
    _, down = opening.open_unready(opening.hurried(settings, 0.1))
    assert time.monotonic() - began < settings.mysql.timeout
    assert down is not None
    assert down.why == "no answer in time"


def test_each_reason_is_told_once_and_not_the_one_that_was_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plane = opening.open_plane(settings_for(tmp_path / "home"))
    outages = [
        StoreUnavailable("metadata", "no answer in time"),
        StoreUnavailable("metadata", "no answer in time", note="not asked again"),
        StoreUnavailable("metadata", "the connection was refused"),
        StoreUnavailable("metadata", "the connection was refused", note="not asked again"),
    ]
    left = list(outages)

    def bring_up_to_date(*_: object) -> None:
        if left:
            raise left.pop(0)

    monkeypatch.setattr(first_start, "bring_up_to_date", bring_up_to_date)
    with caplog.at_level(logging.INFO):
        first_start.catch_up(plane, False, told="no answer in time", pause=lambda _: None)
    assert [each.getMessage() for each in caplog.records] == [
        "not ready: the metadata store can't be used: the connection was refused",
        "the metadata store is there and up to date",
    ]


@pytest.mark.parametrize("column", ["nickname", "is_superuser"])
def test_a_database_whose_tables_do_not_fit_is_told_of_and_used_once_they_do(
    plane: Plane, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    """One of these is missed by what is claimed, the other by what makes the first administrator."""
    plane.database.run("DELETE FROM rk_state WHERE name = 'claims_filled'")
    plane.database.run(f"ALTER TABLE user RENAME COLUMN {column} TO lost")

    def mend(_: float) -> None:
        plane.database.run(f"ALTER TABLE user RENAME COLUMN lost TO {column}")

    assert first_start.catch_up(plane, True, pause=mend) is not None
    [said] = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert said.startswith("not ready: the metadata store can't be used: it refused what a start does (")
    assert column in said


def test_a_value_that_no_column_takes_is_told_of_and_a_start_goes_on_once_one_does(
    plane: Plane, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a MySQL store says it of a column that is too narrow."""

    def refuse(*_: object) -> None:
        raise BadField("email_key: is too long.", field="email_key")

    with monkeypatch.context() as patched:
        patched.setattr(claims, "fill", refuse)
        first_start.catch_up(plane, False, pause=lambda _: patched.undo())

    [said] = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert "email_key: is too long." in said


def test_a_start_on_a_database_whose_tables_do_not_fit_says_so(plane: Plane) -> None:
    plane.database.run("DELETE FROM rk_state WHERE name = 'claims_filled'")
    plane.database.run("ALTER TABLE user RENAME COLUMN nickname TO lost")
    with pytest.raises(StoreUnavailable) as told:
        opening.open_plane(plane.settings)
    assert "nickname" in told.value.reason
