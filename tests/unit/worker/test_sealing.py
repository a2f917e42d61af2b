"""Sealing by workers: one of many, also without a cache store, and not at all while the metadata store is down."""

from __future__ import annotations

import threading

import pytest

from common.core.errors import StoreUnavailable
from common.services import audit_check, settings
from common.services.plane import Plane
from common.worker import sealing
from tests.people import Clock
from tests.trail import SHELL, happen, uids


def test_one_worker_seals_and_another_one_takes_over_when_it_has_gone(plane: Plane, clock: Clock) -> None:
    happen(plane)
    sealing.seal_in_turn(plane, "first")
    happen(plane)
    sealing.seal_in_turn(plane, "second")
    by_the_first_alone = len(uids(plane))
    clock.forward(seconds=4)
    sealing.seal_in_turn(plane, "second")

    assert by_the_first_alone == 1
    assert len(uids(plane)) == 2


def test_sealing_goes_on_without_a_cache_store(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise StoreUnavailable("cache", "down")

    monkeypatch.setattr(plane.cache, "acquire_lease", refuse)
    happen(plane)

    sealing.seal_in_turn(plane, "first")

    assert len(uids(plane)) == 1


def test_a_sealer_outlives_an_outage_of_the_metadata_store(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailable("metadata", "down")

    happen(plane)
    with monkeypatch.context() as patched:
        patched.setattr(plane.database, "one", refuse)
        sealing.seal_in_turn(plane, "first")
    assert "not sealed: the metadata store is unavailable: down" in caplog.text
    sealing.seal_in_turn(plane, "first")

    assert len(uids(plane)) == 1


def test_what_is_sealed_is_sent_on(plane: Plane) -> None:
    settings.set_variable(plane, SHELL, "audit.file", "trail.jsonl")
    plane.variables.forget()

    sealing.seal_in_turn(plane, "first")

    assert plane.database.all("SELECT kind, state FROM rk_job WHERE kind LIKE 'audit.%'") == [("audit.file", "ready")]


def test_a_sealer_works_until_told_to_stop_and_lets_another_one_follow_at_once(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "EVERY_S", 0.01)
    stop, seen = threading.Event(), threading.Event()
    seal = sealing.seal_in_turn

    def heard(plane: Plane, name: str) -> None:
        seal(plane, name)
        seen.set()

    monkeypatch.setattr(sealing, "seal_in_turn", heard)

    def work() -> None:
        try:
            sealing.seal_until(plane, "first", stop)
        finally:
            plane.database.close()
            plane.cache.close()

    happen(plane)
    sealer = threading.Thread(target=work)
    sealer.start()
    assert seen.wait(10)
    stop.set()
    sealer.join(10)

    assert audit_check.verify(plane).sealed == 1
    assert plane.cache.acquire_lease("audit-sealer", "second", 1)


class Passing(threading.Event):
    """What a sealer waits for, where its waits pass on the tests' clock at once, until nothing is left to seal."""

    def __init__(self, plane: Plane, clock: Clock) -> None:
        super().__init__()
        self._plane, self._clock = plane, clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self._clock.forward(seconds=timeout)
        assert len(self.waits) < 100
        return self._plane.database.one("SELECT 1 FROM rk_audit_unsealed LIMIT 1") is None


def test_an_event_is_in_the_chain_within_five_seconds(plane: Plane, clock: Clock) -> None:
    sealing.seal_in_turn(plane, "first")
    happen(plane)
    happened, passing = clock(), Passing(plane, clock)

    sealing.seal_until(plane, "first", passing)

    *until_sealed, _ = passing.waits
    assert len(uids(plane)) == 1
    assert 0 < sum(until_sealed) <= 5
    assert (clock() - happened) / 1000 == pytest.approx(sum(passing.waits))


@pytest.mark.parametrize("phase_s", [0.0, 0.4, 0.999])
def test_an_event_is_in_the_chain_within_five_seconds_also_where_the_sealer_dies(
    plane: Plane, clock: Clock, phase_s: float
) -> None:
    """Nobody has given the lease of the one that died back; the other one looks whenever its turn is."""
    sealing.seal_in_turn(plane, "who dies")
    happen(plane)
    clock.forward(seconds=phase_s)
    passing = Passing(plane, clock)

    sealing.seal_until(plane, "who is left", passing)

    *until_sealed, _ = passing.waits
    assert len(uids(plane)) == 1
    assert phase_s + sum(until_sealed) <= 5


def test_what_nobody_foresaw_does_not_end_a_sealer(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sealing, "EVERY_S", 0.01)
    monkeypatch.setattr(sealing, "AFTER_FAILURE_S", 0.01)
    stop, looks = threading.Event(), []

    def broken(*_: object) -> None:
        looks.append(1)
        if len(looks) == 2:
            stop.set()
        raise OverflowError("a forged number")

    monkeypatch.setattr(sealing, "seal_in_turn", broken)
    sealing.seal_until(plane, "first", stop)

    assert len(looks) == 2
    assert "audit events not sealed; tried again" in caplog.text
    assert "OverflowError" in caplog.text
