"""What is done again and again, by one of many workers."""

from __future__ import annotations

import threading

import pytest

from common.core.errors import StoreUnavailable
from common.models.registration import Registration, ResetLink
from common.services import following, jobs
from common.services.plane import Plane
from common.worker import periodic
from common.worker.loop import Worker, handlers
from common.worker.tally import Tally
from tests.people import Clock

HOURLY = (periodic.Periodic(periodic.HOUSEKEEPING, 3600),)


def housekeepings(plane: Plane) -> int:
    return len(jobs.page(plane)["jobs"])


def test_of_all_workers_one_enqueues_a_period(plane: Plane) -> None:
    for name in ("a", "b", "a"):
        periodic.enqueue_due(plane, name, HOURLY)

    assert housekeepings(plane) == 1


def test_a_lost_scheduler_is_replaced(plane: Plane, clock: Clock) -> None:
    periodic.enqueue_due(plane, "lost", (periodic.Periodic("greet", 60),))
    clock.forward(seconds=60)
    two = (periodic.Periodic("greet", 60), *HOURLY)
    periodic.enqueue_due(plane, "heir", two)
    assert housekeepings(plane) == 1, "the lease was not respected"

    clock.forward(seconds=60)
    periodic.enqueue_due(plane, "heir", two)

    assert housekeepings(plane) == 2


def test_at_a_clean_stop_the_next_scheduler_takes_over_at_once(plane: Plane) -> None:
    periodic.enqueue_due(plane, "first", ())
    periodic.stand_down(plane, "first")

    periodic.enqueue_due(plane, "second", HOURLY)

    assert housekeepings(plane) == 1


def test_an_outage_of_the_metadata_store_skips_no_period(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> int:
        raise StoreUnavailable("metadata", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "enqueue_period", down)
        periodic.enqueue_due(plane, "a", HOURLY)
    assert housekeepings(plane) == 0

    periodic.enqueue_due(plane, "a", HOURLY)

    assert housekeepings(plane) == 1


def test_without_a_cache_store_each_period_still_has_one_job(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*_: object) -> bool:
        raise StoreUnavailable("cache", "gone")

    monkeypatch.setattr(type(plane.cache), "acquire_lease", down)

    for name in ("a", "b", "c"):
        periodic.enqueue_due(plane, name, HOURLY)

    assert housekeepings(plane) == 1
    assert "the cache store is unavailable" in caplog.text


def test_housekeeping_removes_what_is_long_over_and_reports_it(plane: Plane, clock: Clock) -> None:
    plane.database.run(
        "INSERT INTO rk_session (id, user_id, token_hash, realm, created_at, last_seen_at, expires_at) "
        "VALUES ('s', 'u', 'h', 'user', 0, 0, 0)"
    )
    plane.database.insert(
        Registration, email="a@b.org", email_key="a@b.org", nickname="A", password="", created_at=0, expires_at=0
    )
    plane.database.insert(
        ResetLink, user_id="u", token_hash="h", stored_hash="s", made_by="m", created_at=0, expires_at=0
    )
    worker = Worker(plane, "worker", handlers(), Tally(), threading.Event())
    periodic.enqueue_due(plane, "worker", HOURLY)

    assert worker.work_once()

    shown = jobs.get(plane, str(jobs.page(plane)["jobs"][0]["id"]))
    removed = {kind: count for kind, count in shown["progress"]["removed"].items() if count}
    assert (shown["state"], removed) == ("done", {"sessions": 1, "registrations": 1, "reset_links": 1})
    assert plane.database.one("SELECT COUNT(*) FROM rk_session") == (0,)


def test_without_a_ragflow_beside_it_nothing_is_followed(plane: Plane) -> None:
    periodic.enqueue_due(plane, "test")

    assert jobs.claim(plane, "worker", 60, [following.FOLLOW, following.WALK]) is None
