"""The worker's loop: how each end of a job is told to the queue, and that nothing ends the loop but a stop."""

from __future__ import annotations

import logging
import threading

import pytest

from common.core.errors import StoreUnavailable
from common.services import jobs
from common.services.jobs import GiveUp, Handler, Task, TryLater
from common.services.plane import Plane
from common.worker import periodic
from common.worker.loop import Worker, handlers, run
from common.worker.tally import Tally
from tests.people import Clock


def enqueue(plane: Plane, kind: str) -> str:
    with plane.database.transaction():
        return str(jobs.enqueue(plane, kind, {}))


def worker(plane: Plane, stop: threading.Event | None = None, **registry: Handler) -> Worker:
    return Worker(plane, "worker", registry, Tally(), stop or threading.Event(), grace_s=0.2)


def test_a_job_that_its_handler_returns_from_is_done(plane: Plane) -> None:
    job_id = enqueue(plane, "greet")
    seen: list[int] = []

    assert worker(plane, greet=lambda task: seen.append(task.job.id)).work_once()

    assert jobs.get(plane, job_id)["state"] == "done"
    assert seen == [int(job_id)]


def test_an_idle_worker_says_so(plane: Plane) -> None:
    assert not worker(plane, greet=lambda task: None).work_once()


def test_a_reason_to_try_later_is_noted_without_a_traceback(plane: Plane, caplog: pytest.LogCaptureFixture) -> None:
    job_id = enqueue(plane, "greet")

    def greylisted(task: Task) -> None:
        raise TryLater("450 come again")

    assert worker(plane, greet=greylisted).work_once()

    shown = jobs.get(plane, job_id)
    assert (shown["state"], shown["attempts"], shown["error"]) == ("ready", 1, "450 come again")
    assert not any(record.exc_info for record in caplog.records)


def test_a_mail_server_that_hangs_delays_nothing_but_mail(plane: Plane) -> None:
    stop, released = threading.Event(), threading.Event()
    enqueue(plane, "mail.greet")
    others = [enqueue(plane, "greet") for _ in range(3)]
    done: list[int] = []

    def hanging(task: Task) -> None:
        released.wait(30)

    def greet(task: Task) -> None:
        done.append(task.job.id)
        if len(done) == len(others):
            released.set()
            stop.set()

    run(plane, stop, {"mail.greet": hanging, "greet": greet})

    assert [str(job_id) for job_id in done] == others


