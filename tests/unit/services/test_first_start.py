"""What a start does about a metadata store that is down: asked once, said once, done when it is there."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.core.errors import StoreUnavailable
from common.services import first_start, opening
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
