"""Counts that limits are judged by: in the cache store for all processes, in this process while that is down."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from common.core.errors import StoreUnavailable
from common.stores.cache import Cache, Count

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Entries that a process keeps in its own memory at most; beyond them those that end first go.
MOST_ENTRIES = 50_000
_WARN_EVERY_S = 60.0


class Counts(Protocol):
    """The part of the cache store that limits need; see there."""

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None: ...

    def delete(self, key: str) -> bool: ...

    def incr(self, key: str, window_s: float, by: int = 1) -> Count: ...

    def counted(self, key: str) -> int: ...

    def acquire_lease(self, name: str, owner: str, ttl_s: float, longest_s: float = 0) -> bool: ...

    def release_lease(self, name: str, owner: str | None) -> bool: ...


class _Entry(NamedTuple):
    value: Any
    until: float


class LocalCounts:
    """The same in the memory of one process, for any number of its threads. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def set(self, key: str, value: str, ttl_s: float | None = None) -> None:
        """See ``Cache.set``; without ``ttl_s`` for as long as there is room."""
        with self._lock:
            self._put(key, value, self._clock() + (ttl_s or float("inf")))

    def delete(self, key: str) -> bool:
        """See ``Cache.delete``."""
        with self._lock:
            found = self._live(key) is not None
            self._entries.pop(key, None)
        return found

    def incr(self, key: str, window_s: float, by: int = 1) -> Count:
        """See ``Cache.incr``."""
        with self._lock:
            now = self._clock()
            entry = self._live(key)
            value, until = (by, now + window_s) if entry is None else (entry.value + by, entry.until)
            self._put(key, value, until)
        return Count(value, until - now)

    def counted(self, key: str) -> int:
        """See ``Cache.counted``."""
        with self._lock:
            entry = self._live(key)
        return 0 if entry is None else int(entry.value)

    def acquire_lease(self, name: str, owner: str, ttl_s: float, longest_s: float = 0) -> bool:
        """See ``Cache.acquire_lease``; this clock is never put back."""
        with self._lock:
            entry = self._live(f"lease:{name}")
            if entry is not None and entry.value != owner:
                return False
            self._put(f"lease:{name}", owner, self._clock() + ttl_s)
        return True

    def release_lease(self, name: str, owner: str | None) -> bool:
        """See ``Cache.release_lease``."""
        with self._lock:
            entry = self._live(f"lease:{name}")
            if entry is None or owner not in (None, entry.value):
                return False
            del self._entries[f"lease:{name}"]
        return True

    def _live(self, key: str) -> _Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and entry.until > self._clock() else None

    def _put(self, key: str, value: Any, until: float) -> None:
        if len(self._entries) >= MOST_ENTRIES and key not in self._entries:
            self._make_room()
        self._entries[key] = _Entry(value, until)

    def _make_room(self) -> None:
        """Drop what is over, or else the tenth that ends first."""
        now = self._clock()
        self._entries = {key: entry for key, entry in self._entries.items() if entry.until > now}
        if len(self._entries) >= MOST_ENTRIES:
            by_end = sorted(self._entries.items(), key=lambda item: item[1].until)
            self._entries = dict(by_end[MOST_ENTRIES // 10 :])


class SharedCounts:
    """Counts in the cache store, and in this process for as long as that fails: there is always a count.

    ``fallbacks`` is how often this process has had to count by itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._local = LocalCounts(clock)
        self._warned_at = float("-inf")
        self.fallbacks = 0

    def ask(self, cache: Cache, question: Callable[[Counts], T]) -> T:
        """What ``question`` makes of the counts. It may be asked twice, when the store fails in the middle."""
        try:
            return question(cache)
        except StoreUnavailable as error:
            self._note(error)
            return question(self._local)

    def ask_both(self, cache: Cache, question: Callable[[Counts], object]) -> None:
        """Ask the counts of this process, and those of the store unless it fails: for what ends a count.

        A store that is full takes no counts, so that this process has them, and still deletes.
        """
        question(self._local)
        try:
            question(cache)
        except StoreUnavailable as error:
            self._note(error)

    def _note(self, error: StoreUnavailable) -> None:
        self.fallbacks += 1
        now = self._clock()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            log.warning("limits are counted per process: the cache store is unavailable: %s", error.reason)
