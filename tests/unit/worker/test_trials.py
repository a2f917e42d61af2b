"""Trial changes by a worker: how often, what health makes of them, what is logged, and that a stop waits for none."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from common.core.errors import StoreUnavailable
from common.services.plane import Plane
from common.stores.refused_writes import SHOWN_S, RefusedWrites
from common.stores.storage import FolderStorage
from common.worker import trials
from common.worker.loop import run

FULL = "it is full"
#: Seconds from the end of a fault within which health says that all is well; a finding is shared for one of them.
RECOVERY_S = 10 - 1


class Trying(FolderStorage):
    """Object storage whose trial changes are what a test makes of them."""

    def __init__(self, trial: Callable[[], None]) -> None:
        super().__init__(Path())
        self._trial = trial

    def prepare(self) -> None:
        """Nothing to make."""

    def try_change(self) -> None:
        self._trial()


class Stop(threading.Event):
    """What the trials wait for: waits pass at once, on a clock of their own, and after so many seconds it is set.

    ``each_second`` is called whenever a second has passed.
    """

    def __init__(self, after_s: float, each_second: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.now_s = 0.0
        self._after_s = after_s
        self._each_second = each_second

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        for _ in range(int(timeout)):
            self.now_s += 1
            self._each_second()
        return self.now_s > self._after_s


def refuse() -> None:
    raise StoreUnavailable("objects", FULL, lost=False)


def lose() -> None:
    raise StoreUnavailable("objects", "no answer in time")


def test_there_is_a_trial_at_once_and_every_ten_seconds(plane: Plane) -> None:
    at: list[float] = []
    stop = Stop(35)
    trials.try_until(replace(plane, objects=Trying(lambda: at.append(stop.now_s))), stop)

    assert at == [0, 10, 20, 30]


@pytest.mark.parametrize("begins_s", range(1, 11))
@pytest.mark.parametrize("ends_s", [60, 61, 62, 63])
def test_health_says_it_within_ten_seconds_as_long_as_it_lasts_and_no_longer_within_ten_after(
    plane: Plane, begins_s: int, ends_s: int
) -> None:
    said: dict[float, bool] = {}

    def look() -> None:
        try:
            refused.check()
            said[stop.now_s] = False
        except StoreUnavailable:
            said[stop.now_s] = True

    stop = Stop(100, look)
    refused = RefusedWrites("objects", {FULL}, clock=lambda: stop.now_s)

    def trial() -> None:
        if begins_s <= stop.now_s < ends_s:
            refused.note(FULL)
            refuse()

    trials.try_until(replace(plane, objects=Trying(trial)), stop)

    assert not any(said[second] for second in range(1, begins_s + 1))
    assert all(said[second] for second in range(begins_s + 10, ends_s + 1))
    assert not any(said[second] for second in range(ends_s + RECOVERY_S, 101))


@pytest.mark.parametrize("takes_s", [0.5, 2.0, 3.9, 5.0, 6.5])
def test_a_refusal_is_followed_by_another_one_before_health_forgets_it(
    plane: Plane, takes_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    at: list[float] = []
    stop = Stop(60)

    def trial() -> None:
        stop.now_s += takes_s
        at.append(stop.now_s)
        refuse()

    monkeypatch.setattr(trials.time, "monotonic", lambda: stop.now_s)
    trials.try_until(replace(plane, objects=Trying(trial)), stop)

    assert len(at) > 5
    assert all(later - earlier < SHOWN_S for earlier, later in pairwise(at))


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == trials.__name__]


def test_an_outage_is_told_once_and_so_is_its_end(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stop = Stop(60)
    trials.try_until(replace(plane, objects=Trying(lambda: refuse() if stop.now_s < 30 else None)), stop)

    assert levels(caplog) == ["WARNING", "INFO"]
    assert "the objects store takes no changes: it is full" in caplog.text
    assert "the objects store takes changes again" in caplog.text


def test_of_a_store_that_is_down_its_breaker_speaks(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stop = Stop(60)
    trials.try_until(replace(plane, objects=Trying(lambda: lose() if stop.now_s < 30 else None)), stop)

    assert levels(caplog) == ["DEBUG"]


def test_a_store_that_comes_back_full_is_told_to_be(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stop = Stop(60)
    trials.try_until(replace(plane, objects=Trying(lambda: lose() if stop.now_s < 30 else refuse())), stop)

    assert levels(caplog) == ["DEBUG", "WARNING"]


def test_what_nobody_foresaw_does_not_end_the_trials(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    at: list[float] = []
    stop = Stop(65)

    def broken() -> None:
        at.append(stop.now_s)
        raise OverflowError("a forged number")

    trials.try_until(replace(plane, objects=Trying(broken)), stop)

    assert at == [0, 30, 60]
    assert "OverflowError" in caplog.text


# In a worker


def test_a_worker_makes_them_until_it_is_told_to_stop(plane: Plane) -> None:
    stop, calls = threading.Event(), []

    def trial() -> None:
        calls.append(1)
        stop.set()

    run(replace(plane, objects=Trying(trial)), stop, {"greet": lambda task: None})

    assert calls == [1]


def test_a_worker_whose_object_store_hangs_stops_in_time(plane: Plane) -> None:
    stop, released, over = threading.Event(), threading.Event(), threading.Event()

    def hanging() -> None:
        stop.set()
        released.wait(30)
        over.set()

    run(replace(plane, objects=Trying(hanging)), stop, {"greet": lambda task: None})

    assert not over.is_set(), "it waited for the server"
    released.set()
    assert over.wait(10)
