"""What waits for the commit of a transaction."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Commits(threading.local):
    """The calls that each thread has waiting for its transaction."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] | None = None

    def after(self, call: Callable[[], None]) -> None:
        """Call once this thread's transaction has committed, never if it is undone; at once where there is none."""
        if self._waiting is None:
            call()
        else:
            self._waiting.append(call)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Stands around a transaction, its commit too, or around one within it that may be undone by itself."""
        if self._waiting is not None:
            yield from self._within(self._waiting)
            return
        waiting = self._waiting = []
        try:
            yield
        finally:
            self._waiting = None
        for call in waiting:
            call()

    def _within(self, waiting: list[Callable[[], None]]) -> Iterator[None]:
        before = len(waiting)
        try:
            yield
        except BaseException:
            del waiting[before:]
            raise
