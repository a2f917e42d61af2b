"""Which misused credentials this process has recorded of late."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

#: A credential that is presented again and again is recorded so often at most, by each process.
EVERY_MS = 10 * 60 * 1000
_REMEMBERED = 4096


class MisuseMemory:
    """Remembers the last few thousand credentials, each with the moment when its misuse was last recorded."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._recorded: OrderedDict[str, int] = OrderedDict()

    def is_news(self, credential: str, now_ms: int) -> bool:
        """Whether a misuse at ``now_ms`` (UTC milliseconds) is to be recorded, which is then remembered."""
        if self._pid != os.getpid():
            # After a fork: who knows who held its lock.
            self._begin()
        with self._lock:
            before = self._recorded.get(credential)
            if before is not None and now_ms < before + EVERY_MS:
                return False
            self._recorded[credential] = now_ms
            self._recorded.move_to_end(credential)
            if len(self._recorded) > _REMEMBERED:
                self._recorded.popitem(last=False)
            return True
