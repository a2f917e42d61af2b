"""What is done again and again: enqueued as a job by whichever worker gets the period's lease."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from common.core.errors import StoreUnavailable
from common.services import invitations, jobs, sessions
from common.services.plane import Plane

log = logging.getLogger(__name__)

HOUSEKEEPING = "housekeeping"
_BATCH = 1000
# One run removes at most this many batches of a kind; the rest waits for the next run.
_BATCHES = 100


@dataclass(frozen=True, slots=True)
class Periodic:
    """A kind of job and the seconds between two of them."""

    kind: str
    every_s: float


SCHEDULE = (Periodic(HOUSEKEEPING, 3600.0),)


def enqueue_due(plane: Plane, schedule: tuple[Periodic, ...] = SCHEDULE) -> None:
    """Enqueue what is due. Nothing is, with a warning, while a store is down.

    A period's lease is held by nobody in particular and runs out with the period, so of all workers one enqueues.
    """
    for periodic in schedule:
        lease, holder = f"periodic:{periodic.kind}", uuid4().hex
        try:
            if not plane.cache.acquire_lease(lease, holder, periodic.every_s):
                continue
            try:
                with plane.database.transaction():
                    jobs.enqueue(plane, periodic.kind, {}, dedupe_key=periodic.kind)
            except StoreUnavailable:
                plane.cache.release_lease(lease, holder)
                raise
        except StoreUnavailable as error:
            log.warning("%s not enqueued: the %s store is unavailable: %s", periodic.kind, error.store, error.reason)


def keep_house(task: jobs.Task) -> None:
    """Remove what is over of sessions, invitations, jobs and the cache store's values; progress has the counts."""
    plane = task.plane
    chores: dict[str, Callable[[], int]] = {
        "sessions": lambda: sessions.prune(plane, limit=_BATCH),
        "invitations": lambda: invitations.prune(plane, limit=_BATCH),
        "jobs": lambda: jobs.prune(plane, limit=_BATCH),
        "cache": lambda: plane.cache.purge_expired(_BATCH),
    }
    removed = dict.fromkeys(chores, 0)
    for name, chore in chores.items():
        for _ in range(_BATCHES):
            task.pause_point()
            count = chore()
            if not count:
                break
            removed[name] += count
    task.save({"removed": removed})
