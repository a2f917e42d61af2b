"""What a server's last refusal of a write was, for health checks, which write nothing and can't find out themselves."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from common.core.errors import StoreUnavailable

#: Seconds for which health says it. What was found is shared for one more, so a recovery shows within 10 s.
SHOWN_S = 8.0
#: Seconds for which the processes of a home are not told the same again.
_TOLD_EVERY_S = 1.0
# Longer than any reason: each overwrites the one before without a moment at which the file is empty.
_WIDTH = 200


class RefusedWrites:
    """Remembers why the store of this name refused to write, where that is one of ``reasons``: words that name nobody.

    The processes of a home tell each other in the file ``shared``; without one, or where it can't be written, each
    knows what it met itself. ``clock`` gives the seconds that files have as their times.
    """

    def __init__(
        self,
        store: str,
        reasons: Collection[str],
        shared: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._reasons = reasons
        self._shared = shared
        self._clock = clock
        self._met = (-math.inf, "")

    def note(self, reason: str) -> None:
        """Remember a refusal; one for any other reason is none."""
        now = self._clock()
        if reason not in self._reasons or (self._met[1] == reason and abs(now - self._met[0]) < _TOLD_EVERY_S):
            return
        self._met = (now, reason)
        if self._shared is not None:
            with suppress(OSError):
                _overwrite(self._shared, reason.ljust(_WIDTH).encode())

    def check(self) -> None:
        """Raises StoreUnavailable for SHOWN_S after a refusal: the store answers, and what it keeps can be read."""
        at, reason = self._met
        why = reason if self._is_recent(at) else self._told()
        if why:
            raise StoreUnavailable(self._store, f"it refused a change: {why}", lost=False)

    def _told(self) -> str:
        """What some process of this home was refused for lately; "" where none was."""
        if self._shared is not None:
            with suppress(OSError):
                if self._is_recent(self._shared.stat().st_mtime):
                    said = self._shared.read_text(errors="replace").rstrip()
                    return said if said in self._reasons else ""
        return ""

    def _is_recent(self, at: float) -> bool:
        # Not later than now either: a clock may have been set back.
        return abs(self._clock() - at) <= SHOWN_S


def _overwrite(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
