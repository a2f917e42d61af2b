"""What is done again and again, by one of many workers."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

import pytest

from common.core.errors import StoreUnavailable
from common.models.operation import Job
from common.models.registration import Registration, ResetLink
from common.models.tenant import Invitation
from common.models.token import ExpiryNotice, TokenTrait
from common.services import deletion, following, jobs, retired_tokens, sessions, settings, token_expiry, tokens
from common.services.plane import Plane
from common.services.retired_tokens import Retired
from common.worker import periodic
from common.worker.loop import Worker, handlers
from common.worker.tally import Tally
from tests.backends import stores
from tests.people import Clock
from tests.statements import looked_at
from tests.trail import SHELL, sealed

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


def keep_house(plane: Plane) -> dict[str, dict[str, Any]]:
    """Work on all that is due of an hour's housekeeping; each chore's job by the chore."""
    worker = Worker(plane, "worker", handlers(), Tally(), threading.Event())
    periodic.enqueue_due(plane, "worker", HOURLY)
    while worker.work_once():
        pass
    done = [jobs.get(plane, str(each["id"])) for each in jobs.page(plane)["jobs"]]
    return {job["kind"].partition(".")[2]: job for job in done}


def expire_something(plane: Plane) -> None:
    """Leave a session, a registration and a link behind that are long over."""
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


def expire_the_rest(plane: Plane, clock: Clock) -> None:
    """Leave something behind for each other chore; and the dead letter of a purge, which nobody forgets."""
    plane.database.insert(
        Invitation,
        id="i", tenant_id="t", email="a@b.org", email_key="a@b.org", role="normal", invited_by="u",
        created_at=0, expires_at=0,
    )  # fmt: skip
    retired_tokens.keep(plane.database, 0, [Retired("s", "n", "t", "u", "deleted")])
    leave_behind(plane, "gone")
    for kind, state in (("greet", "done"), ("greet", "dead"), (deletion.PURGE, "dead")):
        plane.database.insert(Job, kind=kind, payload="{}", state=state, visible_at=0, created_at=0, finished_at=0)
    plane.cache.set("gone", "", ttl_s=-1)
    settings.set_variable(plane, SHELL, "audit.retention_days", 30)
    sealed(plane, 1)
    clock.forward(days=40)
    sealed(plane, 1)


def test_housekeeping_removes_what_is_long_over_and_reports_it(plane: Plane, clock: Clock) -> None:
    expire_something(plane)
    expire_the_rest(plane, clock)

    chores = keep_house(plane)

    assert chores.pop("purge")["state"] == "dead"
    assert {job["state"] for job in chores.values()} == {"done"}
    del chores[""]
    assert {chore: job["progress"]["removed"] for chore, job in chores.items()} == {
        "sessions": 1,
        "invitations": 1,
        "registrations": 1,
        "reset_links": 1,
        "retired_tokens": 1,
        "audit_events": 2,
        "jobs": 2,
        # A server does that itself.
        "cache": 0 if stores.is_server("cache") else 1,
        "expiry_notices": 3,
        "token_traits": 1,
    }
    assert plane.database.one("SELECT COUNT(*) FROM rk_session") == (0,)


def test_a_chore_removes_more_than_a_batch_and_stops_between_two_when_it_is_told_to(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(periodic, "_BATCH", 2)
    retired_tokens.keep(plane.database, 0, [Retired(f"s{number}", "n", "t", "u", "deleted") for number in range(7)])
    chore = periodic.chores()["housekeeping.retired_tokens"]
    jobs.enqueue(plane, "housekeeping.retired_tokens", {})
    claimed = jobs.claim(plane, "worker", 60, ["housekeeping.retired_tokens"])
    assert claimed is not None
    asked = count()

    with pytest.raises(jobs.JobInterrupted):
        chore(jobs.Task(plane, claimed, 60, stopping=lambda: next(asked) == 1))
    assert plane.database.one("SELECT COUNT(*) FROM rk_retired_token") == (5,)

    chore(jobs.Task(plane, claimed, 60))
    assert plane.database.one("SELECT COUNT(*) FROM rk_retired_token") == (0,)
    assert jobs.get(plane, str(claimed.id))["progress"] == {"removed": 5}


def test_a_chore_that_meets_an_outage_holds_up_no_other_and_is_done_afterwards(
    plane: Plane, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expire_something(plane)

    def down(*_: object, **__: object) -> int:
        raise StoreUnavailable("metadata", "the statement took too long")

    with monkeypatch.context() as patch:
        patch.setattr(sessions, "prune", down)
        chores = keep_house(plane)

    waiting = {chore for chore, job in chores.items() if job["state"] != "done"}
    assert waiting == {"sessions"}
    assert "metadata" in chores["sessions"]["error"]
    assert (
        "(housekeeping.sessions) waits: the metadata store is unavailable: the statement took too long" in caplog.text
    )
    assert chores["reset_links"]["progress"] == {"removed": 1}

    clock.forward(seconds=60)
    assert keep_house(plane)["sessions"]["progress"] == {"removed": 1}


def test_a_chore_that_is_still_under_way_is_not_begun_again(
    plane: Plane, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object, **__: object) -> int:
        raise StoreUnavailable("metadata", "gone")

    monkeypatch.setattr(sessions, "prune", down)
    keep_house(plane)
    clock.forward(hours=1)
    keep_house(plane)

    kinds = [job["kind"] for job in jobs.page(plane, limit=100)["jobs"]]
    assert [kinds.count("housekeeping"), kinds.count("housekeeping.sessions")] == [2, 1]


def leave_behind(plane: Plane, name: str) -> None:
    """A trait and the three notices of a token that is gone."""
    plane.database.insert(TokenTrait, token_id=name, scopes="[]")
    for days in token_expiry.NOTICES:
        plane.database.insert(ExpiryNotice, token_id=name, days=days, noticed_at=0)


def keep_token(plane: Plane, name: str) -> None:
    """The same of a token that is there."""
    leave_behind(plane, name)
    plane.database.run(
        "INSERT INTO rk_token (id, stored, tenant_id, user_id, display, beta_display, created_at) "
        "VALUES (?, ?, 't', 'u', '', '', 0)",
        (name, name),
    )


PRUNED = [("rk_token_trait", tokens.prune_traits, 1), ("rk_expiry_notice", token_expiry.prune, 3)]


@pytest.mark.parametrize(("table", "prune", "each"), PRUNED)
def test_what_is_left_of_tokens_is_looked_for_a_piece_at_a_time(
    plane: Plane, table: str, prune: Any, each: int
) -> None:
    for number in range(60):
        keep_token(plane, f"k{number:03}")
    for number in (10, 11, 30, 59):
        leave_behind(plane, f"k{number:03}-gone")

    of_few = looked_at(plane, lambda: prune(plane, "k040", limit=4))
    for number in range(60, 600):
        keep_token(plane, f"k{number:03}")
    pieces, after = [], ""
    while after is not None:
        removed, after = prune(plane, after, limit=7)
        pieces.append(removed)

    assert looked_at(plane, lambda: prune(plane, "k040", limit=4)) <= of_few * 1.5
    assert sum(pieces) == 4 * each
    assert len(pieces) > 600 / 7
    assert plane.database.one(f"SELECT COUNT(*) FROM {table}") == (600 * each,)


def test_a_walk_that_is_interrupted_goes_on_where_it_was(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periodic, "_BATCH", 10)
    for number in range(95):
        (leave_behind if number % 2 else keep_token)(plane, f"k{number:03}")
    job_id = jobs.enqueue(plane, "housekeeping.token_traits", {})
    walk = periodic.chores()["housekeeping.token_traits"]

    def attempt(stopping: Any) -> int:
        """Whether it came to its end, and how many pieces it looked at."""
        claimed = jobs.claim(plane, "worker", 60, ["housekeeping.token_traits"])
        assert claimed is not None
        asked = count()
        task = jobs.Task(plane, claimed, 60, stopping=lambda: next(asked) == stopping)
        if stopping is None:
            walk(task)
            jobs.finish(plane, claimed)
        else:
            with pytest.raises(jobs.JobInterrupted):
                walk(task)
            jobs.give_back(plane, claimed)
        return next(asked)

    attempt(4)
    assert jobs.get(plane, str(job_id))["progress"] == {"removed": 20, "after": "k039"}
    assert attempt(None) == 6
    assert jobs.get(plane, str(job_id))["progress"] == {"removed": 47}
    assert plane.database.one("SELECT COUNT(*) FROM rk_token_trait") == (48,)


def test_without_a_ragflow_beside_it_nothing_is_followed(plane: Plane) -> None:
    periodic.enqueue_due(plane, "test")

    assert jobs.claim(plane, "worker", 60, [following.FOLLOW, following.WALK]) is None
