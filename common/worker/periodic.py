"""What is done again and again: enqueued as a job by whichever worker has the scheduler's lease."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from common.core.errors import StoreUnavailable
from common.services import (
    audit_retention,
    deletion,
    following,
    invitations,
    jobs,
    registration,
    reset_links,
    retired_tokens,
    sessions,
    token_expiry,
    tokens,
)
from common.services.plane import Plane

log = logging.getLogger(__name__)

HOUSEKEEPING = "housekeeping"
# The lease outlives a missed look of its holder (they come every 30 s), and little more.
_LEASE = "scheduler"
_LEASE_S = 75.0
_BATCH = 1000
# One run removes at most this many batches of a kind that an index leads to; the rest waits for the next run.
_BATCHES = 500


@dataclass(frozen=True, slots=True)
class Periodic:
    """A kind of job and the seconds between two of them; some are of use beside a RAGFlow only."""

    kind: str
    every_s: float
    beside_ragflow: bool = False


# What a purge has not removed is known by its dead letter alone.
_NEVER_FORGOTTEN = (deletion.PURGE,)
SCHEDULE = (
    Periodic(HOUSEKEEPING, 3600.0),
    Periodic(token_expiry.SEARCH, 3600.0),
    Periodic(following.FOLLOW, following.FOLLOW_EVERY_S, beside_ragflow=True),
    Periodic(following.WALK, following.WALK_EVERY_S, beside_ragflow=True),
)


def enqueue_due(plane: Plane, scheduler: str, schedule: tuple[Periodic, ...] = SCHEDULE) -> None:
    """Enqueue what is due, as the scheduler of this name; nothing, with a warning, while the metadata store is down.

    One scheduler has the lease, so that the others need not even look. Without a cache store all of them look: the
    lease saves work, and what makes a double impossible is the row that ``jobs.enqueue_period`` changes.
    """
    try:
        if not plane.cache.acquire_lease(_LEASE, scheduler, _LEASE_S):
            return
    except StoreUnavailable as error:
        log.warning("scheduling without a lease: the %s store is unavailable: %s", error.store, error.reason)
    for periodic in schedule:
        try:
            if not periodic.beside_ragflow or plane.shared:
                jobs.enqueue_period(plane, periodic.kind, periodic.every_s)
        except StoreUnavailable as error:
            log.warning("%s not enqueued: the %s store is unavailable: %s", periodic.kind, error.store, error.reason)


def stand_down(plane: Plane, scheduler: str) -> None:
    """Let another scheduler take over at once, at a clean stop."""
    try:
        plane.cache.release_lease(_LEASE, scheduler)
    except StoreUnavailable as error:
        log.warning("the scheduler's lease runs out by itself: the cache store is unavailable: %s", error.reason)


def keep_house(task: jobs.Task) -> None:
    """The job ``housekeeping``: a job for each chore, so that what one of them meets holds up no other."""
    with task.plane.database.transaction():
        for kind in chores():
            jobs.enqueue(task.plane, kind, {}, dedupe_key=kind)


def chores() -> dict[str, jobs.Handler]:
    """The handler of each chore's job: it removes what is over of one kind. Progress has ``removed``, the count."""
    batches: dict[str, Callable[[Plane], int]] = {
        "sessions": partial(sessions.prune, limit=_BATCH),
        "invitations": partial(invitations.prune, limit=_BATCH),
        "registrations": partial(registration.prune, limit=_BATCH),
        "reset_links": partial(reset_links.prune, limit=_BATCH),
        "retired_tokens": partial(retired_tokens.prune, limit=_BATCH),
        "audit_events": audit_retention.drop_segment,
        "jobs": partial(jobs.prune, limit=_BATCH, but_dead=_NEVER_FORGOTTEN),
        "cache": lambda plane: plane.cache.purge_expired(_BATCH),
    }
    walks: dict[str, Callable[[Plane, str], tuple[int, str | None]]] = {
        "expiry_notices": partial(token_expiry.prune, limit=_BATCH),
        "token_traits": partial(tokens.prune_traits, limit=_BATCH),
    }
    return {
        **{f"{HOUSEKEEPING}.{name}": partial(_remove, prune) for name, prune in batches.items()},
        **{f"{HOUSEKEEPING}.{name}": partial(_walk, prune) for name, prune in walks.items()},
    }


def _remove(prune: Callable[[Plane], int], task: jobs.Task) -> None:
    removed = 0
    for _ in range(_BATCHES):
        task.pause_point()
        count = prune(task.plane)
        if not count:
            break
        removed += count
    task.save({"removed": removed})


def _walk(prune: Callable[[Plane, str], tuple[int, str | None]], task: jobs.Task) -> None:
    """Go through all of a table by its key. Another attempt goes on where this one came to."""
    progress = task.job.progress or {}
    removed, after = progress.get("removed", 0), progress.get("after", "")
    while after is not None:
        task.pause_point()
        count, after = prune(task.plane, after)
        removed += count
        task.save({"removed": removed} | ({} if after is None else {"after": after}))
