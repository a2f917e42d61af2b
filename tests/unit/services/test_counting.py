"""Counts in a process's own memory, and when they are used."""

from __future__ import annotations

import threading

import pytest

from common.core.errors import StoreUnavailable
from common.services import counting
from common.services.batches import Batches
from common.services.counting import Counts, LocalCounts, SharedCounts
from common.services.plane import Plane
from common.stores.cache import Cache, Count


class Hand:
    """A clock that a test moves, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_window_begins_with_the_first_count_and_ends(plane: Plane) -> None:
    clock = Hand()
    for counts in (LocalCounts(clock), plane.cache):
        assert counts.counted("a") == 0
        assert counts.incr("a", 60).value == 1
        assert counts.incr("a", 60, 4).value == 5
        assert counts.counted("a") == 5
        assert counts.delete("a")
        assert counts.counted("a") == 0

    local = LocalCounts(clock)
    local.incr("a", 60)
    clock.now += 20
    assert local.incr("a", 60) == Count(2, 40.0)
    clock.now += 41
    assert local.counted("a") == 0
    assert local.incr("a", 60).value == 1


def test_a_lease_is_its_owners_until_its_time_is_over() -> None:
    clock = Hand()
    local = LocalCounts(clock)

    assert local.acquire_lease("x", "one", 10)
    assert not local.acquire_lease("x", "two", 10)
    assert local.acquire_lease("x", "one", 10)
    assert not local.release_lease("x", "two")
    assert local.release_lease("x", "one")
    assert local.acquire_lease("x", "two", 10)
    clock.now += 11
    assert local.acquire_lease("x", "one", 10)


def test_a_lease_is_ended_whoever_holds_it() -> None:
    local = LocalCounts(Hand())
    local.acquire_lease("login", "a", 30)
    assert local.release_lease("login", None)
    assert not local.release_lease("login", None)
    assert local.acquire_lease("login", "b", 30)


def test_its_memory_is_bounded_and_what_ends_first_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_ENTRIES", 100)
    local = LocalCounts(Hand())
    local.set("kept", "7", 1000)
    for number in range(500):
        local.incr(f"k{number}", 60 + number / 10)

    assert len(local._entries) <= 100
    assert local.counted("kept") == 7
    assert local.counted("k499") == 1


class Down:
    """A cache store that fails."""

    def incr(self, key: str, window_s: float, by: int = 1) -> Count:
        raise StoreUnavailable("cache", "down for the test")


def test_while_the_store_fails_the_process_counts_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    counts, down = SharedCounts(Hand()), Down()

    def hit(asked: Counts) -> int:
        return asked.incr("a", 60).value

    assert [counts.ask(down, hit) for _ in range(3)] == [1, 2, 3]  # type: ignore[arg-type]
    assert counts.fallbacks == 3
    assert len(caplog.records) == 1


def test_many_threads_get_as_many_calls_as_are_allowed_and_ask_the_store_seldom(plane: Plane) -> None:
    asked, granted = [], []

    def work(batches: Batches) -> None:
        def count(key: str, by: int) -> Count:
            asked.append(by)
            return plane.cache.incr(key, 60, by)

        granted.extend(taken for _ in range(200) if (taken := batches.take("k", 500, 7, count)))

    shared = Batches()
    threads = [threading.Thread(target=work, args=(shared,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 500 <= len(granted) <= 500 + 4 * 10
    assert len(asked) <= 60


def test_another_minute_begins_anew(plane: Plane) -> None:
    batches = Batches()

    def count_in(minute: int, cache: Cache = plane.cache) -> list[bool]:
        return [batches.take("k", 3, minute, lambda key, by: cache.incr(f"{key}:{minute}", 60, by)) for _ in range(5)]

    assert count_in(1) == [True, True, True, False, False]
    assert count_in(2) == [True, True, True, False, False]
