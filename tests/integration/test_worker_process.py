"""A real worker process: it reports, ends when told to, and its death loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.services import audit_check, belongings, deletion, jobs, opening
from common.services.plane import Plane
from common.services.principal import system
from common.settings import load
from tests.people import World
from tests.pipes import fill_pipe
from tests.ragflow.content import fill, make_tables
from tests.trail import happen
from tests.waiting import pause

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]


class Process:
    """A worker on a home."""

    def __init__(self, environment: dict[str, str], log: Path, errors: int | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "common.worker"], cwd=ROOT, env=environment, stderr=errors or output
            )

    def until(self, condition: Callable[[], Any], within_s: float = 20) -> Any:
        """Look until the condition holds; what it gave."""
        deadline = time.monotonic() + within_s
        while not (held := condition()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            pause(0.005)
        return held

    def end(self, by: signal.Signals) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(by)
        return self.process.wait(10)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "service_conf.yaml").write_text("{}\n")
    return {
        "PATH": os.environ["PATH"],
        "RAGKEEPER_HOME": str(tmp_path / "home"),
        "RAGKEEPER_CONF": str(tmp_path),
    }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts workers; what is left of them at the end is killed."""
    started: list[Process] = []

    def one(errors: int | None = None) -> Process:
        started.append(Process(environment, tmp_path / "worker.log", errors))
        return started[-1]

    yield one
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(10)


@pytest.fixture
def plane(environment: dict[str, str]) -> Iterator[Plane]:
    """The same stores, seen from here, by the real clock."""
    opened = opening.open_plane(load(environment))
    yield opened
    for store in (opened.database, opened.cache, opened.documents):
        store.close()


@pytest.fixture
def deleted(plane: Plane) -> tuple[str, int]:
    """The tenant of a deleted account with a great many rows, and the job that purges it."""
    make_tables(plane)
    person = World(plane).person()
    fill(plane, person.user_id)
    dialog = plane.database.one("SELECT id FROM dialog")
    assert dialog
    with plane.database.transaction():
        plane.database.peewee.connection().executemany(
            "INSERT INTO conversation (id, dialog_id) VALUES (?, ?)",
            [(f"c{number}", dialog[0]) for number in range(50_000)],
        )
    plane.database.run("UPDATE user SET is_active = '0' WHERE id = ?", (person.user_id,))
    with plane.database.transaction():
        # There has to be a superuser.
        World(plane).person(is_superuser=True)
    answer = deletion.delete_user(plane, system("test"), person.email)
    return person.user_id, answer["job_id"]


def test_it_reports_at_its_start_and_is_gone_soon_after_sigterm(plane: Plane, start: Callable[[], Process]) -> None:
    worker = start()
    beats = worker.until(lambda: plane.cache.heartbeats(time.time() - 60))

    [(name, [beat])] = beats.items()
    assert name.startswith("task_executor_")
    assert (beat["name"], beat["pid"]) == (name, worker.process.pid)
    asked_at = time.monotonic()
    assert worker.end(signal.SIGTERM) == 0
    assert time.monotonic() - asked_at < 10
    assert plane.cache.heartbeats(since=0) == {}


def test_two_workers_report_side_by_side_and_stop_at_control_c(plane: Plane, start: Callable[[], Process]) -> None:
    workers = [start(), start()]
    workers[1].until(lambda: len(plane.cache.heartbeats(since=0)) == 2)

    assert [worker.end(signal.SIGINT) for worker in workers] == [0, 0]


def test_a_worker_whose_log_nobody_reads_works_on_and_ends_when_told_to(
    plane: Plane, start: Callable[..., Process]
) -> None:
    reader, writer = os.pipe()
    fill_pipe(writer)
    try:
        worker = start(errors=writer)
        with plane.database.transaction():
            refused = jobs.enqueue(plane, "user.purge", {"of": "nobody"})
        worker.until(lambda: jobs.get(plane, str(refused))["error"])
        happen(plane)
        worker.until(lambda: audit_check.verify(plane).unsealed == 0)
        assert worker.end(signal.SIGTERM) == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_it_seals_what_happens(plane: Plane, start: Callable[[], Process]) -> None:
    worker = start()
    happen(plane, 3)

    worker.until(lambda: audit_check.verify(plane).unsealed == 0)

    verdict = audit_check.verify(plane)
    assert verdict.problem is None
    assert verdict.sealed >= 3


def test_a_purge_is_resumed_after_the_worker_was_killed_in_the_middle_of_it(
    plane: Plane, start: Callable[[], Process], deleted: tuple[str, int]
) -> None:
    tenant_id, job_id = deleted
    planned = belongings.count(plane, tenant_id)
    worker = start()
    worker.until(lambda: removed(plane, job_id).get("conversation", 0) >= 500)
    worker.end(signal.SIGKILL)
    left = belongings.count(plane, tenant_id).get("conversation", 0)
    assert 0 < left < 50_000, "the worker was not killed in the middle"

    # As if the visibility time were over.
    plane.database.run("UPDATE rk_job SET visible_at = 0 WHERE id = ?", (job_id,))
    second = start()
    second.until(lambda: jobs.get(plane, str(job_id))["state"] == "done")

    assert belongings.count(plane, tenant_id) == {}
    assert removed(plane, job_id) == planned
    assert jobs.get(plane, str(job_id))["attempts"] == 2
    assert second.end(signal.SIGTERM) == 0


def test_a_stop_in_the_middle_of_a_purge_gives_it_back_at_once(
    plane: Plane, start: Callable[[], Process], deleted: tuple[str, int]
) -> None:
    _, job_id = deleted
    worker = start()
    worker.until(lambda: removed(plane, job_id).get("conversation", 0) >= 500)

    assert worker.end(signal.SIGTERM) == 0

    shown = jobs.get(plane, str(job_id))
    assert (shown["state"], shown["attempts"]) == ("ready", 0)


def test_a_wrong_setting_is_one_sentence_and_no_traceback(environment: dict[str, str], tmp_path: Path) -> None:
    worker = Process({**environment, "RAGKEEPER_ADMIN_PORT": "many"}, tmp_path / "log")

    assert worker.process.wait(10) == 2
    said = worker.log.read_text()
    assert "RAGKEEPER_ADMIN_PORT" in said
    assert said.count("\n") == 1


def removed(plane: Plane, job_id: int) -> dict[str, int]:
    """The rows that a purge says it has removed, by table."""
    progress = jobs.get(plane, str(job_id))["progress"]
    return dict(progress["removed"]["metadata"]) if progress else {}
