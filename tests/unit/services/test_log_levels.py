"""Log levels are kept in the cache store, and every server process follows them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from common.core.errors import BadLogLevel
from common.services import level_watch, log_levels
from common.services.level_watch import EVERY_S, LevelWatch
from common.services.plane import Plane
from common.services.principal import system
from common.stores.cache import Cache
from tests.breaking import put_garbage
from tests.people import Clock


@pytest.fixture
def package() -> Iterator[str]:
    name = f"ragkeeper.test.p{uuid4().hex}"
    yield name
    logging.getLogger(name).setLevel(logging.NOTSET)


def level_of(package: str) -> str:
    return str(logging.getLevelName(logging.getLogger(package).level))


def test_a_level_holds_here_at_once(plane: Plane, package: str) -> None:
    set_to = log_levels.set_log_level(plane, system("test"), package, "debug")

    assert set_to == {"pkg_name": package, "level": "DEBUG"}
    assert level_of(package) == "DEBUG"
    assert log_levels.get_log_levels(plane)[package] == "DEBUG"


def test_another_process_follows_within_seconds(plane: Plane, package: str, clock: Clock) -> None:
    # The other process is this one after forgetting: levels are a thing of the process.
    other = LevelWatch(lambda: clock() / 1000)
    other.follow(plane.cache)
    log_levels.set_log_level(plane, system("test"), package, "ERROR")
    logging.getLogger(package).setLevel(logging.NOTSET)

    other.follow(plane.cache)
    assert level_of(package) == "NOTSET"
    clock.forward(seconds=EVERY_S)
    other.follow(plane.cache)
    assert level_of(package) == "ERROR"


def test_a_level_set_in_the_process_by_other_means_is_not_overwritten_each_time(
    plane: Plane, package: str, clock: Clock
) -> None:
    watch = LevelWatch(lambda: clock() / 1000)
    log_levels.set_log_level(plane, system("test"), package, "ERROR")
    watch.follow(plane.cache)
    logging.getLogger(package).setLevel(logging.DEBUG)

    clock.forward(seconds=EVERY_S)
    watch.follow(plane.cache)
    assert level_of(package) == "DEBUG"


def test_a_cache_store_that_is_down_stops_nobody(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    plane.cache.close()
    put_garbage(plane, "cache")

    LevelWatch().follow(plane.cache)

    assert "cache store is unavailable" in caplog.text


def test_a_request_waits_for_no_look(plane: Plane, package: str, clock: Clock) -> None:
    watch = LevelWatch(lambda: clock() / 1000)
    log_levels.set_log_level(plane, system("test"), package, "ERROR")
    logging.getLogger(package).setLevel(logging.NOTSET)
    cache = Hanging(plane.cache)

    watch.follow_aside(cache)
    assert not cache.asked.is_set(), "nothing is looked up with the first request"
    clock.forward(seconds=EVERY_S)
    watch.follow_aside(cache)
    assert cache.asked.wait(10)
    watch.follow_aside(cache)
    assert level_of(package) == "NOTSET"
    cache.answers.set()
    assert cache.closed.wait(10)
    assert level_of(package) == "ERROR"


class Hanging:
    """A cache that answers when a test lets it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.asked, self.answers, self.closed = threading.Event(), threading.Event(), threading.Event()

    def get(self, key: str) -> str | None:
        self.asked.set()
        self.answers.wait(10)
        return self._cache.get(key)

    def close(self) -> None:
        self._cache.close()
        self.closed.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"x": 3}', '{"x": null}', '{"x": "LOUD"}', '{"x": []}'])
def test_a_stored_value_that_makes_no_sense_counts_as_none(plane: Plane, text: str) -> None:
    plane.cache.set(level_watch.KEY, text)

    assert level_watch.stored(plane.cache) == {}


def test_there_is_an_end_to_the_packages_with_a_level_of_their_own(
    plane: Plane, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_levels, "MAX_PACKAGES", 1)
    log_levels.set_log_level(plane, system("test"), package, "INFO")

    with pytest.raises(BadLogLevel):
        log_levels.set_log_level(plane, system("test"), f"{package}.more", "INFO")
    log_levels.set_log_level(plane, system("test"), package, "DEBUG")


@pytest.mark.parametrize(
    ("package", "level"),
    [
        ("x", "LOUD"),
        ("x", 10),
        ("x", None),
        (None, "INFO"),
        ("", "INFO"),
        ("x", ""),
        ("x" * 129, "INFO"),
        ("a\nb", "INFO"),
    ],
)
def test_what_is_no_package_or_no_level_is_refused(package: object, level: object) -> None:
    with pytest.raises(BadLogLevel):
        log_levels.check_log_level(package, level)


def test_statements_are_logged_without_their_parameters() -> None:
    level_watch.apply({})
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("peewee"), Kept()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        logger.debug(("SELECT ?", ["hunter2"]))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)

    assert lines == ["SELECT ?"]
