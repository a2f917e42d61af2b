"""Leave to make calls that are counted for all processes, without asking a store at each."""

from __future__ import annotations

import threading
from typing import Protocol

from common.stores.cache import Count


class _Countable(Protocol):
    """What counts calls in the shared store: so many more under a key, in the minute that is under way."""

    def __call__(self, key: str, by: int) -> Count: ...


class Batches:
    """Leave to make calls, taken from the shared count a batch at a time, so that most calls ask no store.

    With ``n`` processes up to ``n`` batches more than allowed are made, or as many fewer, when one holds what another
    one would need.
    """

    #: A batch is this part of what is allowed in a minute.
    PART = 50
    MOST_KEYS = 10_000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._minute = -1
        # By key what is allowed and what is left of it; where another number is allowed now, nothing is known.
        self._left: dict[str, tuple[int, int]] = {}

    def holds(self, key: str, most: int, minute: int) -> bool:
        """Whether the next ``take`` under the key asks no store, as far as can be told."""
        return self._minute == minute and bool(self._left_of(key, most))

    def take(self, key: str, most: int, minute: int, count: _Countable) -> bool:
        """Whether one more call under the key is within ``most`` in this minute."""
        with self._lock:
            if minute != self._minute or len(self._left) > self.MOST_KEYS:
                self._minute, self._left = minute, {}
            left = self._left_of(key, most)
            if left:
                self._left[key] = (most, left - 1 if left > 0 else left)
                return left > 0
        batch = max(1, most // self.PART)
        granted = count(key, batch).value - batch < most
        with self._lock:
            if minute == self._minute:
                # What another thread was granted meanwhile stays.
                left = max(0, self._left_of(key, most)) + (batch - 1 if granted else 0)
                # Below 0: there is none left in this minute, and nobody needs to ask again.
                self._left[key] = (most, left if left or granted else -1)
        return granted

    def _left_of(self, key: str, most: int) -> int:
        allowed, left = self._left.get(key, (most, 0))
        return left if allowed == most else 0
