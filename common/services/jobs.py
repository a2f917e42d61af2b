"""Jobs: rows written in the transaction of their cause, done later by one worker at a time, at least once.

A claimed job is invisible to other workers for its visibility time, which its worker keeps prolonging. Every write
about it names owner and attempt, so a worker that was too late changes nothing. Payload and progress are shown to
operators: a secret in them is encrypted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from common.core.audit_tags import EventTag
from common.core.backoff import wait_s
from common.core.cursors import decode_cursor, encode_cursor
from common.core.errors import JobNotDead, JobNotFound, JobNotWaiting
from common.models.base import rfc3339
from common.models.operation import Job, Schedule
from common.services import audit
from common.services.plane import Plane
from common.services.principal import Principal
from common.stores.database import Taken

State = Literal["ready", "running", "done", "dead"]

# With the waits of common.core.backoff about an hour and a half of trying.
MAX_ATTEMPTS = 12
# A waiting queue is counted up to here; beyond, more precision helps nobody.
COUNTED_AT_MOST = 10_000
_CANDIDATES = 8
_DAY_MS = 24 * 3600 * 1000
_ERROR_LENGTH = 1000
_MAX_ID = 2**63 - 1
_COLUMNS = "id, kind, state, attempts, visible_at, owner, error, dedupe_key, created_at, finished_at, payload, progress"


class JobLost(Exception):
    """The job was given to another worker meanwhile, or is over: this one must let go of it."""


class JobInterrupted(Exception):
    """The worker is to stop: what is done so far is stored, and another worker goes on from there."""


class TryLater(Exception):
    """This attempt failed for a reason that is known and may pass; the text is for operators."""


class GiveUp(Exception):
    """Trying again can't help; the job becomes a dead letter with this text."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job in the hands of a worker; ``progress`` is what an earlier attempt stored."""

    id: int
    kind: str
    payload: dict[str, Any]
    progress: dict[str, Any] | None
    attempt: int
    owner: str


@dataclass
class Task:
    """What a handler is given: the job, the plane, and the means to store how far it is."""

    plane: Plane
    job: Claimed
    visibility_s: float
    stopping: Callable[[], bool] = field(default=lambda: False)

    def save(self, progress: Mapping[str, Any]) -> None:
        """Store progress and keep the job for another visibility time; may stand in a transaction of the handler.

        Raises JobLost.
        """
        save_progress(self.plane, self.job, progress, self.visibility_s)

    def pause_point(self) -> None:
        """Raises JobInterrupted when the worker is to stop. To be called between steps, outside a transaction."""
        if self.stopping():
            raise JobInterrupted


Handler = Callable[[Task], None]


def enqueue(
    plane: Plane,
    kind: str,
    payload: Mapping[str, Any],
    *,
    dedupe_key: str | None = None,
    delay_s: float = 0,
) -> int:
    """Write a job into the running transaction; returns its id.

    While a job with this ``dedupe_key`` waits or runs, that one's id is returned and nothing is written; a dead one is
    brought back. The key is free again once its job is done.
    """
    now = plane.now_ms()
    visible_at = now + round(delay_s * 1000)
    if dedupe_key is not None:
        # Before the INSERT: one that meets the same key leaves a lock behind that would be in the way of this.
        plane.database.run(
            "UPDATE rk_job SET state = 'ready', attempts = 0, visible_at = ?, payload = ?, finished_at = NULL "
            "WHERE dedupe_key = ? AND state = 'dead'",
            (visible_at, _text(payload), dedupe_key),
        )
        if (job_id := _id_of(plane, dedupe_key)) is not None:
            return job_id
    query = Job.insert(
        kind=kind,
        dedupe_key=dedupe_key,
        payload=_text(payload),
        state="ready",
        visible_at=visible_at,
        created_at=now,
    )
    try:
        return int(plane.database.execute(query))
    except Taken:
        job_id = _id_of(plane, dedupe_key)
        if job_id is None:
            raise
        return job_id


