"""What is done again and again: enqueued as a job by whichever worker has the scheduler's lease."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from common.core.errors import StoreUnavailable
from common.services import (
    audit_retention,
    deletion,
    following,
    invitations,
    jobs,
    registration,
    reset_links,
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
# One run removes at most this many batches of a kind; the rest waits for the next run.
_BATCHES = 100


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
    """Remove what is over of sessions, invitations, registrations, links, tokens, jobs and the cache store's values.

    Progress has the counts.
    """
    plane = task.plane
    chores: dict[str, Callable[[], int]] = {
        "sessions": lambda: sessions.prune(plane, limit=_BATCH),
        "invitations": lambda: invitations.prune(plane, limit=_BATCH),
        "registrations": lambda: registration.prune(plane, limit=_BATCH),
        "reset_links": lambda: reset_links.prune(plane, limit=_BATCH),
        "expiry_notices": lambda: token_expiry.prune(plane, limit=_BATCH),
        "token_traits": lambda: tokens.prune_traits(plane, limit=_BATCH),
        "audit_events": lambda: audit_retention.drop_segment(plane),
        "jobs": lambda: jobs.prune(plane, limit=_BATCH, but_dead=_NEVER_FORGOTTEN),
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