def test_any_exception_fails_the_job_and_leaves_its_traceback_in_the_log(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = enqueue(plane, "greet")

    def broken(task: Task) -> None:
        raise LookupError("nobody there")

    assert worker(plane, greet=broken).work_once()

    shown = jobs.get(plane, job_id)
    assert (shown["state"], shown["attempts"], shown["error"]) == ("ready", 1, "LookupError: nobody there")
    assert any(record.exc_info for record in caplog.records)


def test_giving_up_makes_a_dead_letter(plane: Plane) -> None:
    job_id = enqueue(plane, "greet")

    def hopeless(task: Task) -> None:
        raise GiveUp("no such mailbox")

    worker(plane, greet=hopeless).work_once()

    shown = jobs.get(plane, job_id)
    assert (shown["state"], shown["error"]) == ("dead", "no such mailbox")


def test_a_store_that_is_down_costs_the_job_no_attempt(plane: Plane) -> None:
    job_id = enqueue(plane, "greet")

    def without_store(task: Task) -> None:
        raise StoreUnavailable("objects", "secret reason")

    worker(plane, greet=without_store).work_once()

    shown = jobs.get(plane, job_id)
    assert (shown["state"], shown["attempts"]) == ("ready", 0)
    assert "objects" in shown["error"]


def test_a_job_goes_on_within_ten_seconds_of_the_store_that_it_waited_for(plane: Plane, clock: Clock) -> None:
    job_id = enqueue(plane, "greet")
    tries: list[int] = []

    def at_first_without_store(task: Task) -> None:
        tries.append(clock.now)
        if len(tries) == 1:
            raise StoreUnavailable("objects", "gone")

    at_work = worker(plane, greet=at_first_without_store)
    at_work.work_once()
    assert not at_work.work_once()
    clock.forward(seconds=10)
    at_work.work_once()
    assert jobs.get(plane, job_id)["state"] == "done"


def test_a_stop_lets_a_job_be_interrupted_and_come_back_with_its_progress(plane: Plane) -> None:
    job_id = enqueue(plane, "greet")
    stop = threading.Event()

    def in_steps(task: Task) -> None:
        task.save({"step": 1})
        stop.set()
        task.pause_point()
        raise AssertionError("went on after the stop")

    worker(plane, stop, greet=in_steps).work()

    shown = jobs.get(plane, job_id)
    assert (shown["state"], shown["attempts"], shown["progress"]) == ("ready", 0, {"step": 1})


def test_a_stop_waits_for_a_job_that_ends_in_time(plane: Plane) -> None:
    job_id = enqueue(plane, "greet")
    stop = threading.Event()

    worker(plane, stop, greet=lambda task: stop.set()).work()

    assert jobs.get(plane, job_id)["state"] == "done"


def test_a_stop_gives_back_a_job_that_does_not_end(plane: Plane) -> None:
    job_id = enqueue(plane, "greet")
    stop, released = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def stuck(task: Task) -> None:
        threads.append(threading.current_thread())
        stop.set()
        released.wait(30)

    worker(plane, stop, greet=stuck).work()

    shown = jobs.get(plane, job_id)
    released.set()
    threads[0].join(5)
    assert jobs.get(plane, job_id) == shown, "the late handler changed what is no longer its job"
    assert (shown["state"], shown["attempts"]) == ("ready", 0)


def test_a_worker_without_its_store_waits_says_so_and_goes_on(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = enqueue(plane, "greet")
    claim = jobs.claim
    outages = iter([StoreUnavailable("metadata", "gone")])

    def sometimes(*args: object) -> object:
        for outage in outages:
            raise outage
        return claim(*args)  # type: ignore[arg-type]

    class Unhurried(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return self.is_set()

    stop = Unhurried()
    monkeypatch.setattr(jobs, "claim", sometimes)
    with caplog.at_level(logging.WARNING):
        worker(plane, stop, greet=lambda task: stop.set()).work()

    assert "metadata store is unavailable (gone); looking again in 1 s" in caplog.text
    assert jobs.get(plane, job_id)["state"] == "done"


def test_a_worker_is_registered_while_it_works_and_not_after_a_clean_stop(plane: Plane) -> None:
    stop = threading.Event()
    seen: list[dict[str, list[dict[str, object]]]] = []

    def look(task: Task) -> None:
        seen.append(plane.cache.heartbeats(0))
        stop.set()

    enqueue(plane, "greet")
    run(plane, stop, {"greet": look})

    [(name, [beat])] = seen[0].items()
    assert beat["name"] == name
    assert plane.cache.heartbeats(since=0) == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_whose_heartbeat_breaks_ends_rather_than_look_dead(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(periodic, "enqueue_due", broken)

    with pytest.raises(RuntimeError, match="heartbeat"):
        run(plane, threading.Event(), {"greet": lambda task: None})


def test_every_kind_that_is_enqueued_has_a_handler() -> None:
    assert set(handlers()) == {
        "user.purge", "mail.invitation", "mail.reset_code", "mail.reset_link", "mail.registration", "mail.token_expiry",
        "token.expiry", "audit.webhook", "audit.file", "ragflow.follow", "ragflow.walk", "housekeeping",
        *(f"housekeeping.{chore}" for chore in (
            "sessions", "invitations", "registrations", "reset_links", "retired_tokens", "audit_events", "jobs",
            "cache", "expiry_notices", "token_traits",
        )),
    }  # fmt: skip
