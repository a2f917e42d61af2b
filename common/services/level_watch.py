"""Log levels set at run time: kept in the cache store, and followed by every server process."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping

from common.core.errors import StoreUnavailable
from common.stores.cache import Cache

log = logging.getLogger(__name__)

#: The key in the cache store; its value is a JSON object of package to level name.
KEY = "ragkeeper:log_levels"
#: After at most so many seconds a process that serves requests has the levels that another one set.
EVERY_S = 5.0


class LevelWatch:
    """What this process knows of the stored levels. They are forgotten with the cache store; applied ones stay."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at = float("-inf")
        self._applied: dict[str, str] = {}

    def follow(self, cache: Cache) -> None:
        """Apply what is stored, if it wasn't looked at within EVERY_S; a cache store that is down changes nothing."""
        with self._lock:
            now = self._clock()
            if now < self._due_at:
                return
            self._due_at = now + EVERY_S
        try:
            self.refresh(cache)
        except StoreUnavailable as error:
            log.warning("log levels not looked up: the cache store is unavailable: %s", error.reason)

    def refresh(self, cache: Cache) -> dict[str, str]:
        """Apply what is stored now, and return it. Raises StoreUnavailable."""
        found = stored(cache)
        with self._lock:
            changed = {package: level for package, level in found.items() if self._applied.get(package) != level}
            self._applied = found
        apply(changed)
        return found


def stored(cache: Cache) -> dict[str, str]:
    """Package to level name, as stored; what can't be read counts as none. Raises StoreUnavailable."""
    text = cache.get(KEY)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    numbers = logging.getLevelNamesMapping()
    return {package: level for package, level in found.items() if isinstance(level, str) and level in numbers}


def apply(levels: Mapping[str, str]) -> None:
    """Set the levels in this process. Statements are logged without their parameters, whatever the level."""
    logging.getLogger("peewee").addFilter(_without_parameters)
    for package, level in levels.items():
        logging.getLogger(None if package == "root" else package).setLevel(level)


def _without_parameters(record: logging.LogRecord) -> bool:
    """Keep the statement of peewee's (statement, parameters): hashes and tokens are among the parameters."""
    if isinstance(record.msg, tuple):
        record.msg = record.msg[0]
    return True
