"""Log levels set at run time: kept in the cache store, and followed by every server process."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping

from common.core.errors import StoreUnavailable
from common.log_stream import LogStream
from common.stores.cache import Cache

log = logging.getLogger(__name__)

#: The key in the cache store; its value is a JSON object of package to level name.
KEY = "log_levels"
#: After at most so many seconds a process that serves requests has the levels that another one set.
EVERY_S = 5.0


class LevelWatch:
    """What this process knows of the stored levels. They are forgotten with the cache store; applied ones stay."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due_at: float | None = None
        self._applied: dict[str, str] = {}

    def follow(self, cache: Cache) -> None:
        """Apply what is stored, if it wasn't looked at within EVERY_S; a cache store that is down changes nothing."""
        if self._is_due(at_first=True):
            self._look_up(cache)

    def follow_aside(self, cache: Cache) -> None:
        """The same in a thread of its own, so that no request waits for the cache store, whatever state that is in.

        The first look is EVERY_S after the first call; a process that wants the levels at its start calls ``follow``.
        """
        if not self._is_due(at_first=False):
            return
        try:
            threading.Thread(target=self._look_up_and_close, args=(cache,), name="level-watch", daemon=True).start()
        except RuntimeError as error:
            log.warning("log levels not looked up: %s", error)

    def _is_due(self, *, at_first: bool) -> bool:
        with self._lock:
            now = self._clock()
            due = at_first if self._due_at is None else now >= self._due_at
            if due or self._due_at is None:
                self._due_at = now + EVERY_S
            return due

    def _look_up(self, cache: Cache) -> None:
        try:
            self.refresh(cache)
        except StoreUnavailable as error:
            log.warning("log levels not looked up: the cache store is unavailable: %s", error.reason)

    def _look_up_and_close(self, cache: Cache) -> None:
        try:
            self._look_up(cache)
        finally:
            cache.close()

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


def start_logging(levels: Mapping[str, str]) -> None:
    """Log lines go to standard error from here on, and keep nobody waiting who writes one (``common.log_stream``)."""
    logging.basicConfig(
        handlers=[logging.StreamHandler(LogStream())],
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    apply(levels)


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
