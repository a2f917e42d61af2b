"""Trial changes of the object store: it can't be asked whether it is full or read-only, and who else changes anything
there is rare.
"""

from __future__ import annotations

import logging
import threading
import time

from common.core.errors import StoreUnavailable
from common.services.plane import Plane

log = logging.getLogger(__name__)

# The longest for which nobody knows of a fault.
EVERY_S = 10.0
# Health shows a refusal for SHOWN_S, and the next one has to come before that is over, with the time that it takes.
AFTER_REFUSAL_S = 4.0
# After something unforeseen the next one is later, so that the log stays readable.
AFTER_FAILURE_S = 30.0


def try_until(plane: Plane, stop: threading.Event) -> None:
    """Make a trial change now and again until ``stop`` is set; what is refused, the store notes for health checks."""
    wait_s = 0.0
    before: StoreUnavailable | None = None
    while not stop.wait(wait_s):
        wait_s, began = EVERY_S, time.monotonic()
        try:
            found = _refusal_of(plane)
        except Exception:
            # A job's boundary: whatever it meets, there must be a next trial, and nobody else would make it.
            log.exception("no trial change of the object store; tried again in %d s", AFTER_FAILURE_S)
            wait_s = AFTER_FAILURE_S
            continue
        if found is not None:
            # Health forgets by the time of the refusal, and a server may take a while for the next one.
            wait_s = max(1.0, AFTER_REFUSAL_S - int(time.monotonic() - began))
        _tell(before, found)
        before = found


def _refusal_of(plane: Plane) -> StoreUnavailable | None:
    """Why the object store took no change; None where it took one."""
    try:
        plane.objects.try_change()
    except StoreUnavailable as error:
        return error
    return None


def _tell(before: StoreUnavailable | None, found: StoreUnavailable | None) -> None:
    """Say once of each outage that it is there, and of one in which the store answers, that it is over."""
    if found is not None and (before is None or before.lost != found.lost):
        # Of a store that is lost its breaker says all.
        level = logging.DEBUG if found.lost else logging.WARNING
        log.log(level, "the %s store takes no changes: %s", found.store, found.reason)
    elif found is None and before is not None and not before.lost:
        log.info("the %s store takes changes again", before.store)
