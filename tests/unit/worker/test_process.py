"""The worker's start while its stores can't be reached."""

from __future__ import annotations

import logging
import threading

import pytest

from common.core.errors import StoreUnavailable
from common.services.plane import Plane
from common.settings import Settings
from common.worker.process import open_when_reachable


class Unhurried(threading.Event):
    """An event whose waits are noted and take no time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0)
        return self.is_set()


def test_it_tries_again_with_growing_waits_until_the_stores_are_there_and_says_so(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    outages = iter([StoreUnavailable("metadata", "gone")] * 8)

    def opened(settings: Settings) -> Plane:
        for outage in outages:
            raise outage
        return plane

    stop = Unhurried()
    with caplog.at_level(logging.WARNING):
        assert open_when_reachable(plane.settings, stop, opened) is plane

    assert stop.waits == [1, 2, 4, 5, 5, 5, 5, 5]
    assert "the metadata store is unavailable (gone); trying again in 1 s" in caplog.text


def test_a_stop_ends_the_trying(plane: Plane) -> None:
    stop = Unhurried()

    def unreachable(settings: Settings) -> Plane:
        stop.set()
        raise StoreUnavailable("metadata", "gone")

    assert open_when_reachable(plane.settings, stop, unreachable) is None
