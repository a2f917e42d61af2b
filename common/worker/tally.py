"""What a worker has done and has in hand, shared by the thread that works and the one that reports."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from common.services.jobs import Claimed


@dataclass(frozen=True, slots=True)
class Count:
    """One look at the tally; ``current`` maps the id of a job in hand to what it is."""

    done: int
    failed: int
    current: dict[str, dict[str, Any]]


class Tally:
    """Counts since the start of this worker."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = 0
        self._failed = 0
        self._current: dict[str, dict[str, Any]] = {}

    def began(self, job: Claimed) -> None:
        """A job was claimed."""
        with self._lock:
            self._current[str(job.id)] = {"kind": job.kind, "attempt": job.attempt}

    def ended(self, job: Claimed, *, done: bool | None) -> None:
        """A job is out of hand: done, failed, or (None) given back."""
        with self._lock:
            self._current.pop(str(job.id), None)
            self._done += done is True
            self._failed += done is False

    def count(self) -> Count:
        """The counts as they are now."""
        with self._lock:
            return Count(self._done, self._failed, dict(self._current))
