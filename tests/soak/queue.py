"""Jobs, several workers on one database, and somebody who kills them at random."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.services import jobs
from common.services.opening import open_plane
from common.services.plane import Plane
from common.settings import load
from tests.backends.mariadb import running_mariadb
from tests.soak.worker import KIND, Effect

ROOT = Path(__file__).parents[2]
_BATCH = 500
# Without anything done for so long, the run has failed.
_STUCK_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the jobs. ``lost`` have no effect, ``strange`` effects no job; ``redone`` were delivered again
    after their effect."""

    jobs: int
    lost: int
    strange: int
    not_done: int
    redelivered: int
    redone: int
    seconds: float

    @property
    def is_right(self) -> bool:
        """Every job once in effect, and at least once delivered."""
        return (self.lost, self.strange, self.not_done) == (0, 0, 0)


@contextmanager
def metadata_of(stores: str, folder: Path) -> Iterator[str | None]:
    """The URL of an empty metadata store on a server of its own; None for embedded stores."""
    if stores == "embedded":
        yield None
        return
    with running_mariadb(folder / "mariadb") as server:
        yield server.url(server.make_schema())


def environment_on(home: Path, database_url: str | None) -> dict[str, str]:
    """An environment with stores in a fresh home, and the metadata store at the URL if there is one."""
    (home.parent / "service_conf.yaml").write_text("{}\n")
    given = {"PATH": os.environ["PATH"], "RAGKEEPER_HOME": str(home), "RAGKEEPER_CONF": str(home.parent)}
    return given | ({"RAGKEEPER_DB_URL": database_url} if database_url else {})


def run(environment: Mapping[str, str], *, count: int, workers: int, kills: int, seed: int) -> Outcome:
    """Let ``workers`` processes do ``count`` jobs while one of them is killed ``kills`` times, at random."""
    plane, chance = open_plane(load(environment)), random.Random(seed)
    plane.database.create(Effect)
    # The last jobs come after the last kill, so that however quick the machine is, nobody is killed for nothing.
    early = count - count // 5
    moments = sorted(chance.randrange(early) for _ in range(kills))
    wanted = _enqueue(plane, early)
    began = time.monotonic()
    with _crew(environment, workers) as crew:
        for moment in moments:
            _wait_until_done(plane, moment, chance)
            _kill_one_of(crew, environment, chance)
        wanted |= _enqueue(plane, count - early)
        _wait_until_done(plane, count, chance)
    outcome = _judge(plane, wanted, time.monotonic() - began)
    for store in (plane.database, plane.cache, plane.documents):
        store.close()
    return outcome


def _enqueue(plane: Plane, count: int) -> set[int]:
    wanted: set[int] = set()
    while len(wanted) < count:
        with plane.database.transaction():
            for _ in range(min(_BATCH, count - len(wanted))):
                wanted.add(jobs.enqueue(plane, KIND, {}))
    return wanted


@contextmanager
def _crew(environment: Mapping[str, str], size: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    crew = [_start(environment) for _ in range(size)]
    try:
        yield crew
    finally:
        for worker in crew:
            worker.kill()
            worker.wait()


def _start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.soak.worker"], cwd=ROOT, env=dict(environment))


def _kill_one_of(crew: list[subprocess.Popen[bytes]], environment: Mapping[str, str], chance: random.Random) -> None:
    victim = chance.randrange(len(crew))
    crew[victim].kill()
    crew[victim].wait()
    crew[victim] = _start(environment)


def _wait_until_done(plane: Plane, count: int, chance: random.Random) -> None:
    seen, changed_at = -1, time.monotonic()
    while (done := _done(plane)) < count:
        if done != seen:
            seen, changed_at = done, time.monotonic()
        if time.monotonic() - changed_at > _STUCK_S:
            raise TimeoutError(f"nothing was done for {_STUCK_S:.0f} s; {done} of {count} jobs are")
        time.sleep(chance.uniform(0.005, 0.05))


def _done(plane: Plane) -> int:
    row = plane.database.one("SELECT COUNT(*) FROM rk_job WHERE state = 'done' AND kind = ?", (KIND,))
    return int(row[0]) if row else 0


def _judge(plane: Plane, wanted: set[int], seconds: float) -> Outcome:
    effects = dict(plane.database.all("SELECT job_id, attempt FROM soak_effect"))
    rows = plane.database.all("SELECT id, state, attempts FROM rk_job WHERE kind = ?", (KIND,))
    attempts = {job_id: tries for job_id, _, tries in rows}
    return Outcome(
        jobs=len(wanted),
        lost=len(wanted - effects.keys()),
        strange=len(effects.keys() - wanted),
        not_done=len(wanted - {job_id for job_id, state, _ in rows if state == "done"}),
        redelivered=sum(tries > 1 for tries in attempts.values()),
        redone=sum(attempts.get(job_id, 0) > attempt for job_id, attempt in effects.items()),
        seconds=round(seconds, 1),
    )
