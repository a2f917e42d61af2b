"""Jobs: once each, in turn, back when their worker is lost, dead when there is no point in trying."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from common.core.errors import BadField, JobNotDead, JobNotFound, JobNotWaiting
from common.services import jobs
from common.services.jobs import Claimed, JobLost
from common.services.plane import Plane
from common.services.principal import system
from tests.people import Clock
from tests.statements import looked_at

OPERATOR = system("test")


def enqueue(plane: Plane, kind: str = "greet", **more: object) -> int:
    with plane.database.transaction():
        return jobs.enqueue(plane, kind, {"name": "you"}, **more)  # type: ignore[arg-type]


@contextmanager
def rolled_back(plane: Plane) -> Iterator[None]:
    """A transaction that fails at its end."""
    with suppress(ZeroDivisionError), plane.database.transaction():
        yield
        raise ZeroDivisionError


def claim(plane: Plane, owner: str = "first") -> Claimed | None:
    return jobs.claim(plane, owner, 60, ["greet"])


def claimed(plane: Plane, owner: str = "first") -> Claimed:
    job = claim(plane, owner)
    assert job is not None
    return job


def test_a_job_is_claimed_once_with_its_payload_and_then_done(plane: Plane) -> None:
    job_id = enqueue(plane)

    job = claimed(plane)

    assert (job.id, job.payload, job.attempt, job.progress) == (job_id, {"name": "you"}, 1, None)
    assert claim(plane, "second") is None
    assert jobs.finish(plane, job)
    assert jobs.get(plane, str(job_id))["state"] == "done"
    assert claim(plane, "second") is None


def test_a_job_whose_cause_was_rolled_back_never_was(plane: Plane) -> None:
    with rolled_back(plane):
        jobs.enqueue(plane, "greet", {})

    assert claim(plane) is None


def test_jobs_come_in_turn_and_delayed_ones_when_their_time_has_come(plane: Plane, clock: Clock) -> None:
    late = enqueue(plane, delay_s=30)
    first, second = enqueue(plane), enqueue(plane)

    assert [claimed(plane).id, claimed(plane).id] == [first, second]
    assert claim(plane) is None
    clock.forward(seconds=30)
    assert claimed(plane).id == late


def test_a_worker_takes_only_the_kinds_it_knows(plane: Plane) -> None:
    enqueue(plane, "another kind")

    assert claim(plane) is None
    assert jobs.claim(plane, "first", 60, []) is None


def test_a_lost_workers_job_is_redelivered_when_its_time_is_over(plane: Plane, clock: Clock) -> None:
    enqueue(plane)
    lost = claimed(plane)
    jobs.save_progress(plane, lost, {"step": 3}, 60)
    clock.forward(seconds=59)
    assert claim(plane, "second") is None

    clock.forward(seconds=1)
    again = claimed(plane, "second")

    assert (again.id, again.attempt, again.progress) == (lost.id, 2, {"step": 3})


def test_who_was_too_late_changes_nothing(plane: Plane, clock: Clock) -> None:
    enqueue(plane)
    late = claimed(plane)
    clock.forward(seconds=60)
    again = claimed(plane, "first")

    assert not jobs.finish(plane, late)
    assert not jobs.fail(plane, late, "too late")
    assert not jobs.extend(plane, late, 60)
    assert not jobs.give_back(plane, late)
    with pytest.raises(JobLost):
        jobs.save_progress(plane, late, {}, 60)
    assert jobs.finish(plane, again)


def test_a_job_that_is_prolonged_stays_with_its_worker(plane: Plane, clock: Clock) -> None:
    enqueue(plane)
    job = claimed(plane)
    for _ in range(5):
        clock.forward(seconds=50)
        assert jobs.extend(plane, job, 60)

    assert claim(plane, "second") is None


def test_a_failed_job_waits_longer_each_time_and_ends_as_a_dead_letter(plane: Plane, clock: Clock) -> None:
    job_id = enqueue(plane)
    waits = []
    while (shown := jobs.get(plane, str(job_id)))["state"] != "dead":
        before = clock.now
        while (job := claim(plane)) is None:
            clock.forward(seconds=5)
        waits.append((clock.now - before) // 1000)
        assert jobs.fail(plane, job, "no luck")

    assert waits[:5] == [0, 5, 10, 20, 40]
    assert waits == sorted(waits)
    assert len(waits) == jobs.MAX_ATTEMPTS == shown["attempts"]
    assert shown["error"] == "no luck"
    clock.forward(days=1)
    assert claim(plane) is None


def test_a_job_that_loses_every_worker_ends_as_a_dead_letter(plane: Plane, clock: Clock) -> None:
    job_id = enqueue(plane)
    for _ in range(jobs.MAX_ATTEMPTS):
        claimed(plane)
        clock.forward(seconds=60)

    assert claim(plane) is None
    assert jobs.get(plane, str(job_id))["state"] == "dead"


def test_giving_up_buries_at_once_and_retrying_digs_up(plane: Plane) -> None:
    job_id = enqueue(plane)
    jobs.fail(plane, claimed(plane), "no such mailbox", give_up=True)
    assert jobs.get(plane, str(job_id))["state"] == "dead"

    shown = jobs.retry(plane, OPERATOR, str(job_id))

    assert (shown["state"], shown["attempts"], shown["finished_at"]) == ("ready", 0, None)
    assert claimed(plane).attempt == 1
    with pytest.raises(JobNotDead):
        jobs.retry(plane, OPERATOR, str(job_id))


def test_cancelling_makes_a_dead_letter_of_a_waiting_job_that_a_retry_brings_back(plane: Plane) -> None:
    job_id = str(enqueue(plane, delay_s=60))

    shown = jobs.cancel(plane, OPERATOR, job_id)

    assert (shown["state"], shown["error"]) == ("dead", "Cancelled by the system.")
    with pytest.raises(JobNotWaiting):
        jobs.cancel(plane, OPERATOR, job_id)
    jobs.retry(plane, OPERATOR, job_id)
    assert claimed(plane).id == int(job_id)
    with pytest.raises(JobNotWaiting, match="running"):
        jobs.cancel(plane, OPERATOR, job_id)


def test_a_job_given_back_has_lost_no_attempt(plane: Plane) -> None:
    enqueue(plane)
    jobs.give_back(plane, claimed(plane))

    assert claimed(plane, "second").attempt == 1


def test_an_existing_dedupe_key_gives_the_job_that_has_it_until_it_is_done(plane: Plane) -> None:
    first = enqueue(plane, dedupe_key="only one")
    assert enqueue(plane, dedupe_key="only one") == first
    job = claimed(plane)
    assert enqueue(plane, dedupe_key="only one") == first

    jobs.finish(plane, job)

    assert enqueue(plane, dedupe_key="only one") != first


def test_enqueueing_a_dead_jobs_key_brings_it_back(plane: Plane) -> None:
    first = enqueue(plane, dedupe_key="only one")
    jobs.fail(plane, claimed(plane), "given up", give_up=True)

    assert enqueue(plane, dedupe_key="only one") == first
    assert claimed(plane).id == first


def test_progress_stands_and_falls_with_the_transaction_it_is_saved_in(plane: Plane) -> None:
    job_id = enqueue(plane)
    job = claimed(plane)
    with rolled_back(plane):
        jobs.save_progress(plane, job, {"removed": 500}, 60)

    assert jobs.get(plane, str(job_id))["progress"] is None


def test_done_jobs_are_pruned_after_a_week_and_their_ids_never_given_again(plane: Plane, clock: Clock) -> None:
    for _ in range(5):
        enqueue(plane)
        jobs.finish(plane, claimed(plane))
    dead = enqueue(plane)
    jobs.fail(plane, claimed(plane), "given up", give_up=True)
    newest = enqueue(plane)
    jobs.finish(plane, claimed(plane))
    clock.forward(days=6)
    assert jobs.prune(plane) == 0
    clock.forward(days=2)

    assert [jobs.prune(plane, limit=3), jobs.prune(plane, limit=3), jobs.prune(plane)] == [3, 2, 0]

    assert [job["id"] for job in jobs.page(plane)["jobs"]] == [newest, dead]
    assert enqueue(plane) == newest + 1


def test_dead_letters_are_pruned_after_three_months_but_for_kinds_that_must_not_be_forgotten(
    plane: Plane, clock: Clock
) -> None:
    forgotten, kept = enqueue(plane), enqueue(plane, "purge")
    for kind in ("greet", "purge"):
        job = jobs.claim(plane, "first", 60, [kind])
        assert job is not None
        jobs.fail(plane, job, "given up", give_up=True)
    newest = enqueue(plane)
    clock.forward(days=89)
    assert jobs.prune(plane) == 0
    clock.forward(days=2)

    assert jobs.prune(plane, but_dead=["purge"]) == 1
    assert [job["id"] for job in jobs.page(plane)["jobs"]] == [newest, kept]
    assert forgotten not in (newest, kept)


def test_a_period_has_one_job_whoever_asks_and_however_often(plane: Plane, clock: Clock) -> None:
    first = jobs.enqueue_period(plane, "greet", 3600)
    assert first is not None
    assert jobs.enqueue_period(plane, "greet", 3600) is None
    jobs.finish(plane, claimed(plane))
    assert jobs.enqueue_period(plane, "greet", 3600) is None

    clock.forward(hours=1)

    second = jobs.enqueue_period(plane, "greet", 3600)
    assert second not in (None, first)


def test_a_slow_periodic_job_is_not_overtaken_by_the_next(plane: Plane, clock: Clock) -> None:
    first = jobs.enqueue_period(plane, "greet", 3600)
    clock.forward(hours=1)

    assert jobs.enqueue_period(plane, "greet", 3600) == first


def test_a_clock_that_was_wrong_once_stops_no_period(plane: Plane, clock: Clock) -> None:
    clock.forward(days=3650)
    jobs.enqueue_period(plane, "greet", 3600)
    jobs.finish(plane, claimed(plane))
    clock.forward(days=-3650)

    assert jobs.enqueue_period(plane, "greet", 3600) is not None


@pytest.mark.race
def test_of_many_schedulers_at_once_one_enqueues_a_period(plane: Plane) -> None:
    made: list[int | None] = []
    barrier = threading.Barrier(8)

    def schedule() -> None:
        barrier.wait()
        made.append(jobs.enqueue_period(plane, "greet", 3600))
        plane.database.close()

    threads = [threading.Thread(target=schedule) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert len([job_id for job_id in made if job_id is not None]) == 1
    assert len(jobs.page(plane)["jobs"]) == 1


def test_the_waiting_are_counted_without_the_delayed_and_the_running(plane: Plane) -> None:
    enqueue(plane)
    enqueue(plane)
    enqueue(plane, delay_s=5)
    claimed(plane)

    assert jobs.waiting(plane) == 1


def test_pages_follow_each_other_newest_first(plane: Plane) -> None:
    ids = [enqueue(plane) for _ in range(5)]
    jobs.finish(plane, claimed(plane))
    seen, cursor = [], None
    while True:
        page = jobs.page(plane, limit=2, cursor=cursor)
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == ids[::-1]
    assert [job["id"] for job in jobs.page(plane, state="done")["jobs"]] == ids[:1]
    with pytest.raises(BadField):
        jobs.page(plane, cursor="nonsense")


@pytest.mark.parametrize("job_id", ["0", "-1", "7", "abc", "9" * 19, "9" * 40, "٣", "1.0", ""])
def test_an_id_that_is_none_is_not_found(plane: Plane, job_id: str) -> None:
    with pytest.raises(JobNotFound):
        jobs.get(plane, job_id)


@pytest.fixture
def long_history(plane: Plane) -> None:
    """A hundred thousand jobs that are over."""
    for _ in range(100):
        plane.database.run(
            "INSERT INTO rk_job (kind, payload, state, attempts, visible_at, created_at, finished_at) "
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999) "
            "SELECT 'greet', '{}', CASE WHEN i % 100 <> 0 THEN 'done' ELSE 'dead' END, 1, i, i, ? FROM n",
            (plane.now_ms(),),
        )


@pytest.mark.slow
def test_a_claim_and_a_pruning_look_at_no_old_row_of_many(plane: Plane, long_history: None) -> None:
    enqueue(plane)

    def claim_and_prune() -> None:
        claimed(plane)
        jobs.prune(plane)

    # Each row costs SQLite a handful of instructions, so this is far from a look at each.
    assert looked_at(plane, claim_and_prune) < 2_000


def test_of_two_workers_that_see_the_same_job_one_gets_it(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue(plane)
    look = type(plane.database).all
    overtaking: list[Claimed | None] = []

    def look_and_be_overtaken(store: Any, sql: str, params: Any = ()) -> list[tuple[Any, ...]]:
        seen = look(store, sql, params)
        if seen and not overtaking:
            overtaking.append(None)
            overtaking[0] = claim(plane, "second")
        return seen

    monkeypatch.setattr(type(plane.database), "all", look_and_be_overtaken)

    assert claim(plane, "first") is None
    assert overtaking[0] is not None
    assert jobs.finish(plane, overtaking[0])


@pytest.mark.parametrize("attempts", [1, jobs.MAX_ATTEMPTS])
def test_a_worker_that_prolongs_its_job_while_another_claims_it_keeps_it(
    plane: Plane, clock: Clock, monkeypatch: pytest.MonkeyPatch, attempts: int
) -> None:
    job_id = enqueue(plane)
    for _ in range(attempts):
        slow = claimed(plane)
        clock.forward(seconds=60)
    look = type(plane.database).all
    prolonged: list[bool] = []

    def look_and_be_outrun(store: Any, sql: str, params: Any = ()) -> list[tuple[Any, ...]]:
        seen = look(store, sql, params)
        if seen:
            prolonged.append(jobs.extend(plane, slow, 60))
        return seen

    with monkeypatch.context() as patch:
        patch.setattr(type(plane.database), "all", look_and_be_outrun)
        assert claim(plane, "second") is None

    assert prolonged == [True]
    assert jobs.get(plane, str(job_id))["state"] == "running"
    assert jobs.finish(plane, slow)


@pytest.mark.race
def test_two_workers_claim_200_jobs_once_each(plane: Plane) -> None:
    ids = [enqueue(plane) for _ in range(200)]
    claims: list[int] = []
    done: list[int] = []
    barrier = threading.Barrier(2)

    def work(owner: str) -> None:
        barrier.wait()
        while (job := claim(plane, owner)) is not None:
            claims.append(job.id)
            if jobs.finish(plane, job):
                done.append(job.id)
        plane.database.close()

    threads = [threading.Thread(target=work, args=(f"worker {number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claims) == sorted(done) == ids
