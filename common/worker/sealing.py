"""The sealer: whichever worker has its lease seals the audit events that came in since its last look."""

from __future__ import annotations

import logging
import threading

from common.core.errors import StoreUnavailable
from common.services import audit_delivery, audit_sealing, audit_written
from common.services.plane import Plane

log = logging.getLogger(__name__)

# Together with a look of another worker at the lease, well below the 5 s after which an event has to be sealed.
EVERY_S = 1.0
# After something unforeseen the next look is not at once, so that the log stays readable.
AFTER_FAILURE_S = 30.0
_LEASE = "audit-sealer"
_LEASE_S = 3.0


def seal_until(plane: Plane, name: str, stop: threading.Event) -> None:
    """Seal once a second until ``stop`` is set, as the sealer of this name."""
    wait_s = EVERY_S
    while not stop.wait(wait_s):
        wait_s = EVERY_S
        try:
            seal_in_turn(plane, name)
        except Exception:
            # A job's boundary: a chain that can't be sealed now must be tried again, and nobody else would.
            log.exception("audit events not sealed; tried again in %d s", AFTER_FAILURE_S)
            wait_s = AFTER_FAILURE_S
    try:
        plane.cache.release_lease(_LEASE, name)
    except StoreUnavailable as error:
        log.warning("the sealer's lease runs out by itself: the cache store is unavailable: %s", error.reason)


def seal_in_turn(plane: Plane, name: str) -> None:
    """Seal what waits and see to its delivery, unless another worker does; nothing, with a warning, while the metadata
    store is down.

    Without a cache store every worker looks: the lease saves work, and what lets one seal at a time is a lock of the
    database.
    """
    try:
        # Each home has its own note of what it wrote, whoever seals.
        audit_written.turn_over(plane)
        if _has_its_turn(plane, name):
            audit_sealing.seal_all(plane)
            audit_delivery.enqueue_due(plane)
    except StoreUnavailable as error:
        log.warning("audit events not sealed: the %s store is unavailable: %s", error.store, error.reason)


def _has_its_turn(plane: Plane, name: str) -> bool:
    try:
        return plane.cache.acquire_lease(_LEASE, name, _LEASE_S)
    except StoreUnavailable as error:
        log.debug("sealing without a lease: the cache store is unavailable: %s", error.reason)
        return True
