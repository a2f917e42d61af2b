"""Heartbeats in RAGFlow's format."""

from __future__ import annotations

import os
from datetime import datetime

import pytest

from common.core.errors import StoreUnavailable
from common.services import jobs
from common.services.plane import Plane
from common.worker.heartbeat import Heartbeat, executor_name
from common.worker.tally import Tally
from tests.people import START_MS, Clock


def last_beat(plane: Plane, name: str = "a") -> dict[str, object]:
    return plane.cache.heartbeats(0)[name][-1]


def test_a_beat_has_ragflows_fields_and_times_with_milliseconds_and_offset(plane: Plane, clock: Clock) -> None:
    pulse = Heartbeat(plane, "a", Tally())
    clock.forward(seconds=30)

    assert pulse.beat()

    beat = last_beat(plane)
    assert set(beat) == {
        "ip_address", "pid", "name", "now", "boot_at", "pending", "lag", "done", "failed", "current",
    }  # fmt: skip
    assert (beat["pid"], beat["name"]) == (os.getpid(), "a")
    assert beat["boot_at"] == "2026-09-21T14:13:20.000+00:00"
    assert datetime.fromisoformat(str(beat["now"])).timestamp() == START_MS / 1000 + 30


def test_R16_pending_is_the_workers_own_and_lag_is_all_that_waits(plane: Plane) -> None:
    with plane.database.transaction():
        for kind in ("a", "b", "c"):
            jobs.enqueue(plane, kind, {})
    mine = jobs.claim(plane, "a", 60, ["a"])
    assert mine
    busy, idle = Tally(), Tally()
    busy.began(mine)
    Heartbeat(plane, "busy", busy).beat()
    Heartbeat(plane, "idle", idle).beat()

    assert (last_beat(plane, "busy")["pending"], last_beat(plane, "busy")["lag"]) == (1, 2)
    assert last_beat(plane, "busy")["current"] == {str(mine.id): {"kind": "a", "attempt": 1}}
    assert (last_beat(plane, "idle")["pending"], last_beat(plane, "idle")["lag"]) == (0, 2)


def test_done_and_failed_are_counted_and_a_job_given_back_is_neither(plane: Plane) -> None:
    with plane.database.transaction():
        jobs.enqueue(plane, "a", {})
    job = jobs.claim(plane, "a", 60, ["a"])
    assert job
    tally = Tally()
    for done in (True, True, False, None):
        tally.began(job)
        tally.ended(job, done=done)
    Heartbeat(plane, "a", tally).beat()

    beat = last_beat(plane)
    assert (beat["done"], beat["failed"], beat["current"]) == (2, 1, {})


def test_a_silent_peer_is_removed_after_the_timeout_and_a_living_one_stays(plane: Plane, clock: Clock) -> None:
    dead, living = Heartbeat(plane, "dead", Tally()), Heartbeat(plane, "living", Tally())
    dead.beat()
    clock.forward(seconds=plane.settings.worker_heartbeat_timeout)
    living.beat()
    assert sorted(plane.cache.heartbeats(since=0)) == ["dead", "living"]
    clock.forward(seconds=1)

    living.beat()

    assert sorted(plane.cache.heartbeats(since=0)) == ["living"]


def test_a_worker_that_leaves_is_gone_from_the_registry(plane: Plane) -> None:
    pulse = Heartbeat(plane, "a", Tally())
    pulse.beat()

    pulse.leave()

    assert plane.cache.heartbeats(0) == {}


def test_without_a_cache_store_there_is_no_beat_and_no_error(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailable("cache", "gone")

    monkeypatch.setattr(type(plane.cache), "beat", down)
    monkeypatch.setattr(type(plane.cache), "remove_executor", down)
    pulse = Heartbeat(plane, "a", Tally())

    assert not pulse.beat()
    pulse.leave()
    assert "the cache store is unavailable" in caplog.text


def test_names_are_unlike_on_one_host_and_fit_their_column() -> None:
    assert executor_name("host", 1) == "task_executor_host_1"
    long = executor_name("h" * 200, 4_194_304)
    assert len(long) == 64
    assert long.endswith("_4194304")
