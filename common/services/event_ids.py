"""The ids of audit events."""

from __future__ import annotations

import os
import threading
from secrets import token_hex

from common.core.audit_chain import uid_of


class EventIds:
    """Gives events their ids: those of one process sort as they were given, also while its clock stands."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._last = (0, 0)

    def next(self, at_ms: int) -> str:
        """An id that no other event has."""
        if self._pid != os.getpid():
            # After a fork: who knows who held its lock.
            self._begin()
        with self._lock:
            moment, turn = self._last
            turn = turn + 1 if moment == at_ms else 0
            self._last = (at_ms, turn)
        return uid_of(at_ms, turn, token_hex(6))