def _id_of(plane: Plane, dedupe_key: str | None) -> int | None:
    row = plane.database.one("SELECT id FROM rk_job WHERE dedupe_key = ?", (dedupe_key,))
    return int(row[0]) if row else None


def enqueue_period(plane: Plane, kind: str, every_s: float) -> int | None:
    """Enqueue a periodic job for the period that is now; its id, or None when this period has had its own.

    Any number of schedulers may ask at once: the row of the kind lets one of them through. While the job of an earlier
    period still waits or runs, that one serves for this period too. A row of the future, which only a clock that went
    wrong can have left, does not count.
    """
    period = int(plane.now_ms() // (every_s * 1000))
    if plane.database.one("SELECT 1 FROM rk_schedule WHERE kind = ? AND period IN (?, ?)", (kind, period, period + 1)):
        return None
    with plane.database.transaction():
        if not _take_period(plane, kind, period):
            return None
        return enqueue(plane, kind, {}, dedupe_key=kind)


def _take_period(plane: Plane, kind: str, period: int) -> bool:
    changed = plane.database.run(
        "UPDATE rk_schedule SET period = ? WHERE kind = ? AND (period < ? OR period > ?)",
        (period, kind, period, period + 1),
    )
    if changed:
        return True
    try:
        # A transaction within: what is taken must not spoil the outer one.
        with plane.database.transaction():
            plane.database.insert(Schedule, kind=kind, period=period)
    except Taken:
        return False
    return True


def claim(plane: Plane, owner: str, visibility_s: float, kinds: Sequence[str]) -> Claimed | None:
    """Take the job that has waited longest, or None; what a lost worker left behind comes first.

    Several workers may ask at once: the conditional UPDATE lets one of them have it. A job whose worker was lost on the
    last attempt becomes a dead letter. Who is next is read from an index alone, however many rows there are.
    """
    if not kinds:
        return None
    marks = ", ".join("?" * len(kinds))
    for state in ("running", "ready"):
        candidates = plane.database.all(
            f"SELECT id FROM rk_job WHERE state = ? AND visible_at <= ? AND kind IN ({marks}) "
            "ORDER BY visible_at, id LIMIT ?",
            (state, plane.now_ms(), *kinds, _CANDIDATES),
        )
        for (job_id,) in candidates:
            job = _claim_one(plane, owner, visibility_s, job_id, state)
            if job is not None:
                return job
    return None


def _claim_one(plane: Plane, owner: str, visibility_s: float, job_id: int, state: str) -> Claimed | None:
    row = plane.database.one("SELECT attempts, kind, payload, progress FROM rk_job WHERE id = ?", (job_id,))
    if row is None:
        return None
    attempts, kind, payload, progress = row
    if attempts >= MAX_ATTEMPTS:
        _bury_lost(plane, job_id, attempts)
        return None
    if not _take(plane, owner, visibility_s, job_id, state, attempts):
        return None
    kept = orjson.loads(progress) if progress else None
    return Claimed(job_id, kind, orjson.loads(payload), kept, attempts + 1, owner)


def _take(plane: Plane, owner: str, visibility_s: float, job_id: int, state: str, attempts: int) -> bool:
    now = plane.now_ms()
    taken = plane.database.run(
        "UPDATE rk_job SET state = 'running', owner = ?, attempts = attempts + 1, visible_at = ? "
        "WHERE id = ? AND state = ? AND attempts = ? AND visible_at <= ?",
        (owner, now + round(visibility_s * 1000), job_id, state, attempts, now),
    )
    return taken == 1


def _bury_lost(plane: Plane, job_id: int, attempts: int) -> None:
    plane.database.run(
        "UPDATE rk_job SET state = 'dead', finished_at = ?, error = ? "
        "WHERE id = ? AND attempts = ? AND visible_at <= ? AND state IN ('ready', 'running')",
        (
            plane.now_ms(),
            "Its worker was lost on the last attempt.",
            job_id,
            attempts,
            plane.now_ms(),
        ),
    )


def extend(plane: Plane, job: Claimed, visibility_s: float) -> bool:
    """Keep a claimed job for ``visibility_s`` from now; False when it is no longer this worker's."""
    return _write(plane, job, "visible_at = ?", (plane.now_ms() + round(visibility_s * 1000),))


def save_progress(plane: Plane, job: Claimed, progress: Mapping[str, Any], visibility_s: float) -> None:
    """Store progress and keep the job for another visibility time, in the running transaction if there is one.

    Raises JobLost, so that a transaction of a worker that was too late is rolled back.
    """
    visible_at = plane.now_ms() + round(visibility_s * 1000)
    if not _write(plane, job, "progress = ?, visible_at = ?", (_text(progress), visible_at)):
        raise JobLost(f"job {job.id} is no longer {job.owner}'s")


def finish(plane: Plane, job: Claimed) -> bool:
    """Acknowledge a job that is done; False when it is no longer this worker's."""
    return _write(plane, job, "state = 'done', dedupe_key = NULL, error = NULL, finished_at = ?", (plane.now_ms(),))


def fail(plane: Plane, job: Claimed, error: str, *, give_up: bool = False, jitter: float = 0.0) -> bool:
    """Note a failed attempt: the job waits (``jitter`` as in ``wait_s``), or is dead after the last or on ``give_up``.

    False when it is no longer this worker's.
    """
    now = plane.now_ms()
    text = error[:_ERROR_LENGTH]
    if give_up or job.attempt >= MAX_ATTEMPTS:
        return _write(plane, job, "state = 'dead', error = ?, finished_at = ?", (text, now))
    visible_at = now + round(wait_s(job.attempt, jitter) * 1000)
    return _write(plane, job, "state = 'ready', error = ?, visible_at = ?", (text, visible_at))


def give_back(plane: Plane, job: Claimed, *, delay_s: float = 0, reason: str | None = None) -> bool:
    """Return a job that could not be worked on for no fault of its own: the attempt does not count.

    False when it is no longer this worker's.
    """
    visible_at = plane.now_ms() + round(delay_s * 1000)
    return _write(
        plane, job, "state = 'ready', attempts = attempts - 1, visible_at = ?, error = ?", (visible_at, reason)
    )


def _write(plane: Plane, job: Claimed, assignments: str, values: tuple[Any, ...]) -> bool:
    changed = plane.database.run(
        f"UPDATE rk_job SET {assignments} WHERE id = ? AND owner = ? AND attempts = ? AND state = 'running'",
        (*values, job.id, job.owner, job.attempt),
    )
    return changed == 1


def waiting(plane: Plane) -> int:
    """How many jobs are due and held by nobody, counted up to COUNTED_AT_MOST."""
    row = plane.database.one(
        "SELECT COUNT(*) FROM (SELECT 1 FROM rk_job WHERE state = 'ready' AND visible_at <= ? LIMIT ?) AS due",
        (plane.now_ms(), COUNTED_AT_MOST),
    )
    return int(row[0]) if row else 0


def prune(plane: Plane, *, limit: int = 1000, but_dead: Sequence[str] = ()) -> int:
    """Delete up to ``limit`` jobs that have been done, and as many that have been dead, for long; returns how many.

    How long is a setting each. Dead ones of the kinds ``but_dead`` stay. The newest job stays whatever its age:
    without it a store would give its id to the next one.
    """
    settings = plane.settings
    return _prune(plane, "done", settings.jobs_kept_days, limit, ()) + _prune(
        plane, "dead", settings.dead_jobs_kept_days, limit, but_dead
    )


def _prune(plane: Plane, state: State, kept_days: int, limit: int, but: Sequence[str]) -> int:
    others = f"AND kind NOT IN ({', '.join('?' * len(but))}) " if but else ""
    old = plane.database.all(
        f"SELECT id FROM rk_job WHERE state = ? AND finished_at < ? {others}"
        "AND id <> (SELECT MAX(id) FROM rk_job) LIMIT ?",
        (state, plane.now_ms() - kept_days * _DAY_MS, *but, limit),
    )
    if not old:
        return 0
    deleted: int = plane.database.execute(Job.delete().where(Job.id.in_([job_id for (job_id,) in old])))
    return deleted


def page(plane: Plane, *, limit: int = 50, cursor: str | None = None, state: State | None = None) -> dict[str, Any]:
    """A page of jobs, newest first: ``{jobs, next_cursor}``, each without payload and progress.

    Raises BadField for a cursor that is not one of this list.
    """
    conditions: list[str] = []
    params: list[Any] = []
    if state is not None:
        conditions.append("state = ?")
        params.append(state)
    if cursor is not None:
        conditions.append("id < ?")
        params += decode_cursor(cursor, (int,))
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    rows = plane.database.all(f"SELECT {_COLUMNS} FROM rk_job {where}ORDER BY id DESC LIMIT ?", (*params, limit + 1))
    shown = [_shown(row) for row in rows[:limit]]
    return {"jobs": shown, "next_cursor": encode_cursor([rows[limit - 1][0]]) if len(rows) > limit else None}


def get(plane: Plane, job_id: str) -> dict[str, Any]:
    """One job with ``payload`` and ``progress``. Raises JobNotFound."""
    number = int(job_id) if job_id.isascii() and job_id.isdigit() and len(job_id) < 20 else 0
    row = None
    if 0 < number <= _MAX_ID:
        row = plane.database.one(f"SELECT {_COLUMNS} FROM rk_job WHERE id = ?", (number,))
    if row is None:
        raise JobNotFound(job_id)
    payload, progress = row[-2:]
    return {
        **_shown(row),
        "payload": orjson.loads(payload),
        "progress": orjson.loads(progress) if progress else None,
    }


def retry(plane: Plane, actor: Principal, job_id: str) -> dict[str, Any]:
    """Make a dead job ready again, all its attempts before it; returns it. Raises JobNotFound, JobNotDead."""
    with plane.database.transaction():
        job = get(plane, job_id)
        changed = plane.database.run(
            "UPDATE rk_job SET state = 'ready', attempts = 0, visible_at = ?, finished_at = NULL, owner = NULL "
            "WHERE id = ? AND state = 'dead'",
            (plane.now_ms(), job["id"]),
        )
        if not changed:
            raise JobNotDead(job["id"], job["state"])
        audit.record(plane, EventTag.JOB_RETRY, actor, target=("job", job_id), before={"error": job["error"]})
        return get(plane, job_id)


def cancel(plane: Plane, actor: Principal, job_id: str) -> dict[str, Any]:
    """Make a waiting job a dead letter that says who cancelled it; returns it. Raises JobNotFound, JobNotWaiting."""
    with plane.database.transaction():
        job = get(plane, job_id)
        changed = plane.database.run(
            "UPDATE rk_job SET state = 'dead', finished_at = ?, error = ? WHERE id = ? AND state = 'ready'",
            (plane.now_ms(), f"Cancelled by {actor.email or 'the system'}.", job["id"]),
        )
        if not changed:
            raise JobNotWaiting(job["id"], job["state"])
        audit.record(plane, EventTag.JOB_CANCEL, actor, target=("job", job_id), before={"error": job["error"]})
        return get(plane, job_id)


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    job_id, kind, state, attempts, visible_at, owner, error, dedupe_key, created_at, finished_at = row[:10]
    return {
        "id": job_id,
        "kind": kind,
        "state": state,
        "attempts": attempts,
        "max_attempts": MAX_ATTEMPTS,
        "next_at": rfc3339(visible_at) if state == "ready" else None,
        "owner": owner,
        "error": error,
        "dedupe_key": dedupe_key,
        "created_at": rfc3339(created_at),
        "finished_at": rfc3339(finished_at),
    }


def _text(values: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(values)).decode()
