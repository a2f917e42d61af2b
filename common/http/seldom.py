"""What every request would say in the log, said once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Seldom:
    """Knows what a process has said in the last second. Every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, every_s: float = 1.0) -> None:
        self._clock = clock
        self._every_s = every_s
        self._lock = threading.Lock()
        self._said_at: dict[tuple[str, ...], float] = {}

    def is_due(self, *what: str) -> bool:
        """Whether this was not said in the last second; it counts as said then."""
        now = self._clock()
        with self._lock:
            self._said_at = {each: at for each, at in self._said_at.items() if now - at < self._every_s}
            if what in self._said_at:
                return False
            self._said_at[what] = now
            return True
